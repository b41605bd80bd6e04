"""Runs what is missing of a sweep: `python -m zoo.sweep configs/sweeps/quick.json --out results/quick`."""

import argparse
import contextlib
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import cluster, owned, results, signals, written
from zoo.command import run_command
from zoo.costs import seconds_left, sum_of
from zoo.display import Display
from zoo.environment import SCHEMA
from zoo.errors import UserError
from zoo.process import supervise
from zoo.progress import duration

if TYPE_CHECKING:  # so that --help needs no pydantic
    from zoo.grid import Planned

FOLDERS = ("configs", "logs", "runs")  # of a sweep
FAILED = 1  # exit status where a run failed
WAIT = 2.0  # seconds between two looks at a run that another process is at work on
TIME_TO_SAVE = 15.0  # seconds that a run gets to stop in, before the end of the time budget


def state(out: Path, name: str) -> str:
    """What became of a run of the sweep in a folder: finished, diverged, failed, begun or missing."""
    folder = out / "runs" / name
    if (folder / "metrics.json").exists():
        return results.read_json(folder / "metrics.json", "status")["status"]
    if _failure(out, name).exists():
        return "failed"
    return "begun" if folder.exists() else "missing"


def _failure(out: Path, name: str) -> Path:
    return out / "logs" / f"{name}.failed.json"


class Sweep:
    """The folder of a sweep: `sweep.json`, and for each run a config, a log and the run's own folder.

    Each run is a process of its own, `python -m zoo.train`, so that none can harm another. A lock that it holds for
    as long as it lives keeps other processes off its folder.

    Args:
        out: the folder.
        planned: the runs to make.
        data_dir: where CIFAR-10 lies.
        every: the runs of the sweep, where `planned` are some of them only.
    """

    def __init__(
        self, out: Path, planned: "list[Planned]", data_dir: Path | None, every: "list[Planned] | None" = None
    ):
        self.out, self.planned, self.data_dir, self.every = out, planned, data_dir, every or planned

    def folder(self, run: "Planned") -> Path:
        return self.out / "runs" / run.name

    def state(self, run: "Planned") -> str:
        return state(self.out, run.name)

    def accuracy(self, run: "Planned") -> str:
        path = self.folder(run) / "metrics.json"
        found = results.read_json(path) if path.exists() else {}
        return f"{found['test_accuracy']:.4f}" if "test_accuracy" in found else ""

    def is_done(self, run: "Planned") -> bool:
        return self.state(run) in ("finished", "diverged")

    def prepare(self, sweep: dict[str, Any], every: "list[Planned]") -> None:
        """Makes the folders, and writes down what the sweep is.

        Raises:
            UserError: where a run was made from another config, or its config can't be read; where runs have ended
                under another plan of comparisons.
        """
        self._check_folder()
        for run in every:
            self._check_config(run)
        self._check_plans(sweep.get("plans", {}), every)
        try:
            for name in FOLDERS:
                (self.out / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.out}: no folder can be made here: {error.strerror}") from None
        for name in ("", "configs", "logs"):  # before sweep.json says that this version wrote it
            written.adopt(self.out / name)
        runs = [{"name": run.name, "labels": run.labels, "outputs": run.outputs} for run in every]
        results.write_own_json(self.out / "sweep.json", {"schema": SCHEMA} | sweep | {"runs": runs})

    def _check_folder(self) -> None:
        """Nothing is written into a folder that is in use for anything else, or out of it."""
        for name in FOLDERS:
            owned.check_inside(self.out / name, self.out)
        path = self.out / "sweep.json"
        if path.exists():
            results.read_json(path, "runs")
        elif self.out.exists():
            for found in self.out.iterdir():
                inside = found.iterdir() if found.name in FOLDERS and found.is_dir() else [found]
                if any(path.name != written.MANIFEST for path in inside):
                    raise UserError(f"{self.out}: the folder is not empty and holds no sweep; give another --out")

    def _check_config(self, run: "Planned") -> None:
        from zoo.config import load

        path = self.out / "configs" / f"{run.name}.json"
        if not path.exists():
            return
        then, now = load(path).resolved(), run.config.resolved()  # a field that is new since then has its default
        fields = [k for k in now if k not in ("$schema", "notes") and then[k] != now[k]]
        if fields and self.state(run) != "missing":
            raise UserError(
                f"{self.folder(run)}: this run was made with another {fields[0]} than the sweep now says; give another "
                "--out, or delete the run"
            )

    def _check_plans(self, plans: dict[str, Any], every: "list[Planned]") -> None:
        path = self.out / "sweep.json"
        then = results.read_json(path).get("plans", plans) if path.exists() else plans
        if then != plans and any(map(self.is_done, every)):
            raise UserError(
                f"{path}: comparisons are named before the runs, and runs of this sweep have ended with others; give "
                "another --out"
            )

    def _failure(self, run: "Planned") -> Path:
        return _failure(self.out, run.name)

    @contextlib.contextmanager
    def claim(self, run: "Planned") -> Iterator[int | None]:
        """A lock on a run, to be handed to its process; None where another process has it."""
        import fcntl

        file = owned.open_own(self.out / "runs" / f".{run.name}.lock", os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock: int | None = file
        except BlockingIOError:
            lock = None
        try:
            yield lock
        finally:
            os.close(file)

    def run(self, run: "Planned", lock: int, deadline: float | None, show) -> str:
        """Trains one run, or goes on with it, and returns its state after that.

        Args:
            lock: what `claim` gave.
            deadline: on the monotonic clock, when it is asked to stop.
            show: called with each line that it prints.
        """
        written.remove(self._failure(run))
        folder, config = self.folder(run), self.out / "configs" / f"{run.name}.json"
        if not (folder / "environment.json").exists():  # cut off before it began
            owned.clear_unbegun(folder)
            results.write_own_json(config, run.config.resolved())
            command = [str(config), "--out", str(folder)]
        else:
            command = ["--resume", str(folder)]
        if self.data_dir:
            command += ["--data-dir", str(self.data_dir)]
        whole = [sys.executable, "-m", "zoo.train", *command]
        last, code = supervise(whole, self.log(run), show, [lock], deadline)
        if not self.is_done(run) and code not in (4, 130, -signal.SIGINT):
            self.fail(run, f"killed by signal {-code}" if code < 0 else last, code)
        return self.state(run)

    def log(self, run: "Planned") -> Path:
        return self.out / "logs" / f"{run.name}.txt"

    def fail(self, run: "Planned", reason: str, code: int | None = None) -> None:
        results.write_own_json(self._failure(run), {"status": "failed", "exit_status": code, "reason": reason})

    def say_failures(self) -> bool:
        """Prints why each failed run did; whether there is one."""
        failed = [run for run in self.planned if self.state(run) == "failed"]
        for run in failed:
            reason = results.read_json(self._failure(run), "reason")["reason"]
            print(f"failed: {run.name}: {reason}; {self.out / 'logs' / (run.name + '.txt')}")
        return bool(failed)


def work(sweep: Sweep, backend: str, limit: int | None, deadline: float | None) -> None:
    """Trains runs until none is left, or `limit` were trained, or the deadline has come."""
    trained: set[str] = set()
    said: list[str] = []
    with Display(sweep, backend) as display:
        while True:
            busy = []
            for run in sweep.planned:
                if run.name in trained or sweep.is_done(run):
                    continue
                if len(trained) == limit or (deadline and time.monotonic() > deadline):
                    return
                with sweep.claim(run) as lock:
                    if lock is None:
                        busy.append(run.name)
                    elif not sweep.is_done(run):
                        trained.add(run.name)
                        display.begin(run.name)
                        display.end(run.name, sweep.run(run, lock, deadline, partial(display.show, run.name)))
            if not busy or (deadline and time.monotonic() > deadline):
                return
            if busy != said:
                display.waiting(busy)
            said = busy
            time.sleep(WAIT)


def work_on_ray(sweep: Sweep, backend: str, limit: int | None, deadline: float | None, nodes: cluster.Cluster) -> None:
    """Trains runs as tasks of a cluster until none is left, or `limit` were trained, or the deadline has come."""
    missing = [run for run in sweep.planned if not sweep.is_done(run)][:limit]
    tasks = [
        cluster.Task(run.name, partial(_on_node, sweep.out, run, sweep.data_dir), sweep.log(run)) for run in missing
    ]
    with nodes, Display(sweep, backend) as display:
        nodes.work(tasks, display, deadline)


def _on_node(out: Path, run: "Planned", data_dir: Path | None) -> str:
    """Trains a run on a node of a cluster; its state after that."""
    sweep = Sweep(out, [run], data_dir)
    with sweep.claim(run) as lock:
        if lock is None:
            return cluster.BUSY
        return sweep.state(run) if sweep.is_done(run) else sweep.run(run, lock, None, lambda line: None)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 9m or 2.5h; found {text!r}")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 9) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of runs, 1 or more; found {text!r}")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.sweep", description="Run what is missing of a sweep.")
    parser.add_argument("sweep", type=Path, help="a JSON file, such as configs/sweeps/quick.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the sweep; by default results/NAME")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with CIFAR-10, as for zoo.train")
    parser.add_argument("--dry-run", action="store_true", help="list what is missing and what it would cost")
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="AXIS=LABEL",
        help="only these runs: --only model=lenet activation=relu,arelu",
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="train at most so many runs")
    cluster.add_options(parser)
    parser.add_argument("--time-budget", type=_seconds, metavar="TIME", help="stop cleanly after 90s, 9m or 2.5h")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    from zoo import backend, grid

    nodes = cluster.of(arguments)
    described, every = grid.load(arguments.sweep)
    name = backend.choose()
    out = arguments.out or Path("results") / arguments.sweep.stem
    sweep = Sweep(out, grid.only(every, arguments.only), arguments.data_dir, every)
    if arguments.dry_run:
        return _list(sweep, name)
    sweep.prepare(
        described.model_dump(by_alias=True, exclude={"schema_", "comparisons"})
        | {"plans": grid.plans(arguments.sweep, described), "backend": name, "file": str(arguments.sweep)}
        | {"data_dir": str(arguments.data_dir) if arguments.data_dir else None},
        every,
    )
    budget = arguments.time_budget
    deadline = began + max(0.0, budget - TIME_TO_SAVE) if budget else None
    try:
        with signals.raised():
            if nodes:
                work_on_ray(sweep, name, arguments.limit, deadline, nodes)
            else:
                work(sweep, name, arguments.limit, deadline)
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on with what is in {out}", file=sys.stderr)
        raise
    except OSError as error:  # of a log or a lock: a full disk, a folder that became read-only
        raise UserError(f"{error.filename or out}: can't be written: {error.strerror}") from None
    left = sum(not sweep.is_done(run) for run in sweep.planned)
    print(f"{len(sweep.planned) - left} of {len(sweep.planned)} runs are done, in {out}")
    return FAILED if sweep.say_failures() else 0


def _list(sweep: Sweep, backend: str) -> int:
    left = seconds_left(sweep, backend)
    for run in sweep.planned:
        if run.name in left:
            cost = left[run.name]
            print(f"{sweep.state(run):8} {run.name}: {'not measured yet' if cost is None else duration(cost)}")
    counted = Counter(map(sweep.state, sweep.planned))
    print(", ".join(f"{n} {state}" for state, n in sorted(counted.items())) + f" of {len(sweep.planned)} runs")
    print(f"left: {sum_of(left)} of training, as measured in {sweep.out} on {backend}; each run's start adds to it")
    return 0


if __name__ == "__main__":
    signals.leave(main())
