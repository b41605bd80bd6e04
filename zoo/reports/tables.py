"""Tables 1 to 5 of the report, with its values beside ours; and the noise of its measure."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import UserError
from zoo.reports import figures
from zoo.reports.document import Figure, Paragraph, Table
from zoo.reports.groups import BASELINE, MISSING, Group, Result, Results
from zoo.reports.sound import spread
from zoo.runs import Run, mixing_weights
from zoo.training import metrics

REFERENCE = Path(__file__).parent / "reference.json"
COLUMN = {"resnet50": "resnet"}  # names of columns in the report's Table 1
MEASURE = (
    "The report's measure: weighted precision on one batch of 64 test images after each epoch, whose maximum lies far "
    "above what a network does on all test images."
)
IN_BRACKETS = "In brackets what the report says."
BATCHES = 2_000


def _reference() -> dict[str, Any]:
    return json.loads(REFERENCE.read_text(encoding="utf-8"))


def _beside(own: str, published: float | None, digits: int = 4) -> str:
    return own if published is None else f"{own} ({published:.{digits}f})"


def _measured(group: Group, name: str, key: str) -> list[float]:
    return [run.metric(key) for run in group.runs.get(name, [])]


def _cell(group: Group, name: str, key: str) -> str:
    values = _measured(group, name, key)
    return ", ".join(filter(None, [spread(values, 1, 4) if values else "", group.absent(name)]))


def _in_small(results: Results, output: str) -> str:
    """In what the runs of a table are less than the report's, or more."""
    epochs, every = _reference()[output]["epochs"], 50_000
    unlike, is_less = {}, False
    for run in (run for group in results.groups(output) for runs in group.runs.values() for run in runs):
        data, own_epochs = run.settings.get("dataset", {}), run.settings["training"]["epochs"]
        images, name = min(data.get("limit") or every, every), data.get("name") or "own data"
        if (own_epochs, images, name) != (epochs, every, "cifar10"):
            shown = f"{images:,} images" if images < every else "all images"
            unlike[own_epochs, images, name] = f"{own_epochs} epochs on {shown} of {name}"
            is_less |= own_epochs < epochs or images < every
    if not unlike:
        return ""
    said = "In small" if is_less else "Not as in the report"
    return f"{said}: {', '.join(unlike.values())}; the report's are {epochs} on {every:,} of CIFAR-10. "


def table1(results: Results, output: str) -> Iterator[Table]:
    published, groups = _reference()[output], results.groups(output)
    theirs_at = {name: at for at, name in enumerate(published["columns"])}
    columns = [theirs_at.get(COLUMN.get(group.network, group.network)) for group in groups]
    rows, sound = [], []
    for name in dict.fromkeys(name for group in groups for name in group.planned):
        theirs = published["rows"].get(name)
        maxima = [_cell(group, name, "report_precision_max") for group in groups]
        places = zip(maxima, columns, strict=True)
        rows.append([name, *(_beside(own, None if at is None or not theirs else theirs[at]) for own, at in places)])
        sound.append([name, *(_cell(group, name, "test_precision_weighted") for group in groups)])
    header = ["activation", *(group.title for group in groups)]
    in_small = _in_small(results, output)
    yield Table(output, f"{in_small}Maximum over epochs. {MEASURE} {IN_BRACKETS}", header, rows)
    caption = f"{in_small}By the sound measure: weighted precision on all test images after the last epoch."
    yield Table(f"{output}-sound", caption, header, sound)


def _trials(results: Results, output: str, published: Callable[[str], list | None]) -> Iterator[Table]:
    """The shape of Tables 2 and 5: the maximum, its epoch, and the last value."""
    header = ("activation", "trials", "maximum", "the report's", "epochs of it", "the report's", "last", "the report's")
    for i, group in enumerate(results.groups(output)):
        rows = []
        for name, runs in group.planned.items():
            there = published(name)
            theirs = ("",) * 3
            if there:
                theirs = (f"{there[0]:.4f} ± {there[1]:.4f}", str(there[2]), f"{there[3]:.4f} ± {there[4]:.4f}")
            pairs = zip(_trial(group, name), theirs, strict=True)
            rows.append([name, _count(group, name, runs), *(cell for pair in pairs for cell in pair)])
        caption = f"{group.title}. {_in_small(results, output)}{MEASURE} Beside it what the report says."
        yield Table(f"{output}-{group.slug}" if i else output, caption, header, rows)


def _count(group: Group, name: str, planned: list[Result]) -> str:
    return f"{len(group.runs.get(name, []))} of {len(planned)}"


def _trial(group: Group, name: str) -> tuple[str, str, str]:
    highest, last = (_measured(group, name, f"report_precision_{of}") for of in ("max", "last"))
    if not highest:
        return group.absent(name), "", ""
    epochs = ", ".join(f"{epoch:.0f}" for epoch in _measured(group, name, "report_precision_max_epoch"))
    return spread(highest, 1, 4), epochs, spread(last, 1, 4)


def table2(results: Results, output: str) -> Iterator[Table]:
    return _trials(results, output, _reference()[output]["rows"].get)


def table5(results: Results, output: str) -> Iterator[Table]:
    """With learned weights too, which are in the report's Table 2."""
    fixed, learned = _reference()[output]["rows"], _reference()["table2"]["rows"]

    def published(label: str) -> list | None:
        method, at, weight = label.partition(" at ")
        return fixed.get(method, {}).get(weight) if at else learned.get(method)

    return _trials(results, output, published)


def weights(results: Results, output: str) -> Iterator[Table]:
    """Tables 3 and 4: weights of the first finished run of each method."""
    published = _reference()[output]
    sites = published["columns"]
    for i, group in enumerate(results.groups(output)):
        rows = []
        for name in group.planned:
            run = group.runs[name][0] if name in group.runs else None
            members = published["rows"].get(name, {})
            learned = mixing_weights(run.folder) if run and members else {}
            if run and members and any(len(learned.get(site, members)) != len(members) for site in sites):
                raise UserError(
                    f"{run.folder / 'mixing_weights.csv'}: a site hasn't the {len(members)} weights of {name}"
                )
            fixed = ", fixed" if run and run.has_held_weights() else ""
            for member, (symbol, theirs) in enumerate(members.items()):
                own = [f"{list(learned[site].values())[member]:.3f}" if site in learned else MISSING for site in sites]
                rows.append([f"{name} {symbol}{fixed}", *(_beside(*pair, 3) for pair in zip(own, theirs, strict=True))])
        caption = f"{group.title}, after the last epoch: X of tanh, Y of sigmoid, Z of ReLU. "
        caption += _in_small(results, output) + IN_BRACKETS
        yield Table(f"{output}-{group.slug}" if i else output, caption, ["weight", *sites], rows)


def is_taken(results: Results) -> bool:
    """Whether a run took it; or none has ended that could have."""
    return not results.finished or any("report_precision_last" in run.metrics for run in results.finished)


def noise(results: Results, data_dir: Path | None) -> Iterator[Paragraph | Figure]:
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
    """The first finished run that took it and has weights, preferably with ReLU."""
    taken = [run for run in results.finished if "report_precision_last" in run.metrics]
    kept = [run for run in taken if (run.folder / "model.keras").exists()] or taken
    return next((run for run in kept if run.activation == BASELINE), kept[0])
