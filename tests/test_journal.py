"""The journal of a search: cut off, damaged, and written by version 0.1.0."""

import errno
import json
import os
import random

import pytest

from tuner.searches import journal
from tuner.searches.journal import Begun, Ended, Journal, Released
from tuner.searches.records import Outcome
from zoo.errors import UserError


def history(trials):
    """Each trial begun by one worker, taken from it, begun by another and ended; the last one not ended."""
    events = []
    for number in range(trials):
        name, values = f"{number:04}", {"rate": random.Random(number).random(), "kind": "ä\n", "on": True, "n": number}
        outcome = Outcome("finished", number / 7, [number / 7], [float("nan"), number / 7], "", 1.5)
        events += [Begun(trial=name, worker="tuner0", values=values), Released(trial=name)]
        events += [
            Begun(trial=name, worker="tuner1", values=values),
            Ended(trial=name, worker="tuner1", outcome=outcome),
        ]
    return events[:-1]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def written(path, events):
    kept = Journal(path)
    for event in events:
        kept.add(event)


def test_a_cut_loses_the_last_event_at_most(path):
    events = history(12)
    written(path, events)
    whole = path.read_bytes()
    lines = whole.count(b"\n")
    generator = random.Random(18)
    for cut in [0, len(whole), *(generator.randrange(len(whole)) for _ in range(200))]:
        path.write_bytes(whole[:cut])
        found = journal.read(path)
        assert found == events[: len(found)]
        assert len(found) >= whole[:cut].count(b"\n") - 1  # the first line is no event
        assert (len(found) == len(events)) == (whole[:cut].count(b"\n") >= lines - 1 and cut >= len(whole) - 1)


def test_it_resumes_after_a_truncated_line(path):
    events = history(3)
    written(path, events)
    path.write_bytes(path.read_bytes()[:-9])
    kept = Journal(path)
    kept.add(events[-1])
    assert journal.compact(journal.read(path)) == journal.compact(events)


def test_each_event_is_one_line_that_is_written_at_once(path):
    kept = Journal(path)
    for number, event in enumerate(history(5), start=1):
        before = path.read_bytes() if path.exists() else b""
        kept.add(event)
        after = path.read_bytes()
        assert after.startswith(before) and after.count(b"\n") == number + 1


def test_at_the_start_each_trial_is_begun_once_by_its_last_worker(path):
    events = history(4)
    assert [(event.event, event.trial, getattr(event, "worker", "")) for event in journal.compact(events)] == [
        *((kind, f"{n:04}", "tuner1") for n in range(3) for kind in ("begun", "ended")),
        ("begun", "0003", "tuner1"),
    ]
    assert journal.compact(events[:2]) == events[:2]  # one that waits for a worker still does
    assert journal.compact(journal.compact(events)) == journal.compact(events)


def test_a_full_disk_leaves_it_as_it_was(path, monkeypatch):
    events = history(3)
    written(path, events[:5])
    kept = Journal(path)
    kept.add(events[5])
    before = path.read_bytes()

    def full(file):
        os.truncate(path, len(before) + 10)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"journal.jsonl: can't be written: No space left on device"):
        kept.add(events[6])
    assert path.read_bytes() == before


DAMAGED = {
    "no JSON": b"x\n",
    "null": b"null\n",
    "a list": b"[]\n",
    "a number": b"1\n",
    "deeply nested": b"[" * 10000 + b"\n",
    "not UTF-8": b'{"event": "\xff"}\n',
    "no trial": b'{"event": "begun", "values": {}}\n',
    "a name that is a path": b'{"event": "begun", "trial": "/../../victim", "worker": "a", "values": {}}\n',
    "a name with a line": b'{"event": "begun", "trial": "0001\\n", "worker": "a", "values": {}}\n',
    "values of a wrong type": b'{"event": "begun", "trial": "0009", "worker": "a", "values": {"x": []}}\n',
    "NaN": b'{"event": "begun", "trial": "0009", "worker": "a", "values": {"x": NaN}}\n',
    "an end without a begin": b'{"event": "ended", "trial": "0009", "outcome": {"status": "failed"}}\n',
    "a value of none": b'{"event": "ended", "trial": "0002", "outcome": {"status": "finished", "value": null}}\n',
    "begun twice": b'{"event": "begun", "trial": "0000", "worker": "a", "values": {}}\n',
    "of a later version": b'{"event": "opened", "version": 2}\n',
    "an empty line": b"\n",
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=list(DAMAGED))
def test_a_damaged_journal_is_refused_in_one_line(path, line):
    events = history(3)
    written(path, events)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:6], line, *lines[6:]]))
    before = path.read_bytes()
    with pytest.raises(UserError) as error:
        Journal(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert path.read_bytes() == before


def test_what_version_0_1_0_wrote_is_read_and_extended(path):
    older = path.with_name("journal.json")
    path.with_name("search.json").write_text("{}")  # by which a folder of a search is known
    events = [
        {"event": "begun", "trial": "0000", "worker": "tuner0", "values": {"x": 0.25}},
        {"event": "ended", "trial": "0000", "worker": "tuner0", "outcome": {
            "status": "diverged", "value": None, "values": [], "curve": [0.5, None], "reason": "no", "seconds": 1.0}},
        {"event": "begun", "trial": "0001", "worker": "tuner0", "values": {"x": 1.0}},
        {"event": "released", "trial": "0001"},
    ]  # fmt: skip
    older.write_text(json.dumps(events, indent=2))
    kept = Journal(path)
    assert [event.model_dump() for event in journal.read(path)] == events
    again = Begun(trial="0001", worker="tuner1", values={"x": 1.0})
    kept.add(again)
    assert not older.exists()
    assert journal.read(path)[2:] == [
        Begun(trial="0001", worker="tuner0", values={"x": 1.0}),
        Released(trial="0001"),
        again,
    ]
