"""What third parties may rely on; and private names of others, none of which the library can't do without."""

import ast
import inspect
import pydoc
import subprocess
import sys
from typing import get_type_hints

import keras
import numpy as np
import pytest
from cases import CASES, evaluate
from keras import ops
from private import LIBRARY, groups, is_foreign, is_private
from test_layout import ROOT

import keras_adaptact as ka
from keras_adaptact import signatures
from keras_adaptact.keras_private import become, calling_layer, stand_ins
from keras_adaptact.storage import ParameterStorage

Z = np.linspace(-3, 3, 7)
LAYERS = [v for v in vars(ka).values() if isinstance(v, type) and issubclass(v, ka.TrainableActivation)]
BACKEND = keras.config.backend()
# One by one on torch, which compiles nothing; else all of Keras's at once.
MODULES = ["keras_private.py" if BACKEND == "torch" else "+keras_private.py", f"{BACKEND}_private.py"]
# An optimizer around others replaces their methods that take steps, as a subclass of them would.
ALLOWED = {"optimizers.py": {"_apply_weight_decay", "_parallel_update_step", "_u_product"}}


def made(case) -> ka.TrainableActivation:
    return ka.get({"name": case.spec} if isinstance(case.spec, str) else case.spec)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_layer_is_evaluated_with_its_parameters_or_others(case):
    layer = made(case)
    before = layer.get_parameters()
    assert layer.parameter_names == tuple(before) and layer.parameter_shape == ()
    layer.set_parameters(**case.trained)
    expected = evaluate(case, Z, case.trained)[0]
    np.testing.assert_allclose(layer.evaluate(Z), expected, rtol=2e-5, atol=2e-6)
    values = layer.formula_parameters()
    layer.set_parameters(**before)
    np.testing.assert_allclose(layer.evaluate(Z, **values), expected, rtol=2e-5, atol=2e-6)
    for name, value in before.items():
        np.testing.assert_array_equal(layer.get_parameters()[name], value)


def test_evaluation_by_channel_and_in_low_precision():
    layer = ka.ATanh(granularity="channel", channels=2, dtype="float16")
    assert layer.parameter_shape == (2,)
    found = layer.evaluate(Z[:, None], a=[0.5, 2.0], d=1.0)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, np.tanh(Z[:, None] * [0.5, 2.0]) + 1, rtol=1e-5, atol=1e-6)


def test_what_can_not_be_evaluated():
    with pytest.raises(ValueError, match=r"has the parameters \['b'\]. Received: a"):
        ka.FReLU().evaluate(Z, a=1.0)
    layer = ka.ATanh(granularity="channel")
    assert layer.parameter_shape is None and layer.parameter_names == ("a", "b", "c", "d")
    with pytest.raises(ValueError, match="no parameters yet"):
        layer.evaluate(Z)


def test_parameters_of_the_formula_of_a_mixture():
    layer = ka.Mixture(["tanh", "arelu", "arelu"], weights_trainable=False, trainable_parameters=["arelu_2_a"])
    layer.set_parameters(weights=[2.0, 1.0, 1.0])
    values = layer.formula_parameters()
    assert [values[f"weight[{name}]"] for name in ("tanh", "arelu", "arelu_2")] == [0.5, 0.25, 0.25]
    assert [name for name, yes in layer.trained_parameters().items() if yes] == ["arelu_2_a"]
    assert list(layer.trained_parameters()) == list(values)
    first, _, last = layer.members
    assert (first.name, first.spec, first.parameters) == ("tanh", "tanh", {})
    assert (last.name, last.parameters["a"]) == ("arelu_2", "arelu_2_a")
    layer.trainable = False
    assert not any(layer.trained_parameters().values())


def test_parameters_within_their_constraints():
    layer = ka.PELU()
    layer.trainable_variables[0].assign([0.01, 0.5])
    np.testing.assert_allclose(list(layer.constrained_parameters().values()), [0.1, 0.5])
    np.testing.assert_allclose(list(layer.get_parameters().values()), [0.01, 0.5])


# Nobody reaches in

OWN = {"base.py", "storage.py", "mixtures.py", "members.py"}


def private_names() -> set[str]:
    """Of the classes, and of their objects: attributes that the library gives them."""
    classes = {c for layer in LAYERS for c in layer.__mro__ if issubclass(c, ParameterStorage)}
    layers = [ka.Method1(), ka.AdaptiveActivation("tanh")]
    of_keras = set(vars(keras.layers.Dense(1))) | {n for c in keras.layers.Dense.__mro__ for n in vars(c)}
    found = {name for c in classes for name in (*vars(c), *c.__annotations__)} | {n for x in layers for n in vars(x)}
    return {name for name in found - of_keras if name.startswith("_") and not name.startswith(("__", "_self_"))}


def reached(tree: ast.AST, names: set[str]) -> list[str]:
    """Attributes of these names that are read or set on anything but `self`, `cls` and `super()`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names:
            owner = node.value
            is_own = isinstance(owner, ast.Name) and owner.id in ("self", "cls")
            is_super = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
            if not is_own and not is_super:
                found.append(f"{node.attr}, line {node.lineno}")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            found += [a.value for a in node.args if isinstance(a, ast.Constant) and a.value in names]
    return found


def test_no_module_reaches_for_private_names_of_activations():
    names = private_names()
    assert {"_slots", "_shape", "_packed", "_held", "_members", "_raw_weights", "_by_name", "_storage"} <= names
    files = [f for folder in ("keras_adaptact", "zoo", "tuner", "benchmarks") for f in (ROOT / folder).rglob("*.py")]
    found = {f.name: reached(ast.parse(f.read_text(encoding="utf-8")), names) for f in files if f.name not in OWN}
    assert len(found) > 50 and not {name: places for name, places in found.items() if places}
    assert reached(ast.parse("layer._shape; getattr(layer, '_slots')"), names) and not reached(ast.parse("a.b"), names)


# What editors and `help` show

SETTINGS = ("initializer", "regularizer", "constraint", "trainable")


@pytest.mark.parametrize("layer", [x for x in LAYERS if x is not ka.TrainableActivation], ids=lambda x: x.__name__)
def test_a_signature_has_the_arguments_that_a_layer_takes(layer):
    shown = inspect.signature(layer).parameters
    names = ["weights"] if issubclass(layer, ka.Mixture) else layer.declared
    settings = {f"{name}_{setting}" for name in names for setting in SETTINGS}
    own = set(inspect.signature(layer.__init__).parameters) - {"self", "kwargs"}
    common = {"granularity", "channels", "data_format", "trainable_parameters"}
    common |= {"name", "dtype", "trainable", "activity_regularizer"}
    open_ended = {"kwargs"} if issubclass(layer, ka.Mixture) else set()
    assert shown.keys() == settings | own | common | open_ended
    needed = {"function": "tanh", "members": ["tanh", "relu"]}
    given = {n: needed.get(n, p.default) for n, p in shown.items() if n != "kwargs" and n != "weights_trainable"}
    assert f"{layer.__name__}({next(iter(shown))}" in pydoc.plain(pydoc.render_doc(layer))
    same = layer(**given | {"name": "same"}).get_config()
    default = layer(**{n: needed[n] for n in shown if n in needed}, name="same").get_config()
    assert same == default
    config = layer(**{n: needed[n] for n in shown if n in needed}, activity_regularizer="l2").get_config()
    assert layer.from_config(config).get_config() == config


def test_static_tools_see_the_same_settings():
    for layer in LAYERS:
        annotation = get_type_hints(layer.__init__).get("kwargs")
        if hasattr(annotation, "__args__"):  # Unpack[...]
            arguments = get_type_hints(annotation.__args__[0])
            settings = {f"{name}_{setting}" for name in layer.declared for setting in SETTINGS}
            assert arguments.keys() == settings | get_type_hints(signatures.LayerArguments).keys()
            assert arguments.keys() <= inspect.signature(layer).parameters.keys()


def test_the_signature_of_a_layer_is_that_of_its_call():
    """Which `tf.function` and others read."""
    assert inspect.signature(ka.AReLU()) == inspect.signature(keras.layers.ReLU())


def test_a_class_of_ones_own_shows_its_arguments():
    class Snake(ka.TrainableActivation):
        a = ka.Parameter(2.0)

        def __init__(self, power=2, **kwargs):
            super().__init__(**kwargs)

    shown = inspect.signature(Snake).parameters
    assert next(iter(shown)) == "power" and shown["a_initializer"].default == 2.0 and "granularity" in shown
    assert "kwargs" not in shown


def public_functions():
    """What the library's public names are called by, and public methods of its classes."""
    for name in (n for n in dir(ka) if not n.startswith("_")):
        value = getattr(ka, name)
        if inspect.isclass(value):
            for method, found in vars(value).items():
                found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
                if inspect.isfunction(found) and (method == "__init__" or not method.startswith("_")):
                    yield f"{name}.{method}", getattr(found, "__wrapped__", found)
        elif inspect.isfunction(value):
            yield name, value
    yield from ((n, f) for n, f in vars(ka.functional).items() if inspect.isfunction(f) and not n.startswith("_"))


def test_the_public_api_is_typed():
    found = dict(public_functions())
    for name, function in found.items():
        shown = inspect.signature(function)
        untyped = [
            p.name for p in shown.parameters.values() if p.annotation is p.empty and p.name not in ("self", "cls")
        ]
        assert not untyped, f"{name}: {untyped}"
        assert name.endswith("__init__") or shown.return_annotation is not shown.empty, name
    assert len(found) > 60


@pytest.mark.parametrize("name", [n for n, f in vars(ka.functional).items() if inspect.isfunction(f) and n[0] != "_"])
def test_a_formula_documents_its_arguments(name):
    function = getattr(ka.functional, name)
    if function.__module__ == ka.functional.__name__:
        documented = function.__doc__.split("Args:")[1].split("Returns:")[0]
        lines = [line.split(":")[0].strip() for line in documented.splitlines() if ":" in line]
        assert {argument for line in lines for argument in line.split(", ")} >= set(
            inspect.signature(function).parameters
        )


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
