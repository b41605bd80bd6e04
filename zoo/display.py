"""What the person who waits for a sweep gets to see."""

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from zoo.costs import seconds_left, sum_of

if TYPE_CHECKING:
    from zoo.grid import Planned
    from zoo.sweep import Sweep


class Display:
    """What runs, what is done and the time left: a live table on a terminal, plain lines elsewhere."""

    def __init__(self, sweep: "Sweep", backend: str):
        self.sweep, self.backend, self.running, self.line = sweep, backend, "", ""
        self.live: Any = None

    def __enter__(self) -> "Display":
        if sys.stdout.isatty():
            from rich.live import Live

            self.live = Live(get_renderable=self._table, refresh_per_second=1)
            self.live.start()
        return self

    def __exit__(self, *_) -> None:
        if self.live:
            self.running = ""
            self.live.refresh()
            self.live.stop()

    def begin(self, run: "Planned") -> None:
        self.running, self.line = run.name, "starting"
        self._say(f"{run.name}: {'goes on' if self.sweep.folder(run).exists() else 'begins'}")

    def show(self, line: str) -> None:
        self.line = line

    def end(self, run: "Planned", state: str) -> None:
        self.running = ""
        counted = Counter(map(self.sweep.state, self.sweep.planned))
        done = ", ".join(f"{n} {state}" for state, n in sorted(counted.items()))
        ended = {"finished": f"finished, test accuracy {self.sweep.accuracy(run)}", "begun": "stopped"}
        self._say(f"{run.name}: {ended.get(state, f'{state}; {self.line}')}")
        self._say(f"{done}; left: {sum_of(seconds_left(self.sweep, self.backend))}")

    def waiting(self, names: list[str]) -> None:
        self._say(f"waiting for {', '.join(names)}, which another process is at work on")

    def _say(self, text: str) -> None:
        if not self.live:
            print(text, flush=True)

    def _table(self):
        from rich.table import Table

        states = {run.name: self.sweep.state(run) for run in self.sweep.planned}
        left = seconds_left(self.sweep, self.backend)
        table = Table(title=f"{self.sweep.out}: {sum_of(left)} left", title_justify="left", expand=True)
        last = [name for name in states if name == self.running or states[name] != "missing"][-15:]
        for column, ratio in (("run", None), ("state", None), ("last line", 1)):  # which gets the room that is left
            table.add_column(column, overflow="ellipsis", no_wrap=True, ratio=ratio)
        for name in last:
            running = name == self.running
            table.add_row(name, "running" if running else states[name], self.line if running else "")
        counted = Counter(states.values())
        table.caption = ", ".join(f"{n} {state}" for state, n in sorted(counted.items()))
        return table
