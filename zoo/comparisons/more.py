"""What would be needed to see a smaller difference: how many seeds, and how long they take."""

from collections.abc import Iterator, Sequence

from zoo.reports import judge, statistics
from zoo.reports.document import Paragraph, Table
from zoo.reports.judge import Section, Verdict
from zoo.reports.score import Score
from zoo.training.progress import duration

TIMES = (1, 2, 4)  # the seeds
MOST = 10_000


def blocks(verdicts: Sequence[Verdict], section: Section, score: Score, seconds: float) -> Iterator[Paragraph | Table]:
    """A table of the difference that would be seen with more seeds, and of the seeds that the one found needs.

    Args:
        verdicts: on the comparisons of a section.
        section: what was judged.
        score: what it is judged by.
        seconds: that a further seed of every activation takes.
    """
    level = judge.LEVEL / max(len(section.plan), 1)
    seeds = section.arms[section.baseline].planned
    rows = []
    for verdict in verdicts:
        arm, reference = (section.arms[name].values for name in verdict.comparison[:2])
        if not verdict.found or min(len(arm), len(reference)) < 2:
            continue
        if not (spread := statistics.spread(arm, reference, paired=False)):
            continue
        seen = [score.scale.plain(spread * statistics.visible(seeds * times, level)) for times in TIMES]
        needed = statistics.seeds_to_see(abs(verdict.found.mean) / spread, level, MOST)
        rows.append(
            [verdict.comparison.arm, *seen, score.scale(verdict.found.mean), str(needed or f"more than {MOST:,}")]
        )
    if not rows:
        yield Paragraph("Too few runs finished, or their scores are all the same: nothing can be said.")
        return
    yield Paragraph(
        f"A difference is seen where the test finds it with a probability of {statistics.POWER:.0%}, if scores spread "
        "as they did (a t-test of so many seeds, corrected for all comparisons). What was found may be chance "
        "alone, and then no number of seeds shows it. A further seed of every activation takes about "
        f"{duration(seconds)} of training; `--seeds {2 * seeds}` adds to what is there, and the page then says that "
        "it was looked at before."
    )
    header = ("activation", *(f"seen with {seeds * times} seeds" for times in TIMES), "found", "seeds to see that")
    yield Table(
        "more-seeds",
        f"The smallest differences that are seen{score.scale.after(', in ')}, by seeds of each activation",
        header,
        rows,
    )
