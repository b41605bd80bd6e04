"""Packs a results folder into a few files: `python -m zoo.pack results/quick packed/quick`.

They hold what `zoo.report` and `tuner.report` need of the runs of a sweep or a search, small enough to be committed:
`runs.jsonl` has a line for each JSON file of a run, `history.csv` and the other tables have the rows of all runs, each
with the run's folder, and `predictions.npz` has their predictions. Weights, checkpoints and logs are left out, and
absolute paths are cut to their last part. The report of a packed folder is that of the original.
"""

import argparse
import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo import files, folders, signals
from zoo.command import run_command
from zoo.errors import UserError
from zoo.folders import TABLES

RUNS, PREDICTIONS, REPORT = "runs.jsonl", "predictions.npz", "report"
ABSOLUTE = re.compile(r"(?<![^\s='\"])/(?:[^\s'\"/]+/)*([^\s'\"/]+)/?")


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Path]:
    """The folder itself; for a packed one, a temporary folder with its files."""
    if not (folder / RUNS).exists():
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        yield unpack(folder, Path(place) / folder.resolve().name)


def pack(folder: Path, out: Path) -> tuple[int, int]:
    """Packs a folder into a new one; returns how many files were packed and how many were left out.

    Raises:
        UserError: if there is nothing to pack, `out` isn't empty, or a file can't be read.
    """
    from zoo import files, manifest

    if not any((folder / name).exists() for name in ("sweep.json", "search.json")):
        raise UserError(f"{folder}: expected a folder of zoo.sweep or tuner.search, with sweep.json or search.json")
    inside = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent != folder)
    inside = [path for path in inside if path.relative_to(folder).parts[0] != REPORT]
    lines: list[dict[str, Any]] = []
    tables, predictions, left = {name: _Table() for name in TABLES}, dict[str, Any](), 0
    for path in inside:
        place = str(path.relative_to(folder))
        if path.suffix == ".json":
            lines.append({"file": place, "content": _without_paths(files.read_json(path))})
        elif path.name in TABLES:
            tables[path.name].add(str(path.parent.relative_to(folder)), *files.read_rows(path))
        elif path.name == PREDICTIONS:
            predictions |= {
                f"{path.parent.relative_to(folder)}/{name}": found
                for name, found in files.read_predictions(path).items()
            }
        else:
            left += 1
    files.new_folder(out)
    for path in folder.iterdir():
        if path.is_file() and path.suffix == ".json":
            files.write_json(out / path.name, _without_paths(files.read_json(path)))
        elif path.is_file() and path.name not in (RUNS, manifest.MANIFEST) and path.suffix in (".jsonl", ".txt"):
            shutil.copyfile(path, out / path.name)
    for name, table in tables.items():
        if table.columns:
            files.write_csv(out / name, ["run", *table.columns], table.rows())
            lines += [{"file": f"{run}/{name}", "columns": columns} for run, columns in table.narrower()]
    if predictions:
        files.write_predictions(out / PREDICTIONS, predictions)
    files.write_text(out / RUNS, "".join(json.dumps(line) + "\n" for line in lines))
    return len(inside) - left, left


def unpack(folder: Path, out: Path) -> Path:
    """Unpacks a folder into a new one, and returns that.

    Raises:
        UserError: if a file isn't one that `pack` writes.
    """
    out.mkdir(parents=True)

    def place(name: str) -> Path:
        path = folders.check_inside(out / name, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    columns: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(folder / RUNS), start=1):
        try:
            entry = json.loads(line)
            if "columns" in entry:
                columns[entry["file"]] = [str(name) for name in entry["columns"]]
            else:
                files.write_json(place(entry["file"]), entry["content"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{folder / RUNS}, line {number}: not what zoo.pack writes ({error!r})"[:400]) from None
    for name in TABLES:
        empty = {file.removesuffix(f"/{name}"): [of] for file, of in columns.items() if file.endswith(f"/{name}")}
        for run, rows in (empty | _by_run(folder / name)).items():
            header = columns.get(f"{run}/{name}", rows[0])
            chosen = [rows[0].index(column) for column in header if column in rows[0]]
            files.write_csv(place(f"{run}/{name}"), header, [[row[i] for i in chosen] for row in rows[1:]])
    for run, arrays in _predictions(folder / PREDICTIONS).items():
        files.write_predictions(place(f"{run}/{PREDICTIONS}"), arrays)
    for path in folder.iterdir():
        if path.is_file() and path.name not in (RUNS, PREDICTIONS, *TABLES):
            shutil.copyfile(path, out / path.name)
    return out


class _Table:
    """The rows of one table of every run, with the columns of all."""

    def __init__(self):
        self.columns: list[str] = []
        self._found: dict[str, list[list[str]]] = {}

    def add(self, run: str, header: list[str], rows: list[list[str]]) -> None:
        self.columns += [column for column in header if column not in self.columns]
        self._found[run] = [header, *rows]

    def rows(self) -> list[list[str]]:
        made = []
        for run, (header, *rows) in self._found.items():
            for row in rows:
                values = dict(zip(header, row, strict=True))
                made.append([run, *(values.get(column, "") for column in self.columns)])
        return made

    def narrower(self) -> list[tuple[str, list[str]]]:
        """Runs whose table has fewer columns, or no row, and their columns."""
        return [(run, rows[0]) for run, rows in self._found.items() if rows[0] != self.columns or len(rows) == 1]


def _by_run(path: Path) -> dict[str, list[list[str]]]:
    """Each run's header and rows in a packed table."""
    if not path.exists():
        return {}
    header, rows = files.read_rows(path)
    found: dict[str, list[list[str]]] = {}
    for run, *values in rows:
        found.setdefault(run, [header[1:]]).append(values)
    return found


def _predictions(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, array in (files.read_predictions(path) if path.exists() else {}).items():
        run, _, kind = name.rpartition("/")
        found.setdefault(run, {})[kind] = array
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read: {error}") from None


def _without_paths(content: Any) -> Any:
    """Cuts absolute paths to their last part, and leaves out the folder of the images."""
    if isinstance(content, dict):
        return {key: None if key == "data_dir" else _without_paths(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_paths(value) for value in content]
    return ABSOLUTE.sub(r"\1", content) if isinstance(content, str) else content


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.pack", description="Pack a results folder into a few files.")
    parser.add_argument("results", type=Path, help="folder of a sweep or a search")
    parser.add_argument("out", type=Path, help="a new folder")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    packed, left = pack(arguments.results, arguments.out)
    print(f"packed {packed} files into {arguments.out}; left out {left} with weights, checkpoints and logs")
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


if __name__ == "__main__":
    signals.leave(main())
