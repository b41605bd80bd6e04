"""The progress of a run: a bar for the current epoch on a terminal, plain lines elsewhere."""

import re
import sys
from typing import Any, NamedTuple


class Progress:
    """Prints a line for each epoch and, on a terminal, shows a bar for the steps of the current one.

    ```python
    with Progress("seed 0", epochs=150) as progress:
        progress.step(epoch=1, done=20, steps=351)
        progress.epoch({"epoch": 1, "loss": 2.1}, seconds=12.0)
    ```
    """

    def __init__(self, title: str, epochs: int):
        self.title, self.epochs = title, epochs
        self.bar: Any = None

    def __enter__(self) -> "Progress":
        if sys.stdout.isatty():
            from rich import progress

            columns = (
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
            )
            self.bar = progress.Progress(*columns, transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self.title)
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()

    def step(self, epoch: int, done: int, steps: int) -> None:
        if self.bar:
            title = f"{self.title}, epoch {epoch}/{self.epochs}"
            self.bar.update(self.task, completed=done, total=steps, description=title)

    def epoch(self, row: dict[str, Any], seconds: float) -> None:
        names = ("loss", "accuracy", "val_accuracy", "val_r2", "report_precision")
        shown = [f"{name.replace('_', ' ')} {row[name]:.4f}" for name in names if name in row]
        left = duration((self.epochs - row["epoch"]) * seconds)
        self.line(f"{self.title}, epoch {row['epoch']}/{self.epochs}: {', '.join(shown)}; {left} left")

    def line(self, text: str) -> None:
        if self.bar:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, flush=True)


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


class Cost(NamedTuple):
    """What a run takes, in seconds: to start, with all that is compiled, and for each epoch."""

    start: float
    epoch: float

    def of(self, epochs: int) -> float:
        return self.start + epochs * self.epoch

    def said(self, epochs: int, seeds: int) -> str:
        whole = duration(self.start + seeds * epochs * self.epoch)
        times = f" for each of {seeds} seeds" if seeds > 1 else ""
        return f"about {whole}: {self.start:.4g} s to start, {epochs} epochs of {self.epoch:.4g} s{times}"

    @classmethod
    def read(cls, line: str) -> "Cost | None":
        """Of what `said` gave."""
        found = re.search(r"([0-9.e+-]+) s to start, [0-9]+ epochs of ([0-9.e+-]+) s", line)
        return cls(float(found[1]), float(found[2])) if found else None
