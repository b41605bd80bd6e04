"""Packs a results folder into one or two files: `python -m zoo.pack results/quick packed/quick`.

They hold what `zoo.report` and `tuner.report` need of the runs of a sweep or a search, small enough to be committed:
`runs.jsonl.xz` has a line for each file, with its content if it is JSON, its columns if it is a table, and its text
else; columns of numbers in single precision have its digits only. `predictions.npz` has the predictions, those of all
runs side by side. Weights, checkpoints and logs are left out, and absolute paths are cut to their last part. The report
of a packed folder is that of the original.
`--unpack` makes a folder of it again, in which `zoo.sweep` trains what is missing.
"""

import argparse
import contextlib
import csv
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo import files, folders, signals
from zoo.command import run_command
from zoo.errors import UserError
from zoo.folders import TABLES

RUNS, PREDICTIONS, REPORT = "runs.jsonl", "predictions.npz", "report"
PLANS = ("sweep.json", "search.json")
ABSOLUTE = re.compile(r"(?<![^\s='\"])/(?:[^\s'\"/]+/)*([^\s'\"/]+)/?")


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Path]:
    """The folder itself; for a packed one, a temporary folder with its files."""
    if not _stored(folder, RUNS).exists():
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        yield unpack(folder, Path(place) / folder.resolve().name)


def pack(folder: Path, out: Path) -> tuple[int, int]:
    """Packs a folder into a new one; returns how many files were packed and how many were left out.

    Raises:
        UserError: if there is nothing to pack, `out` isn't empty, or a file can't be read.
    """
    from zoo import manifest

    if _stored(folder, RUNS).exists():
        raise UserError(f"{folder}: this is packed already")
    if not any((folder / name).exists() for name in PLANS):
        raise UserError(f"{folder}: expected a folder of zoo.sweep or tuner.search, with sweep.json or search.json")
    inside = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent != folder)
    inside = [path for path in inside if path.relative_to(folder).parts[0] != REPORT]
    lines: list[dict[str, Any]] = []
    predictions, left = dict[str, dict[str, Any]](), 0
    for path in inside:
        place = str(path.relative_to(folder))
        if path.suffix == ".json":
            lines.append({"file": place, "content": _without_paths(files.read_json(path))})
        elif path.name in TABLES:
            columns, rows = files.read_rows(path)
            if len(set(columns)) < len(columns):
                raise UserError(f"{path}: not what zoo.train writes: two of its columns have one name")
            lines.append({"file": place} | _by_column(columns, rows))
        elif path.name == PREDICTIONS:
            predictions[str(path.parent.relative_to(folder))] = files.read_predictions(path)
        else:
            left += 1
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix == ".json":
            lines.append({"file": path.name, "content": _without_paths(files.read_json(path))})
        elif path.is_file() and path.name not in (RUNS, manifest.MANIFEST) and path.suffix in (".jsonl", ".txt"):
            lines.append({"file": path.name, "text": files.read_text(path)})
    with _new_folder(out) as made:
        if predictions:
            arrays, runs = _side_by_side(predictions)
            files.write_predictions(made / PREDICTIONS, arrays)
            lines.append({"file": PREDICTIONS, "runs": runs})
        files.write_text(made / f"{RUNS}.xz", "".join(json.dumps(line) + "\n" for line in lines))
    return len(inside) - left, left


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, whose files are in `out` afterwards: all of them, or none if filling it failed.

    Raises:
        UserError: if `out` isn't empty.
    """
    files.check_free(out)
    exists = next(path for path in (out, *out.absolute().parents) if path.exists())
    with tempfile.TemporaryDirectory(prefix=".", dir=exists) as place:
        yield Path(place)
        out.mkdir(parents=True, exist_ok=True)
        for path in Path(place).iterdir():
            path.replace(out / path.name)


def unpack(folder: Path, out: Path) -> Path:
    """Unpacks a folder into a new or empty one, and returns that.

    Raises:
        UserError: if a file isn't one that `pack` writes.
    """
    out.mkdir(parents=True, exist_ok=True)

    def place(name: str) -> Path:
        path = folders.check_inside(out / name, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    narrower: dict[str, list[str]] = {}
    stacked: dict[str, list[str]] = {}
    runs = _stored(folder, RUNS)
    for number, line in enumerate(files.read_text(runs).splitlines(), start=1):
        try:
            entry = json.loads(line)
            if "content" in entry:
                files.write_json(place(entry["file"]), entry["content"])
            elif "text" in entry:
                files.write_text(place(entry["file"]), str(entry["text"]))
            elif "rows" in entry or "float32" in entry:
                files.write_csv(place(entry["file"]), list(entry["columns"]), _rows(entry))
            elif "runs" in entry:
                stacked = {kind: [str(run) for run in found] for kind, found in entry["runs"].items()}
            else:
                narrower[entry["file"]] = [str(name) for name in entry["columns"]]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
            raise UserError(f"{runs}, line {number}: not what zoo.pack writes ({error!r})"[:400]) from None
    for name in TABLES:
        for run, rows in _by_run(folder / name, narrower).items():
            files.write_csv(place(f"{run}/{name}"), rows[0], rows[1:])
    for run, arrays in _predictions(folder / PREDICTIONS, stacked).items():
        files.write_predictions(place(f"{run}/{PREDICTIONS}"), arrays)
    for path in folder.iterdir():
        if path.is_file() and path.name not in (runs.name, PREDICTIONS, *TABLES):
            shutil.copyfile(path, out / path.name)
    return out


def _stored(folder: Path, name: str) -> Path:
    """Where a file of a packed folder lies: compressed, as `pack` does it today or did it once, or not at all."""
    compressed = (folder / f"{name}{suffix}" for suffix in (".xz", ".gz"))
    return next((path for path in compressed if path.exists()), folder / name)


def _by_column(header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    shorter = {name: short for name, cells in columns.items() if (short := _in_single_precision(cells))}
    return {"columns": columns | shorter, "float32": list(shorter)}


def _rows(entry: Mapping[str, Any]) -> list[Any]:
    """The rows of a table of `_by_column`, or of a pack that has rows."""
    if "rows" in entry:
        return entry["rows"]
    single = entry["float32"]
    columns = [_in_double_precision(cells) if name in single else cells for name, cells in entry["columns"].items()]
    return list(zip(*columns, strict=True))


def _in_single_precision(cells: Sequence[str]) -> list[str] | None:
    """Numbers with as many digits as tell them apart in single precision, or None where some would be others."""
    try:
        with np.errstate(over="ignore"):
            short = [cell and str(np.float32(cell)) for cell in cells]
    except ValueError:  # no numbers
        return None
    return short if short != cells and _in_double_precision(short) == cells else None


def _in_double_precision(cells: Sequence[str]) -> list[str]:
    return [cell and repr(float(np.float32(cell))) for cell in cells]


def _by_run(path: Path, narrower: Mapping[str, list[str]]) -> dict[str, list[list[str]]]:
    """Each run's header and rows in a table of all runs, as `pack` wrote it first.

    Args:
        path: of the table.
        narrower: the columns of runs whose table has fewer of them, or no row.
    """
    if not path.exists():
        return {}
    (_, *header), rows = files.read_rows(path)
    of_run = {file.removesuffix(f"/{path.name}"): of for file, of in narrower.items() if file.endswith(f"/{path.name}")}
    found = {run: [of] for run, of in of_run.items()}
    for run, *values in rows:
        columns = of_run.get(run, header)
        if unknown := next((name for name in columns if name not in header), None):
            raise UserError(f"{path}: {run} has a column {unknown!r}, and the table none")
        made = dict(zip(header, values, strict=True))
        found.setdefault(run, [columns]).append([made[name] for name in columns])
    return found


def _side_by_side(predictions: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Arrays of all runs by their kind, such as "test", and the runs of each kind: the last axis is that of runs.

    What all runs predict of an image lies together, which compresses best. What is the same in all runs, such as
    labels, is there once. Where shapes differ each run keeps an array of its own, RUN/KIND.
    """
    arrays, runs = dict[str, Any](), dict[str, list[str]]()
    for kind in dict.fromkeys(kind for found in predictions.values() for kind in found):
        each = {run: found[kind] for run, found in predictions.items() if kind in found}
        first = next(iter(each.values()))
        if any(found.shape != first.shape or found.dtype.kind != first.dtype.kind for found in each.values()):
            arrays |= {f"{run}/{kind}": found for run, found in each.items()}
            continue
        same = all(np.array_equal(found, first) for found in each.values())
        arrays[kind] = first[..., None] if same else np.stack(list(each.values()), axis=-1)
        runs[kind] = list(each)
    return arrays, runs


def _predictions(path: Path, stacked: Mapping[str, list[str]]) -> dict[str, dict[str, Any]]:
    """The arrays of each run by their kind.

    Raises:
        UserError: if they aren't as `_side_by_side` made them.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, array in (files.read_predictions(path) if path.exists() else {}).items():
        run, _, kind = name.rpartition("/")
        if run:
            found.setdefault(run, {})[kind] = array
            continue
        runs = stacked.get(kind, [])
        if not runs or not array.ndim or array.shape[-1] not in (1, len(runs)):
            raise UserError(f"{path}: {kind}: expected one array, or one for each of {len(runs)} runs")
        each = np.broadcast_to(array, (*array.shape[:-1], len(runs)))
        for i, run in enumerate(runs):
            found.setdefault(run, {})[kind] = each[..., i]
    return found


def _without_paths(content: Any) -> Any:
    """Cuts absolute paths to their last part, and leaves out the folder of the images."""
    if isinstance(content, dict):
        return {key: None if key == "data_dir" else _without_paths(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_paths(value) for value in content]
    return ABSOLUTE.sub(r"\1", content) if isinstance(content, str) else content


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo.pack", description="Pack a results folder into one or two files."
    )
    parser.add_argument("results", type=Path, help="folder of a sweep or a search")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--unpack", action="store_true", help="make a folder of packed results")
    return parser


def _restore(packed: Path, out: Path) -> None:
    """Unpacks a folder, all of it or nothing, and lists its files as ours, so that a sweep resumes there."""
    from zoo import manifest

    if not _stored(packed, RUNS).exists():
        raise UserError(f"{packed}: not a folder of zoo.pack, which has {RUNS}.xz")
    with _new_folder(out) as made:
        unpack(packed, made)
        for inside in [made, *(path for path in made.rglob("*") if path.is_dir())]:
            manifest.note(inside, [path.name for path in inside.iterdir() if path.is_file()])


def _main(arguments: argparse.Namespace) -> int:
    if arguments.unpack:
        _restore(arguments.results, arguments.out)
        print(f"unpacked into {arguments.out}, without the weights, checkpoints and logs")
        return 0
    packed, left = pack(arguments.results, arguments.out)
    print(f"packed {packed} files into {arguments.out}; left out {left} with weights, checkpoints and logs")
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


if __name__ == "__main__":
    signals.leave(main())
