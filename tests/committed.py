"""Results that were committed with version 0.1.0 (d04d8ef), kept small: a line of JSON for each file.

`parameters.csv` and `mixing_weights.csv` have their headers alone; reports, logs and weights are left out.
"""

import gzip
import json
from pathlib import Path

DATA = Path(__file__).parent / "data"


def unpack(name: str, folder: Path) -> Path:
    """Writes the files of results/`name` into a folder, and returns it."""
    with gzip.open(DATA / f"results-{name}-0.1.0.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            path = folder / entry["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(entry["content"], encoding="utf-8")
    return folder
