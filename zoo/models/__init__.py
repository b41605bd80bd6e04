"""The networks, one file each: `build(config, activation, classes, shape)` gives a Keras model with logits.

`activation` is a factory: it is called with the name of each site and returns that site's layer.
"""

import math
from importlib import import_module

import keras

from zoo.config.schema import Config
from zoo.data.pipeline import fast_format
from zoo.data.splits import PICTURES, Form
from zoo.errors import ConfigError, UserError, first_line
from zoo.models import own
from zoo.models.blocks import Shape, channel_axis, check_rules, factory


def build(config: Config, classes: int | None = None, form: Form = PICTURES) -> keras.Model:
    """The network of a config, with its activations; of the five for 32x32x3 images, unless a form says otherwise.

    Raises:
        ConfigError: for an unknown activation or option, a site without a rule, a rule without a site, or a network
            that doesn't fit the data.
        OwnCodeError: if a user's function raises.
    """
    named = getattr(config.model, "name", None)
    try:
        if named is None:
            return own.build(config, factory(config.activation), form)
        _check_pictures(named, form)
        network = import_module(f"zoo.models.{named}")
        count = classes or math.prod(form.outputs)
        model = network.build(config.model, factory(config.activation), count, _in_keras_format(form.shape))
        _check_settings(model)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # whatever Keras and a backend raise for an initial value or a constraint
        first = first_line(error)
        raise ConfigError(f"activation: the network can't be built: {type(error).__name__}: {first}") from error
    if isinstance(config.activation, list):
        check_rules(config.activation, [site.removesuffix("_activation") for site in _named(model)])
    return model


def is_own(config: Config) -> bool:
    """Whether the network is none of the five."""
    return not hasattr(config.model, "name")


def data_format(config: Config) -> str:
    """The image data format that a network takes: of one's own channels last, as data lies; else what is fast here."""
    return "channels_last" if is_own(config) else fast_format()


def _check_pictures(name: str, form: Form) -> None:
    if not form.is_picture:
        raise ConfigError(f"model.name: {name} takes images (height, width, channels), and the data has {form.shape}")
    if len(form.outputs) > 1:
        raise ConfigError(f"model.name: {name} gives one label for an image, and the data has targets {form.target}")


def _in_keras_format(shape: tuple[int, ...]) -> Shape:
    height, width, channels = shape
    return (channels, height, width) if channel_axis() == 1 else (height, width, channels)


def _named(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if layer.name.endswith("_activation")]


def _check_settings(model: keras.Model) -> None:
    """Applies constraints and regularizers of the activations once, so that their errors appear now."""
    for variable in model.trainable_variables:
        for setting in (variable.constraint, variable.regularizer):
            if setting is not None:
                setting(variable.value)
