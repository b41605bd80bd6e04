"""Verdicts as a table, a figure and words, for sweeps and searches alike."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from zoo.reports import figures, judge, statistics
from zoo.reports.document import Figure, Paragraph, Table
from zoo.reports.judge import Scale, Section, Verdict

STATES = {
    "above": "beyond chance above",
    "below": "beyond chance below",
    "open": "not told apart",
    "void": "void",
    "lost": "no verdict: runs lost",
    "incomplete": "no verdict yet: runs missing",
    "confounded": "no verdict: confounded",
}
HEADER = (
    *("comparison", "difference", "simultaneous 95 %", "exact p", "p (Holm)", "detectable (80 %)"),
    *("error of the images", "lost runs as guesses", "verdict"),
)
EXPLAINED = (
    "Each planned comparison is one of a family of {family}, named before the runs{named}. p is that of an exact "
    "{test}, "
    "corrected by Holm's method for the whole family; what can't be judged stays in it with p = 1. Intervals invert "
    "the same test at 1 - 0.05 / {family}, so that all hold at once with 95 % (Bonferroni). Detectable is the "
    "difference that would have been found with a probability of 80 %. The error of the images is the standard error "
    "that the difference has because other test images would have given another one; more seeds don't make it smaller. "
    "`zoo/reports/judge.py` has the reasons and sources of these choices."
)


def explained(sections: Mapping[str, Section], named: bool) -> Paragraph:
    """An explanation of the verdicts of all sections."""
    family = sum(len(section.plan) for section in sections.values())
    paired = any(section.paired for section in sections.values())
    test = "sign-flip test of pairs" if paired else "permutation test of unpaired seeds"
    how = "" if named else " by default (each activation with the baseline, each adaptive one with its fixed twin)"
    return Paragraph(EXPLAINED.format(family=family, named=how, test=test))


def blocks(name: str, title: str, section: Section, verdicts: Sequence[Verdict], scale: Scale, errors, what: str):
    """Words and a table; a forest plot too, unless the section is void.

    Args:
        name: of the files.
        title: of the section.
        section: what was judged.
        verdicts: on its plan.
        scale: of the scores.
        errors: the standard error from the test images by comparison, formatted.
        what: the scores are, such as "test accuracy".
    """
    rows = [_row(verdict, scale, errors.get(verdict.comparison, "")) for verdict in verdicts]
    yield Paragraph(in_words(title, verdicts, scale))
    yield Table(f"comparisons-{name}", f"{title}: planned comparisons of {what}{scale.after(', in ')}", HEADER, rows)
    drawn = [verdict for verdict in verdicts if verdict.found and verdict.status != "void"]
    if drawn:
        caption = (
            f"{title}: differences of {what}. A dot is a seed of the first arm minus the mean of the second, a square "
            "the mean difference, white where there is no verdict, a line its simultaneous interval, and a cross a "
            "lost run, scored as a guess."
        )
        panels = [_panel(verdict, section, scale) for verdict in drawn]
        yield Figure(f"forest-{name}", caption, figures.forest(panels, f"difference of {what}{scale.after(', ')}"))


def said(verdict: Verdict) -> str:
    return f"{verdict.comparison.arm} minus {verdict.comparison.reference}"


def _row(verdict: Verdict, scale: Scale, error: str) -> list[str]:
    name = said(verdict) + " (primary)" * verdict.comparison.primary
    found, guessed = verdict.found, verdict.guessed
    if verdict.status == "void" or not found:
        return [name, "", "", "", f"{verdict.p:.2g}", "", "", "", _state(verdict)]
    judged = ["", "", ""]
    if verdict.status != "lost":  # an interval doesn't hold for selected runs
        judged = [scale.between(found.low, found.high), f"{found.p:.2g}", scale.plain(found.detectable)]
    lost = f"{scale(guessed.mean)} {scale.between(guessed.low, guessed.high)}, p = {guessed.p:.2g}" if guessed else ""
    between, exact, detectable = judged
    return [name, scale(found.mean), between, exact, f"{verdict.p:.2g}", detectable, error, lost, _state(verdict)]


def _state(verdict: Verdict) -> str:
    return STATES[verdict.status] + (f" ({verdict.reason})" if verdict.status in ("lost", "incomplete") else "")


def in_words(title: str, verdicts: Sequence[Verdict], scale: Scale) -> str:
    """The verdicts in a paragraph."""
    if not verdicts:
        return f"{title}: no comparison is planned."
    if all(verdict.status == "void" for verdict in verdicts):
        return f"{title} is void: {void_reason(verdicts)}. Its differences mean nothing."
    sentences = [_sentence(title, verdict, scale) for verdict in verdicts if verdict.comparison.primary]
    for status, words in STATES.items():
        found = [v for v in verdicts if v.status == status]
        if found:
            sentences.append(f"{words.capitalize()}: {'; '.join(_clause(v, scale) for v in found)}")
    return f"{title}. " + ". ".join(sentences) + "."


def void_reason(verdicts: Sequence[Verdict]) -> str:
    return "; ".join(dict.fromkeys(verdict.reason for verdict in verdicts))


def _clause(verdict: Verdict, scale: Scale) -> str:
    found, name = verdict.found, said(verdict)
    if verdict.status in ("void", "incomplete", "confounded") or not found:
        return f"{name} ({verdict.reason})"
    if verdict.status == "lost":
        text = f"{name} ({verdict.reason}; those that finished differ by {scale(found.mean)}"
        guessed = verdict.guessed
        return text + (f", with a lost run as a guess it is {scale(guessed.mean)})" if guessed else ")")
    text = f"{name} {scale(found.mean)} {scale.between(found.low, found.high)}"
    return text + (f", detectable {scale(found.detectable).lstrip('+')}" if verdict.status == "open" else "")


def _sentence(title: str, verdict: Verdict, scale: Scale) -> str:
    """A sentence on the primary comparison."""
    if verdict.status in ("above", "below", "open"):
        found = verdict.found
        assert found
        return (
            f"The primary comparison, {said(verdict)}: {scale(found.mean)}{scale.after()} "
            f"{scale.between(found.low, found.high)}, p = {verdict.p:.2g} by Holm's method: {STATES[verdict.status]}"
        )
    return f"The primary comparison, {said(verdict)}, has no verdict: {verdict.reason}"


def summary(verdicts: Mapping[str, Sequence[Verdict]], scales: Mapping[str, Scale]) -> Paragraph:
    """The report in a paragraph: void sections first, then primary comparisons, then counts of the others."""
    void = {name: found for name, found in verdicts.items() if found and all(v.status == "void" for v in found)}
    sentences = [f"{name} is void: {void_reason(found)}" for name, found in void.items()]
    rest = {name: found for name, found in verdicts.items() if name not in void}
    for name, found in rest.items():
        sentences += [f"{name}: {_sentence(name, v, scales[name])}" for v in found if v.comparison.primary]
        counts = {words: sum(v.status == status for v in found) for status, words in STATES.items()}
        counted = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
        sentences.append(f"{name}: of {len(found)} planned comparisons {counted or 'none'}")
    return Paragraph("Summary. " + ". ".join(sentences) + ".")


def _panel(verdict: Verdict, section: Section, scale: Scale) -> figures.Row:
    arm, reference = section.arms[verdict.comparison.arm], section.arms[verdict.comparison.reference]
    found = verdict.found
    assert found
    center = float(reference.values.mean())
    guess = math.nan if section.guess is None else section.guess
    whole = verdict.status in ("above", "below", "open")
    return figures.Row(
        said(verdict),
        scale.factor * (arm.values - center),
        scale.factor * found.mean,
        scale.factor * np.array([found.low, found.high]),
        np.full(arm.lost, scale.factor * (guess - center)),
        whole,
    )


def image_errors(section: Section, right, scale: Scale, images: int | None) -> dict[judge.Comparison, str]:
    """The standard error of each comparison from the test images, formatted.

    It is computed from predictions image by image, if all runs of both arms recorded them. Otherwise it is an upper
    bound, marked "at most": that of two networks whose errors are independent, which those of one task are not.

    Args:
        section: what is judged.
        right: returns for an arm whether its runs classified each image correctly, or None.
        scale: of the scores.
        images: their number, if known.
    """
    found = {}
    for each in section.plan:
        pair = [right(each.arm), right(each.reference)]
        means = [section.arms[name].values for name in (each.arm, each.reference)]
        if all(x is not None for x in pair) and pair[0].shape[1] == pair[1].shape[1]:
            found[each] = f"{scale.factor * statistics.image_error(*pair):.{scale.digits}f}"
        elif images and all(len(values) for values in means):
            shares = [float(values.mean()) for values in means]
            error = math.sqrt(sum(share * (1 - share) for share in shares) / images)
            found[each] = f"at most {scale.factor * error:.{scale.digits}f}"
    return found
