"""The progress of a sweep on the terminal."""

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from zoo.sweeps.costs import seconds_left, sum_of

if TYPE_CHECKING:
    from zoo.sweeps.folder import SweepFolder


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
