"""The trials of a search, read back from its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.searches.folder import SearchFolder
from tuner.searches.journal import Begun
from tuner.searches.records import Outcome, ranked
from tuner.searches.space import FINAL
from zoo.errors import UserError


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
