"""Figures 3 and 4: how training went."""

from collections.abc import Iterator

import numpy as np

from zoo.reports import figures
from zoo.reports.document import Figure
from zoo.reports.groups import BASELINE, Group, Results
from zoo.reports.sections.sound import area, has_penalty, loss_column, loss_name, stacked

BAND = "mean over seeds, and a band from the lowest to the highest; a cross is where a run that diverged ended"


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
        drawing = figures.bars(areas, "area under the loss, nats times epochs", absent)
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
