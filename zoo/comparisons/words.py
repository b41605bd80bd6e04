"""What the verdicts of a comparison mean, in a plain sentence; and what would be needed to see a smaller difference."""

from collections.abc import Iterator, Mapping, Sequence

from zoo.reports import judge, statistics
from zoo.reports.document import Paragraph, Table
from zoo.reports.judge import Score, Section, Verdict
from zoo.reports.statistics import Ratio
from zoo.training.progress import duration

JUDGED = ("above", "below", "open")
TIMES = (1, 2, 4)  # the seeds
MOST = 10_000


def sentence(verdicts: Sequence[Verdict], score: Score, seeds: int, times: Mapping[str, Ratio]) -> str:
    """Of what is better, worse, and not told apart from what the others are compared with.

    Args:
        verdicts: one for each of the others.
        score: what they are on.
        seeds: of each activation.
        times: by activation, how many times as long as the first one it trains, where machines allow to compare; said
            where that is known to be no 1.
    """
    if all(verdict.status == "void" for verdict in verdicts):
        return f"Nothing can be said: {'; '.join(dict.fromkeys(verdict.reason for verdict in verdicts))}."
    baseline = verdicts[0].comparison.reference
    order = sorted((v for v in verdicts if v.status in ("above", "below")), key=lambda v: -_gain(v, score)[0])
    parts = [_difference(verdict, score, times, baseline if not i else "") for i, verdict in enumerate(order)]
    if still := [verdict for verdict in verdicts if verdict.status == "open"]:
        parts.append(_none(still, score, seeds, baseline, alone=len(still) == len(verdicts)))
    parts += [f"{v.comparison.arm} gets no verdict ({v.reason})" for v in verdicts if v.status not in JUDGED]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if parts[0].startswith("no ") else f"{text}."


def _gain(verdict: Verdict, score: Score) -> tuple[float, float, float]:
    """How much better the activation is, with the ends of its interval."""
    found = verdict.found
    assert found
    return (found.mean, found.low, found.high) if score.higher else (-found.mean, -found.high, -found.low)


def _difference(verdict: Verdict, score: Score, times: Mapping[str, Ratio], baseline: str) -> str:
    gain, low, high = _gain(verdict, score)
    verb, than = ("improves", "over") if gain > 0 else ("worsens", "relative to")
    if gain < 0:
        gain, low, high = -gain, -high, -low
    plain, arm = score.scale.plain, verdict.comparison.arm
    text = f"{arm} {verb} {score.title}" + (f" {than} {baseline} on your data" if baseline else "")
    text += f" by {plain(gain)}{score.scale.after()}, 95 % interval {plain(low)} to {plain(high)}"
    if low <= 0:
        text += " (which holds for all comparisons at once, and is wider than the test that found it)"
    time = times.get(arm)
    if not time or not time.is_known:
        return text
    return f"{text}, at {time.value:.2f} times the training time ({time.low:.2f} to {time.high:.2f})"


def _none(verdicts: Sequence[Verdict], score: Score, seeds: int, baseline: str, alone: bool) -> str:
    """Where a difference, if there is one, is smaller than what can be seen."""
    seen = max(verdict.found.detectable for verdict in verdicts if verdict.found)
    enough = f"{score.scale.plain(seen)}{score.scale.after()}"
    if alone:
        return (
            f"no activation shows a difference in {score.title} from {baseline} on your data that {seeds} seeds could "
            f"see: one of {enough} would have been found with a probability of 80 %"
        )
    names = [verdict.comparison.arm for verdict in verdicts]
    shows = f"{names[0]} shows" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} show"
    return f"{shows} no difference that {seeds} seeds could see (one of {enough} would be found 80 % of the time)"


def more_seeds(
    verdicts: Sequence[Verdict], section: Section, score: Score, seconds: float
) -> Iterator[Paragraph | Table]:
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
