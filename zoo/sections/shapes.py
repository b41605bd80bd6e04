"""Figures 1 and 2, and what the activations of a sweep's runs learned."""

from collections.abc import Iterator

import numpy as np

from zoo import config, figures, models
from zoo.collected import Result, Results
from zoo.document import Figure, Paragraph

SITES = 9  # that are drawn of a network with more
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
    caption = "Figure 2: the adaptive activations, with some of their numbers changed."
    yield Figure("figure2", caption, figures.shapes(adaptive))


def learned(results: Results) -> Iterator[Figure | Paragraph]:
    """For the first finished run of each network and activation: mixing weights, and the shape at each site."""
    firsts: dict[tuple[str, str], Result] = {}
    for run in results.finished:
        firsts.setdefault((run.network, run.activation), run)
    found = [figure for run in firsts.values() for figure in (_mixing(run), _shapes(run)) if figure]
    yield from found
    if not found:
        yield Paragraph("No finished run has an activation with one set of trained numbers for each layer.")


def _mixing(run: Result) -> Figure | None:
    rows = [row for row in run.rows("mixing_weights.csv") if not row["channel"] and int(row["epoch"]) > 0]
    panels: dict[str, dict[str, np.ndarray]] = {}
    for site in _some(rows):
        for member in dict.fromkeys(row["member"] for row in rows if row["site"] == site):
            values = [float(row["weight"]) for row in rows if (row["site"], row["member"]) == (site, member)]
            panels.setdefault(site, {})[member] = np.array([values])
    if not panels:
        return None
    held = ", held fixed," if run.has_held_weights() else ""
    caption = f"{run.title}: mixing weights{held} against epoch{_of_sites(rows)}{_symbols(panels)}."
    return Figure(f"weights-{run.name}", caption, figures.against_epoch(panels, "mixing weight", small=True))


def _symbols(panels: dict[str, dict[str, np.ndarray]]) -> str:
    """The report's names for the weights, where the members are its own."""
    members = next(iter(panels.values()))
    named = [f"{SYMBOLS[plain]} of {name}" for name in members if (plain := name.removeprefix("a")) in SYMBOLS]
    return f"; {', '.join(named)}" if len(named) == len(members) == len(SYMBOLS) else ""


def _shapes(run: Result) -> Figure | None:
    rows = run.rows("parameters.csv")
    make = models.factory(config.Config.model_validate(run.settings).activation)
    panels: dict[str, dict[str, np.ndarray]] = {}
    for site in _some(rows):
        of_site = [row for row in rows if row["site"] == site]
        for epoch in dict.fromkeys(row["epoch"] for row in of_site):
            values: dict[str, list[float]] = {}
            for row in of_site:
                if row["epoch"] == epoch:
                    values.setdefault(row["parameter"], []).append(float(row["value"]))
            layer = make(site)
            now = layer.get_parameters()
            layer.set_parameters(**{name: np.reshape(found, now[name].shape) for name, found in values.items()})
            panels.setdefault(site, {})[f"epoch {epoch}"] = figures.evaluate(layer)
    if not panels:
        return None
    caption = f"{run.title}: the activation at each site as it was learned{_of_sites(rows)}."
    return Figure(f"shapes-{run.name}", caption, figures.shapes(panels, in_order=True))


def _some(rows: list[dict[str, str]]) -> list[str]:
    """All of few sites, and evenly chosen ones of many."""
    sites = list(dict.fromkeys(row["site"] for row in rows))
    if len(sites) <= SITES:
        return sites
    return [sites[round(i * (len(sites) - 1) / (SITES - 1))] for i in range(SITES)]


def _of_sites(rows: list[dict[str, str]]) -> str:
    count = len({row["site"] for row in rows})
    return f", at {SITES} of {count} sites" if count > SITES else ""
