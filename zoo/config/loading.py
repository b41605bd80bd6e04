"""Loads configs: strict JSON, overrides, and errors with the path of the mistake."""

import difflib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from zoo.config import own
from zoo.config.own import field_of
from zoo.config.schema import NAMED, OWN, Activation, Config, FromRun, Rule, unknown_field
from zoo.errors import ConfigError

PARTS = 32  # of the longest dotted path


def load(path: str | Path, overrides: Sequence[str] = (), origin: str = "--set", folder: Path | None = None) -> Config:
    """Reads a config and applies overrides such as ``training.epochs=3``; `origin` is what errors call them.

    Paths in it, and in the overrides, are found from its folder, or from another one.

    Raises:
        ConfigError: if the file can't be read, isn't JSON, or has an unknown field or an invalid value; if an override
            is malformed, given twice, or names no field.
    """
    path = Path(path)
    content = read_object(path)
    given = set()
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not all(dotted.split(".")):
            raise ConfigError(f"{origin} {override}: expected path=value, such as training.epochs=3")
        if dotted.count(".") > PARTS:
            raise ConfigError(f"{origin} {dotted[:60]}...: too many parts for a path")
        if dotted in given:
            raise ConfigError(f"{origin} {dotted} is given twice")
        given.add(dotted)
        _override(content, dotted, text, origin)
    content = own.absolute(content, folder or path.parent)
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_of(error, content, given, origin)}") from None


def read_object(path: Path) -> dict:
    """Returns the object in a JSON file.

    Raises:
        ConfigError: if the file can't be read, or doesn't hold an object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.json")], 1, 0.5)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: no such file{hint}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate in the path
        raise ConfigError(f"{path}: can't be read as text: {getattr(error, 'strerror', None) or error}") from None
    if not text.strip():
        raise ConfigError(f"{path}: the file is empty; expected a JSON object")
    try:
        content = _parse(text)
    except (ValueError, RecursionError) as error:  # JSONDecodeError has the line and column
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a JSON object, found a {type(content).__name__}")
    return content


def _parse(text: str) -> Any:
    found = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"lone surrogate {error.object[error.start]!r}") from None
    return found


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _no_constant(text)


def _no_duplicates(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r} is given twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _override(content: dict, dotted: str, text: str, origin: str):
    """Sets one field, and adds the objects on the way to it."""
    try:
        value = _parse(text)
    except (ValueError, RecursionError):
        value = text
    *parents, last = dotted.split(".")
    place: Any = content
    for key in parents:
        place = place.setdefault(key, {}) if isinstance(place, dict) else _item(place, key, f"{origin} {dotted}")
    if isinstance(place, dict):
        place[last] = value
    else:
        _item(place, last, f"{origin} {dotted}")
        place[int(last)] = value


def _item(place, key: str, where: str):
    if isinstance(place, list) and key.isascii() and key.isdecimal() and len(key) < 9 and int(key) < len(place):
        return place[int(key)]
    what = f"a list of {len(place)}: give an index" if isinstance(place, list) else json.dumps(place)
    raise ConfigError(f"{where}: there is no field {key!r} in {what}")


def _first_of(error: ValidationError, content: dict, given: set[str], origin: str) -> str:
    """The first error with its dotted path, and the number of others."""
    first, *more = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a typo explains the others
    kind, path, place = first["type"], [], content
    for key in first["loc"]:  # pydantic adds the tags of unions, which aren't in the file
        if key in _keys(place):
            place = place[key]
        elif kind not in ("missing", "extra_forbidden") or key != first["loc"][-1]:
            continue
        path.append(str(key))
    found = json.dumps(first["input"], default=str)[:80]
    message = f"{first['msg']}; found {found}"
    if kind == "extra_forbidden":
        message = unknown_field(path.pop(), _fields_at(path, content))
    elif kind == "union_tag_invalid":
        path.append("name")
        names = [tag for tag in first["ctx"]["expected_tags"].split(", ") if not tag.startswith("'by ")]
        message = f"Input should be one of {', '.join(names)}; found {json.dumps(place['name'])[:80]}"
    elif kind == "missing":
        message = "this field is required"
    elif kind == "model_type":
        message = f"expected an object with fields; found {found}"
    elif kind == "value_error":
        message = first["msg"].removeprefix("Value error, ")
    dotted = ".".join(path) or "the file"
    by = f" (given by {origin.rstrip(':')})" if any(g.startswith(dotted) for g in given) else ""
    rest = f" (and {len(more)} more)" if more else ""
    return f"{dotted}: {message}{by}{rest}"


def _keys(place: Any):
    return range(len(place)) if isinstance(place, list) else place if isinstance(place, dict) else ()


def _fields_at(path: list[str], content: dict) -> list[str]:
    """The names of the fields that are allowed at a path."""
    model: Any = Config
    place: Any = content
    for key in path:
        place = place[int(key)] if isinstance(place, list) else place.get(key)
        if isinstance(place, list):
            continue
        if not isinstance(place, dict):
            break
        if own := field_of(OWN.get(key, {}), place):
            model = OWN[key][own.removeprefix("by ")]
        elif key in NAMED:
            chosen = [known for known in NAMED[key] if known.model_fields["name"].default == place.get("name")]
            model = (chosen or NAMED[key])[0]
        elif key == "activation" or key.isdecimal():
            model = Activation if key == "activation" else Rule
        elif key == "weights":
            model = FromRun
        elif key in model.model_fields:
            model = model.model_fields[key].annotation
    return [field.alias or name for name, field in model.model_fields.items()]
