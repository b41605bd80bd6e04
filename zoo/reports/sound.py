"""The sound measure: accuracy and cost of each activation over seeds, the verdicts on differences, and all
networks of a sweep together: the measures of Agarwal et al. (2021) and the ranks of Demsar (2006)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any

import numpy as np
from scipy import integrate

from zoo.errors import UserError
from zoo.reports import figures, judge, provenance, statistics, verdicts
from zoo.reports.document import Figure, Heading, Paragraph, Table
from zoo.reports.groups import ENDED, LOST, Group, Result, Results
from zoo.reports.judge import Scale

EXPLAINED = (
    "After the last epoch, on all test images, which take part in no choice. Mean and standard deviation over the "
    "seeds that finished; the second column counts the others, and the last one has a 95 % interval of the rate at "
    "which runs are lost (Clopper and Pearson).{guess} "
    "Peak memory is that of the process on a CPU, of the device on a GPU; step times hold for the machine as it was, "
    "whatever else ran on it."
)
GUESS = " Cross-entropy is that of the test images; a guess among {count} classes has ln {count} = {entropy:.3f}."
MEASURED = {
    "accuracy": ("accuracy", "macro precision", "cross-entropy"),
    "r2": ("R²", "mean absolute error", "root mean square error"),
}
EARLY = (5, 20)  # epochs
COSTS = (
    *("area under loss", "epochs to the baseline's loss", "ms a step", "times the baseline's", "peak MB"),
    "runs lost [95 %]",
)
OUTPUT = "sound"

Verdicts = Mapping[str, Sequence[judge.Verdict]]
TOGETHER = (
    "Over the {count} networks that aren't void ({names}), of the activations whose runs all finished on each: the "
    "interquartile mean of test accuracy, the probability that a run is better than one of the baseline on the same "
    "network, both with a 95 % interval by a bootstrap of the seeds of each network, and the mean rank, 1 the best. "
    "They describe these networks; what holds of others so few can't say."
)
HEADER = ("activation", "interquartile mean, %", "better than the baseline", "mean rank")


def sections(results: Results) -> dict[str, judge.Section]:
    """The judge's sections, by the titles of their groups; of all that are planned, whether they have begun or not."""
    return {group.title: group.section for group in results.planned(OUTPUT)}


def blocks(results: Results, found: Verdicts) -> Iterator[Heading | Paragraph | Table | Figure]:
    groups = results.groups(OUTPUT)
    counts = sorted({group.classes for group in groups if group.classes})
    yield Paragraph(EXPLAINED.format(guess="".join(GUESS.format(count=n, entropy=math.log(n)) for n in counts)))
    yield verdicts.explained(sections(results), any(group.comparisons.pairs for group in results.planned(OUTPUT)))
    for group in groups:
        yield Heading(group.title, 3)
        decided, scale, errors = found[group.title], group.score.scale, {}
        if not group.is_regression:
            errors = verdicts.image_errors(group.section, group.right, scale, images(group))
        what = f"test {group.score.title}"
        yield from verdicts.blocks(group.slug, group.title, group.section, decided, scale, errors, what)
        times = provenance.same_machine([run for runs in group.runs.values() for run in runs])
        yield _table(group, times)
        yield Paragraph(_in_words(group, times, all(verdict.status == "void" for verdict in decided)))
        yield from _head_start(group)
        yield from _effort(group)


def scales(results: Results) -> dict[str, Scale]:
    """How differences of the scores of each group that is shown are written."""
    return {group.title: group.score.scale for group in results.groups(OUTPUT)}


def images(group: Group) -> int | None:
    """The number of test images, if the runs recorded it."""
    counts = {run.environment.get("images", {}).get("test") for runs in group.runs.values() for run in runs}
    return counts.pop() if len(counts) == 1 else None


def loss_column(group: Group) -> str:
    """The column of the training loss without penalty; that of the loss, if a run has none."""
    runs = [run for runs in group.runs.values() for run in runs]
    column = "mse" if group.is_regression else "cross_entropy"
    return column if all(len(run.history(column)) for run in runs) else "loss"


def has_penalty(group: Group) -> bool:
    """Whether that column includes a penalty or label smoothing."""
    settings = [run.settings["training"] for runs in group.runs.values() for run in runs]
    more = any(each.get("weight_decay") or each.get("label_smoothing") for each in settings)
    return loss_column(group) == "loss" and more


def loss_name(group: Group) -> str:
    if group.is_regression:
        return "training mean square error"
    return "training loss with penalty (older runs)" if has_penalty(group) else "training cross-entropy"


def _table(group: Group, times: bool) -> Table:
    base = group.runs.get(group.baseline)
    header = ("activation", "seeds", *MEASURED[group.score.name], *COSTS)
    rows = []
    for name, planned in group.planned.items():
        runs = group.runs.get(name)
        cells = _cells(group, runs, base, times) if runs else [group.absent(name), *[""] * (len(header) - 4)]
        rows.append([name, _count(group, name, planned), *cells, _lost(planned)])
    what = "in the targets' unit" if group.is_regression else "in % where it is a share"
    unit = "" if group.is_regression else " in nats"
    caption = f"{group.title}: the sound measure, {what}. {loss_name(group).capitalize()}: area{unit} times epochs"
    return Table(f"sound-{group.slug}", caption, header, rows)


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
    return [
        *_measured(group, runs),
        f"{area(loss):.2f}",
        reached,
        f"{step:.1f}",
        f"{step / pace(base):.2f}" if base and times else "",
        f"{median(run.metric('peak_memory_mb') for run in runs):.0f}",
    ]


def _measured(group: Group, runs: list[Result]) -> list[str]:
    if group.is_regression:
        return [spread([run.metric(f"test_{name}") for run in runs], 1, 4) for name in ("r2", "mae", "rmse")]
    entropies = [run.metrics["test_loss"] for run in runs if "test_loss" in run.metrics]
    shares = [spread([run.metric(f"test_{name}") for run in runs]) for name in ("accuracy", "precision_macro")]
    return [*shares, f"{mean(entropies):.3f}" if entropies else ""]


def pace(runs: list[Result]) -> float:
    return median(run.milliseconds_a_step() for run in runs)


def stacked(runs: list[Result], column: str) -> np.ndarray:
    """A column of the histories of finished runs (runs, epochs)."""
    found = [run.history(column) for run in runs]
    if odd := [run for run, each in zip(runs, found, strict=True) if len(each) != len(found[0])]:
        where = f"{odd[0].folder / 'history.csv'}: {column} is of another length than in {runs[0].name}"
        raise UserError(f"{where}; such runs have no mean")
    return np.stack(found)


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
    reached = score_of(group, base)
    count = f"{len(base)} seed{'s' * (len(base) > 1)}"
    sentences = [f"With {group.baseline} {group.title} reaches {reached} ({count})"]
    others = {name: runs for name, runs in group.runs.items() if name != group.baseline}
    if others and not void:
        sentences += [_convergence(group, others, base), _cost(others, base, times)]
    if single := [name for name, runs in group.runs.items() if len(runs) == 1]:
        sentences.append(f"Of one finished run only: {', '.join(single)}")
    if lost := [f"{name} ({group.absent(name)})" for name in group.planned if group.absent(name)]:
        sentences.append(f"Not finished: {', '.join(lost)}")
    return ". ".join(sentences) + "."


def score_of(group: Group, runs: list[Result]) -> str:
    """What runs reach on test samples, over seeds."""
    values = [run.metric(group.score.of("test")) for run in runs]
    return (
        f"a test R² of {_scaled(group, values)}" if group.is_regression else f"{_scaled(group, values)} % test accuracy"
    )


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


def _head_start(group: Group) -> Iterator[Table]:
    """Validation scores after some epochs: how much of a difference is only a faster start."""
    base, scale = group.runs.get(group.baseline), group.score.scale
    scores = {name: stacked(runs, group.score.of("val")) for name, runs in group.runs.items()}
    last = scores[group.baseline].shape[1] if base else 0
    early = [epoch for epoch in EARLY if epoch < last]
    if not early:
        return
    rows = []
    for name, found in scores.items():
        if found.shape[1] != last:  # a mixed report
            continue
        row = [name]
        for epoch in (*early, last):
            now, then = (each[:, epoch - 1] for each in (found, scores[group.baseline]))
            row += [_scaled(group, list(now)), "" if name == group.baseline else scale(now.mean() - then.mean())]
        rows.append(row)
    columns = [text for epoch in (*early, last) for text in (f"epoch {epoch}", f"{epoch} minus {group.baseline}")]
    caption = (
        f"{group.title}: validation {group.score.title} after some epochs, to tell a faster start from a better end"
    )
    yield Table(f"head-start-{group.slug}", caption, ("activation", *columns), rows)


def _scaled(group: Group, values: list[float]) -> str:
    """The spread of scores, with the digits that scores are written with."""
    return spread(values, group.score.scale.factor, group.score.scale.digits)


def _effort(group: Group) -> Iterator[Table | Figure | Paragraph]:
    """What each activation was tuned over, and its results there."""
    asked = group.comparisons
    if not group.ladder:
        text = asked.effort or "no activation was tuned: all have the settings of the base config"
        yield Paragraph(f"Effort, {group.title}: {text}.")
        return
    if asked.effort:
        yield Paragraph(f"Effort, {group.title}: {asked.effort}.")
    if all(len(values) == 1 for values in group.ladder.values()):
        return
    axis = str(asked.tuned).rpartition(".")[2].replace("_", " ")
    baselines = group.chosen(group.baseline)
    rows = [
        [name, group.budget(name), _at(group, name, group.chosen(name)), _at(group, name, baselines)]
        for name in group.planned
    ]
    caption = (
        f"{group.title}: test {group.score.title} at the {axis} chosen on validation images, and at {group.baseline}'s"
    )
    header = ("activation", "tuned over", f"at its own {axis}", f"at {group.baseline}'s")
    yield Table(f"effort-{group.slug}", caption, header, rows)
    if found := beyond(axis, {name: group.chosen(name) for name in group.planned}, group.ladder):
        yield Paragraph(f"Note, {group.title}: {found}.")
    score, factor = group.score, group.score.scale.factor
    try:
        arms = {
            name: {
                float(value): np.array(
                    [factor * run.metric(score.of("test")) if run.state == "finished" else math.nan for run in runs]
                )
                for value, runs in values.items()
            }
            for name, values in group.ladder.items()
        }
    except ValueError:  # the values aren't numbers
        return
    what, unit = ("test R²", "") if group.is_regression else ("test accuracy", ", %")
    drawing = figures.against_rate(
        {group.title: arms}, axis, what + unit, factor / group.classes if group.classes else 0.0
    )
    caption = f"{group.title}: {what} against {axis}. A dot is a seed, a cross a run that did not finish, at a guess."
    yield Figure(f"rates-{group.slug}", caption, drawing)


def beyond(axis: str, chosen: Mapping[str, str], ladder: Mapping[str, Mapping[str, Any]]) -> str:
    """Which activations are best at the lowest or the highest of three values or more; "" if none is."""
    names = []
    for name, value in chosen.items():
        try:
            tried = sorted(map(float, ladder.get(name, ())))
            if len(tried) > 2 and value and float(value) in (tried[0], tried[-1]):
                names.append(f"{name} ({value})")
        except ValueError:  # the values aren't numbers
            continue
    return (
        f"the best {axis} of {', '.join(names)} is the lowest or the highest that was tried, so that a better one may "
        "lie beyond"
        if names
        else ""
    )


def _at(group: Group, name: str, value: str) -> str:
    """The score of an activation at a value that it was tuned over."""
    runs = group.ladder.get(name, {}).get(value, [])
    finished = [run.metric(group.score.of("test")) for run in runs if run.state == "finished"]
    if not runs:
        return ""
    return f"{value}: {_scaled(group, finished) if finished else 'none finished'}"


def all_networks(results: Results, found: Verdicts) -> Iterator[Paragraph | Table]:
    every = [group for group in results.groups(OUTPUT) if not group.is_regression]
    groups = [group for group in every if any(v.status != "void" for v in found[group.title])]
    if len(groups) < 2:
        yield Paragraph("Measures over several networks need two that aren't void.")
        return
    names = [name for name in groups[0].planned if all(_is_whole(group, name) for group in groups)]
    scores = {name: [group.section.arms[name].values for group in groups] for name in names}
    yield Paragraph(TOGETHER.format(count=len(groups), names=", ".join(group.title for group in groups)))
    if not names:
        yield Paragraph("There is no such activation.")
        return
    ranks = statistics.average_ranks(np.array([[each.mean() for each in scores[name]] for name in names]).T)
    rows = []
    for name, rank in zip(names, ranks, strict=True):
        middle, better = statistics.interquartile_mean(scores[name]), ""
        baselines = {group.baseline for group in groups}
        if len(baselines) == 1 and name not in baselines and baselines <= scores.keys():
            chance = statistics.improvement(scores[name], scores[baselines.pop()])
            better = f"{chance.value:.2f} [{chance.low:.2f}, {chance.high:.2f}]"
        interval = f"{100 * middle.value:.2f} [{100 * middle.low:.2f}, {100 * middle.high:.2f}]"
        rows.append([name, interval, better, f"{rank:.2f}"])
    yield Table("networks", f"{len(groups)} networks together", HEADER, rows)


def _is_whole(group: Group, name: str) -> bool:
    return name in group.planned and not group.absent(name)
