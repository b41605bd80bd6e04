"""Handles SIGTERM and Ctrl-C from the start of a command; so this imports nothing slow."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

STOPPED, INTERRUPTED = 4, 130  # exit status
UNFINISHED: set[Path] = set()  # files that are being written


class Stop(KeyboardInterrupt):
    """SIGTERM came."""


class _Stderr:
    number = 2  # a copy of it while `backend.load` filters stderr


stderr = _Stderr()


def at_start() -> None:
    """Until a command installs other handlers, ends the process at once, with a message and a status."""
    signal.signal(signal.SIGTERM, lambda number, frame: _leave("stopped", STOPPED))
    signal.signal(signal.SIGINT, lambda number, frame: _leave("interrupted", INTERRUPTED))


def _leave(line: str, status: int) -> None:
    for path in list(UNFINISHED):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.write(stderr.number, f"{line}\n".encode())
    os._exit(status)  # an exception might be caught by a module that is being imported


Handler = Callable[[int, FrameType | None], Any]


@contextlib.contextmanager
def handled(term: Handler, interrupt: Handler) -> Iterator[None]:
    """Handles SIGTERM and Ctrl-C within the context."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, term)
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raised() -> contextlib.AbstractContextManager[None]:
    """Within the context SIGTERM raises `Stop`, and Ctrl-C `KeyboardInterrupt`."""

    def stop(number, frame):
        raise Stop

    return handled(stop, signal.default_int_handler)


def leave(status: int) -> None:
    """Exits; at once if the command was stopped, whatever threads of a backend still run."""
    if status in (STOPPED, INTERRUPTED):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(status)
    sys.exit(status)
