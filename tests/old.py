"""What version 0.1.0 wrote, unpacked once for each process of the tests; make.py in the archive says what it is."""

import tarfile
import tempfile
from pathlib import Path

ARCHIVE = Path(__file__).parent / "data" / "v0.1.0.tar.xz"
_folder = tempfile.TemporaryDirectory(prefix="v0.1.0-")
OLD = Path(_folder.name)

with tarfile.open(ARCHIVE) as _archive:
    for _member in _archive:
        _path = OLD / _member.name
        _path.parent.mkdir(parents=True, exist_ok=True)
        _path.write_bytes(_archive.extractfile(_member).read())
