"""The page of results, docs/results.md: the reports of what is packed in results/, after a plain answer.

Numbers of the answer are read from the tables of those reports, and of benchmarks/results.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks import tables
from tuner import report as search_report
from tuner.searches.folder import SearchFolder, SearchResults
from zoo import pack, report
from zoo.reports import curves, document, groups, judge, provenance, sound
from zoo.reports.document import Heading, Paragraph

RESULTS = Path("results")
EVIDENCE: dict[str, tuple[str, str, tuple[str, ...]]] = {  # in results/: title, report, and figures shown of it
    "lenet": ("LeNet in full, each activation at its best rate", "zoo", ("forest-lenet", "figure3")),
    "alexnet": ("AlexNet in small, each activation at its best rate", "zoo", ()),
    "lenet-rates": ("Which learning rate suits which activation, LeNet", "zoo", ()),
    "alexnet-rates": ("Which learning rate suits which activation, AlexNet", "zoo", ()),
    "report": ("Tables 1 and 4 of the report, LeNet in full", "zoo", ("figure3", "figure4-cross_entropy")),
    "small": ("Tables 1, 2, 3 and 5 of the report, in small", "zoo", ()),
    "mixing": ("Fixed or learned mixing weights, LeNet", "tuner", ("forest-*", "simplex-*")),
}
COMPARED = "lenet", "alexnet"  # whose comparisons the summary for programs has
LEARNED = "lenet", "shapes-lenet-arelu"  # a figure of its report


def page() -> tuple[str, dict[str, str]]:
    """The page, and its pictures by the names of their files; called in the folder of the project."""
    blocks: list[Any] = [
        Heading("Results", 1),
        Paragraph("<!-- Written by `python -m docs.generate` from results/; edit that. -->"),
        Paragraph(
            "What was measured, with the command that makes each table again. Every number and figure of this page "
            "comes from `results/`, and a test fails where they disagree."
        ),
    ]
    summaries, bodies, pictures = [], [], {}
    tables_of: dict[str, dict[str, document.Table]] = {}
    for name, (title, command, shown) in EVIDENCE.items():
        body = reported(name, command)
        tables_of[name] = {block.name: block for block in body if isinstance(block, document.Table)}
        judged = body[0].text.startswith("Summary. ")
        said = body.pop(0).text.removeprefix("Summary. ") if judged else "no comparison is planned."
        summaries.append(f"[{title}](#{name}): {said}")
        drawings = {}
        bodies.append(Heading(f"{title} {{ #{name} }}"))
        found, made = apart(body)
        for block in found:
            if isinstance(block, document.Figure):
                if not any(fnmatchcase(block.name, pattern) for pattern in shown):
                    continue
                drawings[block.name] = document.svg(block.drawing)
            bodies.append(replace(block, level=block.level + 1) if isinstance(block, Heading) else block)
        if drawings:
            pictures[f"results-{name}.svg"] = document.sheet(drawings)
            bodies.append(Heading("Figures", 3))
            bodies.append(Paragraph(f"![{', '.join(drawings)}](pictures/results-{name}.svg)"))
        bodies += made
    between = Paragraph("The reports, and what each says of its planned comparisons:")
    short = [Heading("In short"), Paragraph(answer(tables_of)), between, Paragraph(points(summaries))]
    every = [*blocks, *short, *without_empty(bodies)]
    return "\n\n".join(map(document.markdown, every)) + "\n", pictures


def apart(body: list[Any]) -> tuple[list[Any], list[Any]]:
    """The blocks of a report without those on how its runs were made, and those, for its end."""
    table = next((i for i, block in enumerate(body) if getattr(block, "name", "") == "provenance"), None)
    if table is None:
        return body, []
    end = next(i for i, block in enumerate(body) if i > table and isinstance(block, Heading))
    return body[: table - 1] + body[end:], [Heading("How it was made", 3), *body[table - 1 : end]]


def answer(tables_of: dict[str, dict[str, document.Table]]) -> str:
    """What helps, by how much, at what cost, and what was not tested."""

    def cell(evidence: str, name: str, row: str, column: str) -> str:
        found = tables_of[evidence][name]
        (cells,) = [cells for cells in found.rows if cells[0] == row]
        return cells[list(found.header).index(column)]

    def brought(row: str, table: tuple[str, str] = ("lenet", "comparisons-lenet")) -> str:
        points, interval, p, verdict = (
            cell(*table, row, column) for column in ("difference", "simultaneous 95 %", "p (Holm)", "verdict")
        )
        return f"{points} points {interval} ({verdict}, p = {p})"

    def ahead(epoch: int) -> str:
        return cell("lenet", "head-start-lenet", "method1", f"{epoch} minus relu")

    reached = {name: cell("lenet", "sound-lenet", name, "accuracy") for name in ("relu", "arelu", "method1")}
    seeds = cell("lenet", "sound-lenet", "method1", "seeds")
    in_small = {name: cell("alexnet", "sound-alexnet", name, "accuracy") for name in ("relu", "method1")}
    seeds_in_small, small = cell("alexnet", "sound-alexnet", "method1", "seeds"), ("alexnet", "comparisons-alexnet")
    slow = {name: cell("lenet-rates", "effort-lenet", name, "at relu's").split(": ")[1] for name in reached}
    ends = {name: at_the_end(tables_of[f"{name}-rates"][f"effort-{name}"]) for name in COMPARED}
    names, mixing = (*reached, "sigmoid", "asigmoid"), ("mixing", "comparisons-contrast")
    full = {name: f"{100 * float(cell('report', 'table1-sound', name, 'lenet')):.1f}" for name in names}
    sentences = (
        "On LeNet, with 40 epochs on all images and each activation at the best of six learning rates, ReLU reaches "
        f"{reached['relu']} % test accuracy, AReLU {reached['arelu']} and method 1 {reached['method1']}, of {seeds} "
        f"seeds each: method 1 brings {brought('method1 minus relu (primary)')} in the primary comparison.",
        "On AlexNet in small, 10,000 images and 10 epochs, each at the best of four rates, ReLU reaches "
        f"{in_small['relu']} % and method 1 {in_small['method1']}, of {seeds_in_small} seeds each: method 1 "
        f"brings {brought('method1 minus relu (primary)', small)}.",
        f"It is more than a faster start: on LeNet's validation images method 1 is {ahead(5)} points over "
        f"ReLU after 5 epochs, {ahead(20)} after 20 and {ahead(40)} after the last.",
        f"The cost is that a training step of LeNet takes {in_networks('method1', 'lenet')} as long with method 1 as "
        "with ReLU.",
        "GoogLeNet, ResNet50 and DenseNet ran in small alone, with one seed, which tells no activations apart; AlexNet "
        "in full, other data and GPUs are not tested yet.",
    )
    more = (
        f"On LeNet method 2 brings {brought('method2 minus relu')} over ReLU, AReLU {brought('arelu minus relu')}, "
        f"PELU {brought('pelu minus relu')} and Swish {brought('swish minus relu')}.",
        f"There an adaptive sigmoid brings {brought('asigmoid minus sigmoid')} over the fixed one, an adaptive tanh "
        f"{brought('atanh minus tanh')}.",
        f"On AlexNet in small method 2 brings {brought('method2 minus relu', small)} over ReLU and AReLU "
        f"{brought('arelu minus relu', small)}.",
        f"Where LeNet trains with method 1 at ReLU's best rate (10 epochs, one seed) it has {slow['method1']} %, with "
        f"AReLU {slow['arelu']} and with ReLU {slow['relu']}.",
        f"On LeNet {ends['lenet']}, and on AlexNet {ends['alexnet']}, are best at the highest rate that was tried; a "
        "higher one may be better still.",
        "By the report's own protocol, 150 epochs at one rate and one seed, LeNet has a weighted precision of "
        f"{full['relu']} % with ReLU, {full['arelu']} with AReLU and {full['method1']} with method 1; sigmoid gains "
        f"most by being adaptive, from {full['sigmoid']} to {full['asigmoid']} %.",
        f"Mixing weights held at 1/3 bring {brought('1/3 minus learned', mixing)} over learned ones, searched and held "
        f"{brought('searched minus learned', mixing)}.",
    )
    return "\n\n".join((points(sentences), "More of what was found; each p is by Holm's method:", points(more)))


def at_the_end(effort: document.Table) -> str:
    """The activations whose best rate is the highest of those that were tried."""
    own = list(effort.header).index("at its own learning rate")
    rates = {row[0]: float(row[own].split(":")[0]) for row in effort.rows}
    *names, last = [name for name, rate in rates.items() if rate == max(rates.values())]
    return f"{', '.join(names)} and {last}"


def points(sentences: Iterable[str]) -> str:
    return "\n".join(f"* {sentence}" for sentence in sentences)


def summary() -> dict[str, Any]:
    """What the planned comparisons of activations found, for programs; accuracies are shares of test images."""
    return {
        "source": "results, by docs/evidence.py",
        "dataset": "CIFAR-10, a JPEG copy",
        "metric": "accuracy on all test images after the last epoch",
        "networks": {name: _compared(name) for name in COMPARED},
    }


def _compared(name: str) -> dict[str, Any]:
    with pack.opened(RESULTS / name) as place:
        found = groups.Results(place)
        (group,) = found.groups(sound.OUTPUT)
        verdicts = judge.judge(sound.sections(found))[group.title]
    scores = {name: arm.values for name, arm in group.section.arms.items() if arm.scores}
    return {
        "notes": found.notes,
        "activations": {
            name: {
                "learning_rate": float(group.chosen(name)),
                "seeds": len(values),
                "mean": round(values.mean(), 6),
                "std": round(values.std(ddof=1), 6) if len(values) > 1 else None,
            }
            for name, values in scores.items()
        },
        "comparisons": [
            {"activation": each.comparison.arm, "reference": each.comparison.reference}
            | {"primary": each.comparison.primary, "verdict": each.status, "p_holm": round(each.p, 6)}
            | {key: round(getattr(each.found, key), 6) for key in ("mean", "low", "high")}
            for each in verdicts
            if each.found and not each.reason
        ],
    }


def in_networks(activation: str, networks: str = "*") -> str:
    """A training step's time over ReLU's, from the smallest to the largest, over networks and backends."""
    parts = tables.part(tables.RESULTS / "speed.json", "networks").values()
    every = [row for part in parts for row in part["rows"] if fnmatchcase(row["network"], networks)]
    ratios = [row["times_relu"] for row in every if row["activation"] == activation]
    return f"{min(ratios):.2f} to {max(ratios):.2f} times"


def reported(name: str, command: str) -> list[Any]:
    """The blocks of a report, but for its last section, which needs weights."""
    folder = RESULTS / name
    with pack.opened(folder) as place:
        note = document.note(place, None)
        if command == "tuner":
            return list(search_report.blocks(SearchResults(SearchFolder(place), folder), note))
        found = groups.Results(place, folder)
        every = report.blocks(found, provenance.check(found, False), note)
        return list(takewhile(lambda block: block != Heading("The report's measure"), every))


def without_empty(blocks: list[Any]) -> Iterator[Any]:
    """Without headings that nothing stands under."""
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        is_heading, is_next = isinstance(block, Heading), isinstance(following, Heading)
        if not (is_heading and (following is None or (is_next and following.level <= block.level))):
            yield block


def learned() -> str:
    """What AReLU learned in LeNet."""
    name, figure = LEARNED
    with pack.opened(RESULTS / name) as place:
        (found,) = [each for each in curves.learned(groups.Results(place)) if getattr(each, "name", "") == figure]
    return document.svg(found.drawing)
