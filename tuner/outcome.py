"""What became of a trial."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """Of one trial.

    Its status is "finished"; "stopped", early; "diverged"; or "failed". The value is the objective's, None for the
    last two. The curve has the objective after each epoch of the first execution, and `values` the one of each
    execution at its end.
    """

    status: str
    value: float | None = None
    values: list[float] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0
