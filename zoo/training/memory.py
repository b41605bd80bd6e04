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


class NoMemoryError(ConfigError):
    """A network that needs more memory than there is."""


def check(config: Config, form: Form = PICTURES, samples: int = 10**9) -> bool:
    """Whether that could be checked: own code may need the values of its network's variables, which it has none of yet.

    Args:
        config: of a run.
        form: of its data.
        samples: how many it is trained on.

    Raises:
        ConfigError: if a training step needs more memory than there is.
    """
    try:
        with keras.StatelessScope(initialize_variables=False):  # variables get shapes, no values
            model = models.build(config, form=form)
        refuse(model, config, samples)
    except Exception as error:
        if not models.is_own(config) or isinstance(error, NoMemoryError):
            raise
        return False  # it is built with values next, and says then what is wrong
    finally:
        keras.utils.clear_session()  # or these variables would get values at the end of another scope
    return True


def refuse(model: keras.Model, config: Config, samples: int) -> None:
    """
    Raises:
        NoMemoryError: if a training step of a network needs more memory than there is.
    """
    there, settings = available(), config.training
    numbers, outputs = _sizes(model)
    batch = min(settings.batch_size, samples) / settings.devices
    kept = KEPT * outputs * batch * (BYTES if settings.dtype == "float32" else BYTES / 2)
    needed = numbers * BYTES * (2 + SLOTS[settings.optimizer.name]) + kept
    if there and needed > there:
        raise NoMemoryError(
            f"model, training.batch_size: {numbers:,} parameters and {outputs:,} layer outputs for each of "
            f"{batch:,.0f} images need at least {needed / 1e9:,.1f} GB; there are {there / 1e9:,.1f} GB; "
            "lower the batch size, or the network's width or growth"
        )


def _sizes(model: keras.Model) -> tuple[int, int]:
    """The number of parameters, and of the layers' outputs for one sample."""
    return sum(math.prod(variable.shape) for variable in model.variables), _outputs(model)


def _outputs(model: keras.Model) -> int:
    found = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += _outputs(layer)
            continue
        try:
            tensors = keras.tree.flatten(layer.output)
        except (AttributeError, ValueError):  # of a model that is a class, whose layers have no graph
            continue
        found += sum(math.prod(size for size in tensor.shape if size) for tensor in tensors)
    return found


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
