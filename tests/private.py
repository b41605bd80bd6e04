"""The library where private names of Keras's or of a backend's are others than it knows: a process for many of them.

python tests/private.py each keras_private.py     # one name of a module after the other
python tests/private.py all keras_private.py      # all of them at once
"""

import ast
import importlib
import importlib.machinery
import sys
import warnings
from pathlib import Path
from typing import ClassVar

LIBRARY = Path(__file__).parents[1] / "keras_adaptact"
RENAMED = "_in_another_version"


def is_private(module: str) -> bool:
    parts = module.split(".")
    of_jax = parts[0] == "jax" and len(parts) > 1 and parts[1] in ("interpreters", "extend", "experimental", "_src")
    of_others = module.startswith(("keras.src", "tensorflow.python"))
    return of_jax or of_others or any(part.startswith("_") and part != "__future__" for part in parts)


def is_foreign(node: ast.Attribute) -> bool:
    """Whether an attribute is none of the object's own."""
    owner = node.value
    is_super = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
    return not is_super and not (isinstance(owner, ast.Name) and owner.id in ("self", "cls"))


def names_in(tree: ast.AST) -> set[str]:
    """Private names of others that a module uses: imported, as attributes, or by `getattr`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and is_private(node.module or ""):
            found |= {f"{node.module}:{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and is_foreign(node) and node.attr.startswith("_"):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            name = getattr(node.args[1], "value", "")
            found |= {name} if isinstance(name, str) and name.startswith("_") else set()
    return {name for name in found if not name.startswith("__")}


class Rename(ast.NodeTransformer):
    def __init__(self, names: set[str]):
        self.names = names

    def visit_ImportFrom(self, node):
        for alias in node.names:
            if f"{node.module}:{alias.name}" in self.names:
                alias.asname, alias.name = alias.asname or alias.name, alias.name + RENAMED
        return node

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if node.attr in self.names and is_foreign(node):
            node.attr += RENAMED
        return node

    def visit_Constant(self, node):
        return ast.Constant(node.value + RENAMED) if node.value in self.names else node


class Loader(importlib.machinery.SourceFileLoader):
    names: ClassVar[set[str]] = set()

    def get_code(self, fullname):
        tree = ast.parse(self.get_data(self.path))
        if self.path.endswith("_private.py"):
            tree = ast.fix_missing_locations(Rename(self.names).visit(tree))
        return compile(tree, self.path, "exec")


class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        spec = super().find_spec(fullname, path, target) if fullname.split(".")[0] == "keras_adaptact" else None
        if spec is not None:
            spec.loader = Loader(fullname, spec.origin)
        return spec


def use_without(names: set[str]) -> None:
    """Imports the library anew, and has its layers compute, in an eager call and in training."""
    import keras
    import numpy as np

    Loader.names = names
    for module in [m for m in sys.modules if m.split(".")[0] == "keras_adaptact"]:
        del sys.modules[module]
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    ka = importlib.import_module("keras_adaptact")
    z = np.random.default_rng(0).normal(0, 2, (4, 3)).astype("float32")
    y = keras.ops.convert_to_numpy(ka.ATanh(a_initializer=1.5)(z))
    np.testing.assert_allclose(y, np.tanh(1.5 * z.astype("float64")), rtol=1e-5, atol=1e-6)
    inner = ka.PELU()
    layers = [keras.layers.Input((3,)), keras.layers.Dense(4, activation=ka.Method1()), inner, keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    parts = [model.layers[0].activation, inner]
    before = [part.get_parameters() for part in parts]
    assert np.isfinite(model.train_on_batch(z, z[:, :1]))
    for part, values in zip(parts, before, strict=True):
        assert any(np.any(value != values[name]) for name, value in part.get_parameters().items()), part


def main(*modules: str) -> None:
    sys.path.insert(0, str(LIBRARY.parent))
    sys.meta_path.insert(0, Finder)
    warnings.simplefilter("ignore")
    for module in modules:
        for some in groups(module):
            try:
                use_without(some)
            except Exception as error:
                raise SystemExit(f"without {', '.join(some)}: {type(error).__name__}: {error}") from error
            print("without", *sorted(some))


def groups(module: str) -> list[set[str]]:
    """The names of a module one by one; of `+keras_private.py` all at once."""
    (path,) = LIBRARY.rglob(module.removeprefix("+"))
    names = names_in(ast.parse(path.read_text(encoding="utf-8")))
    return [names] if module.startswith("+") else [{name} for name in sorted(names)]


if __name__ == "__main__":
    main(*sys.argv[1:])
