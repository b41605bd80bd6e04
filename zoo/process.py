"""Commands as child processes: supervised to their end, and stopped when their parent stops or dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zoo import manifest
from zoo.environment import ROOT

PARENT = "ZOO_PARENT"  # ID of the parent, whose death stops the command
LOOK = 1.0  # seconds between two checks


def supervise(
    command: Sequence[str],
    log: Path,
    show: Callable[[str], None],
    keep: Sequence[int] = (),
    deadline: float | None = None,
) -> tuple[str, int]:
    """Runs a command; returns the last line that it prints, and its exit status.

    If this is interrupted, by Ctrl-C for example, it asks the command to stop and waits for it.

    Args:
        command: with its arguments; it can call `stop_without_parent`.
        log: file for its output.
        show: called with each line of output.
        keep: file descriptors that it inherits.
        deadline: on the monotonic clock, when to ask it to stop.
    """
    lines = [""]

    def read():
        for line in process.stdout or ():
            file.write(line)
            file.flush()
            if line.strip():
                lines[0] = line.strip()
                show(lines[0])

    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    pipe |= {"pass_fds": keep, "env": dict(os.environ) | {PARENT: str(os.getpid()), "PYTHONPATH": path}}
    opened = manifest.open_log(log)
    with open(opened, "a", encoding="utf-8") as file, subprocess.Popen(command, **pipe) as process:  # noqa: PTH123
        reader = threading.Thread(target=read)
        try:
            reader.start()
            _wait(process, deadline)
        except BaseException:
            _stop(process)
            raise
        finally:
            process.wait()
            reader.join()
        return lines[0], process.returncode


def _wait(process: subprocess.Popen, deadline: float | None) -> None:
    """Waits in short steps, so that an exception from another thread can be raised in between."""
    while True:
        try:
            process.wait(LOOK)
            return
        except subprocess.TimeoutExpired:
            if deadline and time.monotonic() > deadline:
                process.terminate()


def _stop(process: subprocess.Popen) -> None:
    """Asks the process to save and stop, and waits for it; a second interrupt kills it."""
    process.terminate()
    if process.poll() is None:
        print("waiting for the run to save and stop; interrupt again to kill it", file=sys.stderr, flush=True)
    try:
        process.wait()
    except KeyboardInterrupt:
        process.kill()


def stop_without_parent() -> None:
    """Has this process receive SIGTERM, on which a run saves and stops, once its parent is gone."""
    if not (parent := os.environ.get(PARENT)):
        return

    def watch():
        while os.getppid() == int(parent):
            time.sleep(LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
