"""Tables 1 to 5 of the report, with its values beside ours."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo.reports.document import Table
from zoo.reports.groups import MISSING, Group, Result, Results
from zoo.reports.sections.sound import spread
from zoo.runs import mixing_weights

REFERENCE = Path(__file__).parents[1] / "reference.json"
COLUMN = {"resnet50": "resnet"}  # names of columns in the report's Table 1
MEASURE = (
    "The report's measure: weighted precision on one batch of 64 test images after each epoch, whose maximum lies far "
    "above what a network does on all test images."
)
IN_BRACKETS = "In brackets what the report says."


def _reference() -> dict[str, Any]:
    return json.loads(REFERENCE.read_text(encoding="utf-8"))


def _beside(own: str, published: float | None, digits: int = 4) -> str:
    return own if published is None else f"{own} ({published:.{digits}f})"


def _measured(group: Group, name: str, key: str) -> list[float]:
    return [run.metric(key) for run in group.runs.get(name, [])]


def _maximum(group: Group, name: str) -> str:
    values = _measured(group, name, "report_precision_max")
    return ", ".join(filter(None, [spread(values, 1, 4) if values else "", group.absent(name)]))


def table1(results: Results, output: str) -> Iterator[Table]:
    published, groups = _reference()[output], results.groups(output)
    columns = [published["columns"].index(COLUMN.get(group.network, group.network)) for group in groups]
    rows = []
    for name in dict.fromkeys(name for group in groups for name in group.planned):
        theirs = published["rows"].get(name)
        places = zip(groups, columns, strict=True)
        rows.append([name, *(_beside(_maximum(group, name), theirs[at] if theirs else None) for group, at in places)])
    caption = f"Maximum over epochs. {MEASURE} {IN_BRACKETS}"
    yield Table(output, caption, ["activation", *(group.title for group in groups)], rows)


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
        caption = f"{group.title}. {MEASURE} Beside it what the report says."
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
            learned = mixing_weights(run.folder) if run else {}
            fixed = ", fixed" if run and run.has_held_weights() else ""
            for member, (symbol, theirs) in enumerate(published["rows"].get(name, {}).items()):
                own = [f"{list(learned[site].values())[member]:.3f}" if site in learned else MISSING for site in sites]
                rows.append([f"{name} {symbol}{fixed}", *(_beside(*pair, 3) for pair in zip(own, theirs, strict=True))])
        caption = f"{group.title}, after the last epoch: X of tanh, Y of sigmoid, Z of ReLU. {IN_BRACKETS}"
        yield Table(f"{output}-{group.slug}" if i else output, caption, ["weight", *sites], rows)
