"""Tables of what the activations of a model have learned, and samples of their inputs."""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adaptact import backends
from keras_adaptact.base import TrainableActivation, channel_axis
from keras_adaptact.graphs import inside, require_layer
from keras_adaptact.keras_private import stand_ins
from keras_adaptact.mixtures import Mixture

Record = dict[str, Any]

# Of `keras.activations`, the simplest first: of two that agree over the inputs, the first is named.
KNOWN = (
    *("linear", "relu", "leaky_relu", "relu6", "elu", "selu", "silu", "gelu", "mish", "hard_silu", "softplus"),
    *("squareplus", "sigmoid", "hard_sigmoid", "log_sigmoid", "tanh", "hard_tanh", "softsign", "tanh_shrink"),
    *("soft_shrink", "hard_shrink", "exponential"),
)


def mixing_weights(model: keras.layers.Layer) -> list[Record]:
    """The weights of every mixture in a model, X, Y, Z as they enter the formula: a row for each member and channel.

    ```python
    pandas.DataFrame(ka.mixing_weights(model)).pivot(index="site", columns="member", values="weight")
    ```

    Args:
        model: a model or layer.

    Returns: dicts of `site`, `member`, `channel` (None where the layer has one set of weights) and `weight`. A site
        is named as in `activation_table`.

    Raises:
        ValueError: where a layer has no weights yet, as the number of its channels is unknown.
    """
    return [
        {"site": site, "member": member, "channel": channel, "weight": value}
        for site, layer in trainable_activations(model).items()
        if isinstance(layer, Mixture)
        for member, weights in zip(layer.member_names, layer.mixing_weights, strict=True)
        for channel, value in _by_channel(weights)
    ]


def activation_table(model: keras.layers.Layer) -> list[Record]:
    """Every parameter of a model's trainable activations: a row for each site, parameter and channel.

    ```python
    table = pandas.DataFrame(ka.activation_table(model))
    ```

    A site is the path to the layer, `block/dense/activation`: names of layers in models, of attributes in layers of
    other kinds. An activation passed as `activation=` goes by the name of the layer that it was passed to; one that
    is shared, by that of its first place. Mixing weights are `weight[tanh]` and so on, as they enter the formula.
    Keras's own PReLU is not among the layers.

    Args:
        model: a model or layer.

    Returns: dicts of `site`, `activation` (its class), `parameter`, `channel` (None where the layer has one set of
        parameters), `value`, and `trained`: whether training changes it.

    Raises:
        ValueError: where a layer has no parameters yet, as the number of its channels is unknown.
    """
    return [
        {"site": site, "activation": type(layer).__name__, "parameter": name, "channel": channel}
        | {"value": value, "trained": layer.trained_parameters()[name]}
        for site, layer in trainable_activations(model).items()
        for name, values in layer.formula_parameters().items()
        for channel, value in _by_channel(values)
    ]


def observe(
    model: keras.layers.Layer, data: Any, samples: int = 100_000, batch_size: int = 256
) -> dict[str, np.ndarray]:
    """A random sample of the inputs of each trainable activation when a model is called on some data.

    ```python
    inputs = ka.observe(model, x_test[:1000])
    ka.nearest(model.get_layer("dense").activation, inputs["dense"])
    ```

    The model is called in inference mode, batch by batch and eagerly; no weight changes.

    Args:
        model: a model that takes `data`.
        data: an array, or a list, tuple or dict of them for several inputs, of which batches are made; or an iterable
            of batches (a dataset, a loader), where of a tuple the first element is the input, as in `fit`.
        samples: how many inputs are kept of each site, drawn uniformly.
        batch_size: how many rows of arrays are one batch.

    Returns: for each site (named as in `activation_table`) that was called, float32 of shape (n,), or (n, channels)
        where its layer has parameters for each channel.

    Raises:
        ValueError: for `samples` or a `batch_size` below 1.
    """
    for name, value in (("samples", samples), ("batch_size", batch_size)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"`{name}` must be an integer of 1 or more. Received: {value!r}")
    layers = trainable_activations(model)
    found = {site: _Sample(layer, samples) for site, layer in layers.items()}
    with stand_ins([(layer, "call", found[site].watch(layer.call)) for site, layer in layers.items()]):
        for batch in _batches(data, batch_size):
            model(batch, training=False)
        backends.wait()
    return {site: sample.rows for site, sample in found.items() if len(sample.rows)}


def nearest(layer: TrainableActivation, inputs: Any = None, affine: bool = False) -> list[Record]:
    """The known functions, sorted by their distance from a learned shape over its inputs.

    The distance from f is the root of the mean square of `layer(z) - f(z)` over the inputs; with `affine=True` of
    `layer(z) - (scale f(z) + shift)`, with the scale and shift of least squares: they don't change what a network can
    compute, as its next layer's weights can take them over. An input is not rescaled: near 0 every smooth function
    is a straight line.

    ```python
    ka.nearest(layer, ka.observe(model, x_test)["dense"])[0]["function"]
    ```

    Args:
        layer: a trainable activation.
        inputs: what it sees, of shape (n,), or (n, channels) where it has parameters for each channel (and then (n,)
            for the same in each); 1001 points from -5 to 5 by default. `observe` collects the real ones.
        affine: whether f may be scaled and shifted.

    Returns: dicts of `channel` (None where there is one set of parameters), `function` (of `keras.activations`),
        `error`, `relative_error` (the error divided by the standard deviation of the layer's output, so that 1 is no
        better than a constant), `scale` and `shift`; for each channel the nearest first.

    Raises:
        ValueError: for inputs that are empty, not finite, or of another shape.
    """
    if not isinstance(layer, TrainableActivation):
        raise TypeError(f"`nearest` takes a trainable activation. Received: {layer!r}")
    shape = _shape(layer)
    z = np.linspace(-5, 5, 1001) if inputs is None else np.asarray(inputs, "float32")
    if not z.size or not np.all(np.isfinite(z)) or (z.ndim != 1 and z.shape[1:] != shape):
        raise ValueError(
            f"`inputs` of {layer.name} must be finite and not empty, of shape {('n',)} or {('n', *shape)}. "
            f"Received: an array of shape {z.shape}"
        )
    z = np.broadcast_to(z if z.ndim == 1 + len(shape) else z[:, None], (len(z), *shape)).reshape(len(z), -1)
    y = layer.evaluate(z if shape else z[:, 0]).reshape(z.shape).astype("float64")
    spread = y.std(axis=0)
    records = []
    for name in KNOWN:
        f = ops.convert_to_numpy(getattr(keras.activations, name)(ops.array(z, "float32"))).astype("float64")
        scale, shift = _least_squares(f, y) if affine else (np.ones_like(spread), np.zeros_like(spread))
        error = np.sqrt(np.mean((y - scale * f - shift) ** 2, axis=0))
        relative = np.divide(error, spread, out=np.where(error > 0, np.inf, 0.0), where=spread > 0)
        for channel, row in enumerate(np.stack([error, relative, scale, shift], axis=1).tolist()):
            where = channel if shape else None
            records.append(
                {"channel": where, "function": name}
                | dict(zip(("error", "relative_error", "scale", "shift"), row, strict=True))
            )
    return sorted(records, key=lambda record: (record["channel"] or 0, record["error"]))


def trainable_activations(model: keras.layers.Layer) -> dict[str, TrainableActivation]:
    """The trainable activations in a model, by the names of their sites; one that is used twice is there once.

    ```python
    for name, layer in ka.trainable_activations(model).items():
        print(name, layer.get_parameters())
    ```

    Args:
        model: any model or layer; a trainable activation contains itself.

    Returns:
        Layers by name, in the order of `activation_table`.

    Raises:
        TypeError: for something other than a model or layer.
    """
    require_layer(model)
    if isinstance(model, TrainableActivation):
        return {model.name: model}
    return {path: layer for path, layer in inside(model) if isinstance(layer, TrainableActivation)}


def _shape(layer: TrainableActivation) -> tuple[int, ...]:
    layer.get_parameters()  # which says why, where there are none yet
    return layer.parameter_shape or ()


def _by_channel(values: np.ndarray) -> list[tuple[int | None, float]]:
    if not np.ndim(values):
        return [(None, float(values))]
    return list(enumerate(values.tolist()))


def _least_squares(f: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of f that bring it nearest to y, for each column; a constant f is not scaled."""
    centred = f - f.mean(axis=0)
    variance = np.mean(centred**2, axis=0)
    scale = np.divide(np.mean(centred * y, axis=0), variance, out=np.zeros_like(variance), where=variance > 0)
    return scale, y.mean(axis=0) - scale * f.mean(axis=0)


def _batches(data: Any, size: int) -> Iterator[Any]:
    if hasattr(data, "shape") or isinstance(data, list | tuple | dict):
        count = len(keras.tree.flatten(data)[0])
        for start in range(0, count, size):
            yield keras.tree.map_structure(lambda array, start=start: array[start : start + size], data)
    else:
        for batch in data:
            yield batch[0] if isinstance(batch, tuple) else batch


class _Sample:
    """A random sample of the rows that a layer is given: those with the smallest random keys."""

    def __init__(self, layer: TrainableActivation, samples: int):
        self.layer = layer
        shape = _shape(layer)
        self.size = max(1, samples // math.prod(shape))
        self.rows = np.zeros((0, *shape), "float32")
        self.keys = np.zeros(0)
        self.random = np.random.default_rng(0)

    def watch(self, call):
        def watched(inputs, **options):
            backends.tell(self.add, ops.cast(inputs, "float32"))
            return call(inputs, **options)

        return watched

    def add(self, inputs: np.ndarray) -> None:
        if self.rows.ndim > 1:
            inputs = np.moveaxis(inputs, channel_axis(self.layer.data_format, inputs.ndim), -1)
        rows = np.reshape(inputs, (-1, *self.rows.shape[1:]))
        self.rows = np.concatenate([self.rows, rows])
        self.keys = np.concatenate([self.keys, self.random.random(len(rows))])
        if len(self.keys) > self.size:
            kept = np.argpartition(self.keys, self.size)[: self.size]
            self.rows, self.keys = self.rows[kept], self.keys[kept]
