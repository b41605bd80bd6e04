"""What a comparison is called with, as the files that its runs read."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo import config, files
from zoo.comparisons import source
from zoo.config import paths
from zoo.config.own import CODE, DATA
from zoo.data import own
from zoo.errors import DataError, UserError

NETWORK, ARRAYS = "network.py", "data.npz"
Network = str | Path | Mapping[str, Any] | Callable[..., Any]


class Inputs(NamedTuple):
    """A config, and the files beside it that become part of a comparison.

    Attributes:
        name: of the comparison, if it gets no other.
        path: of the config.
        carried: files that it names by their name alone.
    """

    name: str
    path: Path
    carried: list[Path]


def prepare(network: Network, data: Mapping[str, Any] | None, settings: Mapping[str, Any], place: Path) -> Inputs:
    """Writes what isn't a file yet into a folder.

    Raises:
        UserError: for what is neither a config, nor a function and its data.
    """
    if data is not None and not isinstance(data, Mapping):
        raise UserError(
            f"data: expected a dict of arrays, or a config's dataset; found a {type(data).__name__}; activations are "
            "given by name: activations=[...]"
        )
    if data is None and not callable(network):
        if settings:
            raise UserError("settings: belong to a function and its data; a config has them itself")
        return _of_config(network, place)
    content = paths.absolute(_as_json("settings", settings), Path.cwd())
    carried: list[Path] = []
    name, code = _code(network, place, carried)
    content["model"] = {"build": code} | content.get("model", {})
    dataset = content.get("dataset", {})
    if data is None:
        raise UserError(f"data: {name} needs some: a dict with {', '.join(own.NEEDED)}, or a config's dataset")
    if data.keys() & {*DATA, "name"}:
        content |= paths.absolute({"dataset": _as_json("data", data) | dataset}, Path.cwd())
    else:
        content["dataset"] = {"file": ARRAYS} | dataset
        carried.append(place / ARRAYS)
    path = place / f"{name}.json"
    files.write_json(path, content)
    if place / ARRAYS in carried:
        _write_arrays(data, config.load(path).dataset, place / ARRAYS)
    return Inputs(name, path, carried)


def _of_config(network: Any, place: Path) -> Inputs:
    if not isinstance(network, Mapping):
        return Inputs(Path(network).stem, Path(network), [])
    files.write_json(place / "network.json", paths.absolute(_as_json("network", network), Path.cwd()))
    return Inputs("network", place / "network.json", [])


def _as_json(where: str, value: Any) -> Any:
    """Of what Python has beside: mappings, tuples, paths, and NumPy's numbers."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(f"{where}.{key}", each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(where, each) for each in value]
    if isinstance(value, Path | np.generic):
        return str(value) if isinstance(value, Path) else value.item()
    if value is not None and not isinstance(value, str | int | float | bool):
        raise UserError(f"{where}: expected what JSON holds; found a {type(value).__name__}")
    return value


def _code(network: Network, place: Path, carried: list[Path]) -> tuple[str, str]:
    """The name of a function, and how a config names it."""
    if callable(network):
        code = source.code_of(network)
        if not code:
            files.write_text(place / NETWORK, source.text_of(network))
            carried.append(place / NETWORK)
            code = f"{NETWORK}:{network.__name__}"
    elif isinstance(network, str) and re.match(CODE, network):
        code = paths.absolute({"model": {"build": network}}, Path.cwd())["model"]["build"]
    else:
        raise UserError(
            'network: data goes with a function, or where it is: "my_nets.py:build"; found '
            f"{str(network)[:80] or 'nothing'}"
        )
    return code.rpartition(":")[2], code


def _write_arrays(data: Mapping[str, Any], settings: Any, path: Path) -> None:
    """Writes arrays that can be trained on, in an order of ours, so that the same ones make the same file."""
    if unknown := [name for name in data if name not in own.NAMES]:
        raise DataError(f"data: unknown {unknown[0]!r}; expected {', '.join(own.NAMES)}")
    own.read("data", data, settings)
    arrays: dict[str, Any] = {name: np.asarray(data[name]) for name in own.NAMES if name in data}
    files.write_whole(path, lambda unfinished: np.savez(unfinished, **arrays))
