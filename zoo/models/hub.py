"""Backbones of KerasHub: what a preset says, on the data's samples, with a head for its targets."""

import inspect
from typing import Any

import keras
from keras import ops

from zoo.config.own import PRESET, Hub
from zoo.data.splits import Form
from zoo.errors import ConfigError, first_line

PADDING = 0  # the token that fills texts up


def backbone(chosen: Hub, form: Form) -> keras.Model:
    """The network of a preset, without what is done to its inputs, and without a head.

    Raises:
        ConfigError: without keras-hub, or where there is no such preset.
    """
    try:
        import keras_hub
    except ModuleNotFoundError:
        raise ConfigError("model.kerashub: the package keras-hub is not installed; pip install '.[hub]'") from None
    folder = chosen.folder
    if folder and not (folder / PRESET).is_file():
        raise ConfigError(f"model.kerashub: {folder}: not what save_to_preset writes: it has no {PRESET}")
    weights = chosen.weights is not None

    def load(**more: Any) -> keras.Model:
        return keras_hub.models.Backbone.from_preset(
            chosen.kerashub, load_weights=weights, dtype=keras.config.dtype_policy(), **chosen.options, **more
        )

    try:
        found = load()
        _check_options(chosen, found)
        takes = () if isinstance(found.input, dict) else found.input.shape[1:]
        if takes and any(size not in (None, ours) for size, ours in zip(takes, form.shape, strict=False)):
            found = load(image_shape=form.shape)
        return keras.Model(found.input, found.output, name=found.name)  # without what a backbone adds to its layers
    except ConfigError:
        raise
    except Exception as error:  # of KerasHub, and of a download
        first = first_line(error, 300)
        raise ConfigError(f"model.kerashub: {chosen.kerashub}: {type(error).__name__}: {first}") from error


def _check_options(chosen: Hub, found: keras.Model) -> None:
    """Its class takes them; what it doesn't know it would ignore."""
    known = inspect.signature(type(found).__init__).parameters
    if unknown := sorted(chosen.options.keys() - known):
        raise ConfigError(f"model.{unknown[0]}: {type(found).__name__} has no such option")


def with_head(chosen: Hub, body: keras.Model, form: Form) -> keras.Model:
    """The whole network: places or tokens are averaged, and a layer gives what is to be learned.

    Raises:
        ConfigError: where it doesn't fit the data.
    """
    if len(form.outputs) != 1:
        raise ConfigError(
            f"model.kerashub: {chosen.called} gives one row for a sample, and the targets are {form.target}"
        )
    inputs = keras.Input(form.shape, dtype="int32" if form.dtype == "int32" else "float32")
    try:
        found = body(_taken(chosen, body, inputs))
    except ConfigError:
        raise
    except Exception as error:  # of Keras and of a backend
        first = first_line(error)
        raise ConfigError(
            f"model.kerashub: {chosen.called} doesn't take samples of shape {form.shape}: {type(error).__name__}: "
            f"{first}"
        ) from error
    if isinstance(found, dict):
        found = found.get("pooled_output", found.get("sequence_output"))
    if not isinstance(found, keras.KerasTensor) or len(found.shape) not in (2, 3, 4):
        raise ConfigError(f"model.kerashub: {chosen.called} returns nothing that a head can be put on")
    if len(found.shape) == 4:
        found = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="pooled")(found)
    elif len(found.shape) == 3:
        mask = ops.not_equal(inputs, PADDING) if isinstance(body.input, dict) else None
        found = keras.layers.GlobalAveragePooling1D(data_format="channels_last", name="pooled")(found, mask=mask)
    outputs = keras.layers.Dense(form.outputs[0], dtype="float32", name="logits")(found)
    return keras.Model(inputs, outputs, name=body.name)


def _taken(chosen: Hub, body: keras.Model, inputs: keras.KerasTensor) -> Any:
    """Images as they are; of rows of tokens what a network of texts takes."""
    if not isinstance(body.input, dict):
        return inputs
    given = {
        "token_ids": inputs,
        "padding_mask": ops.not_equal(inputs, PADDING),
        "segment_ids": ops.zeros_like(inputs),
    }
    if unknown := sorted(body.input.keys() - given.keys()):
        raise ConfigError(f"model.kerashub: {chosen.called} takes {unknown[0]}, which no data here has")
    return {name: ops.cast(given[name], tensor.dtype) for name, tensor in body.input.items()}
