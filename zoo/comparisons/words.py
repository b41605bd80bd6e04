"""What the verdicts of a comparison mean, in a plain sentence."""

from collections.abc import Mapping, Sequence

from zoo.reports.judge import Verdict
from zoo.reports.score import Score
from zoo.reports.statistics import Ratio

JUDGED = ("above", "below", "open")


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
    return f"{shows} no difference that {seeds} seeds could see (80 % of those of {enough})"
