"""An optimizer for activations does to them what it says, and to the rest what it would do alone."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops
from old import OLD

import keras_adaptact as ka
from keras_adaptact.optimizers import ActivationRates

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
Y = np.ones((4, 1), "float32")
FACTOR = 3.0
OWN = ("parameters", "mixing_weights", "alpha")
SETTINGS = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "AdamW": {"weight_decay": 0.0},
    "Muon": {"adam_weight_decay": 0.0, "weight_decay": 0.0},
}
KINDS = (
    *("SGD", "Adam", "AdamW", "Adadelta", "Adafactor", "Adagrad", "Adamax", "Ftrl", "Lamb", "Lion", "Muon", "Nadam"),
    *("RMSprop", "ScheduleFreeAdamW"),
)


def make(kind: str, rate: float = 1e-2, **more) -> keras.optimizers.Optimizer:
    return getattr(keras.optimizers, kind)(rate, **SETTINGS.get(kind, {}) | more)


@keras.saving.register_keras_serializable("tests")
class Named(layers.Layer):
    """Has a variable that is called like an activation's."""

    def build(self, input_shape):
        self.own = self.add_weight(name="parameters", shape=(4,), initializer="ones")

    def call(self, x):
        return x * self.own


def small(*more) -> keras.Model:
    keras.utils.set_random_seed(1)
    stack = [layers.Dense(4, activation=ka.AReLU()), *more, ka.Mixture(["tanh", "relu"], granularity="channel")]
    return keras.Sequential([layers.Input((3,)), *stack, layers.Dense(1)], name="small")


def values(model) -> list[np.ndarray]:
    return [np.array(ops.convert_to_numpy(v.value)) for v in model.variables]


def trained(model, optimizer, epochs=1, batch_size=4) -> list[np.ndarray]:
    """Each variable's value after some steps."""
    model.compile(optimizer, "mse")
    model.fit(X, Y, epochs=epochs, batch_size=batch_size, shuffle=False, verbose=0)
    return values(model)


def equal(first, second, rtol=1e-6):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-7)


def is_own(variable) -> bool:
    return variable.name in OWN


@pytest.mark.parametrize("kind", KINDS)
def test_an_own_learning_rate_is_that_of_another_optimizer(kind):
    """In a first step: for activations that of one with three times the rate, for others that of the plain one."""
    slow, fast, model = small(), small(), small()
    plain, faster = trained(slow, make(kind)), trained(fast, make(kind, FACTOR * 1e-2))
    own = trained(model, ka.optimizer_for(model, make(kind), FACTOR))
    equal(own, [f if is_own(v) else p for v, p, f in zip(model.variables, plain, faster, strict=True)])


@pytest.mark.parametrize("kind", KINDS)
def test_factor_one_changes_nothing(kind):
    plain, model = small(), small()
    equal(trained(plain, make(kind), 3), trained(model, ka.optimizer_for(model, make(kind)), 3))


@pytest.mark.parametrize("kind", ["SGD", "Nadam", "Lamb"])
def test_all_that_is_trained_is_an_activation(kind):
    found = []
    for optimize in (lambda m: make(kind, FACTOR * 1e-2), lambda m: ka.optimizer_for(m, make(kind), FACTOR)):
        model = small()
        with ka.only_activations(model):
            found.append(trained(model, optimize(model), 3))
    equal(*found)


def numpy_sgd(gradients: list[np.ndarray], rate: float, momentum: float, limit: float | None = None):
    """Steps of gradient descent with momentum, in float64; gradients of each step, of all variables together."""
    at, moved = 0.0, np.zeros_like(gradients[0])
    for gradient in gradients:
        if limit is not None:
            gradient = gradient * min(1.0, limit / np.linalg.norm(gradient))
        moved = momentum * moved - rate * gradient
        at = at + moved
    return at


def gradients_of(steps: int, variables) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(5)
    return [[rng.normal(size=v.shape).astype("float32") for v in variables] for _ in range(steps)]


def moved_by(optimizer, variables, gradients) -> list[np.ndarray]:
    """How far given gradients move each variable."""
    before = [np.array(ops.convert_to_numpy(v.value), "float64") for v in variables]
    optimizer.build(variables)
    for step in gradients:
        step = [ops.convert_to_tensor(g) for g in step]
        if keras.config.backend() == "jax":  # where Keras scales losses without state only
            state = [v.value for v in optimizer.variables], step, [v.value for v in variables]
            new = optimizer.stateless_apply(*state)
            for variable, value in zip([*variables, *optimizer.variables], [*new[0], *new[1]], strict=True):
                variable.assign(value)
        else:
            optimizer.apply(step, variables)
    return [ops.convert_to_numpy(v.value) - old for v, old in zip(variables, before, strict=True)]


WRAPPED = {
    "plain": lambda **more: make("SGD", **more),
    "scaled": lambda **more: keras.optimizers.LossScaleOptimizer(make("SGD", **more), 2.0**15),
    "several": lambda **more: keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(make("SGD", **more))),
}


@pytest.mark.parametrize("accumulated", [1, 4])
@pytest.mark.parametrize("clipped", [None, 0.7])
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_steps_are_those_of_numpy(wrapped, clipped, accumulated):
    """Of descent with momentum, whose gradients were scaled, averaged over batches, then clipped together."""
    model = small()
    variables = model.trainable_variables
    settings = {"nesterov": False, "momentum": 0.9, "global_clipnorm": clipped, "weight_decay": 1e-9}
    if accumulated > 1:
        settings["gradient_accumulation_steps"] = accumulated
    optimizer = ka.optimizer_for(model, WRAPPED[wrapped](**settings), FACTOR)
    given = gradients_of(2 * accumulated, variables)
    scale = 2.0**15 if wrapped == "scaled" else 1.0
    moved = moved_by(optimizer, variables, [[g * np.float32(scale) for g in step] for step in given])
    flat = [np.concatenate([g.ravel() for g in step]).astype("float64") for step in given]
    means = [np.mean(flat[i : i + accumulated], axis=0) for i in range(0, len(flat), accumulated)]
    expected = numpy_sgd(means, 1e-2, 0.9, clipped)
    ends = np.cumsum([np.prod(v.shape, dtype=int) for v in variables])
    for variable, found, part in zip(variables, moved, np.split(expected, ends[:-1]), strict=True):
        factor = FACTOR if is_own(variable) else 1.0
        np.testing.assert_allclose(np.ravel(found), factor * part, rtol=2e-4, atol=2e-6, err_msg=variable.path)


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_activations_do_not_decay(wrapped):
    """Gradients of 0 and a rate of 0.5 leave what decays at 1 - 0.5 * 0.2 of it."""
    model = small()
    optimizer = WRAPPED[wrapped](momentum=0.0, nesterov=False, weight_decay=0.2)
    for leaf in (optimizer, getattr(optimizer, "inner_optimizer", optimizer), *getattr(optimizer, "optimizers", ())):
        if type(leaf).__name__ == "SGD":
            leaf.learning_rate = 0.5
            leaf.exclude_from_weight_decay(var_names=["bias"])
    before = values(model)
    variables = model.trainable_variables
    moved_by(ka.optimizer_for(model, optimizer), variables, [[np.zeros(v.shape, "float32") for v in variables]])
    for variable, old, new in zip(model.variables, before, values(model), strict=True):
        np.testing.assert_allclose(new, old * (0.9 if variable.name == "kernel" else 1.0), rtol=1e-6)


def test_nothing_is_left_to_decay():
    model = small()
    with ka.only_activations(model):
        trained(model, ka.optimizer_for(model, "adamw"))


def test_averages_are_of_the_real_steps():
    """The moving average of two values is that of Keras: 0.9 of the first, 0.1 of the second."""
    model, seen = small(), []
    optimizer = ka.optimizer_for(model, make("SGD", use_ema=True, ema_momentum=0.9), FACTOR)
    variables = model.trainable_variables
    optimizer.build(variables)
    for step in gradients_of(2, variables):
        optimizer.apply([ops.convert_to_tensor(g) for g in step], variables)
        seen.append([np.array(ops.convert_to_numpy(v.value)) for v in variables])
    optimizer.finalize_variable_values(variables)
    for variable, first, second in zip(variables, *seen, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(variable.value), 0.9 * first + 0.1 * second, rtol=1e-5)


def test_a_variable_of_another_layer_with_the_same_name_is_left_alone(tmp_path):
    slow, fast, model = small(Named()), small(Named()), small(Named())
    plain, faster = trained(slow, make("SGD")), trained(fast, make("SGD", FACTOR * 1e-2))
    theirs = {id(v) for v in model.layers[1].variables}
    own = trained(model, ka.optimizer_for(model, make("SGD"), FACTOR))
    chosen = [is_own(v) and id(v) not in theirs for v in model.variables]
    assert sum(chosen) == 2
    equal(own, [f if c else p for c, p, f in zip(chosen, plain, faster, strict=True)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(X, Y, verbose=0)
    equal(values(model), values(loaded))


def test_a_prelu_of_keras_is_an_activation():
    slow, fast, model = small(layers.PReLU()), small(layers.PReLU()), small(layers.PReLU())
    plain, faster = trained(slow, make("SGD")), trained(fast, make("SGD", FACTOR * 1e-2))
    own = trained(model, ka.optimizer_for(model, make("SGD"), FACTOR))
    equal(own, [f if is_own(v) else p for v, p, f in zip(model.variables, plain, faster, strict=True)])


def test_a_learning_rate_can_be_read_and_set():
    model = small()
    optimizer = ka.optimizer_for(model, make("Adam"), FACTOR)
    assert float(ops.convert_to_numpy(optimizer.learning_rate)) == pytest.approx(1e-2)
    assert optimizer.beta_1 == 0.9 and optimizer.weight_decay is None
    optimizer.learning_rate = 0.5
    assert float(ops.convert_to_numpy(optimizer.inner_optimizer.learning_rate)) == 0.5
    trained(model, optimizer, 2)
    assert int(ops.convert_to_numpy(optimizer.iterations)) == 2


# Saved, loaded and copied

KEPT = {
    "AdamW": lambda: make("AdamW", keras.optimizers.schedules.ExponentialDecay(1e-2, 1, 0.5)),
    "Lamb": lambda: make("Lamb"),
    "Nadam": lambda: make("Nadam", gradient_accumulation_steps=2),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(make("Adam")),
    "several": lambda: keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(make("Adam"))),
}


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("way", ["file", "pickle"])
def test_a_loaded_model_trains_on_as_the_one_saved(kind, way, tmp_path):
    model = small()
    trained(model, ka.optimizer_for(model, KEPT[kind](), FACTOR), 3)
    if way == "file":
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    else:
        loaded = pickle.loads(pickle.dumps(model))
    before = zip(model.optimizer.variables, loaded.optimizer.variables, strict=True)
    assert all(np.array_equal(*map(ops.convert_to_numpy, pair)) for pair in before)
    for each in (model, loaded):
        each.fit(X, Y, epochs=2, verbose=0)
    equal(values(model), values(loaded))
    inner = getattr(loaded.optimizer, "inner_optimizer", None) if kind == "scaled" else loaded.optimizer
    assert type(inner) is ActivationRates and inner.learning_rate_factor == FACTOR


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_is_the_same_optimizer(copied):
    first, second = small(), small()
    expected = trained(first, ka.optimizer_for(first, make("Lamb"), FACTOR), 2)
    equal(trained(second, copied(ka.optimizer_for(second, make("Lamb"), FACTOR)), 2), expected)


def test_a_model_of_version_0_1_0_trains_on():
    """As it did there, on JAX."""
    model = keras.saving.load_model(OLD / "optimizer" / "model.keras")
    assert type(model.optimizer) is ActivationRates and int(ops.convert_to_numpy(model.optimizer.iterations)) == 2
    model.jit_compile = False  # the file says True, as JAX compiles all
    model.fit(X, Y, verbose=0)
    with np.load(OLD / "optimizer" / "next.npz") as file:
        equal(values(model), [file[name] for name in file.files], rtol=1e-5)


def test_other_variables_than_those_saved():
    """They are known by name, unless another layer's were called the same."""
    model = small()
    with ka.only_activations(model):
        config = keras.optimizers.serialize(ka.optimizer_for(model, "sgd", FACTOR))
    found = keras.optimizers.deserialize(config)
    found.build(model.trainable_variables)
    assert [v.name for v in found.chosen.variables] == ["parameters", "mixing_weights"]
    other = small(Named())
    unclear = keras.optimizers.deserialize(keras.optimizers.serialize(ka.optimizer_for(other, "sgd", FACTOR)))
    with pytest.raises(ValueError, match="can't tell which are activations'"):
        unclear.build(model.trainable_variables)


# Refused


class Passing(keras.optimizers.SGD):
    """Takes its steps without `update_step`."""

    def apply(self, grads, trainable_variables=None):
        for gradient, variable in zip(grads, trainable_variables or self._trainable_variables, strict=True):
            variable.assign(variable - gradient)


def test_an_optimizer_that_takes_steps_otherwise_is_refused():
    model = small()
    with pytest.raises(ValueError, match=r"`apply` calls `update_step`.*Received"):
        trained(model, ka.optimizer_for(model, Passing(), FACTOR))


def test_an_optimizer_for_the_wrong_model():
    used = keras.optimizers.SGD()
    used.build(small().trainable_variables)
    plain = keras.Sequential([layers.Input((3,)), layers.Dense(1)])
    for arguments in ((plain, "adam"), (small(), used), (small(), "adam", -1.0), (small(), "adam", "2")):
        with pytest.raises(ValueError, match="Received"):
            ka.optimizer_for(*arguments)


def test_building_twice_changes_nothing():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3, activation=ka.AReLU())])
    optimizer = ka.optimizer_for(model, keras.optimizers.SGD(0.01), learning_rate_factor=10.0)
    for _ in range(2):
        optimizer.build(model.trainable_variables)
    before = float(model.layers[0].activation.get_parameters()["a"])
    ones = [keras.ops.ones(v.shape) for v in model.trainable_variables]
    optimizer.apply(ones, model.trainable_variables)
    assert float(model.layers[0].activation.get_parameters()["a"]) == pytest.approx(before - 0.1)
