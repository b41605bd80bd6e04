"""Activations replaced in networks of keras.applications, with random weights: equal outputs, and a step of training.

    KERAS_BACKEND=jax python benchmarks/surgery.py --out benchmarks/results/surgery-jax.json

For each network: how many sites are replaced and kept, the largest difference of a direct call's outputs, how far these
outputs differ among images (relative to the largest one: a network that answers all alike would agree with anything),
and how many of the new numbers one step of training moves.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo import backend

backend.choose()  # before Keras is imported

import keras
import numpy as np

import keras_adaptact as ka
from zoo import results

SILU, GELU = ({"name": "adaptive", "function": name} for name in ("silu", "gelu"))
NETWORKS = {
    "ResNet50": ("relu", "arelu"),
    "DenseNet121": ("relu", "arelu"),
    "MobileNetV3Small": ("relu", "arelu"),
    "EfficientNetB0": ("silu", SILU),
    "VGG16": ("relu", "arelu"),
    "ConvNeXtTiny": ("gelu", GELU),
}
SIZE = 64  # of images


def images(count: int, size: int) -> np.ndarray:
    """Noise, each image of a brightness and contrast of its own."""
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0, 100, (count, 1, 1, 3)), rng.uniform(150, 255, (count, 1, 1, 3))
    return rng.uniform(low, high, (count, size, size, 3)).astype("float32")


def network(name: str, size: int) -> keras.Model:
    """A network of keras.applications with random weights."""
    keras.utils.set_random_seed(0)
    return settled(getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10))


def settled(model: keras.Model) -> keras.Model:
    """A model with random weights whose outputs depend on the image.

    Batch normalization has the statistics of some images, and ConvNeXt's blocks count as much as what goes past them
    (it starts them at 1e-6); else the signal of random weights dies out on its way through a hundred layers.
    """
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    for layer in model._flatten_layers():
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.ones(layer.gamma.shape))
    model(images(16, model.input_shape[1]), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def spread(outputs: np.ndarray) -> float:
    """How far outputs differ among images: the largest standard deviation relative to the largest output."""
    return float(outputs.std(axis=0).max() / np.abs(outputs).max())


def measure(name: str) -> dict:
    source, new = NETWORKS[name]
    model = network(name, SIZE)
    plan = ka.plan_replacement(model, source, new)
    copy = ka.replace_activations(model, source, new)
    x = images(4, SIZE)
    before, after = (keras.ops.convert_to_numpy(each(x, training=False)) for each in (model, copy))
    layers = [layer for layer in copy._flatten_layers() if isinstance(layer, ka.TrainableActivation)]
    start = [layer.get_parameters() for layer in layers]
    copy.compile(keras.optimizers.SGD(100.0), "sparse_categorical_crossentropy")  # norms leave scales hardly a gradient
    copy.train_on_batch(x, np.arange(4))
    moved = [
        layer.get_parameters()[key] != value
        for layer, then in zip(layers, start, strict=True)
        for key, value in then.items()
    ]
    kept: dict[str, int] = {}
    for site in plan:
        if not site.replaced:
            kept[site.function] = kept.get(site.function, 0) + 1
    return {
        "network": name,
        "replaced": sum(site.replaced for site in plan),
        "kept": kept,
        "starts_equal": all(site.starts_equal for site in plan if site.replaced),
        "difference": float(np.abs(after - before).max()),
        "spread": spread(before),
        "moved": int(sum(moved)),
        "numbers": len(moved),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only:
        began = time.perf_counter()
        row = measure(name)
        rows.append(row)
        kept = ", ".join(f"{n} {function}" for function, n in row["kept"].items())
        print(
            f"{name:17} {row['replaced']:3} replaced, kept {kept}; difference {row['difference']:.1e}, "
            f"spread {row['spread']:.1e}; {row['moved']} of {row['numbers']} numbers moved; "
            f"{time.perf_counter() - began:.0f} s",
            flush=True,
        )
    if arguments.out:
        environment = results.environment("random numbers", ["python", "benchmarks/surgery.py", *sys.argv[1:]])
        results.write_json(arguments.out, {"environment": environment, "size": SIZE, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
