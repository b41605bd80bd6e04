"""Plots of what activations have learned, in the colour-blind safe palette of Okabe and Ito."""

import io
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_adaptact.base import TrainableActivation
from keras_adaptact.history import ActivationHistory, write_whole
from keras_adaptact.inspection import observe, trainable_activations

CURVE, SLOPE, START, INPUTS = "#0072B2", "#D55E00", "#666666", "#56B4E9"
CHANNELS = 16  # drawn at most of one layer
RANGE, POINTS = (-5.0, 5.0), 401  # of z


def plot_activations(model: keras.layers.Layer, data: Any = None, columns: int = 4) -> Any:
    """Plots the shape that each trainable activation of a model has learned, its slope and its inputs.

    ```python
    ka.plot_activations(model, x_test[:1000]).savefig("activations.png", dpi=150)
    ```

    One panel for each site: the curve and its slope (broken) over z; the curve that it started as (dotted), where that
    isn't random; and with `data` a histogram of the real inputs, whose middle 99.8 % are then the range of z, else -5
    to 5. Of a layer with parameters for each channel 16 channels are drawn at most, spread evenly.

    Args:
        model: a model or layer.
        data: inputs of the model, as `observe` takes them, or what `observe` returned for it.
        columns: how many panels a row has.

    Returns: a matplotlib `Figure`, which needs no display; a notebook shows it.

    Raises:
        ImportError: without matplotlib.
        ValueError: for a model without trainable activations.
    """
    _require_integer("columns", columns, 1)
    layers = trainable_activations(model)
    if not layers:
        raise ValueError(f"The model has no trainable activations to plot. Received: {model.name}")
    observed: dict[str, np.ndarray] = {}
    if data is not None:
        is_observed = isinstance(data, Mapping) and data.keys() <= layers.keys()
        observed = dict(data) if is_observed else observe(model, data)
    figure, grid = _grid(len(layers), columns)
    for axes, (site, layer) in zip(grid, layers.items(), strict=True):
        inputs = observed.get(site, np.zeros(0))
        _draw(axes, layer, inputs[np.isfinite(inputs)])
        axes.set_title(_title(site, layer), fontsize=8)
    _legend(figure, grid)
    return figure


def animate_activations(
    history: ActivationHistory, path: str | os.PathLike, frames: int = 60, milliseconds: int = 120, columns: int = 4
) -> None:
    """Writes a GIF of how the shapes of a model's activations changed in training.

    ```python
    history = ka.ActivationHistory()
    model.fit(x, y, epochs=20, callbacks=[history])
    ka.animate_activations(history, "activations.gif")
    ```

    The file is written whole or not at all. The shape at the first epoch stays as a dotted line.

    Args:
        history: a callback with one epoch or more, whose model still has the same activations.
        path: the file.
        frames: how many epochs are shown at most, spread evenly, the first and the last among them.
        milliseconds: how long each is shown; the last one ten times as long.
        columns: how many panels a row has.

    Raises:
        ImportError: without matplotlib or Pillow.
        ValueError: for an empty history, fewer than 2 `frames`, or a `milliseconds` or `columns` below 1.
    """
    if not isinstance(history, ActivationHistory):
        raise TypeError(f"`history` must be an ActivationHistory. Received: {history!r}")
    if not history.snapshots:
        raise ValueError("`history` must have seen a call of `fit`. Received: an ActivationHistory without records")
    for name, value, least in (("frames", frames, 2), ("milliseconds", milliseconds, 1), ("columns", columns, 1)):
        _require_integer(name, value, least)
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("Animations need Pillow: pip install matplotlib pillow") from error

    layers = trainable_activations(history.model)
    z = np.linspace(*RANGE, POINTS)
    epochs = _spread(sorted(history.snapshots), frames)
    curves = {
        site: [_values(layer, z, history.snapshots[epoch][site]) for epoch in epochs] for site, layer in layers.items()
    }
    figure, grid = _grid(len(layers), columns)
    lines = {}
    for axes, (site, layer) in zip(grid, layers.items(), strict=True):
        axes.plot(z, curves[site][0], ":", color=START, linewidth=1)
        lines[site] = axes.plot(z, curves[site][-1], color=CURVE, linewidth=_width(curves[site][0]))
        axes.set_ylim(*_limits(np.concatenate(curves[site])))
        axes.set_title(_title(site, layer), fontsize=8)
    heading = figure.suptitle(" ", fontsize=9)
    images = []
    for i, epoch in enumerate(epochs):
        heading.set_text(f"epoch {epoch}")
        for site, drawn in lines.items():
            for line, y in zip(drawn, curves[site][i].T, strict=True):
                line.set_ydata(y)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=80)
        images.append(Image.open(picture).convert("RGB").quantize(64, dither=Image.Dither.NONE))
    durations = [milliseconds] * (len(images) - 1) + [10 * milliseconds]
    write_whole(
        path,
        lambda file: images[0].save(
            file, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0
        ),
    )


def _require_integer(name: str, value, least: int) -> None:
    if not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"`{name}` must be an integer of {least} or more. Received: {value!r}")


def _draw(axes, layer: TrainableActivation, inputs: np.ndarray) -> None:
    low, high = RANGE
    if inputs.size:
        low, high = np.quantile(inputs, (0.001, 0.999))
        if low == high:
            low, high = low - 0.5, high + 0.5
    z = np.linspace(low, high, POINTS)
    y = _values(layer, z)
    slope = np.gradient(y, z, axis=0)
    if (start := _start(layer)) is not None:
        axes.plot(z, _values(start, z), ":", color=START, linewidth=1, label="curve at the start")
    axes.plot(z, y, color=CURVE, linewidth=_width(y), label="curve")
    axes.plot(z, slope, "--", color=SLOPE, linewidth=_width(y), label="slope")
    axes.set_ylim(*_limits(np.concatenate([y, slope])))
    if inputs.size:
        below = axes.twinx()
        below.hist(inputs.ravel(), bins=60, range=(low, high), color=INPUTS, alpha=0.45, label="inputs")
        below.set_ylim(0, 3 * below.get_ylim()[1])
        below.set_yticks([])
        below.spines[:].set_visible(False)
        below.set_zorder(-1)
        axes.patch.set_visible(False)


def _values(layer: TrainableActivation, z: np.ndarray, values: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """Curves over z of shape (points, curves): one, or those of some channels."""
    y = layer.evaluate(z[:, None], **(values or {}))
    return y[:, _spread(range(y.shape[1]), CHANNELS)]


def _start(layer: TrainableActivation) -> TrainableActivation | None:
    """A fresh layer of the same settings, unless their start is random."""
    config = layer.get_config()
    starts = [value for name, value in config.items() if name.endswith("_initializer")]
    if any(start["class_name"] != "Constant" for start in starts):
        return None
    if layer.parameter_shape:
        config["channels"] = layer.parameter_shape[0]
    return type(layer).from_config(config)


def _spread(items, count: int) -> list:
    """So many items at most, evenly chosen, the first and the last among them."""
    items = list(items)
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))]


def _limits(y: np.ndarray) -> tuple[float, float]:
    finite = y[np.isfinite(y)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _width(y: np.ndarray) -> float:
    return 1.6 if y.shape[1] == 1 else 0.7


def _title(site: str, layer: TrainableActivation) -> str:
    channels = layer.parameter_shape[0] if layer.parameter_shape else 1
    some = f", {CHANNELS} of {channels} channels" if channels > CHANNELS else ""
    return f"{site}\n{type(layer).__name__}{some}"


def _grid(count: int, columns: int) -> tuple[Any, list]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install matplotlib") from error
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(2.7 * columns, 4.4), 2.3 * rows + 0.4), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in every[count:]:
        axes.set_visible(False)
    for axes in every[:count]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        axes.set_xlabel("z", fontsize=8)
        axes.tick_params(labelsize=7)
    return figure, every[:count]


def _legend(figure, grid) -> None:
    """One for all panels: every label once."""
    every = [axes.get_legend_handles_labels() for axes in figure.axes]
    found = {label: handle for handles, labels in every for handle, label in zip(handles, labels, strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=4, fontsize=8, frameon=False)
