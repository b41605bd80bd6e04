"""Tasks on a Ray cluster (https://docs.ray.io), each a process on some node; restarted if the node dies."""

import argparse
import contextlib
import os
import re
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zoo.errors import UserError, first_line

HERE = "local"  # the address that starts Ray on this machine
BUSY = "busy"  # returned by a task if another process is working on it
DEATHS = 3  # of its nodes after which a task has failed
LOOK, AGAIN = 0.5, 5.0  # seconds between two checks of tasks, and before a busy one is retried
TIME_TO_SAVE = 60.0  # seconds for tasks to save and stop
PASSED_ON = (
    "KERAS",
    "ZOO_TRUST",
    "JAX",
    "XLA",
    "TF_",
    "TORCH",
    "OMP_",
    "MKL_",
    "CUDA_",
    "NCCL",
)  # variables that a run depends on
THREADS = ("OMP_NUM_THREADS", "NPROC", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")  # of torch, JAX, TensorFlow
ROOT = Path(__file__).parents[2]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray",
        nargs="?",
        const=HERE,
        metavar="ADDRESS",
        help="train each run as a task of the Ray cluster at ADDRESS, or auto; without one, start Ray on this machine",
    )
    parser.add_argument("--cpus-per-run", type=_cpus, metavar="N", help="with --ray; by default 1")
    parser.add_argument(
        "--gpus-per-run", type=_gpus, metavar="N", help="with --ray; by default 1 if the cluster has GPUs, else 0"
    )


def of(arguments: argparse.Namespace) -> "Cluster | None":
    """The cluster of the command-line options, if any.

    Raises:
        UserError: for resources of a run without a cluster.
    """
    if arguments.ray:
        return Cluster(arguments.ray, arguments.cpus_per_run or 1, arguments.gpus_per_run)
    if arguments.cpus_per_run or arguments.gpus_per_run is not None:
        raise UserError("--cpus-per-run and --gpus-per-run need --ray")
    return None


def _cpus(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"expected a number of CPUs, 1 or more; found {text!r}")
    return int(text)


def _gpus(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}|0?\.[0-9]{1,4}", text):
        raise argparse.ArgumentTypeError(f"expected a number of GPUs, such as 0, 1 or 0.5; found {text!r}")
    return float(text)


@dataclass
class Task:
    """Work for one node.

    Attributes:
        name: for messages.
        call: does the work on the node, and returns its state, or BUSY. It is pickled, with all that it refers to.
        log: the file that its process writes, on a file system that the nodes share.
    """

    name: str
    call: Callable[[], str]
    log: Path
    deaths: int = 0
    not_before: float = 0.0
    _seen: int = field(default=0, repr=False)

    def begin(self) -> None:
        self._seen = self.log.stat().st_size if self.log.exists() else 0

    def news(self) -> str:
        """The last line of the log since the previous call."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(self._seen)
            whole, end, _ = file.read().rpartition(b"\n")
            self._seen += len(whole) + len(end)
            return next((line.strip() for line in reversed(whole.decode(errors="replace").splitlines()) if line), "")
        return ""


class Watcher(Protocol):
    """Is notified of the progress of tasks."""

    def begin(self, name: str) -> None: ...
    def show(self, name: str, line: str) -> None: ...
    def end(self, name: str, state: str) -> None: ...
    def again(self, name: str, why: str) -> None: ...
    def fail(self, name: str, why: str) -> None: ...


class Cluster:
    """A Ray cluster, as a context.

    Args:
        address: of its head; "auto" for the cluster that this machine belongs to; HERE to start one on this machine
            alone, which admits clients with its token only.
        cpus: of a task.
        gpus: of a task; None: one if some node has any.

    Raises:
        UserError: if it can't be reached, or Ray isn't installed.
    """

    def __init__(self, address: str, cpus: int = 1, gpus: float | None = None):
        self.address, self.cpus, self.gpus = address, cpus, gpus

    def __enter__(self) -> "Cluster":
        if self.address == HERE:
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError:
            raise UserError("--ray: the package ray is not installed; pip install '.[cluster]'") from None
        self.ray = ray
        before = signal.getsignal(signal.SIGTERM)
        options = {"include_dashboard": False} if self.address == HERE else {}
        try:
            ray.init(self.address, log_to_driver=False, logging_level="ERROR", **options)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            first = first_line(error) or type(error).__name__
            raise UserError(f"--ray {self.address}: can't reach the cluster: {first}") from None
        signal.signal(signal.SIGTERM, before)  # Ray installs its own handler
        if self.gpus is None:
            self.gpus = min(1.0, ray.cluster_resources().get("GPU", 0.0))
        self._check_size()
        return self

    def __exit__(self, *_) -> None:
        self.ray.shutdown()

    def _check_size(self) -> None:
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= (self.gpus or 0) for node in nodes):
            print(f"waiting for a node with {self.cpus} CPUs and {self.gpus:g} GPUs for a run", flush=True)

    def work(self, tasks: Sequence[Task], watcher: Watcher, deadline: float | None = None) -> bool:
        """Runs tasks until all are done, or until the deadline; returns whether all are done.

        At the deadline, and if this is interrupted, it asks the running tasks to stop and waits for them.
        """
        waiting, begun = deque(tasks), set[str]()
        running: dict[Any, Task] = {}
        do = self._remote()
        try:
            while waiting or running:
                now = time.monotonic()
                if deadline and now > deadline:
                    return False
                for task in [task for task in waiting if task.not_before <= now]:
                    waiting.remove(task)
                    task.begin()
                    running[do.remote(str(Path.cwd()), self.cpus, task.call)] = task
                if not running:
                    time.sleep(LOOK)
                    continue
                done, _ = self.ray.wait(list(running), timeout=LOOK)
                for task in running.values():
                    _report(task, watcher, begun)
                for reference in done:
                    waiting.extend(self._end(reference, running.pop(reference), watcher))
            return True
        finally:
            self._stop(list(running))

    def _remote(self):
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return self.ray.remote(_do).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_retries=0,  # retries are counted and reported here
            runtime_env={"env_vars": passed | {"PYTHONPATH": path}},
        )

    def _end(self, reference, task: Task, watcher: Watcher) -> Iterator[Task]:
        """Reports how a task ended; yields it if it is to be repeated."""
        errors = self.ray.exceptions
        try:
            state = self.ray.get(reference)
        except errors.RayTaskError as error:
            watcher.fail(task.name, f"{type(error.cause).__name__}: {error.cause}")
        except errors.RayError as error:
            task.deaths += 1
            why = f"its node died ({type(error).__name__})"
            if task.deaths < DEATHS:
                watcher.again(task.name, f"{why}; restarting")
                yield task
            else:
                watcher.fail(task.name, f"{why}, {task.deaths} times")
        else:
            if state == BUSY:
                watcher.again(task.name, "another process is working on it")
                task.not_before = time.monotonic() + AGAIN
                yield task
            else:
                watcher.end(task.name, state)

    def _stop(self, references: list) -> None:
        for reference in references:
            self.ray.cancel(reference)
        if references:
            self.ray.wait(references, num_returns=len(references), timeout=TIME_TO_SAVE)


def _report(task: Task, watcher: Watcher, begun: set[str]) -> None:
    if line := task.news():
        if task.name not in begun:
            begun.add(task.name)
            watcher.begin(task.name)
        watcher.show(task.name, line)


def _do(folder: str, cpus: int, call: Callable[[], str]) -> str:
    """Runs a task on a node, in the given folder and with as many threads as CPUs."""
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ray cancels by it; a cluster begun by `&` ignores it
    for name in THREADS:
        os.environ.setdefault(name, str(cpus))
    return call()
