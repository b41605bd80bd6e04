"""The manifest of a folder: the files that this software wrote there, one line of JSON each.

Reports and evaluations are listed with a digest: a file that was edited since belongs to the user. Folders of version
0.1.0 have neither a manifest nor a schema version; their files are recognized by name.
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
OLDER = {  # a file that marks a kind of folder: the names that 0.1.0 wrote there, besides those of a run
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
        UserError: if one of these files exists and isn't ours.
    """
    known: dict[Path, Mapping[str, set[str]]] = {}
    for path in paths:
        listed = known.setdefault(path.parent, _listed(path.parent))
        if why := _not_own(path, listed):
            raise UserError(f"{path}: {why}; move it, or give another folder")


def claim(path: Path, content: Path | None = None) -> None:
    """Lists a file as ours, before it is written or appended to.

    Args:
        path: of the file.
        content: the temporary file with its content; then the file is ours only until somebody edits it.

    Raises:
        UserError: if it exists and isn't ours.
    """
    check([path])
    adopt(path.parent)
    digest = _digest(content) if content else ""
    if digest not in _listed(path.parent).get(path.name, ()):
        _add(path.parent, [[path.name, digest]])


def adopt(folder: Path) -> None:
    """Begins the manifest of a folder, with the files that version 0.1.0 wrote there."""
    if folder.is_dir() and not (folder / MANIFEST).exists():
        _add(folder, [[name, ""] for name in _listed(folder)])


def note(folder: Path, names: Iterable[str]) -> None:
    """Lists new files whose names another package chose."""
    _add(folder, [[name, ""] for name in names])


def remove(path: Path) -> None:
    """Removes one of our files, if it exists.

    Raises:
        UserError: if it isn't ours.
    """
    check([path])
    path.unlink(missing_ok=True)


def own(folder: Path) -> list[Path]:
    """Our files in a folder."""
    listed = _listed(folder)
    return [folder / name for name in listed if folders.is_file(folder / name) and not _not_own(folder / name, listed)]


def open_log(path: Path) -> int:
    """Opens a log for appending."""
    claim(path)
    return folders.open_own(path, os.O_WRONLY | os.O_APPEND)


def _not_own(path: Path, listed: Mapping[str, set[str]]) -> str:
    """Why a file isn't ours; "" if it is, or doesn't exist."""
    if path.is_symlink():
        return "this is a link"
    if not path.exists():
        return ""
    if not folders.is_file(path) or path.name not in listed:
        return "not written by this software"
    digests = listed[path.name]
    return "" if "" in digests or _digest(path) in digests else "edited since it was written"


def _listed(folder: Path) -> dict[str, set[str]]:
    """The names of our files with their digests; "" stands for any content."""
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return {name: {""} for name in _older(folder)}
    found: dict[str, set[str]] = {}
    try:
        if not folders.is_file(path):
            raise ValueError
        content = path.read_text(encoding="utf-8")
        if not content.startswith(FIRST) and not _is_begun(content.encode()):
            raise ValueError
    except (OSError, ValueError):
        raise UserError(f"{path}: not a manifest of this software; move it") from None
    for line in content.splitlines():
        with contextlib.suppress(ValueError, TypeError):  # skip a truncated line
            name, digest = json.loads(line)
            found.setdefault(name, set()).add(digest)
    return found


def _is_begun(content: bytes) -> bool:
    """Whether a manifest was cut off in its first line, or before it, when nothing was listed yet."""
    return FIRST.encode().startswith(content) and len(content) < len(FIRST)


def _older(folder: Path) -> list[str]:
    """The files that version 0.1.0 wrote, by name."""
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
        if _is_begun(os.pread(file, len(FIRST), 0)):
            os.ftruncate(file, 0)
        size = os.fstat(file).st_size
        cut = size and os.pread(file, 1, size - 1) != b"\n"
        first = [] if size else [FIRST]
        text = "\n" * bool(cut) + "".join(f"{line}\n" for line in [*first, *map(json.dumps, lines)])
        left = text.encode()
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    except OSError as error:
        raise UserError(f"{folder / MANIFEST}: can't be written: {error.strerror}") from None
    finally:
        os.close(file)


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
