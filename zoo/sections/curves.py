"""Figures 3 and 4: how training went."""

from collections.abc import Iterator

from zoo import figures, statistics
from zoo.collected import Results
from zoo.document import Figure
from zoo.sections.sound import BASELINE, stacked


def figure3(results: Results, output: str) -> Iterator[Figure]:
    curves = _curves(results, output, "loss")
    if not curves:
        return
    caption = "Training loss against epoch: mean over seeds, and a band from the lowest to the highest."
    yield Figure("figure3", caption, figures.against_epoch(curves, "training loss"))
    areas = {
        title: {name: [statistics.area(run) for run in runs] for name, runs in found.items()}
        for title, found in curves.items()
    }
    caption = "Area under each training loss: the smaller, the faster it fell. A dot for each seed."
    yield Figure("figure3-area", caption, figures.bars(areas, "area under the loss, nats times epochs"))


def figure4(results: Results, output: str) -> Iterator[Figure]:
    for column, what, y in (
        ("loss", "Training loss", "training loss"),
        ("report_precision", "The report's measure", "precision on 64 test images"),
    ):
        curves = _curves(results, output, column, ("method1", "method2", BASELINE))
        if curves:
            caption = (
                f"{what} against epoch, both methods and ReLU: mean over seeds, and a band from the lowest to the "
            )
            yield Figure(f"figure4-{column}", f"{caption}highest.", figures.against_epoch(curves, y))


def _curves(results: Results, output: str, column: str, only: tuple[str, ...] = ()):
    """For each group and activation a column of the histories (seeds, epochs), where runs have it."""
    found = {
        group.title: {name: stacked(runs, column) for name, runs in group.runs.items() if not only or name in only}
        for group in results.groups(output)
    }
    found = {title: {name: values for name, values in each.items() if values.size} for title, each in found.items()}
    return {title: each for title, each in found.items() if each}
