"""The memory that a run needs, estimated before it is allocated, and the peak that it used."""

import math
import sys
from pathlib import Path

import keras

from zoo import models
from zoo.config.schema import Config
from zoo.data.splits import PICTURES, Form
from zoo.environment import memory_of_machine
from zoo.errors import ConfigError

SLOTS = {"sgd": 1, "adam": 2}  # values that the optimizer stores for each parameter
KEPT = 0.2  # share of the layers' outputs that a step surely keeps at once; low, so as not to refuse what fits
BYTES = 4


def check(config: Config, form: Form = PICTURES, samples: int = 10**9) -> None:
    """
    Args:
        config: of a run with one of the five networks; others are built by code that may need values.
        form: of its data.
        samples: how many it is trained on.

    Raises:
        ConfigError: if a training step needs more memory than there is.
    """
    if models.is_own(config):
        return
    there = available()
    with keras.StatelessScope(initialize_variables=False):  # variables get shapes, no values
        model = models.build(config, form=form)
    numbers, outputs = _sizes(model)
    keras.utils.clear_session()  # or these variables would get values at the end of another scope
    settings = config.training
    batch = min(settings.batch_size, samples) / settings.devices
    kept = KEPT * outputs * batch * (BYTES if settings.dtype == "float32" else BYTES / 2)
    needed = numbers * BYTES * (2 + SLOTS[settings.optimizer.name]) + kept
    if there and needed > there:
        raise ConfigError(
            f"model, training.batch_size: {numbers:,} parameters and {outputs:,} layer outputs for each of "
            f"{batch:,.0f} images need at least {needed / 1e9:,.1f} GB; there are {there / 1e9:,.1f} GB; "
            "lower the batch size, or the network's width or growth"
        )


def _sizes(model: keras.Model) -> tuple[int, int]:
    """The number of parameters, and of the layers' outputs for one image."""
    outputs = (math.prod(size for size in layer.output.shape if size) for layer in model.layers)
    return sum(math.prod(variable.shape) for variable in model.variables), sum(outputs)


def available() -> float | None:
    """Total memory of the device in bytes; None if unknown."""
    if keras.config.backend() == "jax":
        import jax

        if statistics := jax.devices()[0].memory_stats():
            return statistics.get("bytes_limit")
    elif keras.config.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.mem_get_info()[1]
    else:
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            return None
    return memory_of_machine()


def peak_memory() -> float:
    """Peak memory in megabytes: of the GPU, if the backend reports it, else of this process.

    Not `getrusage`, which includes what the parent process held when it started this one.
    """
    import keras

    if keras.config.backend() == "jax":
        import jax

        if statistics := jax.devices()[0].memory_stats():
            return statistics["peak_bytes_in_use"] / 1e6
    elif keras.config.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 1e6
    else:
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):  # not Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
