"""One trial of a search: a run of the zoo in its own folder."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tuner.searches.folder import SearchFolder
from tuner.searches.outcome import Outcome, Status
from tuner.searches.space import Search
from zoo import files, train
from zoo.errors import UserError

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
            reason = f"seed {metrics['seed']}: NaN loss in epoch {metrics['epochs']}"
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
