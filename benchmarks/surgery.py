"""Activations replaced and folded in every network of keras.applications, with random weights.

    KERAS_BACKEND=jax python benchmarks/surgery.py --out benchmarks/results/surgery-jax.json

For each network, at the smallest images that it takes: how many sites are replaced and kept, and why; the largest
difference of a direct call's outputs, and how far these outputs differ among images (relative to the largest one: a
network that answers all alike would agree with anything); how many of the new numbers one step of training moves; and,
with all of them made random, how many sites are folded into other layers, why others aren't, and the largest difference
that this makes, relative to the largest output. The file is written anew after each network.
"""

import argparse
import inspect
import re
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo import backend

backend.choose()  # before Keras is imported

import keras
import numpy as np

import keras_adaptact as ka
from zoo import results
from zoo.environment import environment

SILU, GELU, RELU6 = ({"name": "adaptive", "function": name} for name in ("silu", "gelu", "relu6"))
SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}  # the smallest images where it isn't 32
NETWORKS = sorted(name for name, made in vars(keras.applications).items() if inspect.isfunction(made))


def rule(name: str) -> tuple[str | keras.layers.Layer, str | dict]:
    """What is replaced in a network, and by what."""
    if name.startswith("EfficientNet"):
        return "silu", SILU
    if name in ("MobileNet", "MobileNetV2"):
        return keras.layers.ReLU(6.0), RELU6
    return ("gelu", GELU) if name.startswith("ConvNeXt") else ("relu", "arelu")


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
    source, new = rule(name)
    size = SIZES.get(name, 32)
    model = network(name, size)
    plan = ka.plan_replacement(model, source, new)
    copy = ka.replace_activations(model, source, new)
    x = images(4, size)
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
            key = f"{site.function}: {site.why}"
            kept[key] = kept.get(key, 0) + 1
    return {
        "network": name,
        "replaced": sum(site.replaced for site in plan),
        "kept": kept,
        "starts_equal": all(site.starts_equal for site in plan if site.replaced),
        "difference": float(np.abs(after - before).max()),
        "spread": spread(before),
        "moved": int(sum(moved)),
        "numbers": len(moved),
    } | fold(ka.replace_activations(model, source, new), x)  # the step of training was a violent one


def fold(model: keras.Model, x: np.ndarray) -> dict:
    """What folding makes of a model whose activations have numbers of their own."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, ka.TrainableActivation):
            near = {k: v + rng.uniform(-0.2, 0.2, v.shape) for k, v in layer.get_parameters().items()}
            layer.set_parameters(**near)
    model = keras.Model(model.input, model.layers[-1].input)  # a softmax would hide what differs
    settled(model)
    plan = ka.plan_folding(model)
    before, after = (keras.ops.convert_to_numpy(m(x, training=False)) for m in (model, ka.fold_activations(model)))
    stay = Counter(site.why for site in plan if site.why and not site.moved)
    return {
        "folded": sum(bool(site.moved) for site in plan),
        "stay": {re.sub(r"\w+_\w+|\w+\d\w*", "...", why): n for why, n in stay.items()},
        "fold_difference": float(np.abs(after - before).max() / np.abs(before).max()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    about = environment("random numbers", ["python", "benchmarks/surgery.py", *sys.argv[1:]])
    rows = []
    for name in arguments.only:
        began = time.perf_counter()
        row = measure(name)
        rows.append(row)
        print(
            f"{name:17} {row['replaced']:3} replaced, kept {row['kept']}; difference {row['difference']:.1e}, spread "
            f"{row['spread']:.1e}; {row['moved']} of {row['numbers']} numbers moved; {row['folded']} folded, off by "
            f"{row['fold_difference']:.1e}; {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        if arguments.out:
            results.write_json(arguments.out, {"environment": about, "rows": rows})
        keras.utils.clear_session()
    return 0


if __name__ == "__main__":
    sys.exit(main())
