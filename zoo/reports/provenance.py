"""The provenance of a sweep's runs, and the commands that repeat them."""

import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from zoo.data.datasets import MAX_VALIDATION
from zoo.environment import CODE, code, recorded_path
from zoo.reports.document import Paragraph, Table
from zoo.reports.groups import ENDED, Result, Results

UNKNOWN = "not recorded"


def states(results: Results) -> str:
    counted = Counter(run.state for run in results.every)
    return f"Of its {len(results.every)} runs: {', '.join(f'{counted[state]} {state}' for state in sorted(counted))}."


def blocks(results: Results) -> Iterator[Paragraph | Table]:
    """The commands, and a table of what the runs recorded."""
    runs = [run for run in results.every if run.state in ENDED]
    if not runs:
        return
    yield Paragraph(f"Made by `{_sweep(results, runs)}` and `{_command(results, runs)}`.")
    yield from recorded(runs)


def recorded(runs: list[Result]) -> Iterator[Paragraph | Table]:
    """A table of what runs that ended recorded."""
    rows = [[what, _each(runs, value)] for what, value in RECORDED.items()]
    yield Table("provenance", "The environment that the runs recorded", ("", "value"), rows)
    now, then = {package: code(package) for package in CODE}, {json.dumps(run.environment.get("code")) for run in runs}
    if then != {json.dumps(now)}:
        yield Paragraph(
            "The code has changed since these runs, or they didn't record it: times, memory and accuracies are "
            "those of the code that they ran."
        )


def _sweep(results: Results, runs: list[Result]) -> str:
    """A command to paste, with backend, sweep and data."""
    words = ["python", "-m", "zoo.sweep", results.sweep.get("file") or "SWEEP.json", "--out", str(results.shown)]
    return f"{_variables(runs)}{shlex.join(words + _data(runs))}"


def _command(results: Results, runs: list[Result]) -> str:
    return shlex.join(["python", "-m", "zoo.report", str(results.shown), *_data(runs)])


def _variables(runs: list[Result]) -> str:
    first = runs[0].environment
    found = {"KERAS_BACKEND": first["backend"]} | first.get("settings", {})
    return "".join(f"{name}={shlex.quote(value)} " for name, value in found.items())


def _data(runs: list[Result]) -> list[str]:
    places = (recorded_path(run.folder, run.environment.get("data_dir")) for run in runs)
    place = next(filter(None, places), None)
    return ["--data-dir", str(place)] if place else []


def _each(runs: list[Result], value: Callable[[Result], Any]) -> str:
    return "; ".join(dict.fromkeys(str(found) if (found := value(run)) else UNKNOWN for run in runs))


def _versions(run: Result) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.environment["versions"].items())


def _commit(run: Result) -> str:
    return f"{run.environment['git_commit']}{' with changes' if run.environment['git_changed_files'] else ''}"


def _code(run: Result) -> str:
    return ", ".join(f"{package} {tree}" for package, tree in run.environment.get("code", {}).items())


def _images(run: Result) -> str:
    counts = run.environment.get("images", {})
    if counts:
        return f"{run.network}: " + ", ".join(f"{count:,} {split}" for split, count in counts.items())
    asked = run.settings.get("dataset", {})
    if not asked.get("limit"):
        return ""
    held = min(MAX_VALIDATION, math.floor(asked["validation"] * asked["limit"]))
    return f"{run.network}: {asked['limit'] - held:,} train, {held:,} validation, by its config"


def _threads(run: Result) -> str:
    return ", ".join(f"{name}={value}" for name, value in run.environment.get("settings", {}).items())


RECORDED: dict[str, Callable[[Result], Any]] = {
    "backend": lambda run: run.environment["backend"],
    "device": lambda run: run.environment["device"],
    "processor": lambda run: run.environment.get("processor"),
    "logical processors": lambda run: run.environment["processors"],
    "threads and other settings": _threads,
    "C compiler": lambda run: run.environment.get("compiler"),
    "platform": lambda run: run.environment.get("platform"),
    "versions": _versions,
    "commit": _commit,
    "code": _code,
    "data": lambda run: run.environment["data"],
    "digest of the images": lambda run: (
        run.environment.get("data_digest") and f"{run.network}: {run.environment['data_digest']}"
    ),
    "images": _images,
}
