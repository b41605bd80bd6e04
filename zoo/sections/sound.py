"""The sound table: what an activation brings over seeds, beside what it costs, and the same in words."""

from collections.abc import Iterator
from statistics import mean, median, stdev
from typing import NamedTuple

import numpy as np

from zoo import statistics
from zoo.collected import Group, Result, Results
from zoo.document import Paragraph, Table

BASELINE = "relu"
LEVEL = 0.05
EXPLAINED = (
    "After the last epoch, on all test images, which take part in no choice. Mean and standard deviation over the "
    "seeds that finished; a run that diverged or failed is counted in the second column and stands nowhere else. "
    "Differences from ReLU are in accuracy, in percentage points, with a 95 % interval by Welch's t-test: the runs of "
    "two activations are taken as independent samples and not paired by seed. p is corrected by Holm's method for all "
    "comparisons in this section, the intervals are not. The training loss is what the optimizer minimizes, label "
    "smoothing and the penalty on kernels included; the area under it is in nats times epochs, and the next column has "
    "the first epoch whose mean loss is at or below ReLU's last one. Peak memory is that of the process on a CPU, of "
    "the device on a GPU; step times hold for the machine as it was, whatever else ran on it."
)
HEADER = (
    *("activation", "seeds", "accuracy", "macro precision", "minus ReLU [95 %]", "p (Holm)"),
    *("area under loss", "epochs to ReLU's loss", "ms a step", "times ReLU's", "peak MB"),
)


class Row(NamedTuple):
    """What is known of one activation's finished runs; None for what takes ReLU or more seeds to know."""

    name: str
    runs: list[Result]
    loss: np.ndarray
    reached: int | None
    step: float
    times: float | None
    difference: statistics.Difference | None
    p: float | None


def blocks(results: Results, output: str) -> Iterator[Paragraph | Table]:
    yield Paragraph(EXPLAINED)
    groups = results.groups(output)
    known = {(i, name): found for i, group in enumerate(groups) for name, found in _differences(group).items()}
    corrected = dict(zip(known, statistics.holm([found.p for found in known.values()]), strict=True))
    for i, group in enumerate(groups):
        rows = [_row(group, name, known.get((i, name)), corrected.get((i, name))) for name in group.runs]
        cells = {row.name: _cells(row, group) for row in rows}
        lost = {
            name: [name, f"0 of {len(runs)}", group.absent(name), *[""] * 8] for name, runs in group.planned.items()
        }
        caption = f"{group.title}: the sound measure, in % where it is a share"
        yield Table(f"sound-{group.slug}", caption, HEADER, list((lost | cells).values()))
        yield Paragraph(_in_words(group, rows))


def _differences(group: Group) -> dict[str, statistics.Difference]:
    relu = [run.metric("test_accuracy") for run in group.runs.get(BASELINE, [])]
    found = {
        name: statistics.difference([run.metric("test_accuracy") for run in runs], relu)
        for name, runs in group.runs.items()
        if name != BASELINE
    }
    return {name: difference for name, difference in found.items() if difference}


def _row(group: Group, name: str, difference: statistics.Difference | None, p: float | None) -> Row:
    runs, relu = group.runs[name], group.runs.get(BASELINE)
    loss, step = stacked(runs, "loss").mean(axis=0), _pace(runs)
    reached = statistics.epochs_to_reach(loss, stacked(relu, "loss").mean(axis=0)[-1]) if relu else None
    return Row(name, runs, loss, reached, step, step / _pace(relu) if relu else None, difference, p)


def _pace(runs: list[Result]) -> float:
    return median(run.milliseconds_a_step() for run in runs)


def _cells(row: Row, group: Group) -> list[str]:
    absent, found = group.absent(row.name), row.difference
    return [
        row.name,
        f"{len(row.runs)} of {len(group.planned[row.name])}, {absent}" if absent else str(len(row.runs)),
        spread([run.metric("test_accuracy") for run in row.runs]),
        spread([run.metric("test_precision_macro") for run in row.runs]),
        f"{100 * found.mean:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]" if found else "",
        f"{row.p:.2g}" if row.p is not None else "",
        f"{statistics.area(row.loss):.2f}",
        "" if row.times is None else str(row.reached or "never"),
        f"{row.step:.1f}",
        "" if row.times is None else f"{row.times:.2f}",
        f"{median(run.metric('peak_memory_mb') for run in row.runs):.0f}",
    ]


def stacked(runs: list[Result], column: str) -> np.ndarray:
    """A column of the histories of runs (runs, epochs), as far as all of them got."""
    curves = [run.history(column) for run in runs]
    return np.stack([curve[: min(map(len, curves))] for curve in curves])


def spread(values: list[float], scale: float = 100, digits: int = 2) -> str:
    """Mean ± standard deviation of a sample; the value alone where there is one."""
    text = f"{scale * mean(values):.{digits}f}"
    return f"{text} ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else text


def _in_words(group: Group, rows: list[Row]) -> str:
    """A paragraph of what the numbers say."""
    relu = next((row for row in rows if row.name == BASELINE), None)
    if relu is None:
        return f"{group.title}: there is no finished run with ReLU to compare with."
    accuracy = spread([run.metric("test_accuracy") for run in relu.runs])
    count = f"{len(relu.runs)} seed{'s' * (len(relu.runs) > 1)}"
    others = [row for row in rows if row is not relu]
    sentences = [f"With ReLU {group.title} reaches {accuracy} % test accuracy ({count})", _verdict(others)]
    if others:
        sentences += [_convergence(others, relu), _cost(others)]
    if lost := [f"{name} ({group.absent(name)})" for name in group.planned if group.absent(name)]:
        sentences.append(f"Not finished: {', '.join(lost)}")
    return ". ".join(sentences) + "."


def _verdict(rows: list[Row]) -> str:
    judged = [row for row in rows if row.difference and row.p is not None]
    if not judged:
        return "Differences from it can't be told from chance, which takes two seeds or more of each"
    groups: dict[str, list[str]] = {"beyond chance above it": [], "beyond chance below it": [], "not told apart": []}
    above, below, open_ = groups.values()
    for row in judged:
        assert row.difference and row.p is not None
        mean, low, high, _ = (100 * value for value in row.difference)
        where = open_ if row.p >= LEVEL else above if mean > 0 else below
        where.append(f"{row.name} ({mean:+.2f} points, {low:+.2f} to {high:+.2f})")
    text = "; ".join(f"{what}: {', '.join(names)}" for what, names in groups.items() if names)
    return text.replace("not told apart:", "not told apart from it by these seeds:").capitalize()


def _convergence(rows: list[Row], relu: Row) -> str:
    epochs = len(relu.loss)
    reached = sorted((row for row in rows if row.reached), key=lambda row: (row.reached, row.loss[-1]))
    never = [row.name for row in rows if not row.reached]
    text = f"ReLU's training loss after {epochs} epochs, {relu.loss[-1]:.3f}, is reached "
    parts = [f"by {row.name} after {row.reached}" for row in reached] + [f"by {name} never" for name in never]
    return text + ", ".join(parts)


def _cost(rows: list[Row]) -> str:
    timed = sorted((row.times, row.name) for row in rows if row.times is not None)
    (low, cheapest), (high, dearest) = timed[0], timed[-1]
    return f"A step takes from {low:.2f} ({cheapest}) to {high:.2f} ({dearest}) times as long as with ReLU"
