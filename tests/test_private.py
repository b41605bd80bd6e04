"""Private names of others: each in one module, and none that the library can't do without."""

import ast
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from private import LIBRARY, groups, is_foreign, is_private
from test_layout import ROOT

from keras_adaptact.keras_private import become, calling_layer, stand_ins

BACKEND = keras.config.backend()
# One by one on torch, which compiles nothing; else all of Keras's at once.
MODULES = ["keras_private.py" if BACKEND == "torch" else "+keras_private.py", f"{BACKEND}_private.py"]
# An optimizer around others replaces their methods that take steps, as a subclass of them would.
ALLOWED = {"optimizers.py": {"_apply_weight_decay", "_parallel_update_step", "_u_product"}}


def test_without_a_private_name_the_library_is_imported_and_trains():
    names = set().union(*(some for module in MODULES for some in groups(module)))
    command = [sys.executable, str(ROOT / "tests" / "private.py"), *MODULES]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert {name for line in ran.stdout.splitlines() for name in line.split()[1:]} == names and len(names) > 20


def test_private_names_are_used_in_those_modules_alone():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in LIBRARY.rglob("*.py")}
    nodes = {path: list(ast.walk(tree)) for path, tree in trees.items()}
    own = {n.name for found in nodes.values() for n in found if isinstance(n, ast.FunctionDef)}
    for found in nodes.values():  # and attributes that the library's objects are given
        own |= {n.attr for n in found if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        own |= {n.target.id for n in found if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
        own |= {t.id for n in found if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    own |= {"_unchanged"}
    for path, found in nodes.items():
        if path.name.endswith("_private.py"):
            continue
        modules = [n.module or "" for n in found if isinstance(n, ast.ImportFrom)]
        modules += [alias.name for n in found if isinstance(n, ast.Import) for alias in n.names]
        assert not [module for module in modules if is_private(module)], path
        attributes = {n.attr for n in found if isinstance(n, ast.Attribute) and is_foreign(n)}
        private = {name for name in attributes if name.startswith("_") and not name.startswith("__")}
        assert private <= own | ALLOWED.get(path.name, set()), path


def test_attributes_of_a_built_layer_stand_in_and_come_back():
    layer = keras.layers.Dense(2, activation="relu")
    x = np.ones((1, 3), "float32")
    before, tracked = ops.convert_to_numpy(layer(x)), list(layer.variables)
    with (
        pytest.raises(ZeroDivisionError),
        stand_ins([(layer, "call", lambda inputs: inputs + 1), (layer, "more", [1])]),
    ):
        np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), x + 1)
        assert type(layer.more) is list
        raise ZeroDivisionError
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), before)
    assert not hasattr(layer, "more") and "call" not in vars(layer)
    assert [id(v) for v in layer.variables] == [id(v) for v in tracked]


def test_a_layer_becomes_one_of_another_class():
    class Doubled(keras.layers.ReLU):
        def call(self, inputs):
            return 2 * super().call(inputs)

    layer = keras.layers.ReLU()
    become(layer, Doubled)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(np.ones(3, "float32"))), 2 * np.ones(3))


def test_a_layer_knows_its_caller():
    found = []

    class Inner(keras.layers.Layer):
        def call(self, inputs):
            found.append(calling_layer())
            return inputs

    inner = Inner()
    outer = keras.layers.Dense(2, activation=inner)
    outer(np.ones((1, 3), "float32"))
    assert found[-1] is outer
