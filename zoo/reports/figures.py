"""The figures of a report. Colours are those of Okabe and Ito, which suit the colour-blind."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

import keras_adaptact as ka

Z = np.linspace(-5, 5, 201, dtype="float32")
INK = "#222222"  # of text, which is hard to read in light colours
NO_VERDICT = "#767676"
MARKERS = "os^vD*Phx8<>p"  # which distinguish lines without colours
STYLES = {  # a colour for each family, dashed for the adaptive one
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


def shapes(panels: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Curves over z by panel and label; of several seeds (seeds, z) their mean and a band.

    All panels have the same axes.
    """
    figure, grid = _grid(len(panels), columns=3, height=2.6)
    every = [np.atleast_2d(y) for curves in panels.values() for y in curves.values()]
    low, high = min(y.min() for y in every), max(y.max() for y in every)
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        for (label, y), colour, line in zip(curves.items(), OTHERS, ("-", "--", ":", "-.") * 4, strict=False):
            values = np.atleast_2d(y)
            axes.plot(Z, values.mean(axis=0), line, color=colour, label=label)
            if np.ptp(values, axis=0).any():
                axes.fill_between(
                    Z[::2], values.min(axis=0)[::2], values.max(axis=0)[::2], color=colour, alpha=0.25, lw=0
                )
        axes.set_title(title)
        axes.set_xlabel("z")
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        _zero_lines(axes)
        if len(curves) > 1:
            axes.legend(fontsize=7, frameon=False)
    return figure


def against_epoch(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    y: str,
    small: bool = False,
    lost: Mapping[str, Mapping] | None = None,
) -> Figure:
    """Mean over seeds against epoch, and a band from the lowest to the highest; values are (seeds, epochs).

    Small panels share their axes. A curve that rises to more than three times the median of the others' largest values
    is clipped there, with a note of its largest value.

    Args:
        panels: the curves by title and label.
        y: label of the values.
        small: whether there are many panels in a row, with few curves each.
        lost: curves (epochs,) of diverged runs by title and label; a cross marks the last finite value.
    """
    columns, height, width = (3, 2.6, 4.4) if small else (2, 4.2, 6.4)
    figure, grid = _grid(len(panels), columns, height, width)
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        for index, (label, values) in enumerate(curves.items()):
            epochs = np.arange(1, values.shape[1] + 1)
            look = style(label, index)
            marks: dict[str, Any] = {
                "marker": MARKERS[index % len(MARKERS)],
                "markevery": (index % 5, 5),
                "markersize": 4,
            }
            axes.plot(epochs, values.mean(axis=0), label=label, **look, **marks)
            if len(values) > 1:
                axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=0.12, lw=0)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(y)
        axes.margins(x=0.01)
        gone = (lost or {}).get(title, {})
        axes.set_title("\n".join(filter(None, [title, _cut_off(axes, curves), _mark_lost(axes, gone, len(curves))])))
    if small:
        _share_heights(grid)
    for axes in grid:
        _label_ends(axes)
    return figure


def _cut_off(axes: Axes, curves: Mapping[str, np.ndarray]) -> str:
    """Sets limits for most curves, and notes how far the others go."""
    largest = {label: float(values.max()) for label, values in curves.items()}
    cut = 3 * float(np.median(list(largest.values())))
    if len(largest) <= 2 or not max(largest.values()) > cut > 0:
        return ""
    rest = max(value for value in largest.values() if value <= cut)
    low = min(float(values.min()) for values in curves.values())
    axes.set_ylim(low - 0.05 * (rest - low), rest + 0.1 * (rest - low))
    return "; ".join(f"{label} rises to {value:.3g}" for label, value in largest.items() if value > cut)


def _mark_lost(axes: Axes, lost: Mapping[str, Sequence[np.ndarray]], index: int) -> str:
    """Draws diverged runs up to their last finite value, and names them; one without gets its cross at the top."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    for i, (label, curves) in enumerate(lost.items()):
        look = style(label, index + i) | {"linewidth": 0.8}
        for curve in curves:
            known = np.clip(curve[np.isfinite(curve)], low, high)
            epochs = np.arange(1, len(known) + 1)
            axes.plot(epochs, known, label="_", **look)
            x, y = (epochs[-1], known[-1]) if len(known) else (1, high)
            axes.plot(x, y, "x", color=INK, markersize=7, label="_", clip_on=False)
    return "x: " + ", ".join(f"{label} ({len(curves)} diverged)" for label, curves in lost.items()) if lost else ""


def _share_heights(grid: Sequence[Axes]) -> None:
    limits = [axes.get_ylim() for axes in grid]
    for axes in grid:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


class Row(NamedTuple):
    """A row of a forest plot: seeds, their mean, its interval, lost runs, and whether there is a verdict."""

    label: str
    seeds: np.ndarray
    mean: float
    interval: np.ndarray
    lost: np.ndarray
    judged: bool


def forest(rows: Sequence[Row], x: str) -> Figure:
    """A forest plot of differences with their intervals; outliers are clipped."""
    figure, (axes,) = _grid(1, 1, height=1.1 + 0.38 * len(rows), width=8.4)
    near = np.concatenate([np.append(row.seeds, row.mean) for row in rows if len(row.seeds)])
    ends = np.concatenate([row.interval[np.isfinite(row.interval)] for row in rows if row.judged] or [near])
    low, high = min(near.min(), ends.min(), 0.0), max(near.max(), ends.max(), 0.0)
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    for place, row in enumerate(rows):
        colour = INK if row.judged else NO_VERDICT
        if row.judged:
            axes.plot(np.clip(row.interval, low, high), [place, place], "-", color=colour, linewidth=1.6)
        axes.plot(row.seeds, np.full(len(row.seeds), place - 0.18), "o", color="#0072B2", markersize=3.5, alpha=0.8)
        axes.plot(row.mean, place, "s", color=colour, markersize=6, markerfacecolor=colour if row.judged else "white")
        axes.plot(np.clip(row.lost, low, high), np.full(len(row.lost), place + 0.18), "x", color=INK, markersize=6)
    axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_xlim(low, high)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(x)
    return figure


def against_rate(
    panels: Mapping[str, Mapping[str, Mapping[float, np.ndarray]]], x: str, y: str, guess: float
) -> Figure:
    """Mean over seeds against a rate, with a dot for each seed, and a cross at a guess for each lost one (NaN)."""
    figure, grid = _grid(len(panels), columns=2, height=4.2, width=6.4)
    for axes, (title, arms) in zip(grid, panels.items(), strict=True):
        for index, (label, values) in enumerate(arms.items()):
            look = style(label, index)
            rates = sorted(values)
            kept = [rate for rate in rates if np.isfinite(values[rate]).any()]
            means = [float(np.nanmean(values[rate])) for rate in kept]
            axes.plot(kept, means, label=label, marker=MARKERS[index % len(MARKERS)], markersize=5, **look)
            for rate in rates:
                found = np.isfinite(values[rate])
                axes.plot(np.full(found.sum(), rate), values[rate][found], ".", color=look["color"], markersize=3)
                axes.plot(np.full((~found).sum(), rate), np.full((~found).sum(), guess), "x", color=INK, markersize=6)
        tried = sorted({rate for values in arms.values() for rate in values})
        axes.set_xscale("log")
        axes.set_xticks(tried, [f"{rate:.3g}" for rate in tried])
        axes.set_xticks([], minor=True)
        axes.set_title(title)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.legend(fontsize=8, frameon=False)
    return figure


def bars(panels: Mapping[str, Mapping[str, Sequence[float]]], x: str, absent: Mapping[str, Sequence[str]]) -> Figure:
    """A bar for the mean of each label, and a dot for each seed; a cross for labels without runs."""
    most = max(len(found) + len(absent.get(title, ())) for title, found in panels.items())
    figure, grid = _grid(len(panels), columns=2, height=max(2.6, 1.2 + 0.3 * most), width=6.4)
    for axes, (title, found) in zip(grid, panels.items(), strict=True):
        for index, (label, values) in enumerate(found.items()):
            axes.barh(index, np.mean(values), color=style(label, index)["color"], alpha=0.55, height=0.7)
            axes.plot(values, np.full(len(values), index), ".", color="#333333", markersize=4)
        lost = list(absent.get(title, ()))
        if lost:
            places = len(found) + np.arange(len(lost))
            axes.plot(np.zeros(len(lost)), places, "x", color=INK, markersize=6, clip_on=False)
        axes.set_yticks(range(len(found) + len(lost)), [*found, *lost])
        axes.invert_yaxis()
        axes.set_xlabel(x)
        axes.set_title(title)
    return figure


def histogram(samples: Sequence[float], whole: float, title: str) -> Figure:
    """A histogram of precisions on small batches, with the precision on all images."""
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
    """An activation over Z, with some of its parameters changed."""
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
    """Labels each curve at its end, with a piece of its line, in the order of the ends."""
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    ends = [(np.asarray(line.get_xdata())[-1], np.asarray(line.get_ydata())[-1]) for line in lines]
    axes.autoscale_view()  # otherwise the limits are set when it is drawn
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [min(1.0, to_axes.transform((x, y))[1]) if np.isfinite(y) else 1.0 for x, y in ends]
    if not lines:
        return
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
        axes.text(1.135, at, name, transform=axes.transAxes, color=INK, fontsize=8, va="center")
