"""Loads searches, with errors that have the path of the mistake."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.searches.entry import Entry
from tuner.searches.space import Contrast, Median, Search, describe
from zoo import config
from zoo.config.schema import unknown_field
from zoo.errors import ConfigError


def load(path: Path) -> Search:
    """Reads a search, and checks the configs at the bounds of its space.

    Raises:
        ConfigError: for a mistake in it, or in one of its configs.
    """
    content = config.read_object(path)
    search = parse(content, str(path))
    base = path.parent / search.base
    try:
        config.load(base)
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from None
    for point in search.corners():
        try:
            found = search.trial(point, base)
            search.result(point, base)
        except ConfigError as error:
            raise ConfigError(f"{path}: at {describe(search.labelled(point))}: {error}") from None
        if not found.dataset.validation:
            raise ConfigError(f"{path}: dataset.validation: a search needs validation images; found 0")
    return search


def parse(content: dict[str, Any], origin: str) -> Search:
    """
    Raises:
        ConfigError: if it isn't a valid search.
    """
    try:
        return Search.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = [str(key) for key in first["loc"] if key not in ("random", "grid", "bayesian", "hyperband")]
        what = _said(first)
        if first["type"] == "extra_forbidden":
            model: Any = {"space": Entry, "contrast": Contrast, "stopping": Median}.get(where[0], Search)
            fields = [field.alias or name for name, field in model.model_fields.items()]
            what = unknown_field(where[-1], fields) if where[0] != "tuner" else f"unknown field {where[-1]!r}"
        raise ConfigError(": ".join(filter(None, [origin, ".".join(where), what]))) from None


def _said(error: Mapping[str, Any]) -> str:
    """Pydantic's message without names of classes."""
    about, found = error.get("ctx", {}), json.dumps(error["input"], default=str)[:80]
    match error["type"]:
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case "missing":
            return "this field is required"
        case "union_tag_invalid":
            return f"expected one of {about['expected_tags']}; found {about['tag']!r}"
        case "model_type" | "dict_type":
            return f"expected an object; found {found}"
        case "too_short" | "too_long":
            least = "least" if "min_length" in about else "most"
            return f"expected at {least} {about.get('min_length', about.get('max_length'))}; found {found}"
    return f"{error['msg']}; found {found}"
