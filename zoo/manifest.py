"""The manifest of a folder: the names of the files that the software wrote there, a line of JSON for each.

A report or an evaluation is listed with a digest: once its user has edited it, it is the user's. Folders of version
0.1.0 have no manifest, nor a number of their schema; there, what it wrote is known by name.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from zoo import folders
from zoo.errors import UserError

MANIFEST = ".written.jsonl"
FIRST = json.dumps({"written by": "keras_adaptact", "holds": "the names of its files in this folder"})
OLDER = {  # a file that tells what a folder is, and what version 0.1.0 wrote there beside the files of a run
    "environment.json": r"(evaluation|confusion)-(train|validation|test)\.(json|png)",
    "../environment.json": r"events\.out\.tfevents\..*",
    "sweep.json": r"sweep\.json",
    "../sweep.json": r"[A-Za-z0-9._-]+\.(json|txt)",
    "search.json": r"(search|base|best|ended|journal)\.json|journal\.jsonl|tuner[A-Za-z0-9 ._-]*\.(json|log)",
    "../search.json": r"[0-9]+(\.deaths|\.config)?\.(json|log)",
}
REPORT = "report.html", '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>'
OF_REPORT = r"report\.(md|html)|.+\.(csv|png|svg)"


def check(paths: Iterable[Path]) -> None:
    """
    Raises:
        UserError: where a file that is to be written is there, and isn't the software's own.
    """
    known: dict[Path, Mapping[str, set[str]]] = {}
    for path in paths:
        listed = known.setdefault(path.parent, _listed(path.parent))
        if why := _not_own(path, listed):
            raise UserError(f"{path}: {why}, and nothing of others is overwritten; move it, or give another folder")


def claim(path: Path, content: Path | None = None) -> None:
    """Before a file is written or added to: it is the software's own from now on.

    Args:
        path: of the file.
        content: where it is written so far; then the file is its own only for as long as nobody edits it.

    Raises:
        UserError: where it is there, and isn't its own.
    """
    check([path])
    adopt(path.parent)
    digest = _digest(content) if content else ""
    if digest not in _listed(path.parent).get(path.name, ()):
        _add(path.parent, [[path.name, digest]])


def adopt(folder: Path) -> None:
    """Begins the manifest of a folder, with what version 0.1.0 wrote there."""
    if folder.is_dir() and not (folder / MANIFEST).exists():
        _add(folder, [[name, ""] for name in _listed(folder)])


def note(folder: Path, names: Iterable[str]) -> None:
    """Lists files that are new, and whose names others choose."""
    _add(folder, [[name, ""] for name in names])


def remove(path: Path) -> None:
    """Removes a file of the software's own, where it is there.

    Raises:
        UserError: where it isn't its own.
    """
    check([path])
    path.unlink(missing_ok=True)


def own(folder: Path) -> list[Path]:
    """The software's own files in a folder."""
    listed = _listed(folder)
    return [folder / name for name in listed if folders.is_file(folder / name) and not _not_own(folder / name, listed)]


def open_log(path: Path) -> int:
    """Opens a log to be added to."""
    claim(path)
    return folders.open_own(path, os.O_WRONLY | os.O_APPEND)


def _not_own(path: Path, listed: Mapping[str, set[str]]) -> str:
    """Why a file is not the software's own; "" where it is, or isn't there."""
    if path.is_symlink():
        return "a link"
    if not path.exists():
        return ""
    if not folders.is_file(path) or path.name not in listed:
        return "not written by this software"
    digests = listed[path.name]
    return "" if "" in digests or _digest(path) in digests else "edited since it was written"


def _listed(folder: Path) -> dict[str, set[str]]:
    """The names of its own files, and the digests that each may have; "" stands for any."""
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return {name: {""} for name in _older(folder)}
    found: dict[str, set[str]] = {}
    try:
        if not folders.is_file(path) or not (content := path.read_text(encoding="utf-8")).startswith(FIRST):
            raise ValueError
    except (OSError, ValueError):
        raise UserError(f"{path}: not the list of the files that were written here; move it") from None
    for line in content.splitlines():
        with contextlib.suppress(ValueError, TypeError):  # one that was cut off lists nothing
            name, digest = json.loads(line)
            found.setdefault(name, set()).add(digest)
    return found


def _older(folder: Path) -> list[str]:
    """The names of the files that version 0.1.0 wrote."""
    patterns = [pattern for marker, pattern in OLDER.items() if _is_of_0_1_0(folder / marker)]
    with contextlib.suppress(OSError, ValueError):
        if (folder / REPORT[0]).read_text(encoding="utf-8").startswith(REPORT[1]):
            patterns.append(OF_REPORT)
    if not patterns:
        return []
    return [path.name for path in folder.iterdir() if folders.is_file(path) and _is_any(patterns, path.name)]


def _is_any(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _is_of_0_1_0(marker: Path) -> bool:
    try:
        return "schema" not in json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _add(folder: Path, lines: Iterable[list[str]]) -> None:
    file = folders.open_own(folder / MANIFEST, os.O_RDWR | os.O_APPEND)
    try:
        size = os.fstat(file).st_size
        cut = size and os.pread(file, 1, size - 1) != b"\n"
        first = [] if size else [FIRST]
        text = "\n" * bool(cut) + "".join(f"{line}\n" for line in [*first, *map(json.dumps, lines)])
        os.write(file, text.encode())
        os.fsync(file)
    except OSError as error:
        raise UserError(f"{folder / MANIFEST}: can't be written: {error.strerror}") from None
    finally:
        os.close(file)


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
