"""An oracle of KerasTuner, made to survive; `tuner.searches.oracles` has one of each kind.

KerasTuner 1.4.8 (https://github.com/keras-team/keras-tuner) writes its state to JSON files that a cut leaves broken,
loses a grid's and the trials under way on a reload, takes seed 0 for none, draws the same Bayesian points again, ends
a search after three failures in a row, and waits for a worker that died. Here an oracle writes nothing but a journal
of what it handed out and what came back; a restart hands the same trials out again and takes the same
results back, which brings any oracle to where it was.
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
from tuner.searches.outcome import Outcome, ranked
from tuner.searches.records import trial_name, worker_name
from tuner.searches.space import FINAL, Median
from zoo.errors import UserError

COMPLETED, FAILED, IDLE, RUNNING, STOPPED = "COMPLETED", "FAILED", "IDLE", "RUNNING", "STOPPED"


class JournaledOracle(keras_tuner.Oracle):
    """An oracle that can be killed at any moment, and started again from its journal.

    Args:
        hyperparameters: the space.
        outcome_of: asked for the outcome of a trial that a worker says has ended. KerasTuner's wire carries neither a
            reason nor a message.
        maximize: the objective, or else minimize it.
        trials: how many to hand out; None leaves it to the oracle.
        seed: of what it draws; 0 is one like any other.
        journal: file that holds the events; None keeps them in memory.
        stopping: which trials to end early; None ends none.
        contrast: name of the hyperparameter, its labels and the seeds of the comparison after the search.
        parts: the space of each of these labels, where each is searched by itself, in turns.
        on_event: told each event of the journal, once it is written.
        options: of KerasTuner's oracle.

    Raises:
        UserError: for a journal that is not this search's.
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
            seed=seed + 1,  # KerasTuner takes 0 for none
            max_consecutive_failed_trials=None,  # a failed trial ends nothing
            **options,
        )
        self.verbose = 0
        self.outcome_of, self.maximize, self.limit, self.journal = outcome_of, maximize, trials, Journal(journal)
        self.stopping, self.contrast, self.parts, self.on_event = stopping, contrast, parts or {}, on_event
        self.outcomes: dict[str, Outcome] = {}
        self.is_over = False
        self.compares_later = False  # so that the search is over before the comparison begins
        self.trouble: UserError | None = None  # why it can't go on
        self.heard: dict[str, float] = {}  # when each worker last was, on the monotonic clock
        self._workers: dict[str, str] = {}  # of each trial under way
        self._curves: dict[str, dict[int, float]] = {}
        self._planned: Begun | None = None  # of the journal, while it is read
        self._exhausted = False
        self._lock = threading.RLock()
        kt_oracle.LOCKS[self] = _Open()
        self._replay(self.journal.found)

    # KerasTuner's own files: none.

    def save(self) -> None: ...

    def reload(self) -> None: ...

    def _save_trial(self, trial) -> None: ...

    def _note(self, event: Event) -> None:
        self.journal.add(event)
        self.on_event(event)

    def _replay(self, events: Sequence[Event]) -> None:
        """Hands out and takes back again, each trial as if to a worker of its own."""
        for event in events:
            if isinstance(event, Begun):
                self._planned = event
                trial = super().create_trial(event.trial)
                if (trial.trial_id, trial.hyperparameters.values) != (event.trial, event.values):
                    raise UserError(
                        f"{self.journal.path}: trial {event.trial} can't be begun again as it was: another version of "
                        "KerasTuner, or a changed file; start a new search"
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
        """One call at a time; what keeps the search from going on is left for the chief to say."""
        with self._lock:
            if self.trouble:
                raise self.trouble
            try:
                yield
            except UserError as error:
                self.trouble = error
                raise

    # What workers ask for

    def create_trial(self, tuner_id: str):
        """The next trial for a worker, or the one it has."""
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
                if not self.is_over:  # a trial under way may yet come back
                    self.tuner_ids.add(tuner_id)
                    trial.status = IDLE
            return _without_space(trial)

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0):
        """Takes the objective after an epoch; the trial that it returns is STOPPED where that is enough."""
        trial_name(trial_id)
        with self._alone():
            self._hear(trial_id)
            if trial_id not in self.trials or "objective" not in metrics:
                return _named(trial_id)
            self._curves.setdefault(trial_id, {})[int(step)] = metrics["objective"]
            trial = _without_space(self.trials[trial_id])
            if self.stopping and not _is_final(trial) and self._is_poor(trial_id):
                trial.status = STOPPED
            return trial

    def end_trial(self, trial) -> None:
        """Takes a trial's end; a second one, from a worker that was given up for dead, changes nothing."""
        name = trial_name(trial.trial_id)
        with self._alone():
            if name not in self._workers:
                return
            self._hear(name)
            outcome, worker = self.outcome_of(name), self._workers[name]
            self._take(self.trials[name], outcome)
            self._note(Ended(trial=name, worker=worker, outcome=outcome))

    def get_trial(self, trial_id: str):
        """The sign that the trial's worker lives: it waits for no other call, however long that takes."""
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
        """Takes trials from workers that were silent for so long, for another to begin them again."""
        with self._alone():
            now = time.monotonic()
            silent = [name for name, worker in self._workers.items() if now - self.heard.get(worker, now) > seconds]
            for name in silent:
                self._release(name)
            return silent

    def release_others(self, workers: Sequence[str]) -> None:
        """Takes trials from workers other than these: there are none."""
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
        """The search is over; now the runs of the comparison are handed out."""
        self.release_others(())
        self.compares_later = self.is_over = False

    def candidates(self) -> set[str]:
        """Trials that ended and may yet be trained for longer."""
        return set()

    # What comes next

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        begun = [trial for trial in self.trials.values() if not _is_final(trial)]
        if not self._exhausted and (self.limit is None or len(begun) < self.limit):
            found = self._by_turns(trial_id, len(begun)) if self.parts else self._next(trial_id, len(begun))
            if found["status"] != STOPPED:
                return found
            self._exhausted = True
        return self._final()

    def _by_turns(self, trial_id: str, number: int) -> dict[str, Any]:
        """The next point of the label whose turn it is; where it has none left, of the next one."""
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
        # Drawn from the search's seed and the trial's number, so that no state of a generator need be kept.
        self._seed_state = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0] >> 1)
        return super().populate_space(trial_id)

    def _final(self) -> dict[str, Any]:
        """The next run of the comparison after the search."""
        if self.compares_later:
            return {"status": STOPPED}
        if not all(map(_is_final, self.ongoing_trials.values())):
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
        """The search's trials, without those of the comparison after it: see `ranked`."""
        own = {name: o for name, o in self.outcomes.items() if not _is_final(self.trials[name])}
        return ranked(own, self.maximize)

    def _is_poor(self, trial_id: str) -> bool:
        assert self.stopping
        own = [value for _, value in sorted(self._curves[trial_id].items())]
        part = self._part(trial_id)
        others = [o.curve for name, o in self.outcomes.items() if o.value is not None and self._part(name) == part]
        return is_poor(own, others, self.stopping, self.maximize)

    def _part(self, trial_id: str) -> Label | None:
        """The label that a trial is searched with, where each is searched by itself."""
        return self.trials[trial_id].hyperparameters.values[self.contrast[0]] if self.parts and self.contrast else None


def is_poor(own: Sequence[float], others: Iterable[Sequence[float | None]], rule: Median, maximize: bool) -> bool:
    """Whether a trial is to end after the epochs of its curve, by the median rule: see `space.Median`."""
    epoch, sign = len(own), 1 if maximize else -1
    means = [sign * statistics.fmean(known) for curve in others if len(known := _finite(curve[:epoch])) == epoch]
    if epoch < rule.epochs or len(means) < rule.trials:
        return False
    return max(sign * value for value in own) < statistics.median(means)


def _finite(curve: Sequence[float | None]) -> list[float]:
    return [value for value in curve if value is not None]


def _is_final(trial) -> bool:
    return FINAL + "seed" in trial.hyperparameters.values


def _without_space(trial):
    """A trial as a worker needs it: KerasTuner prints every condition of a space that it sends."""
    hp = keras_tuner.HyperParameters()
    hp.values = dict(trial.hyperparameters.values)
    return kt_trial.Trial(hp, trial.trial_id, trial.status)


def _named(trial_id: str):
    return kt_trial.Trial(keras_tuner.HyperParameters(), trial_id, RUNNING)


class _Open:
    """In the place of a lock of KerasTuner's, which stays closed for good where a call raises."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...
