"""Backbones of KerasHub, made as small as their classes allow: random weights, and inputs for them."""

import inspect

import keras
import numpy as np

# What their constructors ask for, by its name; what one alone needs stands below.
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
