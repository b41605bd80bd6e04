"""What the runs of a sweep recorded, the commands that repeat them, and whether they can be compared."""

import contextlib
import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from zoo.config import own
from zoo.config.own import IGNORED, fields
from zoo.config.schema import Config
from zoo.data.datasets import MAX_VALIDATION
from zoo.environment import CODE, code, recorded_path
from zoo.errors import UserError
from zoo.files import read_json
from zoo.reports.document import Paragraph, Table
from zoo.reports.groups import ENDED, Group, Result, Results
from zoo.sweeps.grid import SHORT

UNKNOWN = "not recorded"
ORIGIN = {"model", "base", "sweep"}  # labels that aren't fields
ERRORS = ("_loss", "_mae", "_rmse")
SHARES = ("accuracy", "precision_macro", "precision_weighted")


def states(results: Results) -> str:
    counted = Counter(run.state for run in results.every)
    idle = f" No run yet of: {'; '.join(results.idle())}." if results.idle() else ""
    states = ", ".join(f"{counted[state]} {state}" for state in sorted(counted))
    return f"Of its {len(results.every)} runs: {states}.{idle}"


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


def check(results: Results, mixed: bool) -> list[str]:
    """Notes for the top of a report: what compared runs differ in, or didn't record.

    Args:
        results: of a sweep.
        mixed: whether to note differences instead of refusing them.

    Raises:
        UserError: for a run with an impossible value, one that contradicts its sweep or itself, or a copy of another;
            and for compared runs that differ in data, backend, config or code.
    """
    check_runs(results)  # before they are grouped, by values of theirs
    groups, said = results.groups(), []
    for group in groups:
        _check_copies(group)
        for what, values in _shared_values(group, results).items():
            known = {value: runs for value, runs in values.items() if value != UNKNOWN}
            if len(known) > 1:
                parts = [f"{value} ({_counted(runs)})" for value, runs in known.items()]
                sentence = f"{group.title}: runs that are compared differ in {what}: {', '.join(parts)}"
                if not mixed:
                    raise UserError(f"{results.shown}: {sentence}; --mixed reports them together nevertheless")
                said.append(f"{sentence}.")
            if known and UNKNOWN in values:
                said.append(f"{group.title}: {_counted(values[UNKNOWN])} did not record {what}.")
    if lost := [run for run in results.every if run.state == "diverged" and "test_loss" in run.metrics]:
        said.append(f"{_counted(lost)}: diverged on test samples alone, where the loss is NaN or infinite.")
    return said + _unrecorded(groups)


def _counted(runs: list[Result]) -> str:
    return runs[0].name if len(runs) == 1 else f"{runs[0].name} and {len(runs) - 1} more"


def _ended(group: Group) -> list[Result]:
    """The runs of a group that ended, including those of tuning."""
    every = [run for runs in group.planned.values() for run in runs]
    along = [run for values in group.ladder.values() for runs in values.values() for run in runs]
    return [run for run in dict.fromkeys([*every, *along]) if run.state in ENDED]


def _shared_values(group: Group, results: Results) -> dict[str, dict[str, list[Result]]]:
    """The values of everything that compared runs must share, with the runs of each value."""
    runs = _ended(group)
    axes = {SHORT.get(axis, axis) for run in runs for axis in run.labels.keys() - ORIGIN} | {"training.seeds"}
    configs = {run: dict(fields(_resolved(run))) for run in runs}
    every = dict.fromkeys(field for found in configs.values() for field in found)
    kept = [f for f in every if not any(f == axis or f.startswith(f"{axis}.") for axis in (*axes, *IGNORED))]
    found: dict[str, dict[str, list[Result]]] = {}

    def record(what: str, run: Result, value: Any) -> None:
        found.setdefault(what, {}).setdefault(UNKNOWN if value is None else str(value), []).append(run)

    for run in runs:
        record("the digest of their images", run, run.environment.get("data_digest"))
        record("backend", run, run.environment.get("backend"))
        code = run.environment.get("code")
        record("code", run, code and ", ".join(f"{package} {tree}" for package, tree in code.items()))
        for field in kept:
            record(f"config {field}", run, configs[run].get(field))
    return found


def _resolved(run: Result) -> dict[str, Any]:
    """The config of a run; newer fields get their defaults."""
    try:
        return Config.model_validate(run.settings).resolved()
    except ValidationError:  # a network or an option that was removed
        return run.settings


def _unrecorded(groups: list[Group]) -> list[str]:
    """What runs of older versions didn't record, once for all."""
    runs = [run for group in groups for run in _ended(group) if "code" not in run.environment]
    commits = dict.fromkeys(str(run.environment.get("git_commit"))[:12] for run in runs)
    if not runs:
        return []
    return [
        f"{_counted(runs)}: made by a version that recorded its commit alone ({', '.join(commits)}), so whether their "
        "code differs isn't checked."
    ]


def same_machine(runs: list[Result]) -> bool:
    """Whether the times of runs can be compared."""
    keys = ("device", "processor", "processors", "platform", "settings", "backend")
    return len({json.dumps([run.environment.get(key) for key in keys]) for run in runs}) <= 1


# One run


def check_runs(results: Results) -> None:
    """
    Raises:
        UserError: for a run with an impossible value, or one that contradicts its sweep or itself.
    """
    for run in results.every:
        if run.state in ENDED:
            _check_run(run, results)


def _check_run(run: Result, results: Results) -> None:
    metrics, path = run.metrics, run.folder / "metrics.json"
    for name, value in metrics.items():
        if value is None and run.state == "diverged":  # NaN or infinite
            continue
        if name.endswith(SHARES) or name in ("report_precision_max", "report_precision_last"):
            _require(_is_number(value) and 0 <= value <= 1, path, f"{name} is {value}; a share lies between 0 and 1")
        elif name.endswith(ERRORS):
            _require(_is_number(value) and value >= 0, path, f"{name} is {value}; it is 0 or more")
        elif name in ("images_per_second", "peak_memory_mb"):
            _require(_is_number(value) and value > 0, path, f"{name} is {value}; it is above 0")
        elif name.endswith("_r2"):
            _require(_is_number(value) and value <= 1, path, f"{name} is {value}; R² is 1 at most")
    _check_labels(run, path)
    _check_history(run, path)
    _check_planned(run, results)
    right = run.right()
    if right is not None and "test_accuracy" in metrics:
        said, found = metrics["test_accuracy"], float(right.mean())
        _require(abs(said - found) < 1e-9, path, f"test_accuracy is {said}, and by predictions.npz it is {found}")


def _check_labels(run: Result, path) -> None:
    """The run has the seed and the network that the sweep says."""
    training, model = run.settings["training"], run.settings.get("model", {})
    seed = run.asked.get("seed", run.seed if run.seed != run.name else None)  # of older sweeps the labels alone
    for what, said, found in (
        ("seed", seed, run.metrics.get("seed")),
        ("seed", seed, (training.get("seeds") or [None])[0]),
        ("network", run.asked.get("network", run.network), model.get("name") or model.get("application") or None),
    ):
        if said is not None and found is not None:
            _require(
                str(found) == str(said), path.parent, f"the sweep says {what} {said}, and the run has {what} {found}"
            )


def _check_history(run: Result, path) -> None:
    """The history has a row for each epoch, and no impossible value."""
    rows, epochs = len(run.history("epoch")), run.metrics.get("epochs")
    history, planned = run.folder / "history.csv", run.settings["training"].get("epochs")
    if epochs is not None:
        _require(rows == epochs, history, f"it has {rows} rows, and metrics.json says {epochs} epochs")
    if epochs is not None and planned is not None and run.state == "finished":
        _require(epochs == planned, path, f"the run is finished after {epochs} epochs of {planned}")
    for name in ("accuracy", "val_accuracy", "report_precision"):
        values = run.history(name)
        _require(not ((values < 0) | (values > 1)).any(), history, f"{name} has values outside of 0 to 1")
    if run.state == "finished":
        for name in ("loss", "cross_entropy", "val_loss"):
            values = run.history(name)
            _require(bool((values >= 0).all()), history, f"{name} has negative or NaN values")


def _check_planned(run: Result, results: Results) -> None:
    """The run has the config that the sweep planned."""
    path = results.folder / "configs" / f"{run.name}.json"
    if not path.exists():
        return
    planned, found = (
        dict(fields(own.absolute(content, place)))
        for content, place in ((read_json(path), path.parent), (run.settings, run.folder))
    )
    for field in planned.keys() & found.keys():
        differs = planned[field] != found[field] and not field.startswith(IGNORED)
        _require(
            not differs,
            run.folder / "config.json",
            f"{field} is {found[field]}, and the sweep planned {planned[field]}",
        )


def _check_copies(group: Group) -> None:
    """No run of an arm is a copy of another."""
    for runs in group.planned.values():
        seen: dict[Any, Result] = {}
        for run in (run for run in runs if run.state == "finished"):
            for what, key in (("seed", run.seed), ("history", json.dumps(run.rows("history.csv")))):
                other = seen.setdefault((what, key), run)
                _require(other is run, run.folder, f"it has the same {what} as {other.name}; a run counts once")


def _is_number(value: Any) -> bool:
    with contextlib.suppress(OverflowError):  # of an integer beyond float64
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return False


def _require(holds: bool, path, what: str) -> None:
    if not holds:
        raise UserError(f"{path}: {what}")
