"""The fast way to run a formula: what it keeps, that it equals the plain one, and where it must work."""

import copy
import dataclasses
import functools
import pickle
import runpy
import threading
from importlib import import_module

import keras
import numpy as np
import pytest
from autodiff import by_name, differentiate
from cases import CASES
from keras import layers, ops

import keras_adaptact as ka
from keras_adaptact import config

BACKEND = keras.backend.backend()
backend = import_module(f"keras_adaptact.backends.{BACKEND}")
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
Z = np.random.default_rng(0).normal(0, 2, (6, 5, 7, 3)).astype("float32")


WAYS = ("native", "small", "large")


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Has every tensor go by the kernels, or the way of small ones or of large ones: several chunks, and a rest."""
    monkeypatch.setattr(backend, "NATIVE", 1 if request.param == "native" else 2**40)
    monkeypatch.setattr(backend, "LARGE", 2**40 if request.param == "small" else 1)
    monkeypatch.setattr(backend, "CHUNK", 130)
    return request.param


def cases(*chosen):
    """The cases of each way: on torch, where a program takes seconds to compile, few of them large."""
    few = [case for case in CASES if case.id in (chosen or ("method1", "pelu"))]
    large = few if BACKEND == "torch" or chosen else CASES
    of_way = {"native": few if chosen else CASES, "small": few if chosen else CASES, "large": large}
    pairs = [(way, case) for way in WAYS for case in of_way[way]]
    return pytest.mark.parametrize("way, case", pairs, ids=lambda x: getattr(x, "id", x), indirect=["way"])


@pytest.fixture
def plain():
    yield lambda: config.set_implementation("plain")
    config.set_implementation("fast")


def fresh(case, **options):
    layer = ka.get(({"name": case.spec} if isinstance(case.spec, str) else case.spec) | options)
    by_channel = layer.granularity == "channel"
    layer.set_parameters(**case.by_channel(np.array([1.0, 1.25, 0.75])) if by_channel else case.trained)
    return layer


def kept_by_jax(layer, z):
    import jax

    fixed = [v.value for v in layer.non_trainable_variables]
    trained = [v.value for v in layer.trainable_variables]
    _, pull = jax.vjp(lambda trained, z: layer.stateless_call(trained, fixed, z)[0], trained, z)
    return [leaf.nbytes for leaf in jax.tree.leaves(pull)]


def kept_by_torch(layer, z):
    import torch

    found = {}
    z = z.clone().requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: found.setdefault(x.data_ptr(), x), lambda x: x):
        layer(z)
    return [x.nbytes for x in found.values()]


def kept_by_tensorflow(layer, z):
    """What the operations of the backward pass take from those of the forward pass."""
    import tensorflow as tf

    kept = set()

    @tf.function
    def trace(z):
        graph = tf.compat.v1.get_default_graph()
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = layer(z)
        forward = set(graph.get_operations())
        tape.gradient(y, [z, *(v.value for v in layer.trainable_variables)], tf.ones_like(y))
        for operation in set(graph.get_operations()) - forward:
            for tensor in operation.inputs:
                if tensor.op in forward:
                    while tensor.op.type in ("Reshape", "Identity", "StopGradient", "IdentityN"):  # the same memory
                        index = tensor.value_index if tensor.op.type == "IdentityN" else 0
                        tensor = tensor.op.inputs[index]
                    kept.add(tensor.ref())

    trace.get_concrete_function(tf.TensorSpec(z.shape, z.dtype))
    return [np.prod(ref.deref().shape) * ref.deref().dtype.size for ref in kept]


def kept(layer, dtype="float32"):
    """Bytes of the tensors of a tensor's size that are kept for the backward pass."""
    z = ops.cast(ops.convert_to_tensor(np.ones((8, 6, 6, 3), "float32")), dtype)
    layer.build(z.shape)
    found = {"jax": kept_by_jax, "torch": kept_by_torch, "tensorflow": kept_by_tensorflow}[BACKEND](layer, z)
    return sum(n for n in found if n >= z.shape[0] * 36), 8 * 36 * 3 * (2 if "16" in dtype else 4)


@every_case
@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_one_tensor_is_kept(case, granularity):
    for dtype in ("float32", "mixed_bfloat16"):
        options = {"channels": 3} if granularity == "channel" else {}
        layer = fresh(case, granularity=granularity, dtype=dtype, **options)
        bytes_kept, one = kept(layer, layer.compute_dtype)
        assert bytes_kept == one


def test_the_plain_formula_keeps_more(plain):
    """So that the test above can fail."""
    plain()
    bytes_kept, one = kept(ka.Method1())
    assert bytes_kept >= 3 * one


def agree(case, layer_options, z, plain):
    """Values and gradients of the fast way are those of the plain formula, and so are its NaN and infinities."""
    upstream = np.random.default_rng(1).normal(size=z.shape).astype("float32")
    extreme = z.copy()
    extreme.flat[:3] = [np.nan, np.inf, -np.inf]
    found, expected = [], []
    for into in (found, expected):
        layer = fresh(case, **layer_options)
        into += [differentiate(layer, z, upstream), differentiate(layer, extreme, upstream)[:2]]
        plain()
    (*values, by_variables), extremes = found
    (*plain_values, plain_by_variables), plain_extremes = expected
    for value, reference in zip([*values, *extremes], [*plain_values, *plain_extremes], strict=True):
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (value, reference)), rtol=1e-5, atol=1e-5)
    sums, plain_sums = by_name(layer, by_variables), by_name(layer, plain_by_variables)
    for name, reference in plain_sums.items():
        np.testing.assert_allclose(sums[name], reference, rtol=1e-4, atol=1e-6 * np.abs(upstream).sum(), err_msg=name)


@cases()
def test_fast_and_plain_agree(way, case, plain):
    agree(case, {}, Z, plain)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@cases("method1", "pelu")
def test_fast_and_plain_agree_by_channel(way, case, data_format, plain):
    z = Z.transpose(0, 3, 1, 2).copy() if data_format == "channels_first" else Z
    agree(case, {"granularity": "channel", "channels": 3, "data_format": data_format}, z, plain)


def second_derivative(layer, z):
    """Gradients, by z and the variables, of the squared gradient by z of the squared output."""
    variables = [v.value for v in layer.trainable_variables]
    if BACKEND == "jax":
        import jax

        def inner(z, trained):
            return ops.sum(ops.square(layer.stateless_call(trained, [], z)[0]))

        def outer(z, trained):
            return ops.sum(ops.square(jax.grad(inner)(z, trained)))

        by_z, by_variables = jax.grad(outer, argnums=(0, 1))(z, variables)
        return [by_z, *by_variables]
    if BACKEND == "torch":
        import torch

        z = z.clone().requires_grad_(True)
        (first,) = torch.autograd.grad(layer(z).square().sum(), z, create_graph=True)
        return list(torch.autograd.grad(first.square().sum(), [z, *variables]))
    import tensorflow as tf

    @tf.function
    def run(z):
        with tf.GradientTape() as outside:
            outside.watch(z)
            with tf.GradientTape() as inside:
                inside.watch(z)
                y = tf.reduce_sum(tf.square(layer(z)))
            first = tf.reduce_sum(tf.square(inside.gradient(y, z)))
        return outside.gradient(first, [z, *variables], unconnected_gradients="zero")

    return run(z)


@cases("method1", "swish")
def test_second_derivatives(way, case, plain):
    z = ops.convert_to_tensor(Z)
    found = [ops.convert_to_numpy(x) for x in second_derivative(fresh(case), z)]
    plain()
    expected = [ops.convert_to_numpy(x) for x in second_derivative(fresh(case), z)]
    assert all(np.abs(x).max() > 0 for x in expected)
    for value, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-5 * np.abs(reference).max())


def trains(model, shape, **options):
    """Fits for two epochs with a last batch of another size, and predicts on a third size."""
    model.compile("sgd", "mse", **options)
    before = [ops.convert_to_numpy(v.value) for v in model.trainable_variables]
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(20, *shape)), rng.normal(size=(20, 1)), batch_size=8, epochs=2, verbose=0)
    assert model.predict(rng.normal(size=(3, *shape)), verbose=0).shape == (3, 1)
    after = [ops.convert_to_numpy(v.value) for v in model.trainable_variables]
    assert all(np.any(a != b) and np.all(np.isfinite(b)) for a, b in zip(before, after, strict=True))


# Keras compiles a whole step on torch in a minute; `test_inside_torch_compile_and_functorch` stands for it.
@pytest.mark.parametrize("jit_compile", [False] if BACKEND == "torch" else [False, True])
def test_it_trains_with_and_without_a_compiler_around_it(jit_compile, way):
    model = keras.Sequential([layers.Input((4, 4, 3)), layers.Conv2D(4, 3, activation=ka.Method1()), layers.Flatten()])
    model.add(ka.AReLU(granularity="channel"))
    model.add(layers.Dense(1))
    trains(model, (4, 4, 3), jit_compile=jit_compile)


def test_copies_and_threads(way):
    layer = fresh(CASES[8])
    expected = ops.convert_to_numpy(layer(Z))
    model = keras.Sequential([layers.Input(Z.shape[1:]), layer])
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(ops.convert_to_numpy(copied(Z)), expected)
    found = []
    threads = [threading.Thread(target=lambda: found.append(ops.convert_to_numpy(layer(Z)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for value in found:
        np.testing.assert_array_equal(value, expected)


def test_the_implementation_is_chosen_by_name(monkeypatch, plain):
    assert config.implementation() == "fast"
    plain()
    assert config.implementation() == "plain"
    with pytest.raises(ValueError, match=r"'fast', 'plain'.*'quick'"):
        config.set_implementation("quick")
    monkeypatch.setenv("KERAS_ADAPTACT_IMPLEMENTATION", "plain")
    assert runpy.run_path(config.__file__)["implementation"]() == "plain"


if BACKEND == "jax":
    import jax

    def test_transformations_of_jax(way, plain):
        layer = fresh(CASES[8])
        (parameters, weights) = (v.value for v in layer.trainable_variables)

        def run(parameters, z):
            return layer.stateless_call([parameters, weights], [], z)[0]

        def every():
            gradient = jax.grad(lambda p, z: run(p, z).sum(), argnums=(0, 1))
            several = jax.numpy.stack([parameters, 2 * parameters])
            yield jax.vmap(run, (None, 0))(parameters, Z)
            yield jax.vmap(gradient, (0, None))(several, Z)
            yield jax.grad(jax.checkpoint(lambda p: run(p, Z).sum()))(parameters)
            yield jax.jacrev(run)(parameters, Z[0])
            yield jax.hessian(lambda p: run(p, Z).sum())(parameters)

        found = jax.tree.leaves(list(every()))
        plain()
        for value, expected in zip(found, jax.tree.leaves(list(every())), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())

    def test_forward_mode_of_small_tensors():
        layer = fresh(CASES[1])
        _, slope = jax.jvp(
            lambda z: layer.stateless_call([v.value for v in layer.weights], [], z)[0], (Z,), (Z * 0 + 1,)
        )
        a, b, c, _ = (float(layer.get_parameters()[k]) for k in "abcd")
        np.testing.assert_allclose(slope, a * b / np.cosh(a * Z.astype("float64") + c) ** 2, rtol=1e-4, atol=1e-6)


if BACKEND == "torch":
    import torch

    @pytest.fixture
    def no_kernels(monkeypatch):
        monkeypatch.setattr(backend, "NATIVE", 2**40)

    def test_one_program_serves_every_batch_and_layer(monkeypatch, no_kernels):
        monkeypatch.setattr(backend, "LARGE", 1)
        monkeypatch.setattr(backend, "_PROGRAMS", {})
        for shape in ((8, 5, 4), (9, 5, 4), (64, 33), (3, 4, 5, 6), (1, 1), (0, 3)):
            z = np.random.default_rng(0).standard_normal(shape).astype("float32")
            y, by_z, by_variables = differentiate(ka.Swish(), z, np.ones_like(z))
            s = 1 / (1 + np.exp(-z.astype("float64")))
            np.testing.assert_allclose(ops.convert_to_numpy(y), z * s, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(by_z, s * (1 + z * (1 - s)), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(by_variables[0].ravel(), np.sum(z**2 * s * (1 - s)), rtol=1e-4, atol=1e-6)
        assert len(backend._PROGRAMS) == 2  # forward and backward

    def test_small_tensors_of_a_kind_go_one_way_for_as_long_as_the_process_lives(monkeypatch, no_kernels):
        """Or a run that is resumed would compute its first steps in another way than one that was not."""
        monkeypatch.setattr(backend, "LARGE", 100)

        def steps(layer, *sizes):
            monkeypatch.setattr(backend, "_PROGRAMS", {})
            monkeypatch.setattr(backend, "_SMALL", {})
            for size in sizes:
                layer(torch.randn(size, requires_grad=True)).sum().backward()
            return list(backend._SMALL.values())

        assert steps(ka.FReLU(), 10) == [False]
        assert steps(ka.FReLU(), 100, 10) == [True]
        assert steps(ka.FReLU(), 10, 100, 10) == [False]

    @pytest.mark.parametrize("name", ["tanh", "sigmoid"])
    def test_vector_arithmetic_is_exact(name):
        from keras_adaptact.backends import torch_vector

        x = np.concatenate([np.linspace(-80, 80, 400_001), np.geomspace(1e-30, 80), [0.0]]).astype("float32")
        exact = np.tanh(x.astype("float64")) if name == "tanh" else 1 / (1 + np.exp(-x.astype("float64")))
        found = getattr(torch_vector, name)(torch.tensor(x)).numpy()
        np.testing.assert_allclose(found, exact, rtol=1e-6, atol=0)
        extremes = getattr(torch_vector, name)(torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30]))
        low = -1 if name == "tanh" else 0
        np.testing.assert_allclose(extremes, [np.nan, 1, low, 1], rtol=1e-6, atol=1e-37)

    def test_memory_in_another_order_stays_in_it(monkeypatch, plain):
        """A channels_last view of a channels_first convolution's output is neither copied nor taken as it isn't."""
        monkeypatch.setattr(backend, "LARGE", 1)
        z = torch.randn(2, 3, 5, 7).permute(0, 2, 3, 1)
        upstream = torch.randn(2, 5, 7, 3)
        layer = ka.Swish(granularity="channel", channels=3)
        layer.set_parameters(beta=[1.0, 2.0, -1.0])
        y, by_z, by_variables = differentiate(layer, z, upstream)
        assert y.stride() == z.stride() == by_z.stride()
        plain()
        for found, expected in zip((y, by_z, *by_variables), _leaves(differentiate(layer, z, upstream)), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    def _leaves(result):
        y, by_z, by_variables = result
        return y, by_z, *by_variables

    def test_without_a_compiler_it_says_so_once_and_works(monkeypatch, no_kernels):
        from torch._inductor import cpp_builder

        def none():
            raise RuntimeError("no C++ compiler")

        monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(backend, "LARGE", 1)
        backend._has_compiler.cache_clear()
        layer = fresh(CASES[8])
        with pytest.warns(UserWarning, match="no compiler"):
            differentiate(layer, Z, np.ones_like(Z))
        differentiate(layer, Z, np.ones_like(Z))  # a second warning would be an error
        backend._has_compiler.cache_clear()

    def test_inside_torch_compile_and_functorch(monkeypatch):
        monkeypatch.setattr(backend, "LARGE", 1)
        layer = fresh(CASES[1])
        z = torch.tensor(Z)
        expected = layer(z).detach()
        compiled = torch.compile(layer)
        torch.testing.assert_close(compiled(z).detach(), expected)
        torch.testing.assert_close(torch.func.vmap(layer)(z).detach(), expected)
        slope = torch.func.grad(lambda z: layer(z).sum())(z)
        torch.testing.assert_close(slope, differentiate(layer, Z, np.ones_like(Z))[1], rtol=1e-5, atol=1e-6)


if BACKEND == "tensorflow":
    import tensorflow as tf

    def test_export(way, tmp_path):
        layer = fresh(CASES[8])
        model = keras.Sequential([layers.Input((5, 7, 3)), layer])
        expected = ops.convert_to_numpy(model(Z))
        model.export(tmp_path / "saved", verbose=False)
        loaded = tf.saved_model.load(tmp_path / "saved")
        np.testing.assert_allclose(loaded.serve(Z), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize("granularity", ["layer", "channel"])
    @pytest.mark.parametrize("how", ["directly", "in a function", "of a function", "compiled", "over reverse"])
    def test_forward_mode(how, granularity, training):
        """Derivatives of tanh(1.5 z + 0.25) along a direction, by z and by the parameter a."""
        layer = ka.ATanh(granularity=granularity, a_initializer=1.5, c_initializer=0.25)
        layer.build(Z.shape)
        direction = np.cos(Z)
        call = functools.partial(layer, training=training)
        call = tf.function(call) if how == "of a function" else call

        def derivatives(z, direction):
            parameters = layer._packed.value
            number = 1 if granularity == "layer" else Z.shape[-1]  # `a` comes first, of all channels
            by_a = tf.concat([tf.ones_like(parameters[:number]), tf.zeros_like(parameters[number:])], 0)
            found = []
            for of, along in ((z, direction), (parameters, by_a)):
                with tf.autodiff.ForwardAccumulator(of, along) as forward, tf.GradientTape() as tape:
                    tape.watch(z)
                    y = call(z)
                    if how == "over reverse":
                        with tape.stop_recording():
                            y = tape.gradient(y, z)
                found.append(forward.jvp(y))
            return found

        run = {"in a function": tf.function, "compiled": functools.partial(tf.function, jit_compile=True)}
        by_z, by_a = run.get(how, lambda function: function)(derivatives)(tf.constant(Z), tf.constant(direction))
        u = 1.5 * Z.astype("float64") + 0.25
        slope, curvature = np.cosh(u) ** -2, -2 * np.tanh(u) * np.cosh(u) ** -2
        expected = slope * 1.5 * direction, slope * Z
        if how == "over reverse":
            expected = 1.5**2 * curvature * direction, slope + 1.5 * curvature * Z
        np.testing.assert_allclose(by_z, expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(by_a, expected[1], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("size", [8, 64], ids=["small", "large"])
    @pytest.mark.parametrize("training", [False, True])
    def test_a_function_traced_before_it_is_saved_runs_elsewhere(size, training, tmp_path):
        """Nothing of ours is left in it, nor what only XLA runs."""
        model = keras.Sequential([layers.Input((size, size, 3)), layers.Conv2D(4, 3, activation=ka.Method1())])
        x = np.ones((16, size, size, 3), "float32")
        traced = tf.function(
            lambda x: model(x, training=training), input_signature=[tf.TensorSpec((None, *x.shape[1:]))]
        )
        expected = traced(x)
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", traced)
        archive.write_out(tmp_path / "archive", verbose=False)
        module = tf.Module()
        module.model, module.serve = model, traced
        tf.saved_model.save(module, tmp_path / "module")
        for name in ("archive", "module"):
            written = (tmp_path / name / "saved_model.pb").read_bytes()
            assert b"KerasAdaptact" not in written and b"_XlaMustCompile\x12\x02(\x01" not in written
            loaded = tf.saved_model.load(tmp_path / name)
            np.testing.assert_allclose(loaded.serve(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own way of shipping")
def test_an_exported_model_has_nothing_that_only_xla_runs(tmp_path):
    """A large activation runs as a compiled program in training, which ONNX Runtime and LiteRT don't take."""
    model = keras.Sequential([keras.layers.Input((64, 64, 3)), keras.layers.Conv2D(8, 3), ka.Method1()])
    model(np.zeros((16, 64, 64, 3), "float32"))
    model.export(tmp_path / "model", verbose=False)
    assert b"_XlaMustCompile" not in (tmp_path / "model" / "saved_model.pb").read_bytes()


class Reading(ka.TrainableActivation):
    """Reads an attribute, which may change."""

    a = ka.Parameter(1.0)

    def __init__(self, k=1.0, **options):
        super().__init__(**options)
        self.k = k

    def formula(self, z, a):
        return a * self.k * z


class Owning(ka.TrainableActivation):
    """Has a variable beside its parameters."""

    a = ka.Parameter(1.0)

    def __init__(self, **options):
        super().__init__(**options)
        self.t = self.add_weight(name="t", shape=(), initializer="ones")

    def formula(self, z, a):
        return a * self.t * z


@pytest.mark.parametrize("size", [8, 2**18])
def test_what_a_formula_reads_beside_its_arguments_is_not_kept(size):
    x = np.ones((1, size), "float32")
    layer = Reading()
    model = keras.Sequential([layers.Input((size,)), layer])
    for k in (1.0, 3.0):
        layer.k = k
        model.compile(keras.optimizers.SGD(0.0), "mae")
        assert model.train_on_batch(x, 0 * x) == pytest.approx(k)
        assert ops.convert_to_numpy(model(x))[0, 0] == k
    factor = keras.Variable(1.0)
    for layer in (Owning(), ka.AdaptiveActivation(lambda z: ops.tanh(factor * z))):
        model = keras.Sequential([layers.Input((size,)), layer])
        model.compile(keras.optimizers.SGD(0.1), "mae")
        model.fit(x, 0 * x, verbose=0)
        values = [float(ops.convert_to_numpy(v)) for v in layer.trainable_variables if not len(v.shape)]
        assert all(value < 1.0 for value in values) and np.isfinite(ops.convert_to_numpy(model(x))).all()


@pytest.mark.parametrize("size", [8, 2**18])
def test_formulas_without_parameters_or_a_hash(size):
    class Bare(ka.TrainableActivation):
        def formula(self, z):
            return ops.round(z) + z

    @dataclasses.dataclass
    class Unhashable:
        factor: float = 2.0

        def __call__(self, z):
            return self.factor * z

    x = np.full((1, size), 0.75, "float32")
    for layer, expected in ((Bare(), 1.75), (ka.AdaptiveActivation(Unhashable()), 1.5)):
        model = keras.Sequential([layers.Input((size,)), ka.AReLU(), layer])
        model.compile(keras.optimizers.SGD(0.0), "mae")
        model.train_on_batch(x, x)
        model = keras.Sequential([layers.Input((size,)), layer])
        assert np.isclose(ops.convert_to_numpy(model(x))[0, 0], expected)
