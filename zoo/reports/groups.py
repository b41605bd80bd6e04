"""The results of a sweep: its runs, in groups as tables and figures show them."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config.own import DATA, NamedDataset
from zoo.data import datasets
from zoo.errors import UserError
from zoo.files import Learned, read_history, read_json, read_learned, read_predictions, read_table
from zoo.records import SweepFile, problem
from zoo.reports import judge
from zoo.sweeps.folder import state
from zoo.sweeps.grid import Comparisons

SEEDS = ("seed", "training.seeds")  # axes of repetitions
ACTIVATIONS = ("activation", "activation.name")  # axes of comparison
MISSING = "missing"
ENDED, LOST = ("finished", "diverged"), ("diverged", "failed")  # states
BASELINE = "relu"
TWINS = {  # the fixed function that an adaptive one starts as, or is made of
    "asigmoid": "sigmoid",
    "atanh": "tanh",
    "arelu": "relu",
    "frelu": "relu",
    "swish": "silu",
    "pelu": "elu",
    "prelu": "leaky_relu",
}


def count_classes(folder: Path) -> int | None:
    """Of the data of a run, as it says itself; None where it has none, or doesn't say."""
    written, asked = folder / "preprocessing.json", folder / "config.json"
    if written.exists() and "classes" in (found := read_json(written)):
        return len(found["classes"]) or None
    dataset = read_json(asked).get("dataset", {}) if asked.exists() else {}
    return None if DATA.keys() & dataset.keys() else len(datasets.CLASSES[dataset.get("name", NamedDataset().name)])


@dataclass(frozen=True, eq=False)
class Result:
    """A run of a sweep and its results so far; `asked` is what sweep.json says of it."""

    name: str
    labels: dict[str, str]
    outputs: tuple[str, ...]
    out: Path
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.out / "runs" / self.name

    @property
    def network(self) -> str:
        return self.labels["model"]

    @property
    def activation(self) -> str:
        return next((self.labels[axis] for axis in ACTIVATIONS if axis in self.labels), "as configured")

    @property
    def seed(self) -> str:
        """Identifies the run within its arm; its name if the sweep has no axis of seeds."""
        return next((self.labels[axis] for axis in SEEDS if axis in self.labels), self.name)

    @property
    def title(self) -> str:
        return ", ".join(
            [self.network, self.activation, *(f"seed {self.labels[axis]}" for axis in SEEDS if axis in self.labels)]
        )

    @property
    def others(self) -> dict[str, str]:
        """Its labels on the other axes."""
        return {axis: label for axis, label in self.labels.items() if axis not in ("model", *SEEDS, *ACTIVATIONS)}

    @cached_property
    def state(self) -> str:
        return state(self.out, self.name)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return read_json(self.folder / "metrics.json", "status")

    def metric(self, key: str) -> float:
        if key not in self.metrics:
            raise UserError(f"{self.folder / 'metrics.json'}: this run did not measure {key}")
        return self.metrics[key]

    @cached_property
    def settings(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json", "training", "activation")

    @cached_property
    def environment(self) -> dict[str, Any]:
        keys = ("backend", "device", "versions", "processors", "git_commit", "git_changed_files", "data")
        return read_json(self.folder / "environment.json", *keys)

    def history(self, column: str) -> np.ndarray:
        """A column of history.csv, float64 (epochs,); empty if there is no such column."""
        return np.array([row[column] for row in read_history(self.folder / "history.csv") if column in row])

    def rows(self, file: str) -> list[dict[str, str]]:
        return read_table(self.folder / file)

    def learned(self, file: str, like: "Result") -> Learned:
        """What mixing_weights.csv or parameters.csv has; of the sites, names and epochs that another run has there."""
        found, other = (read_learned(run.folder / file) for run in (self, like))
        if {(*place, *at) for place, at in found.items()} != {(*place, *at) for place, at in other.items()}:
            raise UserError(f"{self.folder / file}: has other sites, names or epochs than that of {like.name}")
        return found

    def right(self) -> np.ndarray | None:
        """Whether each test image was classified correctly, bool (images,), or the share of its pixels that were; None
        without predicted labels."""
        path = self.folder / "predictions.npz"
        if not path.exists() or "test_accuracy" not in self.metrics:
            return None
        found = read_predictions(path)
        if "test" not in found:  # it was told not to measure there
            return None
        try:
            right = found["test"] == found["test_labels"]
            return right.reshape(len(right), -1).mean(axis=1) if right.ndim > 1 else right
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}: can't be read as predictions: {error}") from None

    def has_held_weights(self) -> bool:
        """Whether its mixing weights were fixed, if it recorded that."""
        return any(row.get("held") == "fixed" for row in self.rows("mixing_weights.csv"))

    def milliseconds_a_step(self) -> float:
        return self.settings["training"]["batch_size"] / self.metric("images_per_second") * 1e3


@dataclass(frozen=True)
class Group:
    """Runs of one network that differ in activation and seed only.

    Attributes:
        network: its name.
        rest: what distinguishes it from the sweep's other groups of that network.
        planned: its runs by activation, in the order of the sweep; for a tuned activation those at its best value.
        comparisons: those that the sweep plans.
        ladder: by activation and value, the runs along the axis of tuning; empty without one.
    """

    network: str
    rest: str
    planned: dict[str, list[Result]]
    comparisons: Comparisons
    ladder: dict[str, dict[str, list[Result]]]

    @property
    def title(self) -> str:
        return f"{self.network}, {self.rest}" if self.rest else self.network

    @property
    def has_begun(self) -> bool:
        return any(run.state != MISSING for runs in self.planned.values() for run in runs)

    @property
    def slug(self) -> str:
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.title)

    @property
    def baseline(self) -> str:
        asked = self.comparisons
        return asked.baseline or (asked.primary[1] if asked.primary else BASELINE)

    @cached_property
    def runs(self) -> dict[str, list[Result]]:
        """The finished runs of each activation that has any."""
        found = {name: [run for run in runs if run.state == "finished"] for name, runs in self.planned.items()}
        return {name: runs for name, runs in found.items() if runs}

    def absent(self, name: str) -> str:
        """The states of an activation's unfinished runs, such as "2 diverged"; "" if all are finished."""
        states = [run.state for run in self.planned.get(name, [])]
        if set(states) <= {MISSING}:
            return MISSING
        counted = Counter(state for state in states if state != "finished")
        return ", ".join(f"{count} {state}" for state, count in counted.items())

    @cached_property
    def score(self) -> judge.Score:
        """What its runs are judged by."""
        return judge.measured(run.metrics for runs in self.runs.values() for run in runs)

    @cached_property
    def plan(self) -> list[judge.Comparison]:
        """The planned comparisons; by default each activation with the baseline, then with its fixed counterpart."""
        if pairs := self.comparisons.pairs:
            primary = self.comparisons.primary
            here = [pair for pair in pairs if set(pair) <= set(self.planned)]
            return [judge.Comparison(arm, reference, [arm, reference] == primary) for arm, reference in here]
        names = [name for name in self.planned if name != self.baseline]
        twins = [(name, TWINS[name]) for name in names if TWINS.get(name, self.baseline) in names]
        return [judge.Comparison(name, self.baseline) for name in names if self.baseline in self.planned] + [
            judge.Comparison(*pair) for pair in twins
        ]

    @cached_property
    def section(self) -> judge.Section:
        """Its scores on test images, for the judge."""
        arms = {name: self._arm(name) for name in self.planned}
        confounded = {each: why for each in self.plan if (why := self._unequal(*each[:2]))}
        paired, r2 = self.comparisons.paired, self.is_regression
        return judge.Section(arms, self.plan, self.baseline, self.classes, paired, confounded, r2)

    @property
    def is_regression(self) -> bool:
        return self.score != judge.ACCURACY

    @cached_property
    def classes(self) -> int | None:
        """How many a guess chooses from; None where runs aren't judged by their accuracy."""
        if self.is_regression:
            return None
        every = [run for runs in self.planned.values() for run in runs]
        return next(filter(None, (count_classes(run.folder) for run in every)), None)

    def _arm(self, name: str) -> judge.Arm:
        runs = self.runs.get(name, [])
        losses = [run.metrics["test_loss"] for run in runs if "test_loss" in run.metrics and not self.is_regression]
        tried = [run for each in self.ladder.get(name, {}).values() for run in each]
        ended = sum(run.state in (*ENDED, *LOST) for run in tried)
        return judge.Arm(
            {run.seed: run.metric(self.score.of("test")) for run in runs},
            len(self.planned[name]),
            sum(run.state in LOST for run in self.planned[name]),
            float(np.mean(losses)) if losses else None,
            f"{name} is tuned over {ended} of {len(tried)} runs" if ended < len(tried) else "",
        )

    def _unequal(self, name: str, reference: str) -> str:
        """Why the tuning effort of two activations differs; "" if it doesn't."""
        if self.budget(name) == self.budget(reference) or self._was_chosen_before(name, reference):
            return ""
        return f"{name} was tuned over {self.budget(name)}, {reference} over {self.budget(reference)}"

    def _was_chosen_before(self, *names: str) -> bool:
        """Whether activations have one value each, chosen before this sweep as it says."""
        return bool(self.comparisons.effort) and all(len(self.ladder.get(name, ())) == 1 for name in names)

    def budget(self, name: str) -> str:
        """The values and runs that an activation was tuned over."""
        if name not in self.ladder:
            return ""
        values = self.ladder[name]
        return f"{len(values)} values ({', '.join(values)}), {sum(map(len, values.values()))} runs"

    def chosen(self, name: str) -> str:
        """The value that was chosen for an activation."""
        return next((value for value, runs in self.ladder.get(name, {}).items() if runs == self.planned[name]), "")

    def right(self, name: str) -> np.ndarray | None:
        """Whether each finished run classified each test image correctly, bool (runs, images); None if unknown."""
        found = [run.right() for run in self.runs.get(name, [])]
        known = [each for each in found if each is not None]
        return np.stack(known) if len(known) == len(found) and len(set(map(len, known))) == 1 else None


class Results:
    """The runs of a sweep's folder.

    Args:
        folder: of the sweep.
        shown: its path in the report, if that differs.

    Raises:
        UserError: if the folder holds no sweep.
    """

    def __init__(self, folder: Path, shown: Path | None = None):
        path = folder / "sweep.json"
        try:
            self.sweep = json.loads(path.read_text(encoding="utf-8"))
            if wrong := problem(self.sweep, SweepFile):
                raise UserError(f"{path}: not what zoo.sweep writes: {wrong}")
            self.every = [
                Result(
                    run["name"], {"model": run["labels"]["model"]} | run["labels"], tuple(run["outputs"]), folder, run
                )
                for run in self.sweep["runs"]
            ]
            self.notes: str = self.sweep["notes"]
            plans = self.sweep.get("plans", {})
            self.plans = {name: Comparisons.model_validate(plan) for name, plan in plans.items()}
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; expected the folder of a zoo.sweep") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}: not what zoo.sweep writes ({error!r})") from None
        self.folder, self.shown = folder, shown or folder
        self._planned: dict[str | None, list[Group]] = {}  # whose sections and scores are computed once
        self.finished = [run for run in self.every if run.state == "finished"]
        self.begun = [run for run in self.every if run.state != MISSING]

    def groups(self, output: str | None = None) -> list[Group]:
        """The groups of runs for one of the report's tables or figures, or of all, in the order of the sweep.

        Once any run has begun, groups of which none has are left out.
        """
        planned = self.planned(output)
        return [group for group in planned if group.has_begun] if self.begun else planned

    def idle(self) -> list[str]:
        """The titles of the groups that `groups` leaves out."""
        return [group.title for group in self.planned() if self.begun and not group.has_begun]

    def planned(self, output: str | None = None) -> list[Group]:
        """The groups, also those of which no run has begun."""
        if output not in self._planned:
            self._planned[output] = self._grouped(output)
        return self._planned[output]

    def _grouped(self, output: str | None) -> list[Group]:
        found: dict[tuple, dict[str, list[Result]]] = {}
        plans: dict[tuple, Comparisons] = {}
        for run in self.every:
            if output is None or output in run.outputs:
                plan = self.plans.get(run.labels.get("sweep", ""), Comparisons())
                others = tuple(item for item in run.others.items() if item[0] != plan.tuned)
                plans[run.network, others] = plan
                activations = found.setdefault((run.network, others), {})
                activations.setdefault(run.activation, []).append(run)
        return [
            _group(network, _apart(network, others, list(found)), runs, plans[network, others])
            for (network, others), runs in found.items()
        ]


def _group(network: str, rest: str, runs: dict[str, list[Result]], plan: Comparisons) -> Group:
    if not plan.tuned:
        return Group(network, rest, runs, plan, {})
    ladder: dict[str, dict[str, list[Result]]] = {}
    for name, each in runs.items():
        for run in each:
            ladder.setdefault(name, {}).setdefault(run.labels.get(plan.tuned, ""), []).append(run)
    return Group(network, rest, {name: _best(values) for name, values in ladder.items()}, plan, ladder)


def _best(values: dict[str, list[Result]]) -> list[Result]:
    """The runs at the value with the best mean score on validation images, of those with the fewest runs amiss."""
    if len(values) == 1:
        return next(iter(values.values()))
    ended = [run.metrics for runs in values.values() for run in runs if run.state == "finished"]
    by = judge.measured(ended)

    def merit(runs: list[Result]) -> tuple[int, float]:
        finished = [run for run in runs if run.state == "finished"]
        mean = np.mean([run.metric(by.of("validation")) for run in finished]) if finished else 0.0
        return len(finished) - len(runs), float(mean if by.higher else -mean)

    return max(values.values(), key=merit)


def _apart(network: str, others: tuple[tuple[str, str], ...], every: list[tuple]) -> str:
    """The labels that distinguish a group from the others of its network."""
    shared = set.intersection(*(set(there) for name, there in every if name == network))
    apart = [place for place in others if place not in shared]
    return ", ".join(
        label if axis in ("base", "sweep") else f"{axis.rpartition('.')[2]} {label}" for axis, label in apart
    )
