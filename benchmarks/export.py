"""What can be shipped from a backend: networks exported in each format of Keras, run elsewhere, and compared.

    KERAS_BACKEND=torch python benchmarks/export.py --out benchmarks/results/checks.json.xz

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
from zoo.environment import describe_environment

BACKEND = backend.choose()  # before Keras is imported

import keras
import numpy as np
import tables
from runtimes import FORMATS, MEMBERS, exported
from surgery import NETWORKS, images, rule, settled, spread
from surgery import network as of_keras

import keras_adaptact as ka
from zoo import models
from zoo.config.schema import Config

SIZE = 32  # of images
EVERY = "every-layer"
LENETS = ("lenet-relu", "lenet-arelu", "lenet-method1", "lenet-method1-average-pooling")


def lenet(name: str) -> keras.Model:
    """LeNet with an activation; jax2onnx writes a maximum pooling that ONNX Runtime doesn't run."""
    activation, _, pooling = name.removeprefix("lenet-").partition("-")
    model = models.build(Config.model_validate({"activation": {"name": activation}}), 10)
    return keras.models.clone_model(model, clone_function=averaging) if pooling else model


def averaging(layer: keras.layers.Layer) -> keras.layers.Layer:
    is_maximum = isinstance(layer, keras.layers.MaxPooling2D)
    kind = keras.layers.AveragePooling2D if is_maximum else type(layer)
    return kind.from_config(layer.get_config())


def small(*members: str) -> keras.Model:
    """For each member two convolutions and a dense layer: by channel inside the first, by layer behind the second."""
    layers = keras.layers
    inputs, outputs = keras.Input((SIZE, SIZE, 3)), []
    for spec in (MEMBERS[member] for member in members):
        channels = {} if spec["name"] == "prelu" else {"channels": 6}
        x = layers.Conv2D(6, 5, strides=2, activation=ka.get(spec | {"granularity": "channel"} | channels))(inputs)
        x = layers.AveragePooling2D(2)(ka.get(spec)(layers.Conv2D(8, 5, strides=2)(x)))
        outputs.append(layers.Dense(10, activation=ka.get(spec))(layers.Flatten()(x)))
    return keras.Model(inputs, layers.Concatenate()(outputs) if len(outputs) > 1 else outputs)


def network(name: str) -> keras.Model:
    """LeNet or a small network, with one activation or all, or one of keras.applications, made adaptive."""
    keras.utils.set_random_seed(0)
    if name in MEMBERS or name == EVERY:
        return with_numbers(small(*(MEMBERS if name == EVERY else [name])))
    if name in LENETS:
        return with_numbers(lenet(name))
    plain = of_keras(name, SIZE)
    model = settled(with_numbers(ka.replace_activations(plain, **rule(name))))
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        model.save_weights(Path(folder) / "model.weights.h5")
        fresh = ka.replace_activations(plain, **rule(name))
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
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = exported(model, kind, Path(folder), x)
    except Exception as error:  # of a converter or a runtime: each raises its own
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return f"{np.abs(found - expected).max() / np.abs(expected).max():.1e}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=[*LENETS, EVERY, *MEMBERS, *NETWORKS],
        default=[*LENETS, EVERY],
        help="LeNet or a small network with this activation, or with all; or one of keras.applications",
        metavar="NETWORK",
    )
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.networks:
        model = network(name)
        x = images(2, SIZE) / np.float32(255 if name not in NETWORKS else 1)
        folded = ka.fold_activations(model)  # and exported before it was called
        expected = outputs(model, x)
        print(f"{BACKEND:10} {name:24} spread {spread(expected):.1e}", flush=True)
        for label, each in (("as trained", model), ("folded", folded)):
            for kind in arguments.formats:
                found = attempt(each, kind, x, expected)
                rows.append(
                    {"network": name, "spread": spread(expected), "model": label, "format": kind, "result": found}
                )
                print(f"{BACKEND:10} {name:24} {label:10} {kind:15} {found}", flush=True)
    if arguments.out:
        environment = describe_environment("random numbers", ["python", "benchmarks/export.py", *sys.argv[1:]])
        tables.write_part(arguments.out, {"environment": environment, "rows": rows}, "export", BACKEND)
    return 0


if __name__ == "__main__":
    sys.exit(main())
