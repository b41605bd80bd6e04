"""The folder of a search: what is searched, each trial's run folder and outcome, and the best config found."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner import space
from tuner.outcome import Outcome
from zoo import config, results
from zoo.errors import UserError

if TYPE_CHECKING:  # it imports Keras
    from tuner.kept import Kept

LARGE = ("model.keras", "checkpoint.npz")
ENDED = "ended.json"  # tells a worker that comes late that there is nothing left to do
GROWS = ("notes", "trials")  # fields that a resumed search may have changed


class Folder:
    """`search.json`, `base.json`, `journal.json`, `best.json`; `trials/0000` and so on are the runs.

    Workers on other machines need to see it, too.
    """

    def __init__(self, path: Path):
        self.path = path
        self.base, self.journal, self.best = (path / f"{name}.json" for name in ("base", "journal", "best"))

    def begin(self, file: Path, search: space.Search, data_dir: Path | None, backend: str, resumed: bool) -> None:
        """Writes down what is searched; or finds it there, where the search is resumed.

        Raises:
            UserError: for a folder in use, or one that holds another search.
        """
        found: dict[str, Any] = {"search": search.model_dump(by_alias=True, mode="json", exclude={"schema_"})}
        found |= {"backend": backend, "data_dir": str(data_dir.resolve()) if data_dir else None}
        base = config.read_object(file.parent / search.base)
        if self.journal.exists() and not resumed:
            raise UserError(f"{self.path}: this folder holds a search; --resume goes on with it, or give another --out")
        if self.journal.exists():
            then = self._described()
            changes = [
                *_changes(then["search"], found["search"]),
                *_changes(config.read_object(self.base), base, "base"),
            ]
            changes += _changes({"backend": then["backend"]}, {"backend": backend})
            changes = [change for change in changes if change.split(":")[0] not in (*GROWS, "base.notes")]
            if changes:
                raise UserError(f"{self.path}: this folder holds another search: {'; '.join(changes[:3])}")
            if found["search"]["trials"] < then["search"]["trials"]:
                raise UserError(
                    f"{self.path}: trials can only grow: {then['search']['trials']} then, {search.trials} now"
                )
        else:
            if not (self.path / "search.json").exists():
                results.new_folder(self.path)
            (self.path / "trials").mkdir(exist_ok=True)
        (self.path / ENDED).unlink(missing_ok=True)
        results.write_json(self.base, base)
        results.write_json(self.path / "search.json", found)

    def _described(self) -> dict[str, Any]:
        path = self.path / "search.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return found if {"search", "backend", "data_dir"} <= found.keys() else found["search"]
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; expected the folder of a tuner.search") from None
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{path}: not what tuner.search writes ({error!r})") from None

    def open(self) -> tuple[space.Search, dict[str, Any]]:
        """The search that the folder holds, and its `backend` and `data_dir`."""
        found = self._described()
        return space.parse(found["search"], str(self.path / "search.json")), found

    def events(self) -> list[dict[str, Any]]:
        try:
            return json.loads(self.journal.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.journal}: not what tuner.search writes ({error})") from None

    # Trials

    def run(self, trial: str) -> Path:
        return self.path / "trials" / trial

    @contextlib.contextmanager
    def hold(self, trial: str) -> Iterator[None]:
        """Waits until no other process is at work on a trial."""
        import fcntl

        with (self.path / "trials" / f".{trial}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def write_outcome(self, trial: str, outcome: Outcome) -> None:
        results.write_json(self.path / "trials" / f"{trial}.json", asdict(outcome))

    def outcome(self, trial: str) -> Outcome | None:
        path = self.path / "trials" / f"{trial}.json"
        return Outcome(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def ended(self, trial: str) -> Outcome:
        return self.outcome(trial) or Outcome("failed", reason="its worker says it ended, and left no outcome")

    # Workers

    def at_work(self, worker: str, trial: str | None) -> None:
        """Writes down what a worker is at, for whoever sees it die."""
        results.write_json(self.path / f"{worker}.json", {"trial": trial, "process": os.getpid()})

    def died(self, worker: str, how: str) -> None:
        """Counts the death of a worker against the trial that it was at."""
        path = self.path / f"{worker}.json"
        trial = json.loads(path.read_text(encoding="utf-8"))["trial"] if path.exists() else None
        if trial is not None:
            results.write_json(self.path / "trials" / f"{trial}.deaths.json", [*self.deaths(trial), how])

    def deaths(self, trial: str) -> list[str]:
        path = self.path / "trials" / f"{trial}.deaths.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    # What is kept

    def settle(self, search: space.Search, oracle: "Kept") -> None:
        """After a trial: best.json says which is best, and the weights of the others go."""
        ranking = oracle.ranking()
        if not ranking:
            return
        best = ranking[0]
        found = search.result(oracle.trials[best].hyperparameters.values, self.base)
        labels = space.describe(search.labelled(oracle.trials[best].hyperparameters.values))
        value = f"{search.objective} {oracle.outcomes[best].value:.4f}"
        notes = f"Trial {best} of {self.path}, the best with {value}: {labels}."
        results.write_json(self.best, found.resolved() | {"notes": notes})
        for trial in oracle.outcomes.keys() - {best} - oracle.candidates():
            for name in LARGE:
                for path in self.run(trial).rglob(name):
                    path.unlink(missing_ok=True)

    def promote(self, trial: str, past: str) -> None:
        """Lets a trial go on from where another one ended, optimizer and all."""
        if not self.run(trial).exists():
            unfinished = self.run(trial).with_name(f".{trial}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            ignored = shutil.ignore_patterns("metrics.json", "summary.json", "model.keras")
            shutil.copytree(self.run(past), unfinished, ignore=ignored)
            unfinished.replace(self.run(trial))


def _changes(then: Any, now: Any, where: str = "") -> list[str]:
    """What differs between two JSON values, by dotted path."""
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(then, dict) and isinstance(now, dict):
        pairs = [(str(key), then.get(key), now.get(key)) for key in then.keys() | now.keys()]
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(then, now, strict=True))]
    elif then != now:
        return [f"{where}: {json.dumps(then)} then, {json.dumps(now)} now"]
    found = [_changes(a, b, f"{where}.{key}".lstrip(".")) for key, a, b in sorted(pairs, key=lambda pair: pair[0])]
    return [change for inner in found for change in inner]
