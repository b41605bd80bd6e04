"""The figures of a search. Colours show the objective, in cividis, which suits the colour-blind."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tuner.searches.records import Outcome

COLOURS = {True: colormaps["cividis"], False: colormaps["cividis_r"]}  # by whether the objective is maximized
MISSING = "not set"  # where an entry is inactive


class Axis:
    """An entry's axis, from 0 to 1: the positions of its values, and its ticks."""

    def __init__(self, values: Sequence[Any], log: bool = False):
        known = [value for value in values if value is not None]
        self.is_number = bool(known) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
        self.log = log and self.is_number
        if self.is_number:
            self.low, self.high = (np.log(x) if self.log else float(x) for x in (min(known), max(known)))
            marks = np.linspace(self.low, self.high, 4 if self.high > self.low else 1)
            self.ticks = {f"{np.exp(m) if self.log else m:.3g}": self._at(m) for m in marks}
        else:
            labels = list(dict.fromkeys(map(str, known)))
            self.ticks = {label: (i + 0.5) / len(labels) for i, label in enumerate(labels)}
        if len(known) < len(values):
            self.ticks[MISSING] = -0.25

    def _at(self, number: float) -> float:
        return (number - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def __call__(self, value: Any) -> float:
        if value is None:
            return self.ticks[MISSING]
        return self._at(np.log(value) if self.log else float(value)) if self.is_number else self.ticks[str(value)]


def parallel(
    columns: Mapping[str, Sequence[Any]], logs: set[str], objective: Sequence[float], name: str, maximize: bool
) -> Figure:
    """Parallel coordinates: a line for each trial; better ones are brighter and in front."""
    every = dict(columns) | {name: list(objective)}
    axes_of = {key: Axis(values, key in logs) for key, values in every.items()}
    figure = Figure(figsize=(1.9 * len(every) + 1.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    norm = Normalize(min(objective), max(objective))
    for i in np.argsort(objective)[:: 1 if maximize else -1]:
        heights = [axes_of[key](values[i]) for key, values in every.items()]
        axes.plot(range(len(every)), heights, color=COLOURS[maximize](norm(objective[i])), alpha=0.85, linewidth=1.3)
    for x, (key, axis) in enumerate(axes_of.items()):
        axes.axvline(x, color="#777777", linewidth=0.8, zorder=0)
        for label, height in axis.ticks.items():
            axes.annotate(label, (x, height), (4, 0), textcoords="offset points", fontsize=8, va="center", bbox=_BACK)
        axes.annotate(key, (x, 1.09), ha="center", fontsize=9, weight="bold", annotation_clip=False)
    axes.set_xlim(-0.1, len(every) - 0.6)
    axes.set_ylim(-0.32, 1.06)
    axes.axis("off")
    return figure


_BACK = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}


def slices(
    columns: Mapping[str, Sequence[Any]], logs: set[str], outcomes: Sequence[Outcome], name: str, maximize: bool
) -> Figure:
    """The objective against each entry; a cross at the bad end for trials without a value."""
    known = [outcome.value for outcome in outcomes if outcome.value is not None]
    edge = min(known) if maximize else max(known)
    kinds = (  # how statuses are drawn
        (("finished",), {"marker": "o", "color": "#0072B2", "alpha": 0.75, "linewidths": 0}),
        (("stopped",), {"marker": "o", "facecolors": "none", "edgecolors": "#0072B2", "linewidths": 0.8}),
        (("diverged", "failed"), {"marker": "x", "color": "#222222", "linewidths": 1.2}),
    )
    count = len(columns)
    wide = min(3, count)
    high = -(-count // wide)
    figure = Figure(figsize=(4 * wide, 3 * high), layout="constrained")
    every = figure.subplots(high, wide, squeeze=False).ravel().tolist()
    for axes, (key, values) in zip(every, columns.items(), strict=False):
        axis = Axis(values, key in logs)
        for statuses, look in kinds:
            shown = [(v, o.value) for v, o in zip(values, outcomes, strict=True) if o.status in statuses]
            heights = [edge if height is None else height for _, height in shown]
            axes.scatter([axis(value) for value, _ in shown], heights, s=22, **look)
        axes.set_xticks(list(axis.ticks.values()), list(axis.ticks), fontsize=8)
        axes.set_xlim(-0.4 if MISSING in axis.ticks else -0.06, 1.06)
        axes.set_xlabel(key)
        axes.set_ylabel(name)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in every[count:]:
        axes.set_visible(False)
    return figure


def triangle(
    weights: Sequence[Sequence[float]], corners: Sequence[str], objective: Sequence[float], name: str, maximize: bool
) -> Figure:
    """Points of a simplex of three weights, coloured by the objective."""
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    places = np.array([[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]])
    outline = [*places, places[0]]
    axes.plot(*zip(*outline, strict=True), color="#777777", linewidth=0.8)
    axes.plot(*places.mean(axis=0), "+", color="#777777", markersize=10)
    axes.annotate("1/3 each", places.mean(axis=0), (6, -10), textcoords="offset points", fontsize=8, color="#222222")
    for place, corner, offset in zip(places, corners, ((-6, -14), (6, -14), (0, 6)), strict=True):
        axes.annotate(corner, place, offset, textcoords="offset points", ha="center", fontsize=9)
    order = np.argsort(objective)[:: 1 if maximize else -1]
    points = np.asarray(weights)[order] @ places
    found = np.asarray(objective)[order]
    axes.scatter(
        points[:, 0], points[:, 1], c=found, cmap=COLOURS[maximize], s=60, edgecolors="white", linewidths=0.6, zorder=2
    )
    axes.set_xlim(-0.14, 1.14)
    axes.set_ylim(-0.12, 0.97)
    axes.set_aspect("equal")
    axes.axis("off")
    figure.colorbar(
        ScalarMappable(Normalize(found.min(), found.max()), COLOURS[maximize]), ax=axes, label=name, shrink=0.7
    )
    return figure
