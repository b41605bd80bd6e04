"""A KerasTuner oracle that can be killed and restarted; `tuner.searches.oracles` has one of each kind.

KerasTuner 1.4.8 (https://github.com/keras-team/keras-tuner) writes its state to JSON files, which a kill can truncate;
a reload loses the state of a grid and the running trials; seed 0 counts as no seed; Bayesian points are repeated; three
failures in a row end the search; and it waits for dead workers forever. Here an oracle writes only a journal of the
trials that it handed out and their outcomes. A restart replays them, which restores the state of any oracle.
"""

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine import trial as kt_trial
from keras_tuner.src.engine import oracle as kt_oracle

from tuner.searches.entry import Label
from tuner.searches.journal import Begun, Ended, Event, Journal, Released
from tuner.searches.records import Outcome, ranked, trial_name, worker_name
from tuner.searches.space import FINAL, Median
from zoo.errors import UserError

COMPLETED, FAILED, IDLE, RUNNING, STOPPED = "COMPLETED", "FAILED", "IDLE", "RUNNING", "STOPPED"


class JournaledOracle(keras_tuner.Oracle):
    """An oracle that can be killed at any time, and restarted from its journal.

    Args:
        hyperparameters: the space.
        outcome_of: returns the outcome of a trial that has ended; KerasTuner's protocol carries neither a reason nor a
            message.
        maximize: whether to maximize the objective, or minimize it.
        trials: number of trials; None leaves it to the oracle.
        seed: of random choices; 0 is a seed like any other.
        journal: file of the events; None keeps them in memory.
        stopping: the rule for early stopping; None stops no trial.
        contrast: the hyperparameter, its labels and the seeds of the comparison after the search.
        parts: the space of each label, if labels are searched separately, in turns.
        on_event: called with each event after it is written.
        options: of KerasTuner's oracle.

    Raises:
        UserError: if the journal is of another search.
    """

    hyperparameters: keras_tuner.HyperParameters
    trials: dict[str, kt_trial.Trial]
    ongoing_trials: dict[str, kt_trial.Trial]

    def __init__(
        self,
        hyperparameters: keras_tuner.HyperParameters,
        outcome_of: Callable[[str], Outcome],
        *,
        maximize: bool = True,
        trials: int | None = None,
        seed: int = 0,
        journal: Path | None = None,
        stopping: Median | None = None,
        contrast: tuple[str, Sequence[Label], Sequence[int]] | None = None,
        parts: Mapping[Label, keras_tuner.HyperParameters] | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
        **options: Any,
    ):
        super().__init__(
            objective=keras_tuner.Objective("objective", "max" if maximize else "min"),
            hyperparameters=hyperparameters,
            allow_new_entries=False,
            seed=seed + 1,  # 0 means none to KerasTuner
            max_consecutive_failed_trials=None,  # failed trials don't end the search
            **options,
        )
        self.verbose = 0
        self.outcome_of, self.maximize, self.limit, self.journal = outcome_of, maximize, trials, Journal(journal)
        self.stopping, self.contrast, self.parts, self.on_event = stopping, contrast, parts or {}, on_event
        self.outcomes: dict[str, Outcome] = {}
        self.is_over = False
        self.compares_later = False  # the search ends before the comparison begins
        self.trouble: UserError | None = None  # the error that stopped it
        self.heard: dict[str, float] = {}  # when each worker last called, on the monotonic clock
        self._workers: dict[str, str] = {}  # of each running trial
        self._curves: dict[str, dict[int, float]] = {}
        self._planned: Begun | None = None  # from the journal, while it is replayed
        self._exhausted = False
        self._lock = threading.RLock()
        kt_oracle.LOCKS[self] = _Open()
        self._replay(self.journal.found)

    # KerasTuner writes no files of its own.

    def save(self) -> None: ...

    def reload(self) -> None: ...

    def _save_trial(self, trial) -> None: ...

    def _note(self, event: Event) -> None:
        self.journal.add(event)
        self.on_event(event)

    def _replay(self, events: Sequence[Event]) -> None:
        """Replays the journal, as if each trial had a worker of its own."""
        for event in events:
            if isinstance(event, Begun):
                self._planned = event
                trial = super().create_trial(event.trial)
                if (trial.trial_id, trial.hyperparameters.values) != (event.trial, event.values):
                    raise UserError(
                        f"{self.journal.path}: trial {event.trial} can't be replayed: KerasTuner's version or the "
                        "file has changed; start a new search"
                    )
                self._workers[event.trial] = event.worker
            elif isinstance(event, Released):
                self._retry_queue.append(self.ongoing_trials.pop(event.trial).trial_id)
                del self._workers[event.trial]
            else:
                self._take(self.trials[event.trial], event.outcome)
        self._planned = None
        self.ongoing_trials = {self._workers[name]: trial for name, trial in self.ongoing_trials.items()}
        self.tuner_ids = set(self.ongoing_trials)
        self.heard = dict.fromkeys(self.ongoing_trials, time.monotonic())

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One call at a time; keeps an error for the chief to raise."""
        with self._lock:
            if self.trouble:
                raise self.trouble
            try:
                yield
            except UserError as error:
                self.trouble = error
                raise

    # Calls of workers

    def create_trial(self, tuner_id: str):
        """The next trial for a worker, or its current one."""
        worker_name(tuner_id)
        with self._alone():
            self.heard[tuner_id] = time.monotonic()
            has = tuner_id in self.ongoing_trials
            trial = super().create_trial(tuner_id)
            if trial.status == RUNNING and not has:
                values = dict(trial.hyperparameters.values)
                self._workers[trial.trial_id] = tuner_id
                self._note(Begun(trial=trial.trial_id, worker=tuner_id, values=values))
            if trial.status == STOPPED:
                self.is_over = not self.ongoing_trials
                if not self.is_over:  # a running trial may still be released
                    self.tuner_ids.add(tuner_id)
                    trial.status = IDLE
            return _without_space(trial)

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0):
        """Takes the objective after an epoch; returns a STOPPED trial to end it early."""
        trial_name(trial_id)
        with self._alone():
            self._hear(trial_id)
            if trial_id not in self.trials or "objective" not in metrics:
                return _named(trial_id)
            self._curves.setdefault(trial_id, {})[int(step)] = metrics["objective"]
            trial = _without_space(self.trials[trial_id])
            if self.stopping and not is_final(trial) and self._is_poor(trial_id):
                trial.status = STOPPED
            return trial

    def end_trial(self, trial) -> None:
        """Takes the end of a trial; ignores that of a worker whose trial was released."""
        name = trial_name(trial.trial_id)
        with self._alone():
            if name not in self._workers:
                return
            self._hear(name)
            outcome, worker = self.outcome_of(name), self._workers[name]
            self._take(self.trials[name], outcome)
            self._note(Ended(trial=name, worker=worker, outcome=outcome))

    def get_trial(self, trial_id: str):
        """A heartbeat of the trial's worker, which doesn't wait for other calls."""
        self._hear(trial_name(trial_id))
        return _named(trial_id)

    def _hear(self, trial_id: str) -> None:
        if worker := self._workers.get(trial_id):
            self.heard[worker] = time.monotonic()

    def _take(self, trial, outcome: Outcome) -> None:
        trial.status, trial.message = FAILED, outcome.reason
        if outcome.value is not None:
            trial.status = COMPLETED
            super().update_trial(trial.trial_id, {"objective": outcome.value})
        self.outcomes[trial.trial_id] = outcome
        super().end_trial(trial)
        del self._workers[trial.trial_id]
        self._curves.pop(trial.trial_id, None)

    def release(self, seconds: float) -> list[str]:
        """Releases the trials of workers that haven't called for `seconds`, for others to restart."""
        with self._alone():
            now = time.monotonic()
            silent = [name for name, worker in self._workers.items() if now - self.heard.get(worker, now) > seconds]
            for name in silent:
                self._release(name)
            return silent

    def release_others(self, workers: Sequence[str]) -> None:
        """Releases the trials of all workers but these."""
        with self._alone():
            for name, worker in list(self._workers.items()):
                if worker not in workers:
                    self._release(name)

    def _release(self, name: str) -> None:
        worker = self._workers.pop(name)
        self._retry_queue.append(self.ongoing_trials.pop(worker).trial_id)
        self.tuner_ids.discard(worker)
        self._note(Released(trial=name))

    def begin_comparison(self) -> None:
        """Begins to hand out the runs of the comparison."""
        self.release_others(())
        self.compares_later = self.is_over = False

    def candidates(self) -> set[str]:
        """Trials that ended and may be resumed for more epochs."""
        return set()

    # The next trial

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if self._planned and FINAL + "seed" in self._planned.values:  # begun before the search grew
            return {"status": RUNNING, "values": dict(self._planned.values)}
        begun = [trial for trial in self.trials.values() if not is_final(trial)]
        if not self._exhausted and (self.limit is None or len(begun) < self.limit):
            found = self._by_turns(trial_id, len(begun)) if self.parts else self._next(trial_id, len(begun))
            if found["status"] != STOPPED:
                return found
            self._exhausted = True
        return self._final()

    def _by_turns(self, trial_id: str, number: int) -> dict[str, Any]:
        """The next point, with labels in turns; skips labels whose points are exhausted."""
        assert self.contrast
        by, labels = self.contrast[0], list(self.parts)
        whole, every = self.hyperparameters, self.trials
        found: dict[str, Any] = {"status": STOPPED}
        for i in range(number, number + len(labels)):
            label = labels[i % len(labels)]
            self.hyperparameters = self.parts[label]
            self.trials = {t: v for t, v in every.items() if v.hyperparameters.values[by] == label}
            try:
                found = self._next(trial_id, number)
            finally:
                self.hyperparameters, self.trials = whole, every
            if found["status"] != STOPPED:
                break
        return found

    def _next(self, trial_id: str, number: int) -> dict[str, Any]:
        # Drawn from the search's seed and the trial's number, so that a generator's state need not be stored.
        self._seed_state = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0] >> 1)
        return super().populate_space(trial_id)

    def _final(self) -> dict[str, Any]:
        """The next run of the comparison after the search."""
        if self.compares_later:
            return {"status": STOPPED}
        if not all(map(is_final, self.ongoing_trials.values())):
            return {"status": IDLE}
        done = [trial.hyperparameters.values for trial in self.trials.values()]
        name, labels, seeds = self.contrast or ("", (), ())
        for seed in seeds:
            for label in labels:
                best = next(
                    (t for t in self.ranking() if self.trials[t].hyperparameters.values.get(name) == label), None
                )
                if best is not None:
                    values = {k: v for k, v in self.trials[best].hyperparameters.values.items() if "tuner/" not in k}
                    values |= {FINAL + "seed": seed, FINAL + "of": best}
                    if values not in done:
                        return {"status": RUNNING, "values": values}
        return {"status": STOPPED}

    def ranking(self) -> list[str]:
        """The trials of the search, best first, without those of the comparison: see `ranked`."""
        own = {name: o for name, o in self.outcomes.items() if not is_final(self.trials[name])}
        return ranked(own, self.maximize)

    def _is_poor(self, trial_id: str) -> bool:
        assert self.stopping
        own = self._curves[trial_id]
        part = self._part(trial_id)
        others = [o.curve for name, o in self.outcomes.items() if o.value is not None and self._part(name) == part]
        return is_poor(list(own.values()), others, self.stopping, self.maximize, max(own))

    def _part(self, trial_id: str) -> Label | None:
        """The label of a trial, if labels are searched separately."""
        return self.trials[trial_id].hyperparameters.values[self.contrast[0]] if self.parts and self.contrast else None


def is_poor(
    own: Sequence[float],
    others: Iterable[Sequence[float | None]],
    rule: Median,
    maximize: bool,
    epoch: int | None = None,
) -> bool:
    """Whether the median rule stops a trial after an epoch, by default that of its curve's end: see `space.Median`."""
    epoch, sign = epoch or len(own), 1 if maximize else -1
    means = [sign * statistics.fmean(known) for curve in others if len(known := _finite(curve[:epoch])) == epoch]
    if epoch < rule.epochs or len(means) < rule.trials:
        return False
    return max(sign * value for value in own) < statistics.median(means)


def _finite(curve: Sequence[float | None]) -> list[float]:
    return [value for value in curve if value is not None]


def is_final(trial) -> bool:
    return FINAL + "seed" in trial.hyperparameters.values


def _without_space(trial):
    """A trial without its space: KerasTuner prints every condition of a space that it sends."""
    hp = keras_tuner.HyperParameters()
    hp.values = dict(trial.hyperparameters.values)
    return kt_trial.Trial(hp, trial.trial_id, trial.status)


def _named(trial_id: str):
    return kt_trial.Trial(keras_tuner.HyperParameters(), trial_id, RUNNING)


class _Open:
    """Replaces KerasTuner's lock, which is never released if a call raises."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...
