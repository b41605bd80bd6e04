"""Every kernel in CUDA through NVIDIA's compiler, which needs no GPU: `nox -s nvrtc`."""

import struct

import pytest
from cases import CASES, FUNCTIONS
from keras import ops
from test_native_values import made, of_keras

from keras_adaptact import backends
from keras_adaptact.backends import cuda, native

ARCHITECTURES = ("sm_80", "sm_90")
KINDS = [("layer", None, "float32"), ("channels_last", "last", "bfloat16"), ("channels_first", "inside", "float16")]
EM_CUDA = 190  # the machine of an ELF file


@pytest.fixture(scope="session")
def compiler():
    return cuda.nvrtc("12")


class Device:
    """What a kernel is printed for."""

    index, architecture, cuda = 0, "sm_90", "12"


@pytest.fixture
def sources(monkeypatch):
    """From a layer for channels that lie somewhere and a dtype to what is printed for it."""

    def printed(case, where, channels, dtype):
        forms = []
        monkeypatch.setattr(backends, "run", lambda form, z, variables, training: forms.append((form, variables)) or z)
        made(case, where, 4, dtype)(ops.ones((2, 4, 4), dtype))
        (form, variables), *_ = forms
        form, kind = native.kernel_of(form, tuple(tuple(x.shape) for x in variables), dtype, channels)
        kernels = cuda.Kernels(form, kind, Device())
        return [kernels.source(vector) for vector in kernels.vectors]

    return printed


def check(cubin: bytes) -> None:
    assert cubin[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", cubin, 18) == (EM_CUDA,)
    for name in (b".text.forward", b".text.backward", b".text.add_up"):
        assert name in cubin


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("where, channels, dtype", KINDS)
@pytest.mark.parametrize("case", [*CASES, *map(of_keras, FUNCTIONS)], ids=lambda case: case.id)
def test_every_kernel_compiles(case, where, channels, dtype, architecture, sources, compiler):
    check(compiler.compile(sources(case, where, channels, dtype)[0], architecture))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("where, channels", [kind[:2] for kind in KINDS])
def test_each_kind_compiles(where, channels, dtype, architecture, sources, compiler):
    """With parameters by layer and by channel, in each dtype, with and without vectors."""
    for source in sources(CASES[2], where, channels, dtype):
        check(compiler.compile(source, architecture))


def test_an_error_is_the_compilers_own(compiler):
    with pytest.raises(OSError, match=r"error: .*expected"):
        compiler.compile("int f( {", "sm_90")
    with pytest.raises(OSError, match=r"architecture|INVALID_OPTION"):
        compiler.compile("", "sm_1")
