"""The sound measure: accuracy and cost of each activation over seeds, and the verdicts on differences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, median, stdev

import numpy as np
from scipy import integrate

from zoo.reports import comparable, figures, judge, statistics, verdicts
from zoo.reports.document import Figure, Heading, Paragraph, Table
from zoo.reports.groups import CLASSES, ENDED, LOST, Group, Result, Results
from zoo.reports.score import POINTS

EXPLAINED = (
    "After the last epoch, on all test images, which take part in no choice. Mean and standard deviation over the "
    "seeds that finished; the second column counts the others, and the last one has a 95 % interval of the rate at "
    "which runs are lost (Clopper and Pearson). Cross-entropy is that of the test images; a guess has ln 10 = 2.303. "
    "Peak memory is that of the process on a CPU, of the device on a GPU; step times hold for the machine as it was, "
    "whatever else ran on it."
)
HEADER = (
    *("activation", "seeds", "accuracy", "macro precision", "cross-entropy", "area under loss"),
    *("epochs to the baseline's loss", "ms a step", "times the baseline's", "peak MB", "runs lost [95 %]"),
)
OUTPUT = "sound"

Verdicts = Mapping[str, Sequence[judge.Verdict]]


def sections(results: Results) -> dict[str, judge.Section]:
    """The judge's sections, by the titles of their groups."""
    return {group.title: group.section for group in results.groups(OUTPUT)}


def blocks(results: Results, found: Verdicts) -> Iterator[Heading | Paragraph | Table | Figure]:
    groups = results.groups(OUTPUT)
    judged = {group.title: group.section for group in groups}
    yield Paragraph(EXPLAINED)
    yield verdicts.explained(judged, any(group.comparisons.pairs for group in groups))
    for group in groups:
        yield Heading(group.title, 3)
        decided, errors = found[group.title], verdicts.image_errors(group.section, group.right, POINTS, images(group))
        yield from verdicts.blocks(group.slug, group.title, group.section, decided, POINTS, errors, "test accuracy")
        times = comparable.same_machine([run for runs in group.runs.values() for run in runs])
        yield _table(group, times)
        yield Paragraph(_in_words(group, times, all(verdict.status == "void" for verdict in decided)))
        yield from _effort(group)


def images(group: Group) -> int | None:
    """The number of test images, if the runs recorded it."""
    counts = {run.environment.get("images", {}).get("test") for runs in group.runs.values() for run in runs}
    return counts.pop() if len(counts) == 1 else None


def loss_column(group: Group) -> str:
    """The column of the training cross-entropy; that of the loss, if a run has none."""
    runs = [run for runs in group.runs.values() for run in runs]
    return "cross_entropy" if all(len(run.history("cross_entropy")) for run in runs) else "loss"


def has_penalty(group: Group) -> bool:
    """Whether that column includes a penalty or label smoothing."""
    settings = [run.settings["training"] for runs in group.runs.values() for run in runs]
    more = any(each.get("weight_decay") or each.get("label_smoothing") for each in settings)
    return loss_column(group) == "loss" and more


def loss_name(group: Group) -> str:
    return "training loss with penalty (older runs)" if has_penalty(group) else "training cross-entropy"


def _table(group: Group, times: bool) -> Table:
    base = group.runs.get(group.baseline)
    rows = []
    for name, planned in group.planned.items():
        runs = group.runs.get(name)
        cells = _cells(group, runs, base, times) if runs else [group.absent(name), *[""] * (len(HEADER) - 4)]
        rows.append([name, _count(group, name, planned), *cells, _lost(planned)])
    what = "the sound measure, in % where it is a share"
    caption = f"{group.title}: {what}. {loss_name(group).capitalize()}: area in nats times epochs"
    return Table(f"sound-{group.slug}", caption, HEADER, rows)


def _count(group: Group, name: str, planned: list[Result]) -> str:
    done, absent = len(group.runs.get(name, [])), group.absent(name)
    return str(done) if not absent else f"{done} of {len(planned)}, {absent}" if done else f"0 of {len(planned)}"


def _lost(planned: list[Result]) -> str:
    """The share of an activation's runs that were lost, with its interval."""
    ended = [run for run in planned if run.state in (*ENDED, *LOST)]
    lost = sum(run.state in LOST for run in ended)
    if not lost:
        return ""
    low, high = statistics.rate(lost, len(ended))
    return f"{lost} of {len(ended)}: {lost / len(ended):.0%} [{low:.0%}, {high:.0%}]"


def _cells(group: Group, runs: list[Result], base: list[Result] | None, times: bool) -> list[str]:
    column, step = loss_column(group), pace(runs)
    loss, reached = stacked(runs, column).mean(axis=0), ""
    if base and not has_penalty(group):
        reached = str(epochs_to_reach(loss, stacked(base, column).mean(axis=0)[-1]) or "never")
    entropies = [run.metrics["test_loss"] for run in runs if "test_loss" in run.metrics]
    return [
        spread([run.metric("test_accuracy") for run in runs]),
        spread([run.metric("test_precision_macro") for run in runs]),
        f"{mean(entropies):.3f}" if entropies else "",
        f"{area(loss):.2f}",
        reached,
        f"{step:.1f}",
        f"{step / pace(base):.2f}" if base and times else "",
        f"{median(run.metric('peak_memory_mb') for run in runs):.0f}",
    ]


def pace(runs: list[Result]) -> float:
    return median(run.milliseconds_a_step() for run in runs)


def stacked(runs: list[Result], column: str) -> np.ndarray:
    """A column of the histories of finished runs (runs, epochs)."""
    return np.stack([run.history(column) for run in runs])


def area(loss: np.ndarray) -> float:
    """The area under a curve with one value per epoch, by trapezoids of width 1; 0 for a single epoch."""
    return float(integrate.trapezoid(loss))


def epochs_to_reach(loss: np.ndarray, level: float) -> int | None:
    """The first epoch, counted from 1, whose loss is at `level` or below; None if there is none."""
    return next((epoch for epoch, value in enumerate(loss, start=1) if value <= level), None)


def spread(values: list[float], scale: float = 100, digits: int = 2) -> str:
    """Mean ± sample standard deviation; the value alone if there is one."""
    text = f"{scale * mean(values):.{digits}f}"
    return f"{text} ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else text


def _in_words(group: Group, times: bool, void: bool) -> str:
    """A paragraph on accuracy, convergence and cost."""
    base = group.runs.get(group.baseline)
    if base is None:
        return f"{group.title}: there is no finished run with {group.baseline} to compare with."
    accuracy = spread([run.metric("test_accuracy") for run in base])
    count = f"{len(base)} seed{'s' * (len(base) > 1)}"
    sentences = [f"With {group.baseline} {group.title} reaches {accuracy} % test accuracy ({count})"]
    others = {name: runs for name, runs in group.runs.items() if name != group.baseline}
    if others and not void:
        sentences += [_convergence(group, others, base), _cost(others, base, times)]
    if single := [name for name, runs in group.runs.items() if len(runs) == 1]:
        sentences.append(f"Of one finished run only: {', '.join(single)}")
    if lost := [f"{name} ({group.absent(name)})" for name in group.planned if group.absent(name)]:
        sentences.append(f"Not finished: {', '.join(lost)}")
    return ". ".join(sentences) + "."


def _convergence(group: Group, others: dict[str, list[Result]], base: list[Result]) -> str:
    if has_penalty(group):
        return "These older runs record their loss with its penalty alone, so how fast it falls isn't compared"
    column = loss_column(group)
    level, epochs = float(stacked(base, column).mean(axis=0)[-1]), stacked(base, column).shape[1]
    losses = {name: stacked(runs, column).mean(axis=0) for name, runs in others.items()}
    reached = {name: epochs_to_reach(loss, level) for name, loss in losses.items()}
    order = sorted(losses, key=lambda name: (reached[name] or math.inf, losses[name][-1]))
    parts = [f"by {name} {f'after {reached[name]}' if reached[name] else 'never'}" for name in order]
    return (
        f"The {loss_name(group)} of {group.baseline} after {epochs} epochs, {level:.3f}, is reached {', '.join(parts)}"
    )


def _cost(others: dict[str, list[Result]], base: list[Result], times: bool) -> str:
    if not times:
        return "The runs come from different machines, so times aren't compared"
    timed = sorted((pace(runs) / pace(base), name) for name, runs in others.items())
    (low, cheapest), (high, dearest) = timed[0], timed[-1]
    return f"A step takes from {low:.2f} ({cheapest}) to {high:.2f} ({dearest}) times as long as the baseline's"


def _effort(group: Group) -> Iterator[Table | Figure | Paragraph]:
    """What each activation was tuned over, and its results there."""
    asked = group.comparisons
    if not group.ladder:
        text = asked.effort or "no activation was tuned: all have the settings of the base config"
        yield Paragraph(f"Effort, {group.title}: {text}.")
        return
    if asked.effort:
        yield Paragraph(f"Effort, {group.title}: {asked.effort}.")
    axis = str(asked.tuned).rpartition(".")[2].replace("_", " ")
    rows = [[name, group.budget(name), group.chosen(name)] for name in group.planned]
    caption = f"{group.title}: what each activation was tuned over; its {axis}, chosen on validation images"
    yield Table(f"effort-{group.slug}", caption, ("activation", "tried", axis), rows)
    try:
        arms = {
            name: {
                float(value): np.array(
                    [100 * run.metric("test_accuracy") if run.state == "finished" else math.nan for run in runs]
                )
                for value, runs in values.items()
            }
            for name, values in group.ladder.items()
        }
    except ValueError:  # the values aren't numbers
        return
    drawing = figures.against_rate({group.title: arms}, axis, "test accuracy, %", 100 / CLASSES)
    caption = (
        f"{group.title}: test accuracy against {axis}. A dot is a seed, a cross a run that did not finish, at a guess."
    )
    yield Figure(f"rates-{group.slug}", caption, drawing)
