"""The journal of a search: the trials that were handed out and their outcomes, one line of JSON for each event.

A line is on disk before its event is answered; only the last line can be truncated. Version 0.1.0 wrote a list to
`journal.json`; it is read as well, and becomes `journal.jsonl` when the search is resumed.
"""

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from tuner.searches import records
from tuner.searches.records import Outcome, StrictRecord, TrialName, Value
from zoo import files, folders, manifest
from zoo.errors import UserError


class Opened(StrictRecord):
    """The first line."""

    event: Literal["opened"] = "opened"
    version: Literal[1] = 1


class Begun(StrictRecord):
    event: Literal["begun"] = "begun"
    trial: TrialName
    worker: str = ""
    values: dict[str, Value]


class Ended(StrictRecord):
    event: Literal["ended"] = "ended"
    trial: TrialName
    worker: str = ""
    outcome: Outcome


class Released(StrictRecord):
    """Taken from a worker that died or doesn't answer, for another one to restart."""

    event: Literal["released"] = "released"
    trial: TrialName


Event = Begun | Ended | Released
LINE: TypeAdapter[Opened | Event] = TypeAdapter(Annotated[Opened | Event, Field(discriminator="event")])
OLDER: TypeAdapter[list[Event]] = TypeAdapter(list[Annotated[Event, Field(discriminator="event")]])


class Journal:
    """A file of events, to which each new event adds a line.

    Args:
        path: of the file; None stores nothing.

    Raises:
        UserError: if the file holds anything else; a truncated last line is ignored.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self.found = compact(read(path)) if path else []
        self._is_whole = False  # compacted since it was opened

    def add(self, event: Event) -> None:
        """Writes an event to disk, where neither a kill nor a crash of the machine loses it.

        Raises:
            UserError: if it can't be written; then the file is unchanged.
        """
        if self.path is None:
            return
        if not self._is_whole:
            self._begin()
        line, size = _line(event), self.path.stat().st_size
        try:
            with open(folders.open_own(self.path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0) as file:  # noqa: PTH123
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
        except OSError as error:
            os.truncate(self.path, size)
            raise UserError(f"{self.path}: can't be written: {error.strerror or error}") from None

    def _begin(self) -> None:
        """Rewrites the file with compacted events, whole or not at all."""
        assert self.path
        lines = b"".join(map(_line, [Opened(), *self.found]))
        manifest.claim(self.path)
        files.write_whole(self.path, lambda unfinished: unfinished.write_bytes(lines))
        manifest.remove(_older(self.path))
        self._is_whole = True


def _line(event: Opened | Event) -> bytes:
    return (event.model_dump_json() + "\n").encode()


def _older(path: Path) -> Path:
    return path.with_name("journal.json")


def exists(path: Path) -> bool:
    return path.exists() or _older(path).exists()


def read(path: Path) -> list[Event]:
    """The events of a journal; none if there is no file.

    Raises:
        UserError: if the file holds anything else; a truncated last line is ignored.
    """
    if not path.exists() and _older(path).exists():
        path = _older(path)
        older: list[Event] = records.read(path, OLDER)
        return _ordered(path, older)
    try:
        *lines, rest = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    events: list[Opened | Event] = []
    for number, line in enumerate([*lines, rest], start=1):
        try:
            events.append(records.parse(line, LINE))
        except ValueError as error:
            if number > len(lines):
                break  # truncated
            raise UserError(f"{path}: line {number}: not what tuner.search writes: {error}") from None
    return _ordered(path, [event for event in events if not isinstance(event, Opened)])


def _ordered(path: Path, events: Sequence[Event]) -> list[Event]:
    """Checks that trials end or are released only while they are running."""
    state: dict[str, str] = {}
    for number, event in enumerate(events, start=1):
        before = state.get(event.trial)
        if before not in ((None, "released") if event.event == "begun" else ("begun",)):
            was = before or "never begun"
            raise UserError(f"{path}: event {number}: trial {event.trial} was {was}, and can't be {event.event}")
        state[event.trial] = event.event
    return list(events)


def compact(events: Iterable[Event]) -> list[Event]:
    """The same history with one beginning for each trial, by its last worker."""
    events = list(events)
    last = {event.trial: event for event in events if isinstance(event, Begun)}
    state = {event.trial: event for event in events}
    found: dict[tuple[str, str], Event] = {}
    for event in events:
        if isinstance(event, Begun):
            found.setdefault((event.trial, "begun"), last[event.trial])
        elif isinstance(event, Ended) or state[event.trial] is event:
            found[event.trial, event.event] = event
    return list(found.values())
