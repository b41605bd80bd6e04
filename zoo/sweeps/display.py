"""The progress of a sweep on the terminal, and the time that it still takes."""

import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import files
from zoo.errors import UserError
from zoo.training.progress import duration

if TYPE_CHECKING:
    from zoo.sweeps.folder import SweepFolder
    from zoo.sweeps.grid import Planned


class Display:
    """Shows running and finished runs and the time left: a live table on a terminal, plain lines elsewhere."""

    def __init__(self, sweep: "SweepFolder", backend: str):
        self.sweep, self.backend = sweep, backend
        self.running: dict[str, str] = {}  # the last line of each running run
        self._runs = {run.name: run for run in sweep.planned}
        self.live: Any = None

    def __enter__(self) -> "Display":
        if sys.stdout.isatty():
            from rich.live import Live

            self.live = Live(get_renderable=self._table, refresh_per_second=1)
            self.live.start()
        return self

    def __exit__(self, *_) -> None:
        if self.live:
            self.running = {}
            self.live.refresh()
            self.live.stop()

    def begin(self, name: str) -> None:
        self.running[name] = "starting"
        self._say(f"{name}: {'resumes' if self.sweep.folder(self._runs[name]).exists() else 'begins'}")

    def show(self, name: str, line: str) -> None:
        self.running[name] = line

    def end(self, name: str, state: str) -> None:
        line = self.running.pop(name, "")
        counted = Counter(map(self.sweep.state, self.sweep.planned))
        done = ", ".join(f"{n} {state}" for state, n in sorted(counted.items()))
        ended = {"finished": f"finished{self.sweep.result(self._runs[name])}", "begun": "stopped"}
        self._say(f"{name}: {ended.get(state, f'{state}; {line}')}")
        self._say(f"{done}; left: {sum_of(seconds_left(self.sweep, self.backend))}")

    def again(self, name: str, why: str) -> None:
        self.running.pop(name, None)
        self._say(f"{name}: {why}")

    def fail(self, name: str, why: str) -> None:
        self.sweep.fail(self._runs[name], why)
        self.running[name] = why
        self.end(name, "failed")

    def waiting(self, names: list[str]) -> None:
        self._say(f"waiting for {', '.join(names)}: another process is training")

    def _say(self, text: str) -> None:
        if not self.live:
            print(text, flush=True)

    def _table(self):
        from rich.table import Table

        states = {run.name: self.sweep.state(run) for run in self.sweep.planned}
        left = seconds_left(self.sweep, self.backend)
        table = Table(title=f"{self.sweep.out}: {sum_of(left)} left", title_justify="left", expand=True)
        last = [name for name in states if name in self.running or states[name] != "missing"]
        last = sorted(last, key=self.running.__contains__)[-15:]
        for column, ratio in (("run", None), ("state", None), ("last line", 1)):  # which takes the remaining width
            table.add_column(column, overflow="ellipsis", no_wrap=True, ratio=ratio)
        for name in last:
            table.add_row(name, "running" if name in self.running else states[name], self.running.get(name, ""))
        counted = Counter(states.values())
        table.caption = ", ".join(f"{n} {state}" for state, n in sorted(counted.items()))
        return table


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
