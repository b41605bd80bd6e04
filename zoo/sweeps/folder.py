"""The folder of a sweep: its runs, their states, and the training of one of them."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import files, folders, manifest
from zoo.environment import SCHEMA
from zoo.errors import UserError
from zoo.process import supervise

if TYPE_CHECKING:  # --help needs no pydantic
    from zoo.sweeps.grid import Planned

FOLDERS = ("configs", "logs", "runs")  # of a sweep


def state(out: Path, name: str) -> str:
    """The state of a run of the sweep in a folder: finished, diverged, failed, begun or missing."""
    folder = out / "runs" / name
    if (folder / "metrics.json").exists():
        return files.read_json(folder / "metrics.json", "status")["status"]
    if _failure(out, name).exists():
        return "failed"
    return "begun" if folder.exists() else "missing"


def _failure(out: Path, name: str) -> Path:
    return out / "logs" / f"{name}.failed.json"


class SweepFolder:
    """The folder of a sweep: `sweep.json`, and for each run a config, a log and the run's own folder.

    Each run is a process of its own, `python -m zoo.train`, so that none can harm another. It holds a lock on its
    folder for as long as it lives.

    Args:
        out: the folder.
        planned: the runs to train.
        data_dir: the folder with CIFAR-10.
        every: all runs of the sweep, if `planned` are some of them.
    """

    def __init__(
        self, out: Path, planned: "list[Planned]", data_dir: Path | None, every: "list[Planned] | None" = None
    ):
        self.out, self.planned, self.data_dir, self.every = out, planned, data_dir, every or planned

    def folder(self, run: "Planned") -> Path:
        return self.out / "runs" / run.name

    def state(self, run: "Planned") -> str:
        return state(self.out, run.name)

    def result(self, run: "Planned") -> str:
        """Of a finished run on test samples, in a few words."""
        path = self.folder(run) / "metrics.json"
        found = files.read_json(path) if path.exists() else {}
        named = (("test_accuracy", "test accuracy"), ("test_r2", "test R²"))
        return next((f", {words} {found[key]:.4f}" for key, words in named if found.get(key) is not None), "")

    def is_done(self, run: "Planned") -> bool:
        return self.state(run) in ("finished", "diverged")

    def prepare(self, sweep: dict[str, Any], every: "list[Planned]") -> None:
        """Creates the folders, and writes sweep.json.

        Raises:
            UserError: if a run was trained with another config, or its config can't be read; if runs have ended that
                this sweep doesn't list, or under other planned comparisons.
        """
        from zoo.config.schema import network

        self._check_folder()
        for run in every:
            self._check_config(run)
        listed = {run.name for run in every}
        for path in sorted((self.out / "runs").glob("*/metrics.json")):
            if path.parent.name not in listed:
                raise UserError(f"{path.parent}: a run that this sweep doesn't list; give another --out, or move it")
        self._check_plans(sweep.get("plans", {}), every)
        try:
            for name in FOLDERS:
                (self.out / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.out}: can't create the folder: {error.strerror}") from None
        for name in ("", "configs", "logs"):  # before sweep.json has this version's schema
            manifest.adopt(self.out / name)
        runs = [
            {"name": run.name, "labels": run.labels, "outputs": run.outputs}
            | {"seed": run.config.training.seeds[0], "network": network(run.config.model)}
            for run in every
        ]
        files.write_own_json(self.out / "sweep.json", {"schema": SCHEMA} | sweep | {"runs": runs})

    def _check_folder(self) -> None:
        """Refuses a folder that is used for anything else, or with links that lead out of it."""
        for name in FOLDERS:
            folders.check_inside(self.out / name, self.out)
        path = self.out / "sweep.json"
        if path.exists():
            files.read_json(path, "runs")
        elif self.out.exists():
            for found in self.out.iterdir():
                inside = found.iterdir() if found.name in FOLDERS and found.is_dir() else [found]
                if any(path.name != manifest.MANIFEST for path in inside):
                    raise UserError(f"{self.out}: the folder is not empty and holds no sweep; give another --out")

    def _check_config(self, run: "Planned") -> None:
        from zoo.config.loading import load

        path = self.out / "configs" / f"{run.name}.json"
        if not path.exists():
            return
        then, now = load(path).resolved(), run.config.resolved()  # newer fields get their defaults
        fields = [k for k in now if k not in ("$schema", "notes") and then[k] != now[k]]
        if fields and self.state(run) != "missing":
            raise UserError(
                f"{self.folder(run)}: this run was trained with another {fields[0]} than the sweep has now; give "
                "another --out, or delete the run"
            )

    def _check_plans(self, plans: dict[str, Any], every: "list[Planned]") -> None:
        path = self.out / "sweep.json"
        then = files.read_json(path).get("plans", plans) if path.exists() else plans
        if then != plans and any(map(self.is_done, every)):
            raise UserError(
                f"{path}: the comparisons have changed since runs of this sweep ended, and are planned in "
                "advance; give another --out"
            )

    def _failure(self, run: "Planned") -> Path:
        return _failure(self.out, run.name)

    @contextlib.contextmanager
    def claim(self, run: "Planned") -> Iterator[int | None]:
        """A lock on a run, for its process to inherit; None if another process holds it."""
        import fcntl

        file = folders.open_own(self.out / "runs" / f".{run.name}.lock", os.O_RDWR)
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
        """Trains or resumes a run, and returns its new state.

        Args:
            lock: from `claim`.
            deadline: on the monotonic clock, when to ask it to stop.
            show: called with each line that it prints.
        """
        manifest.remove(self._failure(run))
        folder, config = self.folder(run), self.out / "configs" / f"{run.name}.json"
        if not (folder / "environment.json").exists():  # killed before it began
            folders.clear_unbegun(folder)
            files.write_own_json(config, run.config.resolved(config.parent))
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
        files.write_own_json(self._failure(run), {"status": "failed", "exit_status": code, "reason": reason})

    def say_failures(self) -> bool:
        """Prints why runs failed; returns whether any did."""
        failed = [run for run in self.planned if self.state(run) == "failed"]
        for run in failed:
            reason = files.read_json(self._failure(run), "reason")["reason"]
            print(f"failed: {run.name}: {reason}; {self.out / 'logs' / (run.name + '.txt')}")
        return bool(failed)
