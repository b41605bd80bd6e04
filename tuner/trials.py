"""How a trial runs, in its own folder, and how the best ones are confirmed: as the final run is trained."""

import gc
import math
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.searches.folder import SearchFolder, candidates
from tuner.searches.records import Outcome, Status
from tuner.searches.space import Search
from zoo import files, signals, train
from zoo.errors import UserError
from zoo.process import supervise

if TYPE_CHECKING:
    from tuner.searches.oracle import JournaledOracle


DEATHS = 2  # of its workers after which a trial has failed
OUT_OF_MEMORY = ("out of memory", "out_of_memory", "resource_exhausted", "oom when", "allocate memory", "bad_alloc")


def run(
    folder: SearchFolder,
    search: Search,
    data_dir: Path | None,
    trial: str,
    point: Mapping[str, Any],
    is_enough: Callable[[int, float], bool],
) -> Outcome:
    """Trains or resumes a trial and writes its outcome, also if it fails.

    Args:
        folder: of the search.
        search: from the folder.
        data_dir: the folder with CIFAR-10, or None.
        trial: its name, a number as KerasTuner writes it.
        point: the values of the hyperparameters.
        is_enough: called after each epoch of a trial with one execution, with the epoch and the objective; True ends
            the trial early.
    """
    with folder.hold(trial):
        if found := folder.outcome(trial):
            return found
        if len(deaths := folder.deaths(trial)) >= DEATHS:
            found = Outcome("failed", reason=f"its process died {len(deaths)} times: {deaths[-1]}")
        else:
            began = time.perf_counter()
            try:
                found = _trained(folder, search, data_dir, trial, point, is_enough, began)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # whatever jaxlib, torch and TensorFlow raise
                found = Outcome("failed", reason=_reason(error), seconds=time.perf_counter() - began)
        folder.write_outcome(trial, found)
        gc.collect()
        return found


def _trained(folder, search, data_dir, trial, point, is_enough, began) -> Outcome:
    search.check(point)
    settings = search.trial(point, folder.base, folder.home)
    epochs = point.get("tuner/epochs", search.epochs)
    alone = len(settings.training.seeds) == 1
    out = folder.run(trial)

    def enough(row: dict[str, Any]) -> bool:
        return row["epoch"] >= epochs or (alone and is_enough(row["epoch"], row[search.objective]))

    if past := point.get("tuner/trial_id"):
        folder.promote(trial, past)
    if (out / "environment.json").exists():
        found = train.resume(out, data_dir, is_enough=enough)
    else:
        folder.clear(out)
        found = train.run(settings, out, data_dir, is_enough=enough)
    seconds = round(time.perf_counter() - began, 3)
    runs = [out] if alone else [out / f"seed-{metrics['seed']}" for metrics in found]
    curves = [[row[search.objective] for row in files.read_history(path / "history.csv")] for path in runs]
    for metrics in found:
        if metrics["status"] == "diverged":
            reason = f"seed {metrics['seed']}: {train.lost(metrics)}"
            return Outcome("diverged", curve=curves[0], reason=reason, seconds=seconds)
    values = [curve[-1] for curve in curves]
    if not all(map(math.isfinite, values)):
        return Outcome("diverged", curve=curves[0], reason=f"{search.objective} is not finite", seconds=seconds)
    status: Status = "finished" if len(curves[0]) >= epochs else "stopped"
    return Outcome(status, statistics.fmean(values), values, curves[0], seconds=seconds)


def _reason(error: BaseException) -> str:
    """The error in one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in OUT_OF_MEMORY):
        return f"out of memory: {text[:300]}"
    return str(error) if isinstance(error, UserError) else text[:300]


def here(command: Sequence[str], log: Path) -> int:
    """Runs a Python command on this machine; returns its exit status."""
    return supervise([sys.executable, *command], log, lambda line: None)[1]


def confirm(
    folder: SearchFolder, search: Search, oracle: "JournaledOracle", start: Callable[[Sequence[str], Path], int] = here
) -> str | None:
    """The first of the best trials that finishes with the base's epochs and images and a fresh seed; None if none does.

    The runs are in `confirm` in the search's folder; those that ended before a restart are not repeated. `start` runs a
    Python command with a log, on this machine or another.
    """
    for trial in candidates(search, oracle):
        point = oracle.trials[trial].hyperparameters.values
        outcome = folder.confirmation(trial)
        if outcome is None:
            print(
                f"confirming trial {trial}: training it like the final run, with seed {fresh_seed(search)}", flush=True
            )
            outcome = _proved(folder, search, trial, point, start)
            folder.write_confirmation(trial, outcome)
        if outcome.status == "finished":
            return trial
        print(f"trial {trial} is not confirmed: {outcome.status}, {outcome.reason}", flush=True)
    return None


def fresh_seed(search: Search) -> int:
    """A seed that neither the search nor its comparison used."""
    used = {*search.seeds, *(search.contrast.seeds if search.contrast else ())}
    return next(seed for seed in range(1, len(used) + 2) if seed not in used)


def _proved(folder: SearchFolder, search: Search, trial: str, point: Mapping[str, Any], start) -> Outcome:
    """Trains in a process of its own: this one doesn't use a device."""
    _, described = folder.open()
    run = folder.confirmation_run(trial)
    if (run / "environment.json").exists():
        what = ["--resume", str(run)]
    else:
        folder.clear(run)
        config = run.with_name(f"{trial}.config.json")
        proof = search.proof(point, folder.base, fresh_seed(search), folder.home)
        files.write_own_json(config, proof.resolved(config.parent))
        what = [str(config), "--out", str(run)]
    what += ["--data-dir", described.data_dir] if described.data_dir else []
    log = run.with_name(f"{trial}.log")
    status = start(["-m", "zoo.train", *what], log)
    if status in (train.STOPPED, signals.INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    last = next(_said(log.read_text(encoding="utf-8", errors="replace")), f"exit status {status}")
    if status not in (0, train.DIVERGED):
        return Outcome("failed", reason=last.removeprefix("error: "))
    metrics = files.read_json(run / "metrics.json")
    if metrics["status"] == "finished":
        return Outcome("finished", metrics[search.objective.replace("val_", "validation_")], seconds=metrics["seconds"])
    return Outcome("diverged", reason=train.lost(metrics), seconds=metrics["seconds"])


def _said(log: str) -> Iterator[str]:
    yield from (line.strip()[:300] for line in reversed(log.splitlines()) if line.strip())
