"""After a search: trains its best trials as the final run would be, until one finishes; that one is best.json."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tuner import workers
from tuner.folder import Folder, candidates
from tuner.outcome import Outcome
from tuner.space import Search
from zoo import results, train

if TYPE_CHECKING:  # it imports Keras
    from tuner.kept import Kept


def confirm(folder: Folder, search: Search, oracle: "Kept") -> str | None:
    """The first of the best trials that finishes with the base's epochs and images and a fresh seed; None if none does.

    The runs lie in the search's folder, in `confirm`; those that ended before a restart are not run again.
    """
    for trial in candidates(search, oracle):
        point = oracle.trials[trial].hyperparameters.values
        outcome = folder.confirmation(trial)
        if outcome is None:
            print(f"trial {trial} is trained as the final run would be, with seed {fresh_seed(search)}", flush=True)
            outcome = _trained(folder, search, trial, point)
            folder.write_confirmation(trial, outcome)
        if outcome.status == "finished":
            return trial
        print(f"trial {trial} is passed over: it {outcome.status}, {outcome.reason}", flush=True)
    return None


def fresh_seed(search: Search) -> int:
    """One that neither the search nor its comparison used."""
    used = {*search.seeds, *(search.contrast.seeds if search.contrast else ())}
    return next(seed for seed in range(1, len(used) + 2) if seed not in used)


def _trained(folder: Folder, search: Search, trial: str, point: Mapping[str, Any]) -> Outcome:
    """In a process of its own: this one holds no device."""
    _, described = folder.open()
    run = folder.confirmation_run(trial)
    if (run / "environment.json").exists():
        what = ["--resume", str(run)]
    else:
        folder.clear(run)
        config = run.with_name(f"{trial}.config.json")
        results.write_json(config, search.proof(point, folder.base, fresh_seed(search)).resolved())
        what = [str(config), "--out", str(run)]
    what += ["--data-dir", described.data_dir] if described.data_dir else []
    with run.with_name(f"{trial}.log").open("w+", encoding="utf-8") as log:
        command = [sys.executable, "-m", "tuner.confirm", *what]
        environment = os.environ | {"KERAS_BACKEND": described.backend}
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log) as process:
            status = process.wait()
        log.seek(0)
        last = next(_said(log.read()), f"exit status {status}")
    if status not in (0, train.DIVERGED):
        return Outcome("failed", reason=last.removeprefix("error: "))
    metrics = results.read_json(run / "metrics.json")
    if metrics["status"] == "finished":
        return Outcome("finished", metrics[search.objective.replace("val_", "validation_")], seconds=metrics["seconds"])
    return Outcome("diverged", reason=f"NaN loss in epoch {metrics['epochs']}", seconds=metrics["seconds"])


def _said(log: str) -> Iterator[str]:
    yield from (line.strip()[:300] for line in reversed(log.splitlines()) if line.strip())


if __name__ == "__main__":
    workers.end_with_parent()
    sys.exit(train.main(sys.argv[1:]))
