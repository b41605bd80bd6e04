"""The figures of a report. Colours are those of Okabe and Ito, which the colour-blind tell apart."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

import keras_adaptact as ka

rcParams["svg.hashsalt"] = "keras_adaptact"  # the same ids in each drawing of a figure
Z = np.linspace(-5, 5, 201, dtype="float32")
STYLES = {  # a colour for each family, a broken line for the adaptive one
    "sigmoid": ("#009E73", "-"),
    "asigmoid": ("#009E73", "--"),
    "tanh": ("#0072B2", "-"),
    "atanh": ("#0072B2", "--"),
    "relu": ("#000000", "-"),
    "arelu": ("#000000", "--"),
    "method1": ("#D55E00", "-"),
    "method2": ("#E69F00", "-"),
    "swish": ("#CC79A7", "-"),
    "prelu": ("#56B4E9", "-"),
    "leaky_relu": ("#56B4E9", "--"),
    "pelu": ("#CC79A7", "--"),
    "frelu": ("#56B4E9", ":"),
}
OTHERS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def style(label: str, index: int) -> dict:
    name, _, rest = label.partition(" ")
    colour, line = STYLES.get(name, (OTHERS[index % len(OTHERS)], "-."))
    return {"color": colour, "linestyle": ":" if rest else line}


def shapes(panels: Mapping[str, Mapping[str, np.ndarray]], in_order: bool = False) -> Figure:
    """Curves over z: for each panel, its curves by label; from light to dark where they follow each other."""
    figure, grid = _grid(len(panels), columns=3, height=2.6)
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        colours = [OTHERS[i % len(OTHERS)] for i in range(len(curves))]
        if in_order:
            colours = colormaps["cividis_r"](np.linspace(0.1, 1, len(curves))).tolist()
        for (label, y), colour, line in zip(curves.items(), colours, ("-", "--", ":", "-.") * 4, strict=False):
            axes.plot(Z, y, line, color=colour, label=label)
        axes.set_title(title)
        axes.set_xlabel("z")
        _zero_lines(axes)
        if len(curves) > 1:
            axes.legend(fontsize=7, frameon=False)
    return figure


def against_epoch(panels: Mapping[str, Mapping[str, np.ndarray]], y: str, small: bool = False) -> Figure:
    """Mean over seeds against epoch, and a band from the smallest to the largest: values are (seeds, epochs).

    Values above 1 that also span several orders of magnitude get a logarithmic axis.
    """
    columns, height, width = (3, 2.6, 4.4) if small else (2, 4.2, 6.4)
    figure, grid = _grid(len(panels), columns, height, width)
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        for index, (label, values) in enumerate(curves.items()):
            epochs = np.arange(1, values.shape[1] + 1)
            look = style(label, index)
            axes.plot(epochs, values.mean(axis=0), label=label, **look)
            if len(values) > 1:
                axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=0.12, lw=0)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(y)
        axes.margins(x=0.01)
        every = np.concatenate([values.ravel() for values in curves.values()])
        if every.max() > 1 and 0 < every.min() < every.max() / 50:
            axes.set_yscale("log")
        _label_ends(axes)
    return figure


def bars(panels: Mapping[str, Mapping[str, Sequence[float]]], x: str) -> Figure:
    """A bar of the mean for each label, and a dot for each seed."""
    figure, grid = _grid(len(panels), columns=2, height=0.6 + 0.3 * max(map(len, panels.values())), width=6.4)
    for axes, (title, found) in zip(grid, panels.items(), strict=True):
        for index, (label, values) in enumerate(found.items()):
            axes.barh(index, np.mean(values), color=style(label, index)["color"], alpha=0.55, height=0.7)
            axes.plot(values, np.full(len(values), index), ".", color="#333333", markersize=4)
        axes.set_yticks(range(len(found)), list(found))
        axes.invert_yaxis()
        axes.set_xlabel(x)
        axes.set_title(title)
    return figure


def histogram(samples: Sequence[float], whole: float, title: str) -> Figure:
    """Of precisions on small batches, beside the one on all images."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.hist(samples, bins=40, color="#56B4E9", edgecolor="white", linewidth=0.4)
    mean = float(np.mean(samples))
    for value, line, label in ((whole, "-", "all test images"), (mean, "--", "mean of the batches")):
        axes.axvline(value, color="black", linestyle=line, label=f"{label}: {value:.3f}")
    largest = max(samples)
    axes.axvline(largest, color="#D55E00", linestyle=":", label=f"largest of {len(samples):,} batches: {largest:.3f}")
    axes.set_xlabel("weighted precision on one batch of test images")
    axes.set_ylabel("batches")
    axes.set_title(title)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return figure


def curve(spec: dict, values: Mapping[str, float] | None = None) -> np.ndarray:
    """An activation over Z, with some of its numbers changed."""
    layer = ka.get(spec)
    if values:
        layer.set_parameters(**values)
    return evaluate(layer)


def evaluate(layer: keras.layers.Layer) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer(Z[:, None]))[:, 0]


def _grid(count: int, columns: int, height: float, width: float = 4.0) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in every[count:]:
        axes.set_visible(False)
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, every[:count]


def _zero_lines(axes: Axes) -> None:
    axes.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
    axes.axvline(0, color="#bbbbbb", linewidth=0.6, zorder=0)


def _label_ends(axes: Axes) -> None:
    """Writes each curve's name and a piece of its line beside its end, in the order of the ends."""
    lines = list(axes.get_lines())
    ends = [(np.asarray(line.get_xdata())[-1], np.asarray(line.get_ydata())[-1]) for line in lines]
    axes.autoscale_view()  # else the limits are set only when it is drawn
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [to_axes.transform((x, y))[1] if np.isfinite(y) else 1.0 for x, y in ends]
    order = np.argsort(heights, kind="stable")
    gap = 18 / axes.get_window_extent().height  # pixels
    placed: list[float] = []
    for i in order:
        placed.append(max(heights[i], placed[-1] + gap) if placed else heights[i])
    down = max(0.0, placed[-1] - 1)
    for i, height in zip(order, placed, strict=True):
        colour, at = lines[i].get_color(), height - down
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", ends[i], (1.05, at), textcoords="axes fraction", annotation_clip=False, arrowprops=leader)
        look = {"color": colour, "linestyle": lines[i].get_linestyle(), "linewidth": lines[i].get_linewidth()}
        axes.add_line(Line2D([1.05, 1.12], [at, at], transform=axes.transAxes, clip_on=False, **look))
        name = str(lines[i].get_label())
        axes.text(1.135, at, name, transform=axes.transAxes, color=colour, fontsize=8, va="center")
