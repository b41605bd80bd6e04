"""Attacks of `robustness.py` on processes: signals, kills, and two at once."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
QUICK = ROOT / "configs" / "quickstart.json"
EXPECTED = {signal.SIGTERM: 4, signal.SIGINT: 130}
LONG = 15.0  # seconds into a command at most, when a signal comes
SMALL = ["dataset.limit=96", "dataset.test_limit=40", "training.batch_size=16", "training.epochs=8"]
SMALL += ['activation={"name":"method1"}', "metrics.report_batch=10"]
SAME = ("history.csv", "mixing_weights.csv", "parameters.csv", "preprocessing.json", "config.json")
OF_THE_MACHINE = ("seconds", "images_per_second", "peak_memory_mb")


def signals(count: int, rng: random.Random) -> Counter:
    """Commands sent SIGTERM or SIGINT at random moments from 0.2 s on: status, no traceback, no process left."""
    found: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder, "sweep.json")
        described = {"base": str(QUICK), "set": {"training.epochs": 400}, "axes": {"activation": ["relu"]}}
        sweep.write_text(json.dumps(described))
        for i in range(count):
            out, sent = Path(folder, str(i)), rng.choice(list(EXPECTED))
            train = ["zoo.train", str(QUICK), "--set", "training.epochs=400", "--out", str(out)]
            name, *words = rng.choice([train, train, ["zoo.sweep", str(sweep), "--out", str(out)]])
            command = [sys.executable, "-m", name, *words]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
                time.sleep(rng.uniform(0.2, LONG))
                run.send_signal(sent)
                _, said = run.communicate()
            if run.returncode == 0:
                found["finished before"] += 1
            elif run.returncode != EXPECTED[sent] or "Traceback" in said:
                found[f"failed: {name}: {sent.name} gave {run.returncode}: {said[-200:]}"] += 1
            elif _lives(str(out)):
                found[f"failed: {name}: {sent.name} left a process"] += 1
            else:
                found[f"stopped {name}"] += 1
    return found


def _lives(word: str) -> bool:
    """Whether a process has a word on its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word in path.read_bytes().decode(errors="replace").split("\0"):
                return True
        except OSError:
            continue
    return False


def _forked(call: Callable[[], int], log: Path) -> int:
    """A process that does it, forked from this one, which has imported Keras and computed nothing; its number."""
    if child := os.fork():
        return child
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    status = 99
    try:
        status = call()
    finally:
        os._exit(status)


def _status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _train(*words: str) -> Callable[[], int]:
    from zoo import train

    return lambda: train.main([str(word) for word in words])


def _begun(out: Path) -> Sequence[str]:
    """The command line that begins or resumes a small run."""
    if (out / "environment.json").exists():
        return ["--resume", str(out)]
    shutil.rmtree(out, ignore_errors=True)
    return [str(QUICK), "--set", *SMALL, "--out", str(out)]


def kills(count: int, rng: random.Random) -> Counter:
    """Small runs killed by SIGKILL at random moments, again and again, and resumed: the same bytes as without."""
    from zoo import backend

    backend.load()
    import zoo.training  # noqa: F401 - so that forks begin at once

    found: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        log, alone = Path(folder, "log"), Path(folder, "alone")
        for out in (Path(folder, "first"), alone):  # the first compiles what later ones may find in caches
            began = time.monotonic()
            if status := _status(_forked(_train(*_begun(out)), log)):
                raise SystemExit(f"the run alone ended with {status}: {log.read_text()[-500:]}")
            lasts = time.monotonic() - began
        print(f"a run alone takes {lasts:.1f} s", flush=True)
        killed = runs = 0
        while killed < count:
            out, hits = Path(folder, f"run{runs}"), 0
            status = -signal.SIGKILL
            while status == -signal.SIGKILL:
                child = _forked(_train(*_begun(out)), log)
                if killed < count and hits < 12:
                    time.sleep(rng.uniform(0.05, lasts))
                    os.kill(child, signal.SIGKILL)
                status = _status(child)
                hits += status == -signal.SIGKILL
                killed += status == -signal.SIGKILL
            runs += 1
            wrong = f"status {status}" if status else _differs(out, alone)
            found[f"failed: {wrong}" if wrong else "killed, and the same bytes"] += max(bool(wrong), hits)
            shutil.rmtree(out)
    return found


def _differs(run: Path, other: Path) -> str:
    from zoo import files

    for name in SAME:
        if (run / name).read_bytes() != (other / name).read_bytes():
            return f"other bytes of {name}"
    metrics: list[dict[str, Any]] = [files.read_json(folder / "metrics.json") for folder in (run, other)]
    for found in metrics:
        for name in OF_THE_MACHINE:
            found.pop(name)
    return "" if metrics[0] == metrics[1] else "another metrics.json"


def pairs(count: int, rng: random.Random) -> Counter:
    """Two processes at once that begin or resume one run: one trains, the other says who does, with status 2."""
    from zoo import backend

    backend.load()
    import zoo.training  # noqa: F401

    found: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            out, logs = Path(folder, f"run{i}"), [Path(folder, f"log{i}-{j}") for j in range(2)]
            if i % 2:  # there is something to resume
                child = _forked(_train(*_begun(out)), Path(folder, "log"))
                while not (out / "checkpoint.npz").exists():
                    time.sleep(0.05)
                os.kill(child, signal.SIGKILL)
                _status(child)
            words = _begun(out)
            children = [_forked(_train(*words), log) for log in logs]
            statuses = [_status(child) for child in children]
            said = [log.read_text().strip().splitlines()[-1:] for log in logs]
            refused = said[statuses.index(2)][0] if 2 in statuses else ""
            if sorted(statuses) == [0, 2] and refused.startswith("error: "):
                found["resumed by one" if i % 2 else "begun by one"] += 1
            elif statuses == [0, 0] and i % 2:
                found["one after the other"] += 1
            else:
                found[f"failed: {statuses}: {said}"] += 1
    return found
