"""The outcome of a trial."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, FiniteFloat, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

Status = Literal["finished", "stopped", "diverged", "failed"]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Outcome:
    """The outcome of one trial.

    Its status is "finished", "stopped" (early), "diverged" or "failed". `value` is the objective, None for the last
    two. `curve` has the objective after each epoch of the first execution, None where it isn't finite; `values` has the
    objective of each execution at its end.
    """

    status: Status
    value: FiniteFloat | None = None
    values: Sequence[FiniteFloat] = field(default_factory=list)
    curve: Sequence[Annotated[FiniteFloat | None, BeforeValidator(_finite)]] = field(default_factory=list)
    reason: str = ""
    seconds: FiniteFloat = 0.0

    @model_validator(mode="after")
    def _has_a_value_where_it_trained(self):
        if (self.value is None) != (self.status in ("diverged", "failed")):
            raise ValueError(f"a trial that {self.status} has {'no' if self.value is not None else 'a'} value")
        return self


OUTCOME = TypeAdapter(Outcome)


def ranked(outcomes: Mapping[str, Outcome], maximize: bool) -> list[str]:
    """Trials with a value, the best first; those that were stopped early come last."""
    sign = -1 if maximize else 1
    keys = {
        trial: (outcome.status == "stopped", sign * outcome.value, trial)
        for trial, outcome in outcomes.items()
        if outcome.value is not None
    }
    return sorted(keys, key=lambda trial: keys[trial])
