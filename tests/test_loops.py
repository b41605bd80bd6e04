"""Loops that aren't Keras's: bounds, groups and labels of parameters, and which activations are trained."""

import importlib

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_adaptact as ka

BACKEND = keras.config.backend()
X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.tanh(X[:, :1])
on = {b: pytest.mark.skipif(b != BACKEND, reason=f"a loop of {b}'s") for b in ("jax", "torch")}


def model_of(*activations):
    keras.utils.set_random_seed(0)
    parts = [x for a in activations for x in (layers.Dense(3), a)]
    return keras.Sequential([layers.Input((4,)), *parts, layers.Dense(1, kernel_constraint="non_neg")])


def number(variable):
    return np.array(ops.convert_to_numpy(variable.value))


# Bounds


def bounded(granularity):
    user = ka.ATanh(granularity, a_constraint="non_neg", c_constraint=ka.parameters.Between(-0.5, 0.5))
    parts = ka.Method2(granularity=granularity), ka.PELU(granularity), user, ka.PReLU(alpha_constraint="non_neg")
    return model_of(*parts), parts


def push_out(model):
    for variable in model.variables:
        variable.assign(-2 * np.ones(variable.shape))


def within(parts):
    """What the constraints make of -2 everywhere, by their definitions."""
    mixture, pelu, tanh, prelu = parts
    assert np.all(mixture.get_parameters()["weights"] == np.float32(1e-3))
    np.testing.assert_allclose(mixture.mixing_weights, 1 / 3, rtol=1e-6)
    assert np.all(pelu.a == np.float32(0.1)) and np.all(pelu.b == np.float32(0.1))
    found = {name: np.unique(value).tolist() for name, value in tanh.get_parameters().items()}
    assert found == {"a": [0.0], "b": [-2.0], "c": [-0.5], "d": [-2.0]}
    assert np.all(number(prelu.alpha) == 0)


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_constraints_are_applied_as_keras_would(granularity):
    model, parts = bounded(granularity)
    push_out(model)
    assert ka.apply_constraints(model) is None
    within(parts)
    last = model.layers[-1]
    assert np.all(number(last.kernel) == 0) and np.all(number(last.bias) == -2)
    assert np.all(number(model.layers[0].kernel) == -2)


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_constraints_of_a_state_are_a_pure_function(granularity):
    model, parts = bounded(granularity)
    before = [number(v) for v in model.variables]
    outside = [ops.convert_to_tensor(-2 * np.ones(v.shape, "float32")) for v in model.trainable_variables]
    function = lambda values: ka.apply_constraints(model, values)  # noqa: E731
    if BACKEND == "jax":
        function = importlib.import_module("jax").jit(function)
    if BACKEND == "tensorflow":
        function = importlib.import_module("tensorflow").function(function)
    found = function(outside)
    assert type(function(tuple(outside))) is tuple
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(number(variable), old)
    for variable, value in zip(model.trainable_variables, found, strict=True):
        variable.assign(value)
    within(parts)


def test_what_constraints_cant_be_applied_to_is_an_error():
    model = model_of(ka.PELU())
    with pytest.raises(ValueError, match=r"one for each of 5 variables\. Received: 1"):
        ka.apply_constraints(model, [1.0])
    with pytest.raises(ValueError, match="no variables yet"):
        ka.apply_constraints(keras.Sequential([layers.Dense(1)]))
    with pytest.raises(TypeError, match="Received: 3"):
        ka.apply_constraints(3)


def test_a_held_parameter_is_not_moved_but_reported():
    layer = ka.PELU(a_trainable=False)
    model = model_of(layer)
    layer._held.assign(np.full(layer._held.shape, 0.05))
    ka.apply_constraints(model)
    assert layer.a == np.float32(0.05)
    (finding,) = ka.check(model)
    assert "a = 0.05 lies outside" in finding.what


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_check_finds_what_lies_outside(granularity):
    model, parts = bounded(granularity)
    assert ka.check(model) == []
    push_out(model)
    found = [(f.site, f.what.split(" = ")[0]) for f in ka.check(model) if "lies outside" in f.what]
    mixture, pelu, tanh, prelu = (part.name for part in parts)
    expected = [(mixture, "weights"), (pelu, "a"), (pelu, "b"), (tanh, "a"), (tanh, "c"), (prelu, "alpha")]
    assert sorted(found) == sorted(expected)
    ka.apply_constraints(model)
    assert not [f for f in ka.check(model) if "outside" in f.what]


def test_others_can_be_set_while_one_lies_outside():
    mixture = ka.Method1()
    mixture._raw_weights.assign([2.0, -1.0, 1.0])
    mixture.set_parameters(atanh_a=0.5)
    assert mixture.get_parameters()["atanh_a"] == 0.5
    with pytest.raises(ValueError, match="weights"):
        mixture.set_parameters(weights=[2.0, -1.0, 1.0])


@on["torch"]
def test_bounds_hold_in_torch():
    """Gradients that draw every raw weight below 0: without bounds Adam takes them there in a few steps."""
    import torch

    layer = ka.Method2()
    model = model_of(layer)
    optimizer = torch.optim.Adam(model.parameters(), 0.5)
    lowest = []
    for _ in range(5):
        optimizer.zero_grad()
        layer._raw_weights.value.sum().backward()
        optimizer.step()
        lowest.append(layer.get_parameters()["weights"].min())
        ka.apply_constraints(model)
        assert layer.get_parameters()["weights"].min() >= np.float32(1e-3)
        assert layer._raw_weights.value.requires_grad
    assert min(lowest) < 0


# Groups and labels


def two_sites():
    keras.utils.set_random_seed(0)
    activations = ka.Method1(granularity="channel"), layers.Dense(3, activation=ka.AReLU()), ka.PReLU()
    return model_of(*activations)


def is_own(variable):
    return variable.name in ("parameters", "mixing_weights", "alpha")


def test_labels_stand_in_the_order_of_variables():
    model = two_sites()
    expected = ["activation" if is_own(v) else "other" for v in model.trainable_variables]
    assert ka.parameter_labels(model) == expected and expected.count("activation") == 4
    assert ka.parameter_labels(model, False, True) == [label == "other" for label in expected]
    ka.freeze_activations(model)
    assert set(ka.parameter_labels(model)) == {"other"}


FUNCTIONS = [ka.parameter_labels, ka.optimizer_for, lambda model: ka.only_activations(model).__enter__()]
FUNCTIONS += [ka.parameter_groups] if BACKEND == "torch" else []


@pytest.mark.parametrize("function", FUNCTIONS)
def test_models_without_what_is_to_be_trained_are_errors(function):
    with pytest.raises(ValueError, match="no trainable activations"):
        function(model_of(layers.ReLU()))
    with pytest.raises(ValueError, match=r"must be built.*dense"):
        function(keras.Sequential([layers.Dense(3), ka.AReLU()]))
    with pytest.raises(TypeError, match="Received: 3"):
        function(3)


@on["jax"]
def test_optax_takes_labels_and_masks():
    """Plain descent with gradients of 1: each value moves by its own rate, and decays by the mask."""
    import jax
    import optax

    model = two_sites()
    values = [v.value for v in model.trainable_variables]
    transform = optax.chain(
        optax.add_decayed_weights(0.5, mask=ka.parameter_labels(model, activation=False, other=True)),
        optax.multi_transform({"activation": optax.sgd(0.3), "other": optax.sgd(0.1)}, ka.parameter_labels(model)),
    )
    state = transform.init(values)
    updates, _ = jax.jit(transform.update)([np.ones_like(v) for v in values], state, values)
    for variable, value, update in zip(model.trainable_variables, values, updates, strict=True):
        expected = np.full(value.shape, -0.3) if is_own(variable) else -0.1 * (1 + 0.5 * np.asarray(value))
        np.testing.assert_allclose(update, expected, rtol=1e-5)


def torch_optimizers():
    if BACKEND != "torch":
        return []
    import torch

    alone = "LBFGS", "Muon", "SparseAdam"  # take no groups; matrices alone; gradients of embeddings alone
    found = {name: kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
    return sorted(
        n for n, k in found.items() if issubclass(k, torch.optim.Optimizer) and n not in ("Optimizer", *alone)
    )


@on["torch"]
@pytest.mark.parametrize("name", torch_optimizers())
def test_groups_go_into_any_optimizer_of_torch(name):
    """A first step with a factor of 3 is that of the optimizer at three times the rate, for activations alone."""
    import torch

    kind = getattr(torch.optim, name)

    def moved(make):
        model = two_sites()
        optimizer = make(model)
        before = [number(v) for v in model.trainable_variables]
        torch.mean((model(X) - torch.tensor(Y)) ** 2).backward()
        optimizer.step()
        held = sum(len(group["params"]) for group in optimizer.param_groups)
        assert held == len(model.trainable_variables) == len(list(model.parameters()))
        return [(v, number(v) - old) for v, old in zip(model.trainable_variables, before, strict=True)]

    slow, fast = (moved(lambda m, rate=rate: kind(m.parameters(), lr=rate)) for rate in (1e-3, 3e-3))
    decay = kind(two_sites().parameters(), lr=1e-3).defaults.get("weight_decay", 0.0)
    mixed = moved(lambda m: kind(ka.parameter_groups(m, 3.0, weight_decay=decay), lr=1e-3))
    for (variable, found), (_, one), (_, three) in zip(mixed, slow, fast, strict=True):
        np.testing.assert_allclose(found, three if is_own(variable) else one, rtol=1e-5, atol=1e-9)


@on["torch"]
def test_groups_keep_their_ratio_when_rates_change_and_states_load():
    import copy
    import pickle

    import torch

    model = two_sites()
    optimizer = torch.optim.AdamW(ka.parameter_groups(model, 10.0), lr=0.01, weight_decay=0.1)
    other, own = optimizer.param_groups
    assert (own["lr"], own["weight_decay"]) == (pytest.approx(0.1), 0.0)
    assert (other["lr"], other["weight_decay"]) == (0.01, 0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    torch.mean(model(X)).backward()
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.005, 0.05])
    state = pickle.loads(pickle.dumps(optimizer.state_dict()))
    again = torch.optim.AdamW(ka.parameter_groups(model), lr=1.0)
    again.load_state_dict(state)
    for found in (again, copy.deepcopy(optimizer)):
        assert [group["lr"] for group in found.param_groups] == pytest.approx([0.005, 0.05])


@on["torch"]
def test_groups_hold_what_is_trained():
    import torch

    model = two_sites()
    with ka.only_activations(model):
        (group,) = ka.parameter_groups(model)
        assert len(group["params"]) == 4
    ka.freeze_activations(model)
    (group,) = ka.parameter_groups(model)
    assert len(group["params"]) == len(model.trainable_variables)
    copied = torch.optim.SGD([dict(g) for g in ka.parameter_groups(two_sites(), 3.0)], lr=0.1)
    copied.param_groups[1]["params"][0].grad = torch.ones_like(copied.param_groups[1]["params"][0])
    with pytest.raises(TypeError, match="Multiple"):  # no silent rate of the others
        copied.step()
    for arguments in ({"learning_rate_factor": -1}, {"weight_decay": -0.1}, {"learning_rate_factor": None}):
        with pytest.raises(ValueError, match="0 or more"):
            ka.parameter_groups(model, **arguments)


@pytest.mark.skipif(BACKEND == "torch", reason="groups are torch's")
def test_groups_are_for_torch():
    with pytest.raises(ValueError, match=f"for torch.*{BACKEND}"):
        ka.parameter_groups(two_sites())


# What is trained


def frozen_model():
    model = two_sites()
    model.trainable = False
    return model


def frozen_activations():
    return ka.freeze_activations(two_sites())


def frozen_base():
    base = two_sites()
    base.trainable = False
    return keras.Sequential([layers.Input((4,)), base, layers.Dense(1)])


def made_frozen():
    return model_of(ka.AReLU(trainable=False), ka.Mixture(["tanh", "relu"], trainable=False))


@pytest.mark.parametrize("make", [frozen_model, frozen_activations, frozen_base, made_frozen])
def test_only_activations_trains_frozen_ones(make):
    model = make()
    variables, parts = model.variables, [model, *model._flatten_layers()]
    before = [(number(v), v.trainable) for v in variables], [part.trainable for part in parts]
    with ka.only_activations(model):
        assert {id(v) for v in model.trainable_variables} == {id(v) for v in variables if is_own(v)}
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
        model.fit(X, Y, verbose=0)
    for variable, (old, trained) in zip(variables, before[0], strict=True):
        assert np.any(number(variable) != old) == is_own(variable), variable.path
        assert variable.trainable == trained
    assert [part.trainable for part in parts] == before[1]


def test_a_frozen_normalization_stays_frozen():
    norm = layers.BatchNormalization()
    model = model_of(norm, ka.ATanh())
    norm.trainable = False
    with ka.only_activations(model):
        model.compile("sgd", "mse", jit_compile=False)
        model.fit(X, Y, verbose=0)
    assert np.all(number(norm.moving_mean) == 0)


def test_held_parameters_stay_held():
    layer, fixed = ka.AReLU(c_trainable=False), ka.Method2(weights=[0.5, 0.25, 0.25])
    model = model_of(layer, fixed)
    model.trainable = False
    with ka.only_activations(model):
        assert [id(v) for v in model.trainable_variables] == [id(layer._packed)]
    none = model_of(ka.AReLU(trainable_parameters=[]))
    with pytest.raises(ValueError, match="are held"), ka.only_activations(none):
        pass
    assert len(none.trainable_variables) == 4


def test_freezing_works_before_building_and_refuses_what_has_no_activations():
    model = keras.Sequential([layers.Dense(3, activation=ka.AReLU("channel")), ka.Method1(granularity="channel")])
    ka.freeze_activations(model)
    model.build((None, 4))
    assert [v.name for v in model.trainable_variables] == ["kernel", "bias"]
    for function in (ka.freeze_activations, ka.unfreeze_activations):
        with pytest.raises(ValueError, match="no trainable activations"):
            function(model_of(layers.ReLU()))


def test_activations_of_a_frozen_model_can_be_trained_alone():
    model = frozen_model()
    assert ka.unfreeze_activations(model) is model
    assert {v.name for v in model.trainable_variables} == {"parameters", "mixing_weights", "alpha"}
    unfrozen_twice = two_sites()
    every = len(unfrozen_twice.trainable_variables)
    assert len(ka.unfreeze_activations(unfrozen_twice).trainable_variables) == every


# History, and Taylor series


def test_history_is_recorded_without_callbacks(tmp_path):
    layer = ka.AReLU()
    model = model_of(layer)
    history = ka.ActivationHistory(tmp_path / "a.csv")
    for step, value in ((0, 1.0), (np.int64(10), 0.5)):
        layer.a = value
        history.record(model, step)
    assert [(r["epoch"], r["value"]) for r in history.records if r["parameter"] == "a"] == [(0, 1.0), (10, 0.5)]
    assert (tmp_path / "a.csv").read_text().count("\n10,") == 4
    for wrong in (10, 3, "11", 11.0, True):
        with pytest.raises(ValueError, match="above 10"):
            history.record(model, wrong)
    with pytest.raises(ValueError, match="needs a model with trainable activations"):
        ka.ActivationHistory().record(model_of(layers.ReLU()), 0)


def test_history_needs_no_beginning():
    model, history = model_of(ka.AReLU()), ka.ActivationHistory()
    history.set_model(model)
    history.on_epoch_end(0)
    history.on_epoch_end(1)
    assert list(history.snapshots) == [1, 2]


@on["jax"]
@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_taylor_series_are_the_formulas(granularity):
    """Of tanh(a z): a (1 - t^2) and -2 a^2 t (1 - t^2), in float64; of its gradient by z; compiled and not."""
    import jax
    from jax.experimental.jet import jet

    layer = ka.ATanh(granularity, a_initializer=1.5)
    z = X[:, :3]
    layer(z)
    t = np.tanh(1.5 * z.astype("float64"))
    first, second = 1.5 * (1 - t**2), -2 * 1.5**2 * t * (1 - t**2)
    slope = jax.grad(lambda z: ops.sum(layer(z)))
    series = ((np.ones_like(z), np.zeros_like(z)),)
    for function, expected in ((layer, (t, first, second)), (slope, (first, second))):
        for run in (function, jax.jit(function)):
            value, terms = jet(run, (z,), series)
            for found, known in zip((value, *terms), expected, strict=False):
                np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)
