"""Activations replaced and folded in every network of keras.applications and in backbones of KerasHub.

    KERAS_BACKEND=torch python benchmarks/surgery.py --out benchmarks/results/checks.json.xz

For each network, with random weights and the smallest images that it takes: how many sites are replaced and kept, and
why; the largest difference of a direct call's outputs, and how far these outputs differ among images (relative to the
largest one: a network that answers all alike would agree with anything). And with all parameters made random, how many
sites are folded into other layers, why others aren't, and the largest difference that this makes, relative to the
largest output. Needs keras-hub for its backbones. The file is written anew after each network, and `--resume` keeps the
rows that are in it.
"""

import argparse
import inspect
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo import backend

BACKEND = backend.choose()  # before Keras is imported

import keras
import numpy as np
import tables
from runtimes import computing_in_float64

import keras_adaptact as ka
from zoo.environment import describe_environment

SILU, GELU, RELU6 = ({"name": "adaptive", "function": name} for name in ("silu", "gelu", "relu6"))
SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}  # the smallest images where it isn't 32
NETWORKS = sorted(name for name, made in vars(keras.applications).items() if inspect.isfunction(made))


# What constructors of backbones ask for, by its name; what one alone needs stands below.
SMALL = {
    "vocabulary_size": 50,
    "vocab_size": 50,
    "max_sequence_length": 8,
    "bucket_size": 4,
    "num_layers": 2,
    "num_heads": 2,
    "num_query_heads": 2,
    "num_key_value_heads": 2,
    "num_attention_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "embedding_dim": 16,
    "mlp_dim": 32,
    "head_dim": 8,
    "head_size": 8,
    "num_experts": 8,
    "moe_intermediate_dim": 32,
    "shared_expert_intermediate_dim": 32,
    "image_shape": (32, 32, 3),
    "patch_size": 16,
}

TEXT = (
    *("Albert", "Bart", "Bert", "Bloom", "DebertaV3", "DistilBert", "ESM", "ESM2", "Electra", "FNet", "Falcon", "GPT2"),
    *("GPTNeoX", "Gemma", "GptOss", "Llama", "Llama3", "Mistral", "Mixtral", "OPT", "Phi3", "Qwen", "Qwen2", "Qwen3"),
    *("Qwen3Moe", "Qwen3_5", "QwenMoe", "Roberta", "RoformerV2", "T5", "XLMRoberta", "XLNet"),
)
VISION = {
    **{name: {} for name in ("DINOV2", "DINOV3", "DeiT", "ViT")},
    "DenseNet": {"stackwise_num_repeats": [2, 2], "compression_ratio": 0.5, "growth_rate": 8},
    "EfficientNet": {
        "stackwise_kernel_sizes": [3, 3],
        "stackwise_num_repeats": [1, 2],
        "stackwise_input_filters": [8, 8],
        "stackwise_output_filters": [8, 16],
        "stackwise_expansion_ratios": [1, 4],
        "stackwise_strides": [1, 2],
        "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
        "stackwise_block_types": ["v1", "unfused"],
        "stackwise_force_input_filters": [0, 0],
        "stackwise_nores_option": [False, False],
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "activation": "swish",
        "input_shape": (32, 32, 3),
    },
    "MiT": {
        "layerwise_depths": [1, 1],
        "layerwise_num_heads": [1, 2],
        "hidden_dims": [8, 16],
        "max_drop_path_rate": 0.1,
        "layerwise_sr_ratios": [2, 1],
        "layerwise_patch_sizes": [7, 3],
        "layerwise_strides": [4, 2],
    },
    "MobileNet": {
        "stackwise_expansion": [[8, 16], [16, 16]],
        "stackwise_num_blocks": [2, 2],
        "stackwise_num_filters": [[8, 8], [8, 8]],
        "stackwise_kernel_size": [[3, 3], [3, 3]],
        "stackwise_num_strides": [[2, 1], [2, 1]],
        "stackwise_se_ratio": [[None, 0.25], [0.25, 0.25]],
        "stackwise_activation": [["relu", "relu"], ["hard_swish", "hard_swish"]],
        "stackwise_padding": [[1, 1], [1, 1]],
        "output_num_filters": 16,
        "depthwise_filters": 8,
        "depthwise_stride": 2,
        "depthwise_residual": False,
        "squeeze_and_excite": 0.5,
        "last_layer_filter": 16,
        "input_num_filters": 8,
        "input_activation": "hard_swish",
        "output_activation": "hard_swish",
    },
    "ResNet": {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128],
        "stackwise_num_blocks": [2, 2],
        "stackwise_num_strides": [1, 2],
        "block_type": "basic_block",
    },
    "SwinTransformer": {"patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    "VGG": {"stackwise_num_repeats": [1, 1, 1], "stackwise_num_filters": [8, 8, 8]},
    "Xception": {"stackwise_conv_filters": [[8, 8], [8, 8, 8]], "stackwise_pooling": [True, False]},
}
BACKBONES = [f"{name}Backbone" for name in (*TEXT, *VISION)]


def backbone(name: str) -> tuple[keras.Model, dict[str, np.ndarray] | np.ndarray]:
    """A backbone with random weights, and inputs for it."""
    import keras_hub

    cls = getattr(keras_hub.models, name)
    special = VISION.get(name.removesuffix("Backbone"), {})
    asked = {p.name for p in inspect.signature(cls.__init__).parameters.values() if p.default is p.empty}
    asked |= {"image_shape", "max_sequence_length"} & inspect.signature(cls.__init__).parameters.keys()
    keras.utils.set_random_seed(0)
    model = cls(**{key: value for key, value in SMALL.items() if key in asked} | special)
    rng = np.random.default_rng(0)
    return model, keras.tree.map_structure(lambda tensor: _values(tensor, rng), model.input)


def _values(tensor, rng: np.random.Generator) -> np.ndarray:
    """Of four texts or images: the mask of a text leaves its last word out."""
    shape = (4, *(8 if size is None else size for size in tensor.shape[1:]))
    if "mask" in tensor.name:
        return np.broadcast_to(np.arange(shape[1]) < shape[1] - 1, shape).astype(tensor.dtype)
    if "segment" in tensor.name:
        return np.zeros(shape, tensor.dtype)
    return (
        rng.integers(1, 50, shape).astype(tensor.dtype) if len(shape) == 2 else rng.normal(size=shape).astype("float32")
    )


def rule(name: str) -> dict:
    """What is replaced in a network, and by what."""
    if name in BACKBONES:
        return {"choose": as_it_is}
    if name.startswith("EfficientNet"):
        return {"source": "silu", "new": SILU}
    if name in ("MobileNet", "MobileNetV2"):
        return {"source": keras.layers.ReLU(6.0), "new": RELU6}
    return {"source": "gelu", "new": GELU} if name.startswith("ConvNeXt") else {"source": "relu", "new": "arelu"}


def as_it_is(layer) -> dict | None:
    """The function of a layer made adaptive, unless gates and heads are made of it."""
    function = getattr(layer, "activation", None)
    gates = ("linear", "sigmoid", "hard_sigmoid", "softmax")
    is_function = callable(function) and not isinstance(function, keras.layers.Layer)
    return {"name": "adaptive", "function": function} if is_function and function.__name__ not in gates else None


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


def outputs(model: keras.Model, x) -> np.ndarray:
    """All that a model puts out for each of its inputs."""
    made = keras.tree.flatten(model(x, training=False))
    return np.concatenate([np.reshape(keras.ops.convert_to_numpy(y), (len(y), -1)) for y in made], axis=1)


def measure(name: str) -> dict:
    if name in NETWORKS:
        size = SIZES.get(name, 32)
        try:
            model = network(name, size)
        except ValueError as error:  # NASNetMobile on torch
            return {"network": name, "replaced": 0, "kept": {}, "refused": str(error)}
        x = images(16, size)[:4]  # batch normalization has seen them: what was nearly dead there explodes with others
    else:
        model, x = backbone(name)
    plan = ka.plan_replacement(model, **rule(name))
    replaced = [site for site in plan if site.replaced]
    kept = Counter(f"{site.function}: {site.why}" for site in plan if not site.replaced)
    row = {"network": name, "replaced": len(replaced), "kept": kept}
    if not replaced:
        return row
    try:
        copy = ka.replace_activations(model, **rule(name))
    except ValueError as error:  # of a layer that Keras can't make of its own configuration
        return row | {"refused": str(error).split(";")[0]}
    before, after = outputs(model, x), outputs(copy, x)
    row |= {"starts_equal": all(site.starts_equal for site in replaced), "spread": spread(before)}
    row |= {"difference": float(np.abs(after - before).max())}
    return row | fold(copy, x, name in NETWORKS)


def fold(model: keras.Model, x, is_classifier: bool) -> dict:
    """What folding makes of a model whose activations have parameters of their own."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, ka.TrainableActivation):
            near = {k: v + rng.uniform(-0.2, 0.2, v.shape) for k, v in layer.get_parameters().items()}
            layer.set_parameters(**near)
    if is_classifier:
        model = settled(keras.Model(model.input, model.layers[-1].input))  # a softmax would hide what differs
    plan = ka.plan_folding(model)
    before, after = outputs(model, x), outputs(ka.fold_activations(model), x)
    stay = Counter(site.why for site in plan if site.why and not site.moved)
    row = {
        "folded": sum(bool(site.moved) for site in plan),
        "stay": {re.sub(r"\w+_\w+|\w+\d\w*", "...", why): n for why, n in stay.items()},
        "fold_difference": difference(before, after),
    }
    return row | in_float64(model, x, before) if is_classifier else row


def difference(before: np.ndarray, after: np.ndarray) -> float:
    """The largest one, relative to the largest output."""
    return float(np.abs(after - before).max() / np.abs(before).max())


def in_float64(model: keras.Model, x, outputs_in_float32: np.ndarray) -> dict:
    """How far a model is off in float32 by itself, and what folding it makes of its outputs in float64."""
    config = json.dumps(keras.saving.serialize_keras_object(model)).replace('"float32"', '"float64"')
    with computing_in_float64():
        same = keras.saving.deserialize_keras_object(json.loads(config))
        same.set_weights([value.astype("float64") for value in model.get_weights()])
        before, after = (outputs(m, x.astype("float64")) for m in (same, ka.fold_activations(same)))
    return {"own_error": difference(before, outputs_in_float32), "fold_difference_float64": difference(before, after)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    everything = [*NETWORKS, *BACKBONES]
    parser.add_argument("--only", nargs="+", choices=everything, default=everything, metavar="NETWORK")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are in the file")
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    about = describe_environment("random numbers", ["python", "benchmarks/surgery.py", *sys.argv[1:]])
    measured = tables.part(arguments.out, "surgery", BACKEND) if arguments.resume else {}
    rows = measured.get("rows", [])
    for name in arguments.only:
        if any(row["network"] == name for row in rows):
            continue
        began = time.perf_counter()
        row = measure(name)
        rows.append(row)
        print(f"{time.perf_counter() - began:.0f} s: {row}", flush=True)
        if arguments.out:
            tables.write_part(arguments.out, {"environment": about, "rows": rows}, "surgery", BACKEND)
        keras.utils.clear_session()
    return 0


if __name__ == "__main__":
    sys.exit(main())
