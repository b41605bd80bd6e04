"""Keras in float64; and other runtimes: the formats that Keras exports, and what runs each of them, without Keras."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import keras
import numpy as np
from keras.src.backend.common import dtypes


@contextmanager
def computing_in_float64() -> Iterator[None]:
    """Keeps the float64 of layers and arrays that have it: elsewhere than on TensorFlow, Keras infers float32 of it."""
    enabled = nullcontext()
    if keras.config.backend() == "jax":
        import jax

        enabled = jax.enable_x64(True)
    with mock.patch.dict(dtypes.BIT64_TO_BIT32_DTYPE, float64="float64"), enabled:
        yield


def saved_model(path: Path, x: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return np.asarray(loaded.serve(x))


def pt2(path: Path, x: np.ndarray) -> np.ndarray:
    import torch

    run = torch.export.load(path).module()
    return np.concatenate([run(torch.from_numpy(one)).detach().numpy() for one in _one_by_one(x)])


def _one_by_one(x: np.ndarray) -> list[np.ndarray]:
    """Batches of one, as from torch the size of a batch is fixed."""
    return np.split(x, len(x))


def onnx(path: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def openvino(path: Path, x: np.ndarray) -> np.ndarray:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 where the processor has it
    return openvino.compile_model(str(path), "CPU", exact)(x)[0]


def litert(path: Path | bytes, x: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=path) if isinstance(path, bytes) else Interpreter(str(path))
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    batches = _one_by_one(x)
    interpreter.resize_tensor_input(given["index"], batches[0].shape)
    interpreter.allocate_tensors()
    outputs = []
    for batch in batches:
        interpreter.set_tensor(given["index"], batch)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(made["index"]))
    return np.concatenate(outputs)


# By Keras's name of a format: the name of a file of it, and how one is run.
FORMATS: dict[str, tuple[str, Callable[[Path, np.ndarray], np.ndarray]]] = {
    "tf_saved_model": ("model", saved_model),
    "onnx": ("model.onnx", onnx),
    "openvino": ("model.xml", openvino),
    "litert": ("model.tflite", litert),
    "torch": ("model.pt2", pt2),
}

# A layer of each class of the library, and of functions that converters had trouble with.
MEMBERS: dict[str, dict] = {
    **{name: {"name": name} for name in ("asigmoid", "atanh", "arelu", "swish", "frelu", "pelu", "prelu")},
    **{f"adaptive {name}": {"name": "adaptive", "function": name} for name in ("silu", "gelu", "celu", "elu", "sin")},
    **{name: {"name": name} for name in ("method1", "method2")},
    "mixture": {"name": "mixture", "members": ["gelu", "atanh", "celu"], "normalization": "softmax"},
}


def exported(model, kind: str, folder: Path, x: np.ndarray) -> np.ndarray:
    """What a model puts out in the runtime of a format."""
    file, run = FORMATS[kind]
    path = Path(folder) / file
    model.export(str(path), format=kind, verbose=False)
    return run(path, x)
