"""What the runs of a sweep left behind, grouped as its tables and figures show them."""

import csv
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import UserError
from zoo.results import read_json
from zoo.sweep import state

SEEDS = ("seed", "training.seeds")  # axes along which runs are repetitions of each other
ACTIVATIONS = ("activation", "activation.name")  # and those along which they are compared
MISSING = "missing"


@dataclass(frozen=True)
class Result:
    """What a run of a sweep left behind so far."""

    name: str
    labels: dict[str, str]
    outputs: tuple[str, ...]
    out: Path

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
    def title(self) -> str:
        return ", ".join(
            [self.network, self.activation, *(f"seed {self.labels[axis]}" for axis in SEEDS if axis in self.labels)]
        )

    @property
    def others(self) -> dict[str, str]:
        """Where it stands on the other axes."""
        return {axis: label for axis, label in self.labels.items() if axis not in ("model", *SEEDS, *ACTIVATIONS)}

    @cached_property
    def state(self) -> str:
        return state(self.out, self.name)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return read_json(self.folder / "metrics.json", "status", "images_per_second", "peak_memory_mb")

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
        """A column of history.csv, float64 (epochs,); empty where it has none."""
        try:
            return np.array([float(row[column]) for row in self.rows("history.csv") if column in row])
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.folder / 'history.csv'}: {column} is no number in each row: {error}") from None

    def rows(self, file: str) -> list[dict[str, str]]:
        path = self.folder / file
        try:
            with path.open(newline="", encoding="utf-8") as opened:
                return list(csv.DictReader(opened))
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{path}: can't be read: {error}") from None

    def has_held_weights(self) -> bool:
        """Whether its mixing weights were held fixed, as far as the run says it."""
        return any(row.get("held") == "fixed" for row in self.rows("mixing_weights.csv"))

    def milliseconds_a_step(self) -> float:
        return self.settings["training"]["batch_size"] / self.metrics["images_per_second"] * 1e3


@dataclass(frozen=True)
class Group:
    """Runs of one network that differ in activation and seed alone.

    Attributes:
        network: its name.
        rest: what sets it apart from the sweep's other groups of that network.
        planned: its runs by activation, in the order of the sweep.
    """

    network: str
    rest: str
    planned: dict[str, list[Result]]

    @property
    def title(self) -> str:
        return f"{self.network}, {self.rest}" if self.rest else self.network

    @property
    def slug(self) -> str:
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.title)

    @cached_property
    def runs(self) -> dict[str, list[Result]]:
        """The finished runs of each activation that has some."""
        found = {name: [run for run in runs if run.state == "finished"] for name, runs in self.planned.items()}
        return {name: runs for name, runs in found.items() if runs}

    def absent(self, name: str) -> str:
        """What became of an activation's runs that aren't finished, such as "2 diverged"; "" where all are."""
        runs = self.planned.get(name, [])
        states = [run.state if run.state in ("finished", "diverged", "failed") else MISSING for run in runs]
        if set(states) <= {MISSING}:
            return MISSING
        counted = Counter(state for state in states if state != "finished")
        return ", ".join(f"{count} {state}" for state, count in counted.items())


class Results:
    """The runs of a sweep's folder.

    Raises:
        UserError: for a folder that holds no sweep.
    """

    def __init__(self, folder: Path):
        path = folder / "sweep.json"
        try:
            self.sweep = json.loads(path.read_text(encoding="utf-8"))
            self.every = [
                Result(run["name"], {"model": run["labels"]["model"]} | run["labels"], tuple(run["outputs"]), folder)
                for run in self.sweep["runs"]
            ]
            self.notes: str = self.sweep["notes"]
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; expected the folder of a zoo.sweep") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not what zoo.sweep writes ({error!r})") from None
        self.folder = folder
        self.finished = [run for run in self.every if run.state == "finished"]

    def outputs(self) -> set[str]:
        return {output for run in self.every for output in run.outputs}

    def groups(self, output: str) -> list[Group]:
        """The runs for one of the report's tables or figures, in the order of the sweep."""
        found: dict[tuple, dict[str, list[Result]]] = {}
        for run in self.every:
            if output in run.outputs:
                activations = found.setdefault((run.network, tuple(run.others.items())), {})
                activations.setdefault(run.activation, []).append(run)
        return [Group(network, _apart(network, others, list(found)), runs) for (network, others), runs in found.items()]


def _apart(network: str, others: tuple[tuple[str, str], ...], every: list[tuple]) -> str:
    """What of a group's place no other group of the network shares."""
    shared = set.intersection(*(set(there) for name, there in every if name == network))
    apart = [place for place in others if place not in shared]
    return ", ".join(
        label if axis in ("base", "sweep") else f"{axis.rpartition('.')[2]} {label}" for axis, label in apart
    )
