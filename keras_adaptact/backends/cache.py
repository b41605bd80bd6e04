"""Compiled kernels on disk, so that a process that starts has what an earlier one compiled.

They lie in `keras_adaptact` in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`; `~/Library/Caches` on macOS,
`%LOCALAPPDATA%` on Windows), or in the folder that the environment variable `KERAS_ADAPTACT_CACHE` names; nothing is
kept where that is empty. The folder may be deleted at any time.

What is loaded runs as code, so that only files are used that their owner, the user, alone can write, and whose end is
the digest of the rest.
"""

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "KERAS_ADAPTACT_CACHE"
DIGEST = 32  # bytes


def folder() -> Path | None:
    """Where compiled kernels are kept; None where they can't be, or shall not."""
    try:
        named = os.environ.get(VARIABLE)
        if named == "":
            return None
        path = Path(named) if named else _of_user() / "keras_adaptact"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path if _is_private(path) else None
    except (OSError, RuntimeError):  # the latter without a home
        return None


def _of_user() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _is_private(path: Path) -> bool:
    """Whether the user alone can write there."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return False
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)


def find(name: str) -> Path | None:
    """The file of a name, if it is there and whole."""
    where = folder()
    if where is None:
        return None
    path = where / name
    try:
        if not _is_private(path):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    return path if hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:] else None


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder to compile in, from which `keep` can move what was made; it is deleted afterwards."""
    try:
        made = tempfile.TemporaryDirectory(dir=folder())
    except OSError:  # the cache is full or read-only
        made = tempfile.TemporaryDirectory()
    with made as path:
        yield Path(path)


def keep(made: Path, name: str) -> Path:
    """Moves a file from a workplace to its name, with its digest; where nothing is kept, it stays."""
    where = folder()
    if where is None:
        return made
    with made.open("rb+") as file:
        digest = hashlib.sha256(file.read()).digest()
        file.write(digest)
    made.chmod(0o700)
    try:
        return made.replace(where / name)
    except OSError:  # another file system
        return made
