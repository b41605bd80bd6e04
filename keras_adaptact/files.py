"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike, write: Callable[[Path], Any]) -> None:
    """Has `write` fill a file beside `path`, then renames it: a reader sees the old file or the new one."""
    path = Path(path)
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        with suppress(OSError):  # a file system that became read-only: the error above says it
            unfinished.unlink(missing_ok=True)
