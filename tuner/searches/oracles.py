"""KerasTuner's oracles, each in a thin subclass that says what it fixes and why."""

import warnings
from collections.abc import Callable
from typing import Any

import keras_tuner
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from tuner.searches.oracle import RUNNING, STOPPED, JournaledOracle, is_final
from tuner.searches.records import Outcome
from tuner.searches.space import Search

NO_LIMIT = 9999  # KerasTuner's limit; ours is in the base class, and can be raised on a restart


class RandomOracle(JournaledOracle, keras_tuner.oracles.RandomSearchOracle):
    def __init__(self, *args, **options):
        super().__init__(*args, max_trials=NO_LIMIT, **options)


class GridOracle(JournaledOracle, keras_tuner.oracles.GridSearchOracle):
    _populate_next: list[str]

    def __init__(self, *args, **options):
        super().__init__(*args, max_trials=NO_LIMIT, **options)

    def _next(self, trial_id: str, number: int) -> dict[str, Any]:
        # KerasTuner finds the next point after a trial has ended, which leaves all workers but one idle. Runs of the
        # comparison, which come before more trials where a search has grown, are no points of the grid.
        self._populate_next = [name for name in self._populate_next if not is_final(self.trials[name])]
        found = super()._next(trial_id, number)
        if found["status"] == RUNNING:
            self._populate_next.append(trial_id)
        return found


class BayesianOracle(JournaledOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    def __init__(self, *args, **options):
        super().__init__(*args, max_trials=NO_LIMIT, **options)

    def _next(self, trial_id: str, number: int) -> dict[str, Any]:
        if self._planned:  # replaying: the journal has the point
            return {"status": RUNNING, "values": dict(self._planned.values)}
        self._random_state = np.random.RandomState([self.seed, number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # few points don't determine the length scale
            found = super()._next(trial_id, number)
        if found["status"] == RUNNING and self._duplicate(found["values"]):  # it would learn nothing
            values = self._random_values()
            return {"status": RUNNING, "values": values} if values else {"status": STOPPED}
        return found

    def _vectorize_trials(self):
        # KerasTuner leaves failed trials out, and comes back to where they failed: here they count as the worst seen.
        # It guesses at trials under way by a process that it fitted before: here by one fitted to those that ended.
        space, sign = self._nonfixed_space(), -1 if self.maximize else 1

        def vectors(trials):
            return np.array(
                [
                    [hp.value_to_prob(trial.hyperparameters.values.get(hp.name, hp.default)) for hp in space]
                    for trial in trials
                ]
            )

        ended = [trial for name, trial in self.trials.items() if name in self.outcomes]
        values = [self.outcomes[trial.trial_id].value for trial in ended]
        worst = max(sign * value for value in values if value is not None)
        x, y = vectors(ended), np.array([worst if value is None else sign * value for value in values])
        under_way = [trial for trial in self.ongoing_trials.values() if trial.trial_id in self.trials]
        if not under_way:
            return x, y
        mean, deviation = self.gpr.fit(x, y).predict(vectors(under_way), return_std=True)
        return np.vstack([x, vectors(under_way)]), np.append(y, mean + deviation)


class HyperbandOracle(JournaledOracle, keras_tuner.oracles.HyperbandOracle):
    def candidates(self) -> set[str]:
        if self._exhausted:
            return set()
        return {info["id"] for bracket in self._brackets for ended in bracket["rounds"] for info in ended}


ORACLES = {"random": RandomOracle, "grid": GridOracle, "bayesian": BayesianOracle, "hyperband": HyperbandOracle}


def of(search: Search, outcome_of: Callable[[str], Outcome], **options: Any) -> "JournaledOracle":
    """The oracle of a search; options as for `JournaledOracle`."""
    trials: int | None = search.trials
    if search.tuner.name == "bayesian":
        options |= {"num_initial_points": search.tuner.initial}
    elif search.tuner.name == "hyperband":
        trials = None
        options |= {
            "max_epochs": search.epochs,
            "factor": search.tuner.factor,
            "hyperband_iterations": search.tuner.iterations,
        }
    if found := search.contrast:
        options |= {"contrast": (found.by, search.labels(found.by), found.seeds), "parts": search.parts()}
    return ORACLES[search.tuner.name](
        search.hyperparameters(),
        outcome_of,
        maximize=search.maximize,
        trials=trials,
        seed=search.seed,
        stopping=search.stopping,
        **options,
    )
