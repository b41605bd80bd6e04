"""A command as a process of its own: watched to its end, stopped with whoever waits for it, gone when that one is."""

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

PARENT = "ZOO_PARENT"  # the process without which a command stops
LOOK = 1.0  # seconds between two looks for it


def supervise(
    command: Sequence[str],
    log: Path,
    show: Callable[[str], None],
    keep: Sequence[int] = (),
    deadline: float | None = None,
) -> tuple[str, int]:
    """The last line that a command prints, and its exit status.

    Whatever interrupts this, Ctrl-C for one, asks the command to stop, and waits until it has.

    Args:
        command: with its arguments; it is told whose it is, see `stop_without_parent`.
        log: file that gets what it prints.
        show: called with each line.
        keep: open files that it inherits.
        deadline: on the monotonic clock, when it is asked to stop.
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
    pipe |= {"pass_fds": keep, "env": dict(os.environ) | {PARENT: str(os.getpid())}}
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
    """In short steps: an exception from another thread gets in between, and not into a wait without end."""
    while True:
        try:
            process.wait(LOOK)
            return
        except subprocess.TimeoutExpired:
            if deadline and time.monotonic() > deadline:
                process.terminate()


def _stop(process: subprocess.Popen) -> None:
    """Asks it to save and stop, and waits until it has; kills it where that is interrupted again."""
    process.terminate()
    if process.poll() is None:
        print("waiting for what runs to save and stop; once more kills it", file=sys.stderr, flush=True)
    try:
        process.wait()
    except KeyboardInterrupt:
        process.kill()


def stop_without_parent() -> None:
    """Sends this process SIGTERM, on which runs save and stop, once the one named in its environment is gone."""
    if not (parent := os.environ.get(PARENT)):
        return

    def watch():
        while os.getppid() == int(parent):
            time.sleep(LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
