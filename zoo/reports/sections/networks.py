"""All networks of a sweep together: the measures of Agarwal et al. (2021) and the ranks of Demsar (2006)."""

from collections.abc import Iterator

import numpy as np

from zoo.reports import statistics
from zoo.reports.document import Paragraph, Table
from zoo.reports.groups import Group, Results
from zoo.reports.sections.sound import OUTPUT, Verdicts

EXPLAINED = (
    "Over the {count} networks that aren't void ({names}), of the activations whose runs all finished on each: the "
    "interquartile mean of test accuracy, the probability that a run is better than one of the baseline on the same "
    "network, both with a 95 % interval by a bootstrap of the seeds of each network, and the mean rank, 1 the best. "
    "They describe these networks; what holds of others so few can't say."
)
HEADER = ("activation", "interquartile mean, %", "better than the baseline", "mean rank")


def blocks(results: Results, found: Verdicts) -> Iterator[Paragraph | Table]:
    every = [group for group in results.groups(OUTPUT) if not group.is_regression]
    groups = [group for group in every if any(v.status != "void" for v in found[group.title])]
    if len(groups) < 2:
        yield Paragraph("Measures over several networks need two that aren't void.")
        return
    names = [name for name in groups[0].planned if all(_is_whole(group, name) for group in groups)]
    scores = {name: [group.section.arms[name].values for group in groups] for name in names}
    yield Paragraph(EXPLAINED.format(count=len(groups), names=", ".join(group.title for group in groups)))
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
