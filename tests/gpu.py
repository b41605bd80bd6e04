"""The kernels in CUDA on a GPU: `python benchmarks/gpu.py --out FOLDER --only kernels` runs it on JAX and torch."""

import threading
import time

import keras
import numpy as np
import pytest
from autodiff import differentiate, flat, gradients
from cases import CASES, FUNCTIONS
from keras import ops
from scipy.special import expit
from test_native_values import AXES, EMPTY, check, check_kinks_and_far_out, made, of_keras

import keras_adaptact as ka
from keras_adaptact.backends import cuda

BACKEND = keras.backend.backend()
LOAD = cuda.load
KINDS = [(where, dtype) for where in AXES for dtype in ("float32", "bfloat16", "float16")]
pytestmark = pytest.mark.usefixtures("by_kernels")


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    """The kernels that were loaded or found loaded; what falls back warns, which is an error."""
    cuda._build.cache_clear()
    monkeypatch.setenv(cuda.VARIABLE, "1")
    found = []
    monkeypatch.setattr(cuda, "load", lambda *arguments: found.append(LOAD(*arguments)) or found[-1])
    return found


@pytest.mark.parametrize("where, dtype", KINDS)
@pytest.mark.parametrize("case", [*CASES, *map(of_keras, FUNCTIONS)], ids=lambda case: case.id)
def test_kernels_are_exact(case, where, dtype, loaded):
    """With a rest behind the last vector, and without."""
    for shape in [(3, 7, 45), (4, 8, 64)]:
        check(case, where, shape, dtype)
    assert loaded and all(loaded)


@pytest.mark.parametrize("shape", [(40, 3, 5), (2, 3, 300), (6, 1, 1), (5, 130), (3, 600), (64, 256, 14), (300, 4096)])
@pytest.mark.parametrize("where, dtype", KINDS)
def test_any_shape(where, dtype, shape, loaded):
    check(CASES[2], where, shape, dtype)
    assert loaded and all(loaded)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_kinks_and_far_out(name):
    check_kinks_and_far_out(name)


@pytest.mark.parametrize("where, shape", [(where, shape) for where in EMPTY for shape in EMPTY[where]])
def test_tensors_without_elements(where, shape):
    z = np.ones(shape, "float32")
    _, by_z, *by_variables = gradients(made(CASES[8], where, 3, "float32"), z, z)
    assert by_z.shape == shape and not any(x.any() for x in by_variables)


def large(shape, dtype="float32"):
    return ops.cast(ops.convert_to_tensor(np.random.default_rng(0).normal(size=shape).astype("float32")), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("where", AXES)
def test_equal_calls_are_equal_to_the_bit(where, dtype):
    z, layer = large((64, 64, 1024), dtype), made(CASES[8], where, 1024 if AXES[where] == -1 else 64, dtype)
    first = flat(differentiate(layer, z, z))
    for _ in range(5):
        for one, other in zip(first, flat(differentiate(layer, z, z)), strict=True):
            assert bool(ops.all(one == other))


def test_sums_of_many_elements_are_exact():
    z = ops.full((2**26,), 0.1)
    *_, by_b = flat(differentiate(ka.FReLU(), z, z))
    np.testing.assert_allclose(float(by_b[0]), 2**26 * float(np.float32(0.1)), rtol=2e-5)


def test_a_small_network_trains(loaded):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(64, activation=ka.Method1()), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(512, 8)).astype("float32")
    losses = model.fit(x, np.tanh(x[:, 0]), epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    assert loaded and all(loaded)


def forget():
    """Has kernels printed and loaded anew."""
    cuda._build.cache_clear()
    LOAD.cache_clear()
    if BACKEND == "jax":
        jax.clear_caches()
        jax_cuda._registered.cache_clear()
    else:
        torch_kernels.kernel_of.cache_clear()


def test_what_first_use_costs(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_ADAPTACT_CACHE", str(tmp_path))
    z = large((64, 1000), "bfloat16")
    differentiate(ka.FReLU(dtype="mixed_bfloat16"), z, z)  # with all that is imported once
    for way in ("compiled", "from disk"):
        forget()
        began = time.perf_counter()
        ops.convert_to_numpy(differentiate(ka.Method1(dtype="mixed_bfloat16"), z, z)[2][0])
        print(f"\n{BACKEND}, first use of method 1 in bfloat16, {way}: {time.perf_counter() - began:.3f} s")


if BACKEND == "jax":
    import jax

    from keras_adaptact.backends import jax_cuda

    assert jax.default_backend() == "gpu", "JAX sees no GPU"

    def test_kernels_are_called():
        layer, z = ka.Method1(), large((64, 1000))
        layer.build(z.shape)
        trained = [v.value for v in layer.trainable_variables]

        def loss(trained, z):
            return (layer.stateless_call(trained, [], z, training=True)[0] ** 2).sum()

        text = jax.jit(jax.grad(loss, (0, 1))).lower(trained, z).as_text()
        assert text.count("@keras_adaptact_cuda_forward") == text.count("@keras_adaptact_cuda_backward") == 1

    def test_after_other_work_of_the_device():
        """What is computed just before is there when a kernel reads it."""
        layer, a = ka.Swish(), large((2048, 2048))
        layer.build(a.shape)

        def run(a):
            return layer.stateless_call([v.value for v in layer.trainable_variables], [], a, training=True)[0]

        z = np.asarray(jax.jit(lambda a: a @ a / 64)(a))
        found = jax.jit(lambda a: run(a @ a / 64))(a)
        np.testing.assert_allclose(found, z * expit(z), rtol=1e-4, atol=1e-4)


if BACKEND == "torch":
    import torch

    from keras_adaptact.backends import torch_kernels

    assert torch.cuda.is_available(), "torch sees no GPU"

    @pytest.fixture
    def launched(monkeypatch):
        """The names of the kernels that run."""
        names = []
        launch = cuda.Module.launch
        monkeypatch.setattr(
            cuda.Module, "launch", lambda self, name, *rest: (names.append(name), launch(self, name, *rest))
        )
        return names

    def test_a_gradient_is_one_kernel_and_one_reduction(launched):
        differentiate(ka.Method1(), large((64, 1000)), large((64, 1000)))
        assert launched == ["forward", "backward", "add_up"]

    @pytest.mark.parametrize(
        "view", [lambda x: x.permute(0, 2, 3, 1), lambda x: x[:, 1:], lambda x: x[:1].expand(4, -1, -1, -1)]
    )
    def test_memory_in_any_order(view, launched):
        z = view(large((4, 4, 6, 2)))
        found = flat(differentiate(ka.Method1(), z, z))
        for one, other in zip(found, flat(differentiate(ka.Method1(), z.contiguous(), z.contiguous())), strict=True):
            torch.testing.assert_close(one, other)
        assert len(launched) == 6

    def test_on_another_stream(launched):
        """A kernel on another stream than torch's would read what isn't there yet."""
        layer, a = ka.Method1(), large((4096, 4096))
        layer.build(a.shape)
        expected = layer(a @ a / 64, training=True)
        with torch.cuda.stream(torch.cuda.Stream()):
            found = layer(a @ a / 64, training=True)
        torch.cuda.synchronize()
        assert torch.equal(found, expected) and len(launched) == 2

    def test_in_another_thread(launched):
        found = []
        thread = threading.Thread(target=lambda: found.append(differentiate(ka.Swish(), large((100,)), large((100,)))))
        thread.start()
        thread.join()
        assert found and launched == ["forward", "backward", "add_up"]

    def test_in_a_graph(launched):
        layer, z = ka.Method1(), large((64, 1000)).requires_grad_()
        layer.build(z.shape)
        inputs = [z, *(v.value for v in layer.trainable_variables)]

        def step():
            return torch.autograd.grad(layer(z, training=True).square().sum(), inputs)

        warm = torch.cuda.Stream()
        warm.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm):
            step()
        torch.cuda.current_stream().wait_stream(warm)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = step()
        with torch.no_grad():
            z.mul_(0.5)
        graph.replay()
        for one, other in zip(found, step(), strict=True):
            torch.testing.assert_close(one, other)
        assert len(launched) == 9
