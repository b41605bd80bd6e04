"""Files of what benchmarks measured: in each a part for a benchmark, and in that one for each backend or variant."""

import json
import re
from pathlib import Path
from typing import Any

from zoo import files

INNERMOST = re.compile(r"[\[{][^\[\]{}]*[\]}]")  # lists and objects without others inside: a line for each
RESULTS = Path(__file__).parent / "results"


def part(path: Path, *keys: str) -> Any:
    """What is in a file under some keys; {} if there is nothing yet. One whose name ends in .xz is compressed."""
    found = json.loads(files.read_text(path)) if path.exists() else {}
    for key in keys:
        found = found.get(key, {})
    return found


def write_part(path: Path, content: dict[str, Any], *keys: str) -> None:
    """Puts content into a file under some keys, and leaves the rest of the file as it is."""
    *above, last = keys
    whole = found = part(path)
    for key in above:
        found = found.setdefault(key, {})
    found[last] = content
    files.write_text(path, INNERMOST.sub(lambda found: " ".join(found[0].split()), files.json_of(whole)))
