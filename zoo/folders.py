"""The folders of runs: their files, their lock, and what may be removed from them.

Only files that this software wrote are removed or replaced, and none through a link. A run's folder was empty when the
run began, so its files are known by name. In folders that may hold the user's files, `manifest.py` lists ours.
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

BEFORE = ("config.json", "environment.json")  # what a run writes first; with the second it has begun
TABLES = ("history.csv", "timing.csv", "mixing_weights.csv", "parameters.csv")
ENDS = ("checkpoint.npz", "model.keras", "predictions.npz", "card.md", "metrics.json", "summary.json")
FILES = (*BEFORE, "preprocessing.json", *TABLES, *ENDS)
LOCK = ".lock"  # in the folder of a run while a process trains there


def is_file(path: Path) -> bool:
    """Whether the path is a regular file, not a link."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def unfinished(names: Iterable[str]) -> str:
    """A pattern for the temporary files of `files.write_whole`."""
    return rf"\.[0-9]+\.({'|'.join(map(re.escape, names))})"


def remove(folder: Path, pattern: str) -> None:
    """Removes the files of a folder whose full name matches; never links, or anything behind one."""
    if folder.is_symlink():
        return
    for path in folder.iterdir():
        if is_file(path) and re.fullmatch(pattern, path.name):
            with contextlib.suppress(OSError):  # a read-only folder
                path.unlink()


def remove_unfinished(folder: Path) -> None:
    """Removes the temporary files of a run that was killed while writing."""
    remove(folder, unfinished(FILES))


def clear_unbegun(folder: Path) -> None:
    """Empties the folder of a run that was killed before it began.

    Raises:
        UserError: if it is a link, or holds anything that such a run doesn't write.
    """
    mine = "|".join([re.escape(LOCK), re.escape(BEFORE[0]), unfinished(BEFORE)])
    check_run(folder, mine)
    if folder.exists():
        remove(folder, mine)


def check_run(folder: Path, mine: str) -> None:
    """
    Raises:
        UserError: if the folder of a run is a link, or holds anything that doesn't match the pattern; names of folders
            in it end with a slash.
    """
    if folder.is_symlink():
        raise UserError(f"{folder}: the folder of a run can't be a link; move it")
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        kind = "" if is_file(path) else "/" if path.is_dir() and not path.is_symlink() else "?"
        if not re.fullmatch(mine, path.name + kind):
            raise UserError(f"{path}: not a file of a run; move it, or give another --out")


def check_inside(path: Path, folder: Path) -> Path:
    """
    Raises:
        UserError: if the path leads out of the folder, by a link or `..`.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path}: this leads out of {folder}")
    return path


def open_own(path: Path, flags: int) -> int:
    """Opens a file for locking or appending, creates it if it is missing, and never follows a link.

    Raises:
        UserError: if it is a link, or can't be written.
    """
    try:
        file = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        is_link = path.is_symlink()
        why = "this is a link; move it" if is_link else f"can't be written: {error.strerror}"
        raise UserError(f"{path}: {why}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise UserError(f"{path}: not a regular file; move it")
    return file


@contextlib.contextmanager
def locked(folder: Path, at_work: str = "this run is being trained by") -> Iterator[None]:
    """Locks a folder against other processes; the lock of a dead process doesn't count.

    Raises:
        UserError: if another process holds the lock, with its ID and since when; if the file isn't a lock.
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
            raise UserError(f"{folder}: {at_work} {said}; wait for it, or stop it") from None
        except OSError:  # a file system without locks
            os.close(file)
            yield
            return
        if path.exists() and path.stat().st_ino == os.fstat(file).st_ino:
            break
        os.close(file)  # its holder has removed it meanwhile
    if os.fstat(file).st_size and not _holder(file):
        os.close(file)
        raise UserError(f"{path}: not a lock file of a run; move it")
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
    """The process that wrote a lock file; "" if it isn't one."""
    try:
        found = json.loads(os.pread(file, 1000, 0))
        return f"process {int(found['process'])} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
