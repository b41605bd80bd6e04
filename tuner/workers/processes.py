"""Where trials run: workers as processes of this machine, and the runs after a search as tasks of a Ray cluster."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.searches.folder import SearchFolder
from tuner.searches.records import Outcome
from zoo import manifest
from zoo.process import supervise
from zoo.sweeps.cluster import Cluster, Task

if TYPE_CHECKING:
    from tuner.searches.oracle import JournaledOracle


DEATHS_IN_A_ROW = 3  # of a worker without ending a trial; then it isn't restarted
GAVE_UP = 5  # exit status of a worker that gives up; its log says why
STOPPED = (4, 130, -signal.SIGINT)  # exit statuses of a run that can be resumed


class Workers:
    """Processes of `python -m tuner.worker`, each with a name and a log.

    Args:
        folder: of the search.
        names: of the workers, such as tuner0.
        environment: additional environment variables.
        on_death: called with a worker's name and how it died.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        environment: Mapping[str, str],
        on_death: Callable[[str, str], None],
    ):
        self.folder, self.names, self.on_death = folder, names, on_death
        self.environment = dict(os.environ) | dict(environment)
        self.processes: dict[str, subprocess.Popen] = {}
        self.logs: dict[str, int] = {}
        self.deaths = dict.fromkeys(names, 0)
        self.ended: dict[str, int] = {}
        for name in names:
            self._start(name)

    def _start(self, name: str) -> None:
        mine = {"KERASTUNER_TUNER_ID": name} | share(self.names.index(name), len(self.names))
        if name not in self.logs:
            self.logs[name] = manifest.open_log(self.folder / f"{name}.log")
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", "tuner.worker", str(self.folder)],
            env=self.environment | mine,
            stdin=subprocess.PIPE,  # it closes when this process dies
            stdout=self.logs[name],
            stderr=subprocess.STDOUT,
        )

    def tick(self) -> bool:
        """Restarts dead workers; returns whether any is left."""
        for name, process in self.processes.items():
            status = process.poll()
            if status is None or name in self.ended:
                continue
            process.communicate()  # closes its pipe
            if status in (0, GAVE_UP):
                self.ended[name] = status
                continue
            how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            self.on_death(name, how)
            self.deaths[name] += 1
            again = self.deaths[name] < DEATHS_IN_A_ROW
            print(f"worker {name} died, {how}; {'restarted' if again else 'giving up'}", flush=True)
            if again:
                self._start(name)
            else:
                self.ended[name] = status
        return len(self.ended) < len(self.names)

    def lives(self, name: str) -> None:
        """Resets the count of deaths of a worker that ended a trial."""
        if name in self.deaths:
            self.deaths[name] = 0

    def interrupt(self) -> None:
        """Terminates the workers; their trials resume from a checkpoint when the search does."""
        for process in self.processes.values():
            process.terminate()

    def stop(self, seconds: float = 10.0) -> None:
        for process in self.processes.values():
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.communicate()  # closes its pipe
        for log in self.logs.values():
            os.close(log)


def share(index: int, count: int) -> dict[str, str]:
    """A worker's share of this machine: one of several GPUs, else some of the processors."""
    gpus = _gpus()
    if len(gpus) > 1:
        return {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]}
    return {"TUNER_PROCESSORS": f"{index}/{count}"} if count > 1 and not gpus else {}


def _gpus() -> list[str]:
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip()]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(i) for i, line in enumerate(done.stdout.splitlines()) if line.startswith("GPU")]


def take_share() -> None:
    """Pins this process to its share of the processors, if it has one.

    Processes whose threads compete for the same processors are many times slower.
    """
    index, _, count = os.environ.get("TUNER_PROCESSORS", "").partition("/")
    if count and hasattr(os, "sched_setaffinity"):
        every = sorted(os.sched_getaffinity(0))
        size = max(1, len(every) // int(count))
        first = int(index) * size % len(every)
        os.sched_setaffinity(0, every[first : first + size])


def end_with_parent() -> None:
    """Ends this process when its parent dies, for whatever reason."""

    def watch():
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
