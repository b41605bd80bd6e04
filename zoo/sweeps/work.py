"""Trains the missing runs of a sweep: one after another on this machine, or as tasks of a cluster."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import signals
from zoo.errors import UserError
from zoo.sweeps import cluster
from zoo.sweeps.display import Display
from zoo.sweeps.folder import SweepFolder

if TYPE_CHECKING:
    from zoo.sweeps.grid import Planned

TIME_TO_SAVE = 15.0  # seconds of the time budget for a run to save and stop
WAIT = 2.0  # seconds before a run that another process trains is checked again


def train(
    sweep: SweepFolder, backend: str, limit: int | None, deadline: float | None, nodes: cluster.Cluster | None
) -> None:
    """Trains runs, here or on a cluster, until none is left, or `limit` were trained, or the deadline has come.

    Raises:
        UserError: if a log or a lock can't be written.
    """
    try:
        with signals.raised():
            if nodes:
                work_on_ray(sweep, backend, limit, deadline, nodes)
            else:
                work(sweep, backend, limit, deadline)
    except KeyboardInterrupt:
        print(f"interrupted; the same command resumes the sweep in {sweep.out}", file=sys.stderr)
        raise
    except BrokenPipeError:  # whoever read what is printed is gone
        raise
    except OSError as error:  # a log or a lock can't be written: a full disk, a read-only folder
        raise UserError(f"{error.filename or sweep.out}: can't write it: {error.strerror}") from None


def work(sweep: SweepFolder, backend: str, limit: int | None, deadline: float | None) -> None:
    """Trains runs until none is left, `limit` were trained, or the deadline has passed."""
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


def work_on_ray(
    sweep: SweepFolder, backend: str, limit: int | None, deadline: float | None, nodes: cluster.Cluster
) -> None:
    """Trains runs as tasks of a cluster until none is left, `limit` were trained, or the deadline has passed."""
    missing = [run for run in sweep.planned if not sweep.is_done(run)][:limit]
    tasks = [
        cluster.Task(run.name, partial(_on_node, sweep.out, run, sweep.data_dir), sweep.log(run)) for run in missing
    ]
    with nodes, Display(sweep, backend) as display:
        nodes.work(tasks, display, deadline)


def _on_node(out: Path, run: "Planned", data_dir: Path | None) -> str:
    """Trains a run on a node of a cluster; returns its new state."""
    sweep = SweepFolder(out, [run], data_dir)
    with sweep.claim(run) as lock:
        if lock is None:
            return cluster.BUSY
        return sweep.state(run) if sweep.is_done(run) else sweep.run(run, lock, None, lambda line: None)
