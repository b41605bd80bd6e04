"""Figures 1 and 2, and what the activations of a sweep's runs learned."""

import re
from collections.abc import Iterator

import numpy as np

from zoo import config, models
from zoo.reports import figures
from zoo.reports.document import Figure, Paragraph
from zoo.reports.groups import Group, Result, Results

SITES = 9  # drawn at most
SYMBOLS = dict(zip(("tanh", "sigmoid", "relu"), "XYZ", strict=True))


def classical() -> Iterator[Figure]:
    fixed = {name: {name: figures.curve({"name": name})} for name in ("sigmoid", "tanh", "relu")}
    yield Figure("figure1", "Figure 1: the classical activations.", figures.shapes(fixed))
    settings: list[dict[str, float]] = [{}, {"a": 2.0}, {"b": 0.5}, {"c": 1.0, "d": -0.5}]

    def said(changed: dict[str, float]) -> str:
        return ", ".join(f"{symbol} = {value:g}" for symbol, value in changed.items()) or "as it starts"

    adaptive = {
        name: {said(changed): figures.curve({"name": name}, changed) for changed in settings}
        for name in ("asigmoid", "atanh", "arelu")
    }
    caption = "Figure 2: the adaptive activations, with some of their parameters changed."
    yield Figure("figure2", caption, figures.shapes(adaptive))


def learned(results: Results) -> Iterator[Figure | Paragraph]:
    """Mixing weights and shapes at each site, by group and activation, over finished runs."""
    found = [
        figure
        for group in results.groups()
        for name, runs in group.runs.items()
        for figure in (_mixing(group, name, runs), _shapes(group, name, runs))
        if figure
    ]
    yield from found
    if not found:
        yield Paragraph("No finished run has an activation with parameters by layer.")


def _over(runs: list[Result]) -> str:
    return f"{len(runs)} seeds, their mean and a band from the lowest to the highest" if len(runs) > 1 else "one seed"


def _mixing(group: Group, name: str, runs: list[Result]) -> Figure | None:
    every = [[r for r in run.rows("mixing_weights.csv") if not r["channel"] and int(r["epoch"]) > 0] for run in runs]
    rows = every[0]
    panels: dict[str, dict[str, np.ndarray]] = {}
    for site in _some(rows):
        for member in dict.fromkeys(row["member"] for row in rows if row["site"] == site):
            values = [
                [float(row["weight"]) for row in each if (row["site"], row["member"]) == (site, member)]
                for each in every
            ]
            panels.setdefault(site, {})[member] = np.array(values)
    if not panels:
        return None
    held = ", held fixed," if runs[0].has_held_weights() else ""
    title = f"{group.title}, {name}"
    caption = f"{title}: mixing weights{held} against epoch{_of_sites(rows)}{_symbols(panels)}; {_over(runs)}."
    drawing = figures.against_epoch(panels, "mixing weight", small=True)
    return Figure(f"weights-{group.slug}-{_file(name)}", caption, drawing)


def _file(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def _symbols(panels: dict[str, dict[str, np.ndarray]]) -> str:
    """The report's symbols of the weights, if the members are the report's."""
    members = next(iter(panels.values()))
    named = [f"{SYMBOLS[plain]} of {name}" for name in members if (plain := name.removeprefix("a")) in SYMBOLS]
    return f"; {', '.join(named)}" if len(named) == len(members) == len(SYMBOLS) else ""


def _shapes(group: Group, name: str, runs: list[Result]) -> Figure | None:
    every = [run.rows("parameters.csv") for run in runs]
    make = models.factory(config.Config.model_validate(runs[0].settings).activation)
    panels: dict[str, dict[str, np.ndarray]] = {}
    for site in _some(every[0]):
        epochs = [row["epoch"] for row in every[0] if row["site"] == site]
        ends = {"at the start": epochs[0], f"after epoch {epochs[-1]}": epochs[-1]}
        panels[site] = {
            label: np.array([_curve(rows, make(site), site, at) for rows in every]) for label, at in ends.items()
        }
    if not panels:
        return None
    caption = (
        f"{group.title}, {name}: the activation at each site as it was learned{_of_sites(every[0])}; {_over(runs)}."
    )
    return Figure(f"shapes-{group.slug}-{_file(name)}", caption, figures.shapes(panels))


def _curve(rows: list[dict[str, str]], layer, site: str, epoch: str) -> np.ndarray:
    """The activation of a site after an epoch."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if (row["site"], row["epoch"]) == (site, epoch):
            values.setdefault(row["parameter"], []).append(float(row["value"]))
    now = layer.get_parameters()
    layer.set_parameters(**{name: np.reshape(found, now[name].shape) for name, found in values.items()})
    return figures.evaluate(layer)


def _some(rows: list[dict[str, str]]) -> list[str]:
    """All sites if there are few, else evenly spaced ones."""
    sites = list(dict.fromkeys(row["site"] for row in rows))
    if len(sites) <= SITES:
        return sites
    return [sites[round(i * (len(sites) - 1) / (SITES - 1))] for i in range(SITES)]


def _of_sites(rows: list[dict[str, str]]) -> str:
    count = len({row["site"] for row in rows})
    return f", at {SITES} of {count} sites" if count > SITES else ""
