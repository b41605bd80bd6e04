"""What a run's network takes of memory, estimated before any of it is there."""

import math
import sys
from pathlib import Path

import keras

from zoo import models
from zoo.config.schema import Config
from zoo.errors import ConfigError

TRAINED_ON = {"cifar10": 50_000, "digits": 1_437}  # images
SLOTS = {"sgd": 1, "adam": 2}  # numbers that an optimizer keeps for each parameter
KEPT = (
    0.2  # share of the layers' outputs that a step surely keeps at once: a low guess, so that what fits is not refused
)
BYTES = 4


def check(config: Config, classes: int) -> None:
    """
    Raises:
        ConfigError: where a step of training needs more than the machine has.
    """
    there = available()
    with keras.StatelessScope(initialize_variables=False):  # variables have shapes in it, and no values
        model = models.build(config, classes)
    numbers, outputs = _sizes(model)
    keras.utils.clear_session()  # forgets these variables, which would get values where another scope ends
    settings = config.training
    batch = min(settings.batch_size, config.dataset.limit or 10**9, TRAINED_ON[config.dataset.name]) / settings.devices
    kept = KEPT * outputs * batch * (BYTES if settings.dtype == "float32" else BYTES / 2)
    needed = numbers * BYTES * (2 + SLOTS[settings.optimizer.name]) + kept
    if there and needed > there:
        raise ConfigError(
            f"model, training.batch_size: {numbers:,} parameters and {outputs:,} outputs of layers for each of "
            f"{batch:,.0f} images take about {needed / 1e9:,.1f} GB at least, and there are {there / 1e9:,.1f} GB; "
            "lower the batch size, or the network's width or growth"
        )


def _sizes(model: keras.Model) -> tuple[int, int]:
    """How many parameters it has, and how many outputs its layers have for an image."""
    outputs = (math.prod(size for size in layer.output.shape if size) for layer in model.layers)
    return sum(math.prod(variable.shape) for variable in model.variables), sum(outputs)


def available() -> float | None:
    """Bytes of memory on the device that trains, all of it; None where nothing tells."""
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
    return _of_machine()


def _of_machine() -> float | None:
    """Of the machine, or what its container may take."""
    found = [
        _number("/proc/meminfo", "MemTotal:", 1024),
        _number("/sys/fs/cgroup/memory.max"),
        _number("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ]
    return min(filter(None, found), default=None)


def _number(path: str, name: str = "", unit: int = 1) -> float | None:
    """The first number in a file of Linux, after a name where one is given."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        return float(text[text.index(name) + len(name) :].split()[0]) * unit
    except (OSError, ValueError, IndexError):  # another system, no container, or one without a limit
        return None


def peak_memory() -> float:
    """Megabytes that were held at most: of the GPU's memory, where the backend tells it, else by this process.

    Not `getrusage`, which also counts what a parent process held when it started this one.
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
