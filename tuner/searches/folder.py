"""The folder of a search: its description, the run and the outcome of each trial, and the best config."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.searches import journal, records, space
from tuner.searches.journal import Begun
from tuner.searches.records import OUTCOME, AtWork, Described, Outcome, ranked
from tuner.searches.space import FINAL
from zoo import config, files, folders, manifest
from zoo.environment import SCHEMA, from_folder, from_here, recorded_path
from zoo.errors import UserError

if TYPE_CHECKING:
    from tuner.searches.oracle import JournaledOracle


LARGE = ("model.keras", "checkpoint.npz")
NOT_HANDED_ON = {"metrics.json", "model.keras", "predictions.npz"}  # to the trial that resumes one
ENDED = "ended.json"  # tells late workers that the search is finished
GROWS = ("notes", "trials", "confirm")  # fields that may change when a search is resumed


class SearchFolder:
    """`search.json`, `base.json`, `journal.jsonl`, `best.json`; `trials/0000` and so on are the runs.

    Workers on other machines share it. Names of trials and workers come from the network and from files: they are
    checked, and so is that their paths are in the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self.base, self.best, self.journal = path / "base.json", path / "best.json", path / "journal.jsonl"
        self._settled: set[str] = set()  # trials whose weights were removed
        self._best = ""  # the trial of best.json

    @contextlib.contextmanager
    def led(self) -> Iterator[None]:
        """Within the context no other process leads the search.

        Raises:
            UserError: if one does, with its ID and since when.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: can't create the folder: {error.strerror}") from None
        with folders.locked(self.path, "this search is led by"):
            yield

    def begin(self, file: Path, search: space.Search, data_dir: Path | None, backend: str, resumed: bool) -> None:
        """Records the search; if it is resumed, checks that it is the same.

        Raises:
            UserError: if the folder is in use, or holds another search.
        """
        found: dict[str, Any] = {"schema": SCHEMA}
        found |= {"search": search.model_dump(by_alias=True, mode="json", exclude={"schema_"})}
        found |= {"backend": backend, "data_dir": from_folder(data_dir, self.path)}
        found["file"] = from_here(str(file))
        found["home"] = from_folder((file.parent / search.base).parent, self.path)
        base = config.read_object(file.parent / search.base)
        self._check_inside(self.path / "trials")
        if journal.exists(self.journal):
            self._check_same(search, found, base, resumed)
        elif not (self.path / "search.json").exists():
            files.new_folder(self.path)
        for part in ("", "trials", "confirm"):
            self._check_inside(self.path / part).mkdir(exist_ok=True)
            manifest.adopt(self.path / part)  # before search.json has this version's schema
        manifest.check([self.base, self.path / "search.json", self.best, self.journal])
        manifest.remove(self.path / ENDED)
        files.write_own_json(self.base, base)
        files.write_own_json(self.path / "search.json", found)

    def _check_same(self, search: space.Search, found: dict[str, Any], base: dict[str, Any], resumed: bool) -> None:
        if not resumed:
            raise UserError(
                f"{self.path}: this folder holds a search; use --resume to resume it, or give another --out"
            )
        then = self._described()
        changes = [*_changes(then.search, found["search"]), *_changes(config.read_object(self.base), base, "base")]
        changes += _changes({"backend": then.backend}, {"backend": found["backend"]})
        changes = [change for change in changes if change.split(":")[0] not in (*GROWS, "base.notes")]
        if changes:
            raise UserError(f"{self.path}: this folder holds another search: {'; '.join(changes[:3])}")
        if search.trials < (before := self._parsed(then).trials):
            raise UserError(f"{self.path}: trials can only grow: {before} then, {search.trials} now")

    def _described(self) -> Described:
        return records.read(self.path / "search.json", records.DESCRIBED)

    def _parsed(self, described: Described) -> space.Search:
        return space.parse(described.search, str(self.path / "search.json"))

    def open(self) -> tuple[space.Search, Described]:
        """The search in the folder, with its backend and data."""
        found = self._described()
        place = recorded_path(self.path, found.data_dir)
        return self._parsed(found), found.model_copy(update={"data_dir": place and str(place)})

    @property
    def home(self) -> Path | None:
        """The folder that paths in the base are found from."""
        return recorded_path(self.path, self._described().home)

    def events(self) -> list[journal.Event]:
        return journal.read(self.journal)

    # Trials

    def run(self, trial: str) -> Path:
        return self._of(trial, "")

    def log(self, trial: str) -> Path:
        return self._of(trial, ".log")

    def _of(self, trial: str, suffix: str, part: str = "trials") -> Path:
        return self._check_inside(self.path / part / f"{records.trial_name(trial)}{suffix}")

    def _check_inside(self, path: Path) -> Path:
        """
        Raises:
            UserError: if a link leads out of the folder.
        """
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise UserError(f"{path}: this link leads out of the search's folder; move it")
        return path

    @contextlib.contextmanager
    def hold(self, trial: str) -> Iterator[None]:
        """Locks a trial; waits for other processes that train it."""
        import fcntl

        lock = self._of(trial, ".lock")
        file = folders.open_own(lock.with_name(f".{lock.name}"), os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def clear(self, run: Path) -> None:
        """Empties the folder of a run that was killed before it began; refuses one that holds anything else."""
        folders.clear_unbegun(self._check_inside(run))

    def write_outcome(self, trial: str, outcome: Outcome) -> None:
        files.write_own_json(self._of(trial, ".json"), asdict(outcome))

    def outcome(self, trial: str) -> Outcome | None:
        path = self._of(trial, ".json")
        return records.read(path, OUTCOME) if path.exists() else None

    def ended(self, trial: str) -> Outcome:
        return self.outcome(trial) or Outcome("failed", reason="its worker reported the end, but no outcome")

    # Confirmations: the best trials with the settings of the final run

    def confirmation_run(self, trial: str) -> Path:
        return self._of(trial, "", "confirm")

    def write_confirmation(self, trial: str, outcome: Outcome) -> None:
        files.write_own_json(self._of(trial, ".json", "confirm"), asdict(outcome))

    def confirmation(self, trial: str) -> Outcome | None:
        path = self._of(trial, ".json", "confirm")
        return records.read(path, OUTCOME) if path.exists() else None

    # Workers

    def _worker(self, name: str) -> Path:
        return self._check_inside(self.path / f"{records.worker_name(name)}.json")

    def at_work(self, worker: str, trial: str | None) -> None:
        """Records a worker's current trial, in case it dies."""
        files.write_own_json(self._worker(worker), AtWork(trial=trial, process=os.getpid()).model_dump())

    def died(self, worker: str, how: str) -> None:
        """Records the death of a worker for the trial that it was running."""
        path = self._worker(worker)
        trial = records.read(path, records.AT_WORK).trial if path.exists() else None
        if trial is not None:
            files.write_own_json(self._of(trial, ".deaths.json"), [*self.deaths(trial), how])

    def deaths(self, trial: str) -> list[str]:
        path = self._of(trial, ".deaths.json")
        return records.read(path, records.DEATHS) if path.exists() else []

    # Weights and the best config

    def settle(self, search: space.Search, oracle: "JournaledOracle") -> None:
        """After a trial: removes weights that aren't needed, and writes best.json if no trial is to be confirmed."""
        chosen = candidates(search, oracle)
        if chosen and not search.confirm:
            self.hand_over(search, oracle, chosen[0])
        elif chosen:
            self._remove_weights(oracle, set(chosen))

    def hand_over(self, search: space.Search, oracle: "JournaledOracle", best: str | None) -> None:
        """Writes best.json, or removes it if no trial was confirmed; only the best trial keeps its weights."""
        if best is None:
            manifest.remove(self.best)
        elif best != self._best:
            self._write_best(search, oracle, best)
        self._best = best or ""
        self._remove_weights(oracle, {best} if best else set(candidates(search, oracle)))

    def _remove_weights(self, oracle: "JournaledOracle", kept: set[str]) -> None:
        for trial in oracle.outcomes.keys() - kept - oracle.candidates() - self._settled:
            for run in (self.run(trial), *self.run(trial).glob("seed-*")):
                if self._check_inside(run).exists():
                    folders.remove(run, "|".join(map(re.escape, LARGE)))
            self._settled.add(trial)

    def _write_best(self, search: space.Search, oracle: "JournaledOracle", best: str) -> None:
        point = oracle.trials[best].hyperparameters.values
        value = f"{search.objective} {oracle.outcomes[best].value:.4f}"
        proved = ", confirmed" if search.confirm else ""
        what = space.describe(search.labelled(point))
        notes = f"Trial {best} of {self.path.resolve().name}, the best with {value}{proved}: {what}."
        found = search.result(point, self.base, self.home).resolved(self.path)
        files.write_own_json(self.best, found | {"notes": notes})

    def promote(self, trial: str, past: str) -> None:
        """Prepares a trial to resume where another one ended, with the state of its optimizer."""
        run = self.run(trial)
        if not (run / "environment.json").exists():
            for source in sorted(self.run(past).glob("seed-*")):
                _hand_on(self._check_inside(source), self._check_inside(run / source.name))
            _hand_on(self.run(past), run)


def _hand_on(source: Path, target: Path) -> None:
    """Copies what a run resumes from; environment.json last, as it marks a run that has begun."""
    names = [name for name in folders.FILES if name not in NOT_HANDED_ON and folders.is_file(source / name)]
    mine = "|".join(map(re.escape, (*folders.FILES, folders.LOCK)))
    folders.check_run(target, rf"{mine}|{folders.unfinished(folders.FILES)}|seed-[0-9]+/")
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted(names, key="environment.json".__eq__):
        files.write_whole(target / name, partial(shutil.copyfile, source / name))


def candidates(search: space.Search, oracle: "JournaledOracle") -> list[str]:
    """The best trials with different settings: those to be confirmed, or the best one."""
    found: dict[str, str] = {}
    for trial in oracle.ranking():
        fields = search.fields(oracle.trials[trial].hyperparameters.values)
        found.setdefault(repr(sorted(fields.items())), trial)
        if len(found) == max(1, search.confirm):
            break
    return list(found.values())


def _changes(then: Any, now: Any, where: str = "") -> list[str]:
    """The differences of two JSON values, by dotted path."""
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(then, dict) and isinstance(now, dict):
        pairs = [(str(key), then.get(key), now.get(key)) for key in then.keys() | now.keys()]
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(then, now, strict=True))]
    elif then != now:
        return [f"{where}: {json.dumps(then)} then, {json.dumps(now)} now"]
    found = [_changes(a, b, f"{where}.{key}".lstrip(".")) for key, a, b in sorted(pairs, key=lambda pair: pair[0])]
    return [change for inner in found for change in inner]


@dataclass(frozen=True)
class Trial:
    name: str
    point: Mapping[str, Any]
    outcome: Outcome


class SearchResults:
    """The trials of a search that ended, and the runs of the comparison after it.

    Raises:
        UserError: if the folder holds no search.
    """

    def __init__(self, folder: SearchFolder, shown: Path | None = None):
        self.folder, self.shown = folder, shown or folder.path
        self.search, self.described = folder.open()
        points: dict[str, Mapping[str, Any]] = {}
        ended = []
        for event in folder.events():
            if event.event == "begun":
                points[event.trial] = self._checked(event)
            elif event.event == "ended":
                ended.append(Trial(event.trial, points[event.trial], event.outcome))
        self.finals = [trial for trial in ended if FINAL + "of" in trial.point]
        self.trials = {trial.name: trial for trial in ended if FINAL + "of" not in trial.point}
        outcomes = {name: trial.outcome for name, trial in self.trials.items()}
        self.ranking = [self.trials[name] for name in ranked(outcomes, self.search.maximize)]
        tried = {trial.name: folder.confirmation(trial.name) for trial in self.ranking}
        self.confirmed = {name: outcome for name, outcome in tried.items() if outcome}
        self.whole = [trial for trial in self.ranking if trial.outcome.status == "finished"]

    @property
    def best(self) -> Path:
        return self.shown / self.folder.best.name

    def _checked(self, begun: Begun) -> Mapping[str, Any]:
        try:
            self.search.check(begun.values)
        except ValueError as error:
            raise UserError(f"{self.folder.journal}: trial {begun.trial}: {error}") from None
        return begun.values
