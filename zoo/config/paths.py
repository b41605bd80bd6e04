"""Paths in a config: relative to its file where they are written, absolute where they are used."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zoo.owncode import split

PLACES = {"dataset": ("file", "folder", "load"), "model": ("build", "kerashub")}


def absolute(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A config that was read in a folder, with its paths from the root."""
    return _changed(content, lambda path: str((folder / path).resolve()))


def relative(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A config as it is written in a folder, so that it doesn't name where on the machine that is."""
    return _changed(content, lambda path: os.path.relpath(path, folder.resolve()) if path.startswith("/") else path)


def _changed(content: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    found = dict(content)
    for section, fields in PLACES.items():
        part = content.get(section)
        if not isinstance(part, Mapping):
            continue
        for field in fields:
            if isinstance(value := part.get(field), str) and "\0" not in value:
                found[section] = dict(found[section]) | {field: _changed_value(field, value, change)}
    return found


def _changed_value(field: str, value: str, change: Callable[[str], str]) -> str:
    if field in ("file", "folder"):
        return change(value)
    if field == "kerashub":
        return _preset(value, change(value))
    path, _, function = split(value)
    return f"{change(str(path))}:{function}" if path else value


def _preset(value: str, changed: str) -> str:
    """A folder, with a slash at its end; or the name of a preset as it is."""
    is_folder = "/" in value or (changed != value and Path(changed).is_dir())
    return f"{changed.rstrip('/')}/" if is_folder and "://" not in value else value
