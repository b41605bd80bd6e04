"""The figures of the report: activations as they are and as they were learned, and how training went."""

import re
from collections.abc import Iterable, Iterator

import numpy as np
from pydantic import ValidationError

from zoo import config, models
from zoo.errors import UserError
from zoo.files import Learned, Place
from zoo.reports import figures
from zoo.reports.document import Figure, Paragraph
from zoo.reports.groups import BASELINE, Group, Result, Results
from zoo.reports.sound import area, has_penalty, loss_column, loss_name, stacked

BAND = "mean over seeds, and a band from the lowest to the highest; a cross is where a run that diverged ended"
SITES = 9  # drawn at most
SYMBOLS = dict(zip(("tanh", "sigmoid", "relu"), "XYZ", strict=True))


def figure3(results: Results, output: str) -> Iterator[Figure]:
    for column, what, groups in _by_loss(results, output):
        curves = by_epoch(groups, column)
        if not curves:
            continue
        name = f"{output}-with-penalty" if any(map(has_penalty, groups)) else output
        drawing = figures.against_epoch(curves, what, lost=lost_by_epoch(groups, column))
        yield Figure(name, f"{what.capitalize()} against epoch: {BAND}.", drawing)
        areas = {
            title: {label: [area(run) for run in runs] for label, runs in found.items()}
            for title, found in curves.items()
        }
        caption = f"Area under each {what}: the smaller, the faster it fell. A dot for each seed; x: no run finished."
        absent = {group.title: [label for label in group.planned if label not in group.runs] for group in groups}
        unit = "squared units" if column == "mse" else "nats"
        drawing = figures.bars(areas, f"area under the loss, {unit} times epochs", absent)
        yield Figure(f"{name}-area", caption, drawing)


def figure4(results: Results, output: str) -> Iterator[Figure]:
    only = ("method1", "method2", BASELINE)
    measure = ("report_precision", "precision on 64 test images", results.groups(output))
    for column, what, groups in (*_by_loss(results, output), measure):
        curves = by_epoch(groups, column, only)
        if curves:
            name = f"{output}-{column}"
            caption = f"{what.capitalize()} against epoch, both methods and ReLU: {BAND}."
            drawing = figures.against_epoch(curves, what, lost=lost_by_epoch(groups, column, only))
            yield Figure(name, caption, drawing)


def _by_loss(results: Results, output: str) -> list[tuple[str, str, list[Group]]]:
    """Groups by the loss that their runs recorded: its column, its name, and the groups."""
    found: dict[tuple[str, str], list[Group]] = {}
    for group in results.groups(output):
        found.setdefault((loss_column(group), loss_name(group)), []).append(group)
    return [(column, what, groups) for (column, what), groups in found.items()]


def by_epoch(groups: list[Group], column: str, only: tuple[str, ...] = ()) -> dict[str, dict[str, np.ndarray]]:
    """A column of the histories (seeds, epochs) by group and activation, if runs have it."""
    found = {
        group.title: {name: stacked(runs, column) for name, runs in group.runs.items() if not only or name in only}
        for group in groups
    }
    found = {title: {name: values for name, values in each.items() if values.size} for title, each in found.items()}
    return {title: each for title, each in found.items() if each}


def lost_by_epoch(
    groups: list[Group], column: str, only: tuple[str, ...] = ()
) -> dict[str, dict[str, list[np.ndarray]]]:
    """The same column of diverged runs."""
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for group in groups:
        for name, runs in group.planned.items():
            curves = [run.history(column) for run in runs if run.state == "diverged" and (not only or name in only)]
            if curves:
                found.setdefault(group.title, {})[name] = curves
    return found


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
        yield Paragraph("No finished run has an activation with parameters per layer.")


def _over(runs: list[Result]) -> str:
    return f"{len(runs)} seeds, their mean and a band from the lowest to the highest" if len(runs) > 1 else "one seed"


def _mixing(group: Group, name: str, runs: list[Result]) -> Figure | None:
    every = [run.learned("mixing_weights.csv", runs[0]) for run in runs]
    places = [place for place in every[0] if not place[2]]  # but of channels
    panels: dict[str, dict[str, np.ndarray]] = {}
    for site in _some(places):
        for place in places:
            if place[0] == site:
                values = [[each[place][epoch] for epoch in sorted(each[place]) if epoch] for each in every]
                panels.setdefault(site, {})[place[1]] = np.array(values)
    if not panels:
        return None
    held = ", held fixed," if runs[0].has_held_weights() else ""
    title = f"{group.title}, {name}"
    caption = f"{title}: mixing weights{held} against epoch{_of_sites(places)}{_symbols(panels)}; {_over(runs)}."
    drawing = figures.against_epoch(panels, "mixing weight", small=True)
    return Figure(f"weights-{group.slug}-{_file(name)}", caption, drawing)


def _file(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def _symbols(panels: dict[str, dict[str, np.ndarray]]) -> str:
    """The report's symbols of the weights, if the members are the report's."""
    members = next(iter(panels.values()))
    named = [f"{SYMBOLS[plain]} of {name}" for name in members if (plain := name.removeprefix("a")) in SYMBOLS]
    return f"; {', '.join(named)}" if len(named) == len(members) == len(SYMBOLS) else ""


def _shapes(group: Group, name: str, runs: list[Result]) -> Figure | Paragraph | None:
    every = [run.learned("parameters.csv", runs[0]) for run in runs]
    try:
        make = models.factory(config.Config.model_validate(runs[0].settings).activation)
    except ValidationError:  # a field that was removed, or a newer one
        path = runs[0].folder / "config.json"
        return Paragraph(f"{group.title}, {name}: not drawn, as {path} isn't a config of this version.")
    panels: dict[str, dict[str, np.ndarray]] = {}
    for site in _some(every[0]):
        last = max(next(iter(every[0].values())))
        panels[site] = {
            label: np.array([_curve(*each, make(site), site, epoch) for each in zip(runs, every, strict=True)])
            for label, epoch in {"at the start": 0, f"after epoch {last}": last}.items()
        }
    if not panels:
        return None
    caption = (
        f"{group.title}, {name}: the activation at each site as it was learned{_of_sites(every[0])}; {_over(runs)}."
    )
    return Figure(f"shapes-{group.slug}-{_file(name)}", caption, figures.shapes(panels))


def _curve(run: Result, learned: Learned, layer, site: str, epoch: int) -> np.ndarray:
    """The activation of a site after an epoch."""
    now = layer.get_parameters()
    values: dict[str, list[float]] = {name: [] for name in now}
    try:
        for (where, name, _), at in learned.items():
            if where == site:
                values[name].append(at[epoch])
        layer.set_parameters(**{name: np.reshape(each, now[name].shape) for name, each in values.items()})
    except (KeyError, ValueError):
        what = f"hasn't the parameters of {type(layer).__name__} at {site}"
        raise UserError(f"{run.folder / 'parameters.csv'}: {what}: {', '.join(now)}") from None
    return figures.evaluate(layer)


def _some(places: Iterable[Place]) -> list[str]:
    """All sites if there are few, else evenly spaced ones."""
    sites = list(dict.fromkeys(site for site, *_ in places))
    if len(sites) <= SITES:
        return sites
    return [sites[round(i * (len(sites) - 1) / (SITES - 1))] for i in range(SITES)]


def _of_sites(places: Iterable[Place]) -> str:
    count = len({site for site, *_ in places})
    return f", at {SITES} of {count} sites" if count > SITES else ""
