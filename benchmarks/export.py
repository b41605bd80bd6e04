"""What can be shipped from a backend: networks exported in each format of Keras, run elsewhere, and compared.

    KERAS_BACKEND=torch python benchmarks/export.py --out benchmarks/results/export-torch.json

Needs, for what it tries: onnx, onnxruntime and onnxscript (torch), tf2onnx (TensorFlow) or jax2onnx (JAX); openvino;
ai-edge-litert, from torch also litert-torch; tensorflow. A difference is the largest of any output, relative to the
largest output. Numbers of the activations are drawn at random, and outputs depend on the image (`spread`, as in
benchmarks/surgery.py).
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from zoo import backend

BACKEND = backend.choose()  # before Keras is imported

import keras
import numpy as np
from surgery import NETWORKS, images, settled, spread
from surgery import network as of_keras

import keras_adaptact as ka
from zoo import models, results
from zoo.config import Config


def saved_model(path: Path, x: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return np.asarray(loaded.serve(x))


def onnx(path: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def openvino(path: Path, x: np.ndarray) -> np.ndarray:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 where the processor has it
    return openvino.compile_model(str(path), "CPU", exact)(x)[0]


def litert(path: Path, x: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    batches = np.split(x, len(x))  # one by one: from torch, the size of a batch is fixed
    interpreter.resize_tensor_input(given["index"], batches[0].shape)
    interpreter.allocate_tensors()
    outputs = []
    for batch in batches:
        interpreter.set_tensor(given["index"], batch)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(made["index"]))
    return np.concatenate(outputs)


FORMATS = {
    "tf_saved_model": ("model", saved_model),
    "onnx": ("model.onnx", onnx),
    "openvino": ("model.xml", openvino),
    "litert": ("model.tflite", litert),
}


SIZE = 32  # of images
LENETS = ("relu", "arelu", "method1", "method1-average-pooling")


def lenet(name: str) -> keras.Model:
    """LeNet with an activation; jax2onnx writes a maximum pooling that ONNX Runtime doesn't run."""
    activation, _, pooling = name.partition("-")
    model = models.build(Config.model_validate({"activation": {"name": activation}}), 10)
    return keras.models.clone_model(model, clone_function=averaging) if pooling else model


def averaging(layer: keras.layers.Layer) -> keras.layers.Layer:
    is_maximum = isinstance(layer, keras.layers.MaxPooling2D)
    kind = keras.layers.AveragePooling2D if is_maximum else type(layer)
    return kind.from_config(layer.get_config())


def network(name: str) -> keras.Model:
    """LeNet with an activation, or a network of keras.applications whose activations became adaptive."""
    keras.utils.set_random_seed(0)
    if name in LENETS:
        return with_numbers(lenet(name))
    plain = of_keras(name, SIZE)
    model = settled(with_numbers(ka.replace_activations(plain, *NETWORKS[name])))
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        model.save_weights(Path(folder) / "model.weights.h5")
        fresh = ka.replace_activations(plain, *NETWORKS[name])
        fresh.load_weights(Path(folder) / "model.weights.h5")
        loaded = keras.saving.load_model(Path(folder) / "model.keras")
    first, *others = (outputs(each, images(2, SIZE)) for each in (model, fresh, loaded))
    equal = all(np.array_equal(first, other) for other in others)
    print(f"{name}: reloaded, and its weights loaded into a fresh build: equal {equal}")
    return loaded


def outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False))


def with_numbers(model: keras.Model) -> keras.Model:
    """A model whose activations have other numbers than at the start."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, ka.TrainableActivation):
            values = layer.get_parameters()
            layer.set_parameters(**{k: v + rng.uniform(0.0, 0.2, np.shape(v)) for k, v in values.items()})
    return model


def attempt(model: keras.Model, kind: str, x: np.ndarray, expected: np.ndarray) -> str:
    file, run = FORMATS[kind]
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / file
            model.export(str(path), format=kind, verbose=False)
            found = run(path, x)
    except Exception as error:  # of a converter or a runtime: each raises its own
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return f"{np.abs(found - expected).max() / np.abs(expected).max():.1e}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=[*LENETS, *NETWORKS],
        default=[*LENETS, *NETWORKS],
        help="LeNet with this activation, or one of keras.applications",
    )
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.networks:
        model = network(name)
        x = images(2, SIZE) / np.float32(255 if name in LENETS else 1)
        expected = outputs(model, x)
        folded = ka.fold_activations(model)
        difference = np.abs(outputs(folded, x) - expected).max() / np.abs(expected).max()
        print(f"{BACKEND:10} {name:24} spread {spread(expected):.1e}, folded {difference:.1e}", flush=True)
        for label, each in (("as trained", model), ("folded", folded)):
            for kind in arguments.formats:
                found = attempt(each, kind, x, expected)
                rows.append(
                    {"network": name, "spread": spread(expected), "model": label, "format": kind, "result": found}
                )
                print(f"{BACKEND:10} {name:24} {label:10} {kind:15} {found}", flush=True)
    if arguments.out:
        environment = results.environment("random numbers", ["python", "benchmarks/export.py", *sys.argv[1:]])
        results.write_json(arguments.out, {"environment": environment, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
