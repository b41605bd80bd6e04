"""Code of one's own that a config names.

A command that is given a config imports the files that it names. One that is given the folder of a run imports them
only as they were: each file, and what it brought along from its folder, is recorded with its hash and copied there.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from zoo import folders
from zoo.environment import from_folder, recorded_path
from zoo.errors import ConfigError, OwnCodeError, UserError, first_line

TRUST = "ZOO_TRUST"  # the variable by which --trust reaches the processes that a command starts
FOLDER = "code"  # of a run, with the copies
HELP = "of own code that changed since the run was made, run the copy in the run's folder"


class _Imported(NamedTuple):
    module: ModuleType
    root: Path  # folder of what it may bring along
    before: frozenset[str]  # modules that were there without it


_IMPORTED: dict[str, _Imported] = {}  # by file or dotted name
_DIGESTS: dict[Path, str] = {}  # of files, as they were when they were run


def split(code: str) -> tuple[Path | None, str, str]:
    """The file of "my_nets.py:build", the module of "package.nets:build", and the function."""
    module, _, function = code.rpartition(":")
    return (Path(module), "", function) if module.endswith(".py") else (None, module, function)


def function(code: str) -> Callable[..., Any]:
    """The function that a config names.

    Raises:
        ConfigError: where there is no such file, module or function.
        OwnCodeError: where importing it fails.
    """
    path, name, called = split(code)
    module = (_file(path) if path else _module(name)).module
    found = getattr(module, called, None)
    if not callable(found):
        known = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise ConfigError(f"{path or name}: has no function {called!r}; there are {', '.join(known) or 'none'}")
    return found


def call(code: str, *args: Any, **options: Any) -> Any:
    """What that function returns.

    Raises:
        OwnCodeError: for whatever it raises.
    """
    run = function(code)
    with _blamed(code):
        return run(*args, **options)


@contextlib.contextmanager
def _blamed(code: str) -> Iterator[None]:
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        first = first_line(error, 300)
        raise OwnCodeError(f"{code}: raised {type(error).__name__}: {first}") from error


def _file(path: Path) -> _Imported:
    key = str(path.resolve())
    if key in _IMPORTED:
        return _IMPORTED[key]
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: can't be read as code: {error.strerror}") from None
    before = frozenset(sys.modules)
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_{_hash(key.encode())[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ConfigError(f"{path}: no Python file")
    module = importlib.util.module_from_spec(spec)
    _DIGESTS[path.resolve()] = _hash(source)
    if str(path.parent) not in sys.path:  # as where Python runs a file
        sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    try:
        with _blamed(str(path)), _no_bytecode():
            exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return _IMPORTED.setdefault(key, _Imported(module, path.resolve().parent, before))


def _module(name: str) -> _Imported:
    if name in _IMPORTED:
        return _IMPORTED[name]
    before = frozenset(sys.modules)
    try:
        with _no_bytecode():
            module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(f"{name}: there is no such module; a file's name ends with .py") from None
        with _blamed(name):
            raise
    except Exception:
        with _blamed(name):
            raise
    if not getattr(module, "__file__", None):
        raise ConfigError(f"{name}: no module with a file of its own")
    place = Path(str(module.__file__)).resolve()
    root = place.parents[name.count(".") + (place.name == "__init__.py")] if "." in name else place.parent
    return _IMPORTED.setdefault(name, _Imported(module, root / name.split(".")[0] if "." in name else root, before))


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """Leaves no files beside the user's, and none that could be taken for a source that has changed."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


# What a run records


def record(codes: Sequence[str], folder: Path, others: Sequence[Path] = ()) -> list[dict[str, str]]:
    """The files that these functions came from, and others: path from a folder, hash, and place of the copy."""
    found: dict[Path, dict[str, str]] = {}
    roots: list[Path] = []
    for code in codes:
        path, name, _ = split(code)
        imported = _IMPORTED[str(path.resolve()) if path else name]
        if imported.root not in roots:
            roots.append(imported.root)
        at = roots.index(imported.root)
        for each in _brought(imported):
            inside = each.relative_to(imported.root).as_posix()
            copy = f"{FOLDER}/{f'{at}/' if at else ''}{inside}"
            digest = _DIGESTS.setdefault(each, _hash(each.read_bytes()))
            found[each] = {"path": str(from_folder(each, folder)), "sha256": digest, "copy": copy}
    for path in others:
        copy, digest = f"{FOLDER}/{path.parent.name}/{path.name}", _hash(path.read_bytes())
        found[path] = {"path": str(from_folder(path, folder)), "sha256": digest, "copy": copy}
    return list(found.values())


def _brought(imported: _Imported) -> list[Path]:
    """The file of a module, and of those that came with it and lie in its folder."""
    first = Path(str(imported.module.__file__)).resolve()
    others = []
    for name in sys.modules.keys() - imported.before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and file.endswith(".py") and "site-packages" not in file:
            others.append(Path(file).resolve())
    return [first, *sorted({path for path in others if path.is_relative_to(imported.root)} - {first})]


def keep(recorded: Sequence[Mapping[str, str]], folder: Path) -> None:
    """Copies the files into the folder of a run, where they aren't there yet."""
    from zoo import files  # here, as --help needs no NumPy

    for each in recorded:
        path, copy = recorded_path(folder, each["path"]), folders.check_inside(folder / each["copy"], folder)
        if path and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            if _hash(content) == each["sha256"]:
                files.write_whole(copy, partial(Path.write_bytes, data=content))


def moved(recorded: Sequence[Mapping[str, str]], before: Path, after: Path) -> list[dict[str, str]]:
    """The same record, with paths from another folder."""
    return [dict(each) | {"path": str(from_folder(recorded_path(before, each["path"]), after))} for each in recorded]


def unchanged(recorded: Sequence[Mapping[str, str]], folder: Path) -> dict[Path, Path]:
    """Of each recorded file the one to be run: itself, or with --trust the copy in the folder of the run.

    Raises:
        UserError: where a file changed or is gone, and isn't trusted; or its copy isn't what was recorded either.
    """
    trust, found = bool(os.environ.get(TRUST)), {}
    for each in recorded:
        path, copy = recorded_path(folder, each["path"]), folders.check_inside(folder / each["copy"], folder)
        assert path
        chosen = copy if trust else path
        state = _state(chosen, each["sha256"])
        if state and trust:
            raise UserError(f"{chosen}: {state}; what the run in {folder} was made with isn't there any more")
        if state:
            raise UserError(
                f"{path}: {state} since the run in {folder} was made; --trust runs the copy in {copy.parent}"
            )
        found[path.resolve()] = chosen
    return found


def known(code: str, files: Mapping[Path, Path], folder: Path) -> str:
    """A function as the folder of a run may use it, whose files are these.

    Raises:
        UserError: where its file is none of them.
    """
    path, name, called = split(code)
    if path is None:
        end = name.replace(".", "/")
        path = next((p for p in files if str(p.with_suffix("")).removesuffix("/__init__").endswith(f"/{end}")), None)
        if path and files[path].resolve() == path:
            return code
    return f"{used(path or Path(name), files, folder)}:{called}"


def used(path: Path, files: Mapping[Path, Path], folder: Path) -> Path:
    """The file that stands for one of a run's.

    Raises:
        UserError: where it has no hash.
    """
    if path.resolve() not in files:
        raise UserError(f"{folder}: its environment.json has no hash of {path}, which is not used without one")
    return files[path.resolve()]


def _state(path: Path, digest: str) -> str:
    try:
        return "" if _hash(path.read_bytes()) == digest else "changed"
    except OSError:
        return "is gone"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def trust(given: bool) -> None:
    """Takes --trust, for this process and those that it starts."""
    if given:
        os.environ[TRUST] = "1"
