"""What runs are judged by: which of their measures, which way is better, and how it is written."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Scale(NamedTuple):
    """How scores are written: times a factor, with so many digits, in a unit."""

    factor: float
    digits: int
    unit: str

    def __call__(self, value: float) -> str:
        return f"{self.factor * value:+.{self.digits}f}" if math.isfinite(value) else f"{value:+}".replace("inf", "∞")

    def between(self, low: float, high: float) -> str:
        return f"[{self(low)}, {self(high)}]"

    def after(self, between: str = " ") -> str:
        """The unit behind a number, where there is one."""
        return f"{between}{self.unit}" if self.unit else ""

    def plain(self, value: float) -> str:
        """Without the sign of a positive one."""
        return self(value).lstrip("+")


POINTS = Scale(100, 2, "points")


class Score(NamedTuple):
    """A measure of a trained network: `test_accuracy` in metrics.json is "accuracy" on test data.

    Attributes:
        name: of it, after that of a split and an underscore.
        higher: whether more is better.
        scale: of its differences.
        title: its name in words.
    """

    name: str
    higher: bool
    scale: Scale
    title: str

    def of(self, split: str) -> str:
        """Its key in metrics.json."""
        return f"{split}_{self.name}"

    def better(self, status: str) -> bool:
        """Whether a verdict's "above" or "below" is an improvement."""
        return status == ("above" if self.higher else "below")


ACCURACY = Score("accuracy", True, POINTS, "accuracy")
R2 = Scale(1, 4, "")
SCORES = (ACCURACY, Score("r2", True, R2, "R²"))  # the first that runs have measured judges them


def measured(every: Iterable[Mapping[str, Any]]) -> Score:
    """What runs with such metrics are judged by; the first known, where none has measured any."""
    known = list(every)
    splits = ("test", "validation")
    return next((s for s in SCORES if any(s.of(split) in each for each in known for split in splits)), SCORES[0])
