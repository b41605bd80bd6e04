"""The noise of the report's measure, on one trained network."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zoo.errors import UserError
from zoo.reports import figures
from zoo.reports.document import Figure, Paragraph
from zoo.reports.groups import BASELINE, Result, Results
from zoo.runs import Run
from zoo.training import metrics

BATCHES = 2_000


def is_taken(results: Results) -> bool:
    """Whether a run took it; or none has ended that could have."""
    return not results.finished or any("report_precision_last" in run.metrics for run in results.finished)


def blocks(results: Results, data_dir: Path | None) -> Iterator[Paragraph | Figure]:
    """Compares the maximum of precisions on small batches with the precision on all images."""
    if not results.finished:
        yield Paragraph("There is no finished run to show it on.")
        return
    run = _chosen(results)
    if "own_code" in run.environment:
        yield Paragraph(f"Its distribution needs the network of {run.name}, whose own code a report doesn't run.")
        return
    try:
        loaded = Run(run.folder)
        test = loaded.dataset(data_dir).test
        logits = loaded.predict(test.images)
    except UserError as error:
        why = str(error).replace(str(results.folder), str(results.shown))
        yield Paragraph(f"Its distribution needs the weights and images of {run.name}, which are not here: {why}")
        return
    size = min(run.settings["metrics"]["report_batch"] or 64, len(test.labels))
    drawn = [metrics.report_batch(test.labels, size, 0, i) for i in range(BATCHES)]
    samples = [metrics.report(logits[chosen], test.labels[chosen]) for chosen in drawn]
    whole = metrics.sound(logits, test.labels, loaded.classes, "test")["test_precision_weighted"]
    epochs = run.settings["training"]["epochs"]
    maxima = np.reshape(samples[: len(samples) // epochs * epochs], (-1, epochs)).max(axis=1)
    expected = f"{maxima.mean():.3f}" if len(maxima) else f"more than {max(samples):.3f}"
    yield Paragraph(
        f"The network of {run.name}, trained and left as it is, on {BATCHES:,} batches of {size} test images each: "
        f"weighted precision has a standard deviation of {np.std(samples):.3f} and a mean of {np.mean(samples):.3f}, "
        f"where on all {len(test.labels):,} images it is {whole:.3f}. The maximum over {epochs} such batches, one for "
        f"each epoch of this run, is {expected} on average: so much of a table of maxima is the measure itself."
    )
    title = f"{run.title}: precision on {size} test images"
    caption = "The report's measure on one trained network."
    yield Figure("report-measure", caption, figures.histogram(samples, whole, title))


def _chosen(results: Results) -> Result:
    """The first finished run with weights, preferably with ReLU."""
    kept = [run for run in results.finished if (run.folder / "model.keras").exists()] or results.finished
    return next((run for run in kept if run.activation == BASELINE), kept[0])
