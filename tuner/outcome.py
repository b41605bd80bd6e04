"""What became of a trial."""

from collections.abc import Mapping
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


def ranked(outcomes: Mapping[str, Outcome], maximize: bool) -> list[str]:
    """Trials with a value, the best first; those that were stopped early come after the others."""
    sign = -1 if maximize else 1
    keys = {
        trial: (outcome.status == "stopped", sign * outcome.value, trial)
        for trial, outcome in outcomes.items()
        if outcome.value is not None
    }
    return sorted(keys, key=lambda trial: keys[trial])
