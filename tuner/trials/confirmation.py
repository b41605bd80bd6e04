"""Confirms the best trials after a search: trains them like the final run until one finishes, which is best.json."""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.searches.folder import SearchFolder, candidates
from tuner.searches.outcome import Outcome
from tuner.searches.space import Search
from zoo import files, signals, train
from zoo.process import supervise

if TYPE_CHECKING:  # it imports Keras
    from tuner.searches.oracle import JournaledOracle


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
            outcome = _trained(folder, search, trial, point, start)
            folder.write_confirmation(trial, outcome)
        if outcome.status == "finished":
            return trial
        print(f"trial {trial} is not confirmed: {outcome.status}, {outcome.reason}", flush=True)
    return None


def fresh_seed(search: Search) -> int:
    """A seed that neither the search nor its comparison used."""
    used = {*search.seeds, *(search.contrast.seeds if search.contrast else ())}
    return next(seed for seed in range(1, len(used) + 2) if seed not in used)


def _trained(folder: SearchFolder, search: Search, trial: str, point: Mapping[str, Any], start) -> Outcome:
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
    return Outcome("diverged", reason=f"NaN loss in epoch {metrics['epochs']}", seconds=metrics["seconds"])


def _said(log: str) -> Iterator[str]:
    yield from (line.strip()[:300] for line in reversed(log.splitlines()) if line.strip())
