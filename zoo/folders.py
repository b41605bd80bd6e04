"""What the software wrote itself, and may therefore remove or replace: nothing else, and nothing behind a link.

A run's files are known by their names, in a folder that was empty when the run began. Elsewhere, beside files of
others, a manifest in the folder lists what was written there; `written.py` keeps it.
"""

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from zoo.errors import UserError

BEFORE = ("config.json", "environment.json")  # what a run writes first; the second makes it a run
TABLES = ("history.csv", "timing.csv", "mixing_weights.csv", "parameters.csv")
ENDS = ("checkpoint.npz", "model.keras", "predictions.npz", "card.md", "metrics.json", "summary.json")
FILES = (*BEFORE, "preprocessing.json", *TABLES, *ENDS)
LOCK = ".lock"  # in the folder of a run for as long as a process trains there


def is_file(path: Path) -> bool:
    """Whether that is a regular file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def unfinished(names: Iterable[str]) -> str:
    """What `results.write_whole` calls files while it writes them, as a pattern."""
    return rf"\.[0-9]+\.({'|'.join(map(re.escape, names))})"


def remove(folder: Path, pattern: str) -> None:
    """Removes the files of a folder whose whole name matches; links stay, and so does all that is behind one."""
    if folder.is_symlink():
        return
    for path in folder.iterdir():
        if is_file(path) and re.fullmatch(pattern, path.name):
            with contextlib.suppress(OSError):  # a folder that is read-only
                path.unlink()


def remove_unfinished(folder: Path) -> None:
    """Removes what was left in the folder of a run when it was cut off while it wrote a file."""
    remove(folder, unfinished(FILES))


def clear_unbegun(folder: Path) -> None:
    """Empties the folder of a run that was cut off before it began.

    Raises:
        UserError: where it is a link, or holds anything but what such a run wrote.
    """
    mine = "|".join([re.escape(LOCK), re.escape(BEFORE[0]), unfinished(BEFORE)])
    check_run(folder, mine)
    if folder.exists():
        remove(folder, mine)


def check_run(folder: Path, mine: str) -> None:
    """
    Raises:
        UserError: where the folder of a run is a link, or holds anything that doesn't match a pattern; folders in it
            match with a slash at their end.
    """
    if folder.is_symlink():
        raise UserError(f"{folder}: a link where a run has its folder; nothing is written through it")
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        kind = "" if is_file(path) else "/" if path.is_dir() and not path.is_symlink() else "?"
        if not re.fullmatch(mine, path.name + kind):
            raise UserError(f"{path}: not written by a run, and nothing of others is removed; move it, or give --out")


def check_inside(path: Path, folder: Path) -> Path:
    """
    Raises:
        UserError: where a link, or a name such as `..`, leads out of a folder.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path}: leads out of {folder}; nothing is written there")
    return path


def open_own(path: Path, flags: int) -> int:
    """Opens a file to be locked or added to, made where it is missing, and never through a link.

    Raises:
        UserError: where it is a link, or can't be written.
    """
    try:
        file = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        is_link = path.is_symlink()
        why = "a link, and nothing is written through it" if is_link else f"can't be written: {error.strerror}"
        raise UserError(f"{path}: {why}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise UserError(f"{path}: a pipe or a device, and no file of this software's; move it")
    return file


@contextlib.contextmanager
def locked(folder: Path, at_work: str = "this run is being trained by") -> Iterator[None]:
    """Keeps other processes off a folder; the lock of a process that died doesn't count.

    Raises:
        UserError: where another process has it, with its number and since when; where the file isn't a lock.
    """
    import fcntl

    path = folder / LOCK
    while True:
        file = open_own(path, os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = _holder(file) or "another process"
            os.close(file)
            raise UserError(f"{folder}: {at_work} {said}; wait until that ends, or stop it") from None
        except OSError:  # a file system without locks
            os.close(file)
            yield
            return
        if path.exists() and path.stat().st_ino == os.fstat(file).st_ino:
            break
        os.close(file)  # it was removed by the one who held it until now
    if os.fstat(file).st_size and not _holder(file):
        os.close(file)
        raise UserError(f"{path}: not the lock of a run, and nothing of others is overwritten; move it")
    try:
        os.ftruncate(file, 0)
        content = {"process": os.getpid(), "host": os.uname().nodename, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.pwrite(file, json.dumps(content).encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(file)


def _holder(file: int) -> str:
    """Who wrote a lock; "" for a file that is none."""
    try:
        found = json.loads(os.pread(file, 1000, 0))
        return f"process {int(found['process'])} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
