"""The runs after a search as tasks of a Ray cluster: those of the comparison, and confirmations."""

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.searches.folder import SearchFolder
from tuner.searches.records import Outcome
from zoo.process import supervise
from zoo.sweeps.cluster import Cluster, Task

if TYPE_CHECKING:  # it imports Keras
    from tuner.searches.oracle import JournaledOracle

STOPPED = (4, 130, -signal.SIGINT)  # exit statuses of a run that can be resumed


class Printer:
    """Prints the progress of trials on a cluster."""

    def begin(self, name: str) -> None:
        print(f"trial {name} runs on the cluster", flush=True)

    def show(self, name: str, line: str) -> None: ...

    def again(self, name: str, why: str) -> None:
        print(f"trial {name}: {why}", flush=True)


class ComparisonPrinter(Printer):
    """Prints the progress of the comparison's runs, and notifies the oracle."""

    def __init__(self, folder: SearchFolder, oracle: "JournaledOracle", trials: Mapping[str, Any]):
        self.folder, self.oracle, self.trials = folder, oracle, trials

    def end(self, name: str, state: str) -> None:
        self.oracle.end_trial(self.trials[name])

    def fail(self, name: str, why: str) -> None:
        self.folder.write_outcome(name, Outcome("failed", reason=why))
        self.end(name, "failed")


def compare(cluster: Cluster, folder: SearchFolder, oracle: "JournaledOracle") -> None:
    """Trains the runs of the comparison after a search on a cluster."""
    oracle.begin_comparison()
    trials: dict[str, Any] = {}
    while (trial := oracle.create_trial(f"ray{len(trials)}")).status == "RUNNING":
        trials[trial.trial_id] = trial
    tasks = [
        Task(name, partial(_train, folder.path, name, dict(trial.hyperparameters.values)), folder.log(name))
        for name, trial in trials.items()
    ]
    cluster.work(tasks, ComparisonPrinter(folder, oracle, trials))


def _train(path: Path, trial: str, point: Mapping[str, Any]) -> str:
    """On a node: trains a trial in a process of its own; returns its status."""
    folder = SearchFolder(path)
    command = [sys.executable, "-m", "tuner.trial", str(path), trial, json.dumps(point)]
    last, code = supervise(command, folder.log(trial), lambda line: None)
    outcome = folder.outcome(trial)
    if outcome is None and code not in STOPPED:
        outcome = Outcome("failed", reason=f"killed by signal {-code}" if code < 0 else last)
        folder.write_outcome(trial, outcome)
    return outcome.status if outcome else "stopped"


class ConfirmationPrinter(Printer):
    """Prints the progress of a confirmation, and stores its exit status."""

    status = 1

    def end(self, name: str, state: str) -> None:
        self.status = int(state)

    def fail(self, name: str, why: str) -> None:
        self.again(name, why)


def start(cluster: Cluster, command: Sequence[str], log: Path) -> int:
    """Runs a command on a cluster; returns its exit status."""
    printer = ConfirmationPrinter()
    cluster.work([Task(log.stem, partial(_run, list(command), log), log)], printer)
    return printer.status


def _run(command: list[str], log: Path) -> str:
    return str(supervise([sys.executable, *command], log, lambda line: None)[1])
