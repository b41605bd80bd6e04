"""The kernels for GPUs, without one: what is printed in CUDA is compiled as C, and threads of a block take turns.

The driver is replaced by one that does that; all else is as it is on a GPU: how a tensor is shared out, what is
launched, and the backends' part.
"""

import contextlib
import ctypes
from importlib import import_module
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from autodiff import differentiate, flat, gradients
from cases import CASES, FUNCTIONS
from test_native_values import AXES, CHUNK, EMPTY, check, check_kinks_and_far_out, made, of_keras

import keras_adaptact as ka
from keras_adaptact.backends import cuda, native

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)

# A block's threads are contexts of one thread. Each runs to where it waits for the others; all must come there.
HEAD = r"""
#define _XOPEN_SOURCE 700
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

typedef struct { _Alignas(16) uint32_t x; uint32_t y, z, w; } uint4;
static struct { unsigned x; } threadIdx, blockIdx;
static void __syncthreads(void);
#define __shared__ static
#define INLINE static inline __attribute__((always_inline))
#define KERNEL void
"""
TAIL = r"""
#define STACK 65536
static ucontext_t caller, threads[THREADS];
static char stacks[THREADS][STACK];
static int is_done[THREADS];
static void (*kernel)(Pass);
static Pass argument;

static void __syncthreads(void) { swapcontext(&threads[threadIdx.x], &caller); }

static void run_thread(void) {
  kernel(argument);
  is_done[threadIdx.x] = 1;
}

static int run(void (*which)(Pass), unsigned blocks, const Pass *pass, int backwards) {
  kernel = which;
  argument = *pass;
  for (unsigned i = 0; i < blocks; i++) {
    blockIdx.x = backwards ? blocks - 1 - i : i;
    memset(is_done, 0, sizeof is_done);
    for (int t = 0; t < THREADS; t++) {
      getcontext(&threads[t]);
      threads[t].uc_stack.ss_sp = stacks[t];
      threads[t].uc_stack.ss_size = STACK;
      threads[t].uc_link = &caller;
      makecontext(&threads[t], run_thread, 0);
    }
    for (int done = 0, round = 0; done < THREADS; round++) {
      if (done) return 719; /* some threads have left others that wait for them */
      for (int t = 0; t < THREADS; t++) {
        threadIdx.x = (round + backwards) % 2 ? THREADS - 1 - t : t;
        swapcontext(&caller, &threads[threadIdx.x]);
        done += is_done[threadIdx.x];
      }
    }
  }
  return 0;
}

#define RUN(name) \
  int run_##name(unsigned blocks, const Pass *pass, int backwards) { return run(name, blocks, pass, backwards); }
RUN(forward) RUN(backward) RUN(add_up)
"""

# What `cuda` calls, with the arguments of CUDA's documentation. Machine code is the name of a compiled file.
DRIVER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef int (*Function)(unsigned, const void *, int);
int threads = 0, backwards = 0, launches = 0, broken = 0, *context = &launches;

int cuDeviceGet(int *device, int index) { *device = index + 7; return 0; }
int cuDevicePrimaryCtxRetain(int **found, int device) { *found = context; return device == 7 ? 0 : 101; }
int cuCtxSetCurrent(int *chosen) { return chosen == context ? 0 : 201; }
int cuModuleLoadData(void **module, const void *image) {
  *module = dlopen(image, RTLD_NOW | RTLD_LOCAL);
  return *module ? 0 : 200;
}
int cuModuleGetFunction(Function *function, void *module, const char *name) {
  char full[64];
  snprintf(full, sizeof full, "run_%s", name);
  *function = (Function)dlsym(module, full);
  return *function ? 0 : 500;
}
int cuLaunchKernel(Function function, unsigned x, unsigned y, unsigned z, unsigned of_x, unsigned of_y, unsigned of_z,
                   unsigned shared, void *stream, void **arguments, void **extra) {
  if (broken || !x || y != 1 || z != 1 || of_x != threads || of_y != 1 || of_z != 1 || shared || extra) return 1;
  if (stream != (void *)0x123456789) return 400;
  launches++;
  return function(x, arguments[0], backwards);
}
int cuGetErrorString(int status, const char **text) { *text = status == 1 ? "invalid argument" : "another"; return 0; }
"""


def as_c(source: str) -> str:
    """The file of the kernels of a source."""
    flags = ("-O1", "-fno-strict-aliasing", "-Wno-unknown-pragmas")
    return native._compile(native._compiler(), HEAD + source + TAIL, flags, str)[0]


if BACKEND == "torch":
    import torch
    from test_native_values import VIEWS

    kernels = import_module("keras_adaptact.backends.torch_kernels")

    class Processor:
        """A device for `cuda` that is none."""

        index, architecture, cuda = 0, "sm_90", "12"
        current = staticmethod(contextlib.nullcontext)

        def stream(self):
            return 0x123456789

        def scratch(self, size):
            memory = torch.full((size + 1,), torch.nan)
            return memory, memory.data_ptr()

    PROCESSOR = Processor()

    @contextlib.contextmanager
    def all_to_it(monkeypatch):
        monkeypatch.setattr(kernels, "_library", lambda device, *kind: cuda.build(*kind, PROCESSOR, cuda.Launched))
        yield


if BACKEND == "jax":
    import jax

    from keras_adaptact.backends import jax_cuda, jax_primitive

    COMPILED = native.compiled
    STREAM = "-DSTREAM(frame, stream)=(*(stream) = (void *)0x123456789, NULL)"  # on the CPU XLA has none

    @contextlib.contextmanager
    def all_to_it(monkeypatch):
        """Calls as on a GPU, in programs for the CPU."""
        monkeypatch.setattr(native, "compiled", lambda written, flags: COMPILED(written, (*flags, STREAM)))
        monkeypatch.setattr(jax_cuda, "PLATFORM", "cpu")
        monkeypatch.setattr(jax_cuda, "gpu", lambda: jax_cuda.Gpu("sm_90", "12"))
        monkeypatch.setattr(jax_primitive, "kernels", jax_cuda.kernels)
        monkeypatch.setenv(cuda.VARIABLE, "1")
        jax_cuda._registered.cache_clear()
        jax.clear_caches()
        jax_primitive.call_kernels(jax_cuda.call, "cpu")
        yield
        jax.clear_caches()
        jax_primitive.call_kernels(jax_primitive._call, "cpu")

    def test_programs_for_a_gpu_call_kernels(monkeypatch):
        """With handlers that ask XLA for its stream; no GPU is needed to write a program down."""
        monkeypatch.setattr(native, "compiled", COMPILED)
        monkeypatch.setattr(jax_cuda, "PLATFORM", "CUDA")
        layer = ka.Method1()
        layer.build((4, 5))

        def loss(trained, z):
            return layer.stateless_call(trained, [], z, training=True)[0].sum()

        program = jax.jit(jax.grad(loss)).trace([v.value for v in layer.trainable_variables], jax.numpy.ones((4, 5)))
        text = program.lower(lowering_platforms=("cuda",)).as_text()
        assert [text.count(f"@keras_adaptact_cuda_{way}_") for way in ("forward", "backward")] == [0, 1]
        assert text.count("@keras_adaptact_") == 1


if BACKEND != "tensorflow":  # which leaves a GPU to XLA

    @pytest.fixture(autouse=True)
    def driver(request, monkeypatch, by_kernels, forget):
        """The driver that stands for CUDA's, which all tensors' kernels go to."""
        library = native._compile(native._compiler(), DRIVER, ("-ldl",), ctypes.CDLL)[0]
        state = {n: ctypes.c_int.in_dll(library, n) for n in ("threads", "backwards", "launches", "broken")}
        for value in state.values():
            value.value = 0
        state["threads"].value = threads = getattr(request, "param", 32)  # the fewer, the sooner done
        monkeypatch.setattr(cuda, "THREADS", threads)
        monkeypatch.setattr(cuda, "driver", lambda: library)
        monkeypatch.setattr(cuda, "nvrtc", lambda major: None)
        monkeypatch.setattr(cuda, "compiled", lambda source, architecture, compiler: as_c(source).encode())
        cuda.load.cache_clear()
        with all_to_it(monkeypatch), keras.device("cpu"):  # where there is a GPU, too
            yield state
        cuda.load.cache_clear()

    KINDS = [("layer", "float32"), ("channels_last", "bfloat16"), ("channels_first", "float16")]

    @pytest.mark.parametrize("turn", range(3 if BACKEND == "torch" else 1))
    @pytest.mark.parametrize("i, case", list(enumerate(CASES)), ids=lambda x: getattr(x, "id", ""))
    def test_the_kernels_of_the_library_are_exact(i, case, turn, driver):
        where, dtype = KINDS[(i + turn) % 3]
        check(case, where, (3, 8, 48), dtype)
        assert driver["launches"].value == 3

    def test_a_sine_far_out():
        z = np.array([0.5, 1e5, -3e37, 2.0**30], "float32")
        y, by_z, _ = gradients(ka.AdaptiveActivation("sin"), z, np.ones_like(z))
        np.testing.assert_allclose(y, np.sin(z.astype("float64")), rtol=1e-6)
        np.testing.assert_allclose(by_z, np.cos(z.astype("float64")), rtol=1e-6)

    @pytest.mark.parametrize("where, dtype", KINDS)
    @pytest.mark.parametrize("driver", [cuda.THREADS], indirect=True)
    def test_blocks_as_large_as_on_a_gpu(where, dtype, driver):
        check(CASES[8], where, (3, 8, 48), dtype)
        check(CASES[8], where, (3, 11, 13), dtype)

    SHAPES = [(40, 3, 5), (2, 3, 300), (6, 1, 1), (5, 130), (3, 600), (4, 8, 16), (70, 2, 64), (1, 1)]

    @pytest.mark.parametrize("blocks", [1, cuda.BLOCKS])
    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    @pytest.mark.parametrize("where", AXES)
    def test_any_shape(where, dtype, blocks, monkeypatch):
        """More channels than threads, few, and one; with a rest behind the last vector or turn, and without."""
        monkeypatch.setattr(cuda, "BLOCKS", blocks)
        for shape in SHAPES if BACKEND == "torch" else SHAPES[:2]:
            check(CASES[2], where, shape, dtype)

    @pytest.mark.parametrize("where, shape", [(where, shape) for where in EMPTY for shape in EMPTY[where]])
    def test_tensors_without_elements(where, shape):
        layer = made(CASES[8], where, 3, "float32")
        y, by_z, *by_variables = gradients(layer, np.ones(shape, "float32"), np.ones(shape, "float32"))
        assert y.shape == by_z.shape == shape
        for found in by_variables:
            np.testing.assert_array_equal(found, 0)

    @pytest.mark.parametrize(
        "where, shape", [("layer", (5 * CHUNK + 7,)), ("channels_last", (1201, 67)), ("channels_first", (91, 5, 41))]
    )
    def test_no_result_depends_on_which_block_or_thread_comes_first(where, shape, driver):
        z, upstream = RNG.normal(size=(2, *shape)).astype("float32")
        layer = made(CASES[8], where, shape[AXES[where] or 0], "float32")
        first = gradients(layer, z, upstream)
        driver["backwards"].value = 1
        for one, other in zip(first, gradients(layer, z, upstream), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_sums_of_many_elements_are_exact(monkeypatch):
        monkeypatch.setattr(cuda, "BLOCKS", 1)  # the most elements for each thread
        z = np.full(2**22, 0.1, "float32")
        *_, by_b = gradients(ka.FReLU(), z, np.full_like(z, 0.1))
        np.testing.assert_allclose(by_b[0], 2**22 * float(np.float32(0.1)), rtol=2e-5)

    def expected_of_swish(z):
        s = 1 / (1 + np.exp(-z))
        return z * s, s + z * s * (1 - s), (z * z * s * (1 - s)).sum()

    FAILING = ["the driver", "NVRTC", *(["a launch"] if BACKEND == "torch" else [])]  # XLA's programs can't choose then

    @pytest.mark.parametrize("failing", FAILING)
    def test_what_fails_is_said_once_and_the_formula_runs(failing, driver, monkeypatch):
        none = Mock(side_effect=OSError("it isn't there"))
        driver["broken"].value = failing == "a launch"
        if failing != "a launch":
            monkeypatch.setattr(cuda, {"the driver": "driver", "NVRTC": "nvrtc"}[failing], none)
        z = RNG.normal(size=(3, 4)).astype("float32")
        with pytest.warns(UserWarning, match="cuLaunchKernel: invalid argument|on the GPU .it isn't there."):
            found = gradients(ka.Swish(), z, np.ones_like(z))
        for one, other in zip(found, expected_of_swish(z), strict=True):
            np.testing.assert_allclose(np.squeeze(one), other, rtol=1e-5, atol=1e-6)
        gradients(ka.FReLU(), z, np.ones_like(z))  # a second warning would be an error


if BACKEND == "torch":

    @pytest.mark.parametrize("i, name", list(enumerate(FUNCTIONS)))
    def test_functions_of_keras_have_exact_kernels(i, name, driver):
        check(of_keras(name), *[KINDS[i % 3][0], (12, 3, 13), KINDS[i % 3][1]])
        assert driver["launches"].value == 3

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_functions_of_keras_at_kinks_and_far_out(name, driver):
        check_kinks_and_far_out(name)
        assert driver["launches"].value == 6

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("where", AXES)
    @pytest.mark.parametrize("view", VIEWS)
    def test_memory_in_any_order(view, where, dtype):
        """Also where it begins at no multiple of a vector's size."""
        z = view(torch.randn(5, 5, 5, 5).to(getattr(torch, dtype)))
        upstream = view(torch.randn(5, 5, 5, 5).to(getattr(torch, dtype)))
        found = flat(differentiate(made(CASES[8], where, 4, dtype), z, upstream))
        z, upstream = (x.clone(memory_format=torch.contiguous_format) for x in (z, upstream))
        expected = flat(differentiate(made(CASES[8], where, 4, dtype), z, upstream))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


class Compiler:
    """What `cuda.nvrtc` gives, that counts."""

    version, calls = (12, 9), 0

    def compile(self, source, architecture):
        self.calls += 1
        return f"{source} for {architecture}".encode()


def test_machine_code_is_kept_on_disk(tmp_path, monkeypatch):
    monkeypatch.undo()  # of what stands for a GPU
    monkeypatch.setenv("KERAS_ADAPTACT_CACHE", str(tmp_path))
    compiler = Compiler()
    for _ in range(2):
        assert cuda.compiled("a", "sm_80", compiler) == b"a for sm_80"
        assert cuda.compiled("a", "sm_90", compiler) == b"a for sm_90"
    assert compiler.calls == 2
    for file in tmp_path.iterdir():
        file.write_bytes(b"another's")
    assert cuda.compiled("a", "sm_80", compiler) == b"a for sm_80"
    assert compiler.calls == 3


def test_without_nvrtc_it_is_named(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(OSError, match=r"finds no NVRTC\. Install nvidia-cuda-nvrtc for CUDA 0"):
        cuda.nvrtc("0")


@pytest.mark.parametrize("value, wanted", [(None, False), ("", False), ("0", False), ("1", True)])
def test_only_who_asks_gets_them(value, wanted, monkeypatch):
    monkeypatch.delenv(cuda.VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(cuda.VARIABLE, value)
    assert cuda.is_wanted() is wanted
