"""The kernels for the CPU: what becomes one, and where they must not go."""

import functools
import threading
from importlib import import_module
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from autodiff import differentiate, gradients
from keras import layers, ops
from scipy.special import expit

import keras_adaptact as ka
from keras_adaptact import backends, config
from keras_adaptact.backends import cache, graph, native, printer

BACKEND = keras.backend.backend()
backend = import_module(f"keras_adaptact.backends.{BACKEND}")
CHUNK = 16384  # of native.c
RNG = np.random.default_rng(0)
pytestmark = pytest.mark.usefixtures("by_kernels")


def test_eleven_sums_serve_the_fifteen_numbers_of_method_1():
    layer = ka.Method1()
    form = backends.Form(layer.formula, backends.Rows(layer._normalize), "float32")
    assert "#define SUMS 11\n" in printer.source(form, printer.Kind((12, 3)))


class WithSinh(ka.TrainableActivation):
    """A formula with what no kernel is made of."""

    a = ka.Parameter(1.0)

    def formula(self, z, a):
        return a * ops.sinh(z)


def test_other_operations_run_as_the_backend_runs_them(built):
    z = RNG.normal(size=(3, 4)).astype("float32")
    y, *_ = gradients(WithSinh(), z, np.ones_like(z))
    assert built == [False]
    np.testing.assert_allclose(y, np.sinh(z), rtol=1e-5, atol=1e-6)
    form = backends.Form(WithSinh().formula, backends.Rows(), "float32")
    with pytest.raises(graph.Unknown, match="Sinh"):
        printer.source(form, printer.Kind((1,)))


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "silu"])
def test_a_direct_call_equals_the_backends_own(name, monkeypatch):
    monkeypatch.setattr(backend, "LARGE", 2**18)
    z = ops.convert_to_tensor(RNG.normal(0, 3, (50, 60)).astype("float32"))
    direct = ka.AdaptiveActivation(name)(z)
    np.testing.assert_array_equal(ops.convert_to_numpy(direct), ops.convert_to_numpy(getattr(ops, name)(z)))


def test_tracing_leaves_no_trace():
    """Automatic names count on from where they were, whatever was traced between."""
    keras.utils.clear_session()
    layer = ka.AdaptiveActivation("silu")
    gradients(layer, np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
    printer.source(backends.Form(layer.formula, backends.Rows(), "float32"), printer.Kind((4,)))
    assert layers.Add().name == "add"
    assert layers.Multiply().name == "multiply"


def test_without_a_compiler_it_says_so_once_and_works(monkeypatch, built):
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    z = RNG.normal(size=(3, 4)).astype("float32")
    with pytest.warns(UserWarning, match="finds no C compiler. Install gcc or clang, or name one in .* CC"):
        y, *_ = gradients(ka.Swish(), z, np.ones_like(z))
    np.testing.assert_allclose(y, z * expit(z), rtol=1e-5, atol=1e-6)
    gradients(ka.FReLU(), z, np.ones_like(z))  # a second warning would be an error
    assert built == [False, False]


def test_with_a_compiler_that_fails_it_says_so_once_and_works(monkeypatch, built, tmp_path):
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho no license >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    z = RNG.normal(size=(3, 4)).astype("float32")
    with pytest.warns(UserWarning, match=r"broken-cc compiles \(no license\)"):
        y, *_ = gradients(ka.Swish(), z, np.ones_like(z))
    np.testing.assert_allclose(y, z * expit(z), rtol=1e-5, atol=1e-6)
    assert built == [False]


@pytest.mark.parametrize("command", ["'", '"gcc', "no-such-compiler -m64", "/dev/null", "/"])
def test_whatever_stands_in_cc_is_no_crash(command, monkeypatch, built):
    monkeypatch.setenv("CC", command)
    z = RNG.normal(size=(3, 4)).astype("float32")
    with pytest.warns(UserWarning, match="slower than they need be"):
        y, *_ = gradients(ka.Swish(), z, np.ones_like(z))
    np.testing.assert_allclose(y, z * expit(z), rtol=1e-5, atol=1e-6)
    assert built == [False]


class OfItsObject(ka.TrainableActivation):
    a = ka.Parameter(1.0)
    slope = 2.0

    def formula(self, z, a):
        return a * self.slope * z


class OfItsObjectIfThere(ka.TrainableActivation):
    """Swallows what tracing raises."""

    a = ka.Parameter(1.0)
    slope = 2.0

    def formula(self, z, a):
        try:
            slope = self.slope
        except Exception:
            slope = 1.0
        return a * slope * z


class OfItsParent(OfItsObject):
    def formula(self, z, a):
        return super().formula(z, a)


class OfAVariable(ka.TrainableActivation):
    a = ka.Parameter(1.0)
    other = keras.Variable(2.0)

    def formula(self, z, a):
        return a * z * OfAVariable.other


class NotElementwise(ka.TrainableActivation):
    a = ka.Parameter(1.0)

    def formula(self, z, a):
        return a * z * ops.sum(z)


class OfAnotherLayer(ka.TrainableActivation):
    a = ka.Parameter(1.0)
    other = ka.Swish()

    def formula(self, z, a):
        return a * OfAnotherLayer.other(z)


@pytest.mark.parametrize(
    "kind", [OfItsObject, OfItsObjectIfThere, OfItsParent, NotElementwise, OfAVariable, OfAnotherLayer]
)
def test_what_a_kernel_would_get_wrong_has_none(kind, built, monkeypatch):
    monkeypatch.setattr(backend, "LARGE", 2**40)
    z = RNG.normal(size=(3, 4)).astype("float32")
    layer = kind()
    y, *_ = gradients(layer, z, np.ones_like(z))
    assert sum(built) == (kind is OfAnotherLayer)  # and that is the other layer's
    expected = {
        OfItsObject: 2 * z,
        OfItsObjectIfThere: 2 * z,
        OfItsParent: 2 * z,
        OfAVariable: 2 * z,
        NotElementwise: z * z.sum(),
        OfAnotherLayer: z * expit(z),
    }
    np.testing.assert_allclose(y, expected[kind], rtol=1e-5, atol=1e-6)


class Sloped:
    """A function with something of its own."""

    slope = 2.0

    def __call__(self, z):
        return self.slope * z


@pytest.mark.parametrize("kind", [OfItsObject, Sloped])
def test_a_member_of_a_mixture_that_looks_at_its_object(kind, built):
    z = np.ones((3, 4), "float32")
    member = kind()
    mixture = ka.Mixture([member, "tanh"])
    for member.slope in (2.0, 3.0):
        y, by_z, *_ = gradients(mixture, z, np.ones_like(z))
        np.testing.assert_allclose(y, (member.slope * z + np.tanh(z)) / 2, rtol=1e-6)
        np.testing.assert_allclose(by_z, (member.slope + 1 - np.tanh(z) ** 2) / 2, rtol=1e-6)
    assert not any(built)


FACTOR = 2.0
HIDDEN = keras.Variable(2.0)


@ops.custom_gradient
def straight(z):
    """A sign with the slope of z itself."""

    def grad(*given, upstream=None):
        return given[-1] if upstream is None else upstream

    return ops.sign(z), grad


def sloped(z, a):
    return a * Sloped.slope * z


def equal(z, a):
    return a * z + ops.cast(z == 1, "float32")


def swallowed(z, a):
    try:
        return a * (2.0 if bool(ops.max(a) > 0.5) else 1.0) * z
    except Exception:
        return a * z


OUTSIDE = {  # formulas that a symbolic call doesn't show as they are: values and slopes at 1 where a is 1
    "an attribute of a class": (sloped, 2.0, 2.0),
    "an equality": (equal, 2.0, 1.0),
    "a variable in the options of an operation": (lambda z, a: a * ops.clip(z, -1.0, HIDDEN * 0.25), 0.5, 0.0),
    "the body of a loop": (lambda z, a: a * ops.fori_loop(0, 2, lambda i, y: y * Sloped.slope, z), 4.0, 4.0),
    "a straight-through gradient": (lambda z, a: a * straight(z), 1.0, 1.0),
}
if BACKEND == "torch":
    OUTSIDE["an error that is caught"] = swallowed, 2.0, 2.0


@pytest.mark.parametrize("what", OUTSIDE)
def test_what_a_symbolic_call_does_not_show_has_no_kernel(what, built):
    formula, value, slope = OUTSIDE[what]
    layer = type("Its", (ka.TrainableActivation,), {"a": ka.Parameter(1.0), "formula": staticmethod(formula)})()
    z = np.ones((2, 3), "float32")
    y, by_z, *_ = gradients(layer, z, z)
    np.testing.assert_allclose([y, by_z], [value * z, slope * z], rtol=1e-6)
    assert not built


def test_a_number_that_a_formula_finds_around_it_may_change(monkeypatch, built):
    """A kernel has it for as long as it stays what it was."""
    layer = type("Its", (ka.TrainableActivation,), {"a": ka.Parameter(1.0), "formula": staticmethod(scaled)})()
    z = np.ones((2, 3), "float32")
    for factor in (2.0, 3.0, 2.0):
        monkeypatch.setitem(globals(), "FACTOR", factor)
        y, by_z, *_ = gradients(layer, z, z)
        np.testing.assert_allclose([y, by_z], [factor * z, factor * z], rtol=1e-6)
    assert all(built)


def scaled(z, a):
    return a * FACTOR * z


@pytest.mark.parametrize("wrap", [ka.AdaptiveActivation, lambda f: ka.Mixture([functools.partial(f)], weights=[1.0])])
def test_an_adaptive_function_that_has_something_of_its_own(wrap, built):
    function = Sloped()
    layer, z = wrap(function), np.ones((2, 3), "float32")
    for function.slope in (2.0, 3.0):
        y, by_z, *_ = gradients(layer, z, z)
        np.testing.assert_allclose([y, by_z], [function.slope * z, function.slope * z], rtol=1e-6)
    assert not built


def test_tracing_a_formula_leaves_the_names_of_later_layers():
    """What a thread of its own is for: Keras counts the operations of each by thread."""
    form = backends.Form(lambda z, a: a * z + z, backends.Rows(), "float32")
    before = layers.Add().name, ops.add(keras.KerasTensor((1,)), 1.0).name
    keras.utils.clear_session()
    printer.source(form, printer.Kind((1,)))
    assert (layers.Add().name, ops.add(keras.KerasTensor((1,)), 1.0).name) == before


class Bounded(ka.TrainableActivation):
    """With constants that C writes otherwise than Python."""

    a = ka.Parameter(2.0)

    def formula(self, z, a):
        finite = ops.where(z < float("inf"), ops.where(z > -float("inf"), a * z, -1e-30), 3.0)
        return ops.where(z != z, float("nan"), finite)


OPTIONS = {
    "the threshold of a ReLU": (lambda z, a: a * keras.activations.relu(z, threshold=2.0), 0.0),
    "a layer named like an operation": (lambda z, a: a * layers.ReLU(negative_slope=0.2)(z), 0.2),
    "an equality that Python decides": (lambda z, a: a * z * ops.where(z == 1, 10.0, 1.0), 1.0),
}
if BACKEND != "tensorflow":  # which adds no conditions
    OPTIONS["arithmetic on conditions"] = (lambda z, a: a * z * ((z > -5) + (z < 3)), 1.0)


@pytest.mark.parametrize("what", OPTIONS)
def test_what_the_graph_would_leave_out_has_no_kernel(what, built):
    formula, slope = OPTIONS[what]
    layer = type("Its", (ka.TrainableActivation,), {"a": ka.Parameter(1.0), "formula": staticmethod(formula)})()
    z = np.array([[-1.0, -3.0]], "float32")
    y, by_z, by_a = gradients(layer, z, np.ones_like(z))
    assert not any(built)
    np.testing.assert_allclose(y, slope * z, rtol=1e-6)
    np.testing.assert_allclose(by_z, np.full_like(z, slope), rtol=1e-6)
    np.testing.assert_allclose(by_a[0], slope * z.sum(), rtol=1e-6)


def test_hundreds_of_operations():
    """Deep enough to end a recursion."""
    formula = staticmethod(lambda z, a: functools.reduce(lambda y, _: y + 0.0, range(600), a * z))
    layer = type("Deep", (ka.TrainableActivation,), {"a": ka.Parameter(1.5), "formula": formula})()
    y, by_z, _ = gradients(layer, np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
    np.testing.assert_array_equal([y, by_z], np.full((2, 2, 3), 1.5))


def test_a_compiler_with_options(monkeypatch, built):
    monkeypatch.setenv("CC", "gcc -m64")
    gradients(ka.Swish(), np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
    assert built == [True]


def test_no_room_for_a_compiler(monkeypatch, built):
    def none(dir=None):
        raise OSError("No space left on device")

    monkeypatch.setattr(cache, "tempfile", SimpleNamespace(TemporaryDirectory=none))
    monkeypatch.setenv(cache.VARIABLE, "")
    monkeypatch.setenv("CC", "gcc -m64 -DNO_ROOM")  # compiled before by no other test
    z = np.ones((2, 3), "float32")
    with pytest.warns(UserWarning, match="No space left on device"):
        y, *_ = gradients(ka.FReLU(), z, z)
    np.testing.assert_array_equal(y, z)
    assert built == [False]


def test_constants_of_every_kind(built):
    z = np.array([1.5, -2.0, np.inf, -np.inf, np.nan], "float32")
    y, by_z, _ = gradients(Bounded(), z, np.ones_like(z))
    assert built == [True]
    np.testing.assert_allclose(y, [3, -4, 3, -1e-30, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(by_z, [2, 2, 0, 0, 0])


def test_many_threads_at_once(forget):
    z = RNG.normal(size=(5, CHUNK)).astype("float32")
    layer, found = ka.Swish(), []
    work = [threading.Thread(target=lambda: found.append(gradients(layer, z, z))) for _ in range(6)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == 6
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, another)


if BACKEND == "jax":
    import jax

    def of_a_layer(layer):
        trained = [v.value for v in layer.trainable_variables]
        return trained, lambda trained, z: layer.stateless_call(trained, [], z)[0]

    def calls(function, *inputs):
        return jax.jit(function).lower(*inputs).as_text().count("custom_call @keras_adaptact_")

    def test_the_kernels_are_what_runs():
        layer = ka.Method1()
        trained, run = of_a_layer(layer)
        z = jax.numpy.ones((4, 5))

        def loss(training, trained, z):
            return (layer.stateless_call(trained, [], z, training=training)[0] ** 2).sum()

        assert calls(run, trained, z) == 0
        assert calls(functools.partial(loss, True), trained, z) == 1
        assert calls(jax.grad(functools.partial(loss, True)), trained, z) == 2
        assert calls(jax.grad(functools.partial(loss, False)), trained, z) == 1

    def test_every_mode_of_differentiation():
        """Forward over reverse and the other three, and in batches, against the plain formula."""
        trained, run = of_a_layer(ka.Method1())
        z = jax.numpy.asarray(RNG.normal(size=(3, 4)).astype("float32"))

        def every():
            def of_numbers(numbers):
                return (run([numbers, *trained[1:]], z) ** 2).sum()

            modes = (jax.jacfwd, jax.jacrev)
            yield from (one(other(of_numbers))(trained[0]) for one in modes for other in modes)
            yield jax.vmap(jax.grad(lambda z: (run(trained, z) ** 3).sum()))(z)
            yield jax.vmap(jax.jacfwd(jax.jacfwd(lambda z: run(trained, z))))(z)
            yield jax.jvp(lambda z: run(trained, z), (z,), (2 * z,))[1]
            yield jax.grad(jax.checkpoint(lambda t: run([t, *trained[1:]], z).sum()))(trained[0])
            yield jax.linearize(lambda z: run(trained, z), z)[1](z)

        found = list(every())
        config.set_implementation("plain")
        try:
            expected = list(every())
        finally:
            config.set_implementation("fast")
        for value, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-4 * np.abs(reference).max())

    def test_inside_shard_map_the_formula_runs():
        """There the gradient by what all devices have alike is a sum over them, which JAX's own rules take."""
        trained, run = of_a_layer(ka.Method1())
        automatic = (jax.sharding.AxisType.Auto,)
        mesh, part = jax.make_mesh((1,), ("batch",), axis_types=automatic), jax.sharding.PartitionSpec("batch")
        z = jax.device_put(np.ones((4, 5), "float32"), jax.sharding.NamedSharding(mesh, part))

        def loss(trained, z):
            return jax.lax.psum(run(trained, z).sum(), "batch")

        shared = jax.sharding.PartitionSpec()
        sharded = jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(shared, part), out_specs=shared)
        assert "keras_adaptact_" in str(jax.make_jaxpr(run)(trained, z))
        assert "keras_adaptact_" not in str(jax.make_jaxpr(sharded)(trained, z))

    def test_without_jit_and_with_explicit_sharding_the_formula_runs():
        trained, run = of_a_layer(ka.Method1())
        z = jax.numpy.ones((4, 5))
        gradient = jax.grad(lambda trained: run(trained, z).sum())
        with jax.disable_jit():
            found = gradient(trained)
        for one, other in zip(found, gradient(trained), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
        mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Explicit,))
        spread = jax.device_put(z, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch")))
        assert "keras_adaptact_" not in str(jax.make_jaxpr(run)(trained, spread))

    def test_a_batch_keeps_its_input_alone():
        trained, run = of_a_layer(ka.Method1())
        z = jax.numpy.ones((64, 50))
        _, pull = jax.vjp(lambda z: jax.vmap(lambda z: run(trained, z))(z), z)
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(pull) if leaf.nbytes >= 1000) == z.nbytes

    def test_a_file_for_other_machines_has_no_kernels():
        trained, run = of_a_layer(ka.Method1())
        z = jax.ShapeDtypeStruct((4, 5), "float32")
        exported = jax.export.export(jax.jit(lambda z: run(trained, z)), platforms=["cpu", "cuda"])(z)
        assert "keras_adaptact_forward" not in exported.mlir_module()
        value = np.ones((4, 5), "float32")
        np.testing.assert_allclose(exported.call(value), run(trained, value), rtol=1e-5)


if BACKEND == "torch":
    import torch

    def test_a_traced_graph_has_the_formula():
        from torch.fx.experimental.proxy_tensor import make_fx

        layer, z = ka.Method1(), torch.randn(3, 4)
        training = functools.partial(layer, training=True)
        graph = make_fx(training)(z)
        torch.testing.assert_close(graph(2 * z), training(2 * z))

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
    def test_forward_mode():
        layer, z = ka.Method1(), torch.randn(3, 4)
        with torch.no_grad(), torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(z, torch.ones_like(z))
            slope = torch.autograd.forward_ad.unpack_dual(layer(dual, training=True)).tangent
        torch.testing.assert_close(slope, differentiate(layer, z, torch.ones_like(z))[1])

    def test_a_gradient_penalty_beside_what_is_fixed():
        layer = ka.Method2(weights=[0.2, 0.3, 0.5])
        z = torch.randn(3, 4, requires_grad=True)
        (slope,) = torch.autograd.grad(layer(z, training=True).sum(), z, create_graph=True)
        (found,) = torch.autograd.grad(slope.square().sum(), z)
        tanh, sigmoid = torch.tanh(z), torch.sigmoid(z)
        first = 0.2 * (1 - tanh**2) + 0.3 * sigmoid * (1 - sigmoid) + 0.5 * (z > 0)
        second = -0.4 * tanh * (1 - tanh**2) + 0.3 * sigmoid * (1 - sigmoid) * (1 - 2 * sigmoid)
        torch.testing.assert_close(found, 2 * first * second)

    def test_a_batch_of_gradients():
        layer, z = ka.Method1(), torch.randn(3, 4, requires_grad=True)
        y = layer(z, training=True)
        batch = torch.randn(5, 3, 4)
        (found,) = torch.autograd.grad(y, z, batch, is_grads_batched=True, retain_graph=True)
        expected = [torch.autograd.grad(y, z, one, retain_graph=True)[0] for one in batch]
        torch.testing.assert_close(found, torch.stack(expected))

    def test_tensors_without_memory_of_their_own():
        from torch._subclasses.fake_tensor import FakeTensorMode

        layer = ka.Method1()
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert layer(torch.empty(3, 4)).shape == (3, 4)
        assert torch.empty(3, 4, device="meta").shape == layer(torch.empty(3, 4, device="meta")).shape


if BACKEND == "tensorflow":
    import tensorflow as tf

    def operations(layer, recorded=True, **options):
        """The kernels in a trace of a layer."""

        @tf.function(**options)
        def traced(z):
            if not recorded:
                return layer(z)
            with tf.GradientTape() as tape:
                y = layer(z)
            return tape.gradient(y, [v.value for v in layer.func.trainable_variables])

        graph = traced.get_concrete_function(tf.TensorSpec((4, 5))).graph
        return sorted(x.type.split(">")[1][:7] for x in graph.get_operations() if x.type.startswith("KerasAdaptact"))

    @pytest.mark.parametrize("training", [False, True])
    def test_the_kernels_are_what_runs(training):
        layer = functools.partial(ka.Method1(), training=training)
        assert operations(layer) == ["Backwar", "Forward"]
        assert not operations(layer, jit_compile=True)

    @pytest.mark.parametrize("training", [False, True])
    def test_what_no_tape_records_has_no_kernels(training):
        """It may be frozen, saved or converted for another runtime afterwards."""
        assert not operations(functools.partial(ka.Method1(), training=training), recorded=False)

    def test_forward_over_reverse():
        """A Hessian times a vector, against the plain formula's."""
        layer, z = ka.Method1(), tf.constant(RNG.normal(size=(4, 5)).astype("float32"))

        @tf.function
        def product(z, vector):
            with tf.autodiff.ForwardAccumulator(z, vector) as forward:
                with tf.GradientTape() as tape:
                    tape.watch(z)
                    y = tf.reduce_sum(layer(z, training=True) ** 2)
                slope = tape.gradient(y, z)
            return forward.jvp(slope)

        found = product(z, tf.ones_like(z))
        config.set_implementation("plain")
        try:
            expected = tf.function(product.python_function)(z, tf.ones_like(z))
        finally:
            config.set_implementation("fast")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def test_compiled_by_xla_and_saved(tmp_path):
        layer, z = ka.Method1(), RNG.normal(size=(4, 5)).astype("float32")
        expected = layer(z)
        training = functools.partial(layer, training=True)
        np.testing.assert_allclose(tf.function(training, jit_compile=True)(z), expected, rtol=1e-5, atol=1e-6)

        @tf.function(jit_compile=True)
        def around(z):
            return tf.function(training)(z)

        np.testing.assert_allclose(around(z), expected, rtol=1e-5, atol=1e-6)
        model = keras.Sequential([layers.Input((5,)), layer])
        tf.saved_model.save(model, tmp_path / "saved")
        assert b"KerasAdaptact" not in (tmp_path / "saved" / "saved_model.pb").read_bytes()
