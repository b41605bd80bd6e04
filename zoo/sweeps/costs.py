"""The time that a sweep still takes, estimated from the epochs measured so far."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import files
from zoo.errors import UserError
from zoo.training.progress import duration

if TYPE_CHECKING:
    from zoo.sweeps.folder import SweepFolder
    from zoo.sweeps.grid import Planned


def seconds_left(sweep: "SweepFolder", backend: str) -> dict[str, float | None]:
    """The time left for each run that isn't done; None if no comparable run was measured.

    Comparable are runs on this backend with the same network, images and batch size, and with the same activation if
    there are any. The first epoch, which compiles, is estimated separately.
    """
    measured: dict[tuple, list[tuple[float, list[float]]]] = {}
    for run in sweep.every:
        if epochs := _epochs(sweep.folder(run), backend):
            for kind in _kinds(run):
                measured.setdefault(kind, []).append((epochs[0], epochs[1:]))
    found: dict[str, float | None] = {}
    for run in sweep.planned:
        if not sweep.is_done(run):
            known = next((measured[kind] for kind in _kinds(run) if kind in measured), None)
            left = run.config.training.epochs - len(_epochs(sweep.folder(run), backend))
            found[run.name] = _seconds(known, left) if known else None
    return found


def _seconds(measured: list[tuple[float, list[float]]], epochs: int) -> float:
    firsts, others = [first for first, _ in measured], [each for _, rest in measured for each in rest]
    return statistics.median(firsts) + statistics.median(others or firsts) * (epochs - 1)


def _kinds(run: "Planned") -> Iterator[tuple]:
    """What comparable runs have in common, the closest match first."""
    what = run.config
    like = repr(what.model), repr(what.dataset), what.training.batch_size, what.training.dtype
    yield *like, repr(what.activation)
    yield like


def _epochs(folder: Path, backend: str) -> list[float]:
    """Seconds of each epoch that a run trained on this backend."""
    try:
        if files.read_json(folder / "environment.json").get("backend") != backend:
            return []
        return [float(row["seconds"]) for row in files.read_table(folder / "timing.csv", "seconds")]
    except (UserError, ValueError):
        return []


def sum_of(seconds: dict[str, float | None]) -> str:
    known = [value for value in seconds.values() if value is not None]
    unknown = len(seconds) - len(known)
    text = duration(sum(known)) if known or not unknown else ""
    return " and ".join(filter(None, [text, f"{unknown} run{'s' * (unknown > 1)} not measured yet" if unknown else ""]))
