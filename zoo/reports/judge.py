"""Decides whether a difference between arms of an experiment is significant.

An *arm* is a treatment with one score for each of its seeds, a *section* the arms that are compared with each other, a
*plan* the comparisons chosen before the runs. `judge` gives each planned comparison a verdict. Its choices:

* **The plan is the family.** Holm's method (1979) corrects the p-values of all planned comparisons of all sections,
  so that a false "beyond chance" anywhere has a probability of 5 % at most. A comparison that can't be judged (an arm
  that diverged, too few seeds) stays in the family with p = 1: a failure elsewhere makes nothing significant.
* **An exact permutation test** of the difference of means: if the treatment changes nothing, each way of dealing the
  scores to the two arms was as likely (Fisher 1935; Bouthillier et al., MLSys 2021, for why seeds are what varies).
  It takes no normal scores, and can't report a p below 2 / C(n + m, n), which with six seeds a side is 0.002.
  Seeds fix initial values and the order of images, but two activations make different networks of them, so arms are
  not paired by seed. A plan that says "paired" (the same folds or subjects for each arm) gets the exact sign-flip
  test. The null hypothesis is that nothing changes, not that the means agree: where spreads differ, it rejects more
  often (`benchmarks/judge.py` measures how often). Above 200,000 arrangements, 99,999 are drawn (seed 0).
* **Intervals by inversion of that test**, each at 1 - 0.05 / k for k planned comparisons (Bonferroni, the adjustment
  that has intervals): all of them hold at once with 95 %. They take a shift: one arm's scores are the other's plus a
  constant.
* **The smallest detectable difference** is the one that this test, at this level and with so many seeds, finds with a
  probability of 80 %, if scores are normal with the pooled standard deviation; by simulation, as the test is discrete.
* **Failures count** (Jordan, 2023, on the variance between runs; Agarwal et al., NeurIPS 2021, on runs left out). Where
  an arm lost a run no verdict is given: survivors are a selection. Beside the survivors' difference stands the one in
  which a lost run scores as a guess. A run that isn't there yet leaves the verdict open as well.
* **Gates**: fewer than 5 seeds an arm, or so few that the smallest possible p times the size of the plan is above
  0.05; a reference near chance (less than a tenth of the way from a guess, which has an accuracy of 1 / K or an R² of
  0, to a perfect score); or one whose cross-entropy is above that of a guess, ln K.
* **Confounded** comparisons, of arms that had unequal effort or differ in more than the treatment, get no verdict.
* **Over several networks**: the interquartile mean with a stratified bootstrap and the probability of improvement
  (Agarwal et al. 2021, as their library rliable has them), and average ranks (Demsar, JMLR 2006). They describe; with
  a handful of networks they test nothing.
* **Test images are a sample, too** (Jordan 2023): `image_error` is the standard error that a difference has from them.
  Intervals are over seeds, for the test images as they are.
"""

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from zoo.reports import statistics
from zoo.reports.statistics import Difference, holm, smallest_p

LEVEL = 0.05
LEAST = 5  # seeds an arm
SKILL = 0.1  # of the way from a guess to a perfect score


@dataclass(frozen=True)
class Arm:
    """The runs of one treatment: scores of finished runs by seed, and the number of planned runs.

    `untuned` says what its tuning lacks; it is empty where that has ended.
    """

    scores: Mapping[Hashable, float]
    planned: int
    lost: int = 0
    cross_entropy: float | None = None
    untuned: str = ""

    @property
    def values(self) -> np.ndarray:
        return np.array(list(self.scores.values()), "float64")

    def scored_as(self, guess: float) -> "Arm":
        """This arm with the score of a guess for each lost run."""
        filled: dict[Hashable, float] = {("lost", i): guess for i in range(self.lost)}
        return Arm(filled | dict(self.scores), self.planned)


class Comparison(NamedTuple):
    """A planned comparison of an arm with a reference."""

    arm: str
    reference: str
    primary: bool = False


@dataclass(frozen=True)
class Section:
    """Arms that are compared with each other.

    Attributes:
        arms: by name.
        plan: the comparisons, the primary one first.
        baseline: the arm whose failure makes all of the section void.
        classes: number of classes; None if scores aren't accuracies.
        r2: whether they are R².
        paired: whether seeds pair the runs of two arms by design.
        confounded: why the arms of a comparison differ in more than the treatment.
    """

    arms: Mapping[str, Arm]
    plan: Sequence[Comparison]
    baseline: str
    classes: int | None = None
    paired: bool = False
    confounded: Mapping[Comparison, str] = field(default_factory=dict)
    r2: bool = False

    @property
    def guess(self) -> float | None:
        """The score of a guess, where it is known."""
        return 1 / self.classes if self.classes else 0.0 if self.r2 else None


@dataclass(frozen=True)
class Verdict:
    """The verdict on a planned comparison.

    Its status is "above", "below" or "open"; or "void", "lost", "incomplete" or "confounded", each with a reason.
    `found` is the difference between the runs that finished, None where there are none; `guessed` the one where lost
    runs score as a guess, where some are lost; `p` is corrected.
    """

    comparison: Comparison
    status: str
    reason: str
    found: Difference | None
    guessed: Difference | None
    p: float


def judge(sections: Mapping[str, Section]) -> dict[str, list[Verdict]]:
    """The verdicts on every planned comparison of every section, corrected for all of them together."""
    family = sum(len(section.plan) for section in sections.values())
    level = LEVEL / max(family, 1)
    raw = [
        (name, each, *_raw(section, each, family, level)) for name, section in sections.items() for each in section.plan
    ]
    corrected = holm([1.0 if status else found.p for _, _, status, _, found, _ in raw])
    verdicts: dict[str, list[Verdict]] = {name: [] for name in sections}
    for (name, comparison, status, reason, found, guessed), p in zip(raw, corrected, strict=True):
        if not status:
            status = "open" if p > LEVEL else "above" if found.mean > 0 else "below"
        verdicts[name].append(Verdict(comparison, status, reason, found, guessed, p))
    return verdicts


def _raw(section: Section, comparison: Comparison, family: int, level: float):
    """Why a comparison has no verdict ("" if it has one), its difference, and the one with lost runs as guesses."""
    arm, reference = section.arms[comparison.arm], section.arms[comparison.reference]
    found, guessed = compare(arm, reference, level, section.paired), None
    if (guess := section.guess) is not None and (arm.lost or reference.lost):
        guessed = compare(arm.scored_as(guess), reference.scored_as(guess), level, paired=False)
    pair = {name: section.arms[name] for name in (comparison.arm, comparison.reference)}
    few = gates(section, comparison.reference, family) + _few(section, comparison.arm, family)
    reasons = {
        "void": void(section, family) or few,
        "lost": [f"{name} lost {each.lost} of {each.planned}" for name, each in pair.items() if each.lost],
        "incomplete": [
            f"{name} has {len(each.scores)} of {each.planned} runs"
            for name, each in pair.items()
            if len(each.scores) < each.planned
        ]
        + [each.untuned for each in pair.values() if each.untuned]
        + (_unpaired(pair) if section.paired else []),
        "confounded": [section.confounded[comparison]] if comparison in section.confounded else [],
    }
    status = next((status for status, why in reasons.items() if why), "")
    return status, "; ".join(reasons.get(status, ())), found, guessed


def _unpaired(pair: Mapping[str, Arm]) -> list[str]:
    """Which seeds of two arms have no partner."""
    one, other = pair.values()
    shared, every = len(one.scores.keys() & other.scores.keys()), len(one.scores.keys() | other.scores.keys())
    return [f"{' and '.join(pair)} share {shared} of {every} seeds"] if shared < every else []


def void(section: Section, family: int) -> list[str]:
    """Why nothing in a section can be judged; empty if something can."""
    return gates(section, section.baseline, family)


def gates(section: Section, name: str, family: int) -> list[str]:
    """Why an arm can't serve as a reference."""
    arm = section.arms.get(name)
    if arm is None:
        return [f"there is no arm {name}"]
    reasons = _few(section, name, family)
    if (guess := section.guess) is not None and len(arm.scores):
        if (mean := float(arm.values.mean())) < guess + SKILL * (1 - guess):
            near = f"R² {mean:.4f}, near the 0" if section.r2 else f"{100 * mean:.2f} %, near the {100 * guess:.2f} %"
            reasons.append(f"{name} reaches {near} of a guess")
        if section.classes and arm.cross_entropy is not None and arm.cross_entropy > math.log(section.classes):
            reasons.append(
                f"{name}'s cross-entropy on test images is {arm.cross_entropy:.2f}, above the ln {section.classes} = "
                f"{math.log(section.classes):.3f} of a guess"
            )
    return reasons


def _few(section: Section, name: str, family: int) -> list[str]:
    planned = section.arms[name].planned
    if planned >= LEAST and smallest_p(planned, planned, section.paired) * family <= LEVEL:
        return []
    said = f"{planned} seed{'s' * (planned != 1)} of {name}"
    return [f"{said}, too few for {family} planned comparisons; {enough(family, section.paired)} would do"]


def enough(family: int, paired: bool = False) -> int:
    """The smallest number of seeds per arm for which the exact test can reject one of `family` comparisons."""
    return next(n for n in itertools.count(LEAST) if smallest_p(n, n, paired) * family <= LEVEL)


def compare(arm: Arm, reference: Arm, level: float = LEVEL, paired: bool = False) -> Difference | None:
    """The difference of two arms' means, with an interval at 1 - level; None if either has no score."""
    x, y = arm.values, reference.values
    if paired:
        shared = [seed for seed in arm.scores if seed in reference.scores]
        x, y = (np.array([each.scores[seed] for seed in shared]) for each in (arm, reference))
    return statistics.difference(x, y, level, paired) if len(x) and len(y) else None


class Scale(NamedTuple):
    """How scores are written: times a factor, with so many digits, in a unit."""

    factor: float
    digits: int
    unit: str

    def __call__(self, value: float) -> str:
        return f"{self.factor * value:+.{self.digits}f}" if math.isfinite(value) else f"{value:+}".replace("inf", "∞")

    def between(self, low: float, high: float) -> str:
        return f"[{self(low)}, {self(high)}]"

    def after(self, between: str = " ") -> str:
        """The unit behind a number, where there is one."""
        return f"{between}{self.unit}" if self.unit else ""

    def plain(self, value: float) -> str:
        """Without the sign of a positive one."""
        return self(value).lstrip("+")


POINTS = Scale(100, 2, "points")


class Score(NamedTuple):
    """A measure of a trained network: `test_accuracy` in metrics.json is "accuracy" on test data.

    Attributes:
        name: of it, after that of a split and an underscore.
        higher: whether more is better.
        scale: of its differences.
        title: its name in words.
    """

    name: str
    higher: bool
    scale: Scale
    title: str

    def of(self, split: str) -> str:
        """Its key in metrics.json."""
        return f"{split}_{self.name}"

    def better(self, status: str) -> bool:
        """Whether a verdict's "above" or "below" is an improvement."""
        return status == ("above" if self.higher else "below")


ACCURACY = Score("accuracy", True, POINTS, "accuracy")
R2 = Scale(1, 4, "")
SCORES = (ACCURACY, Score("r2", True, R2, "R²"))  # the first that runs have measured judges them


def measured(every: Iterable[Mapping[str, Any]]) -> Score:
    """What runs with such metrics are judged by; the first known, where none has measured any."""
    known = list(every)
    splits = ("test", "validation")
    return next((s for s in SCORES if any(s.of(split) in each for each in known for split in splits)), SCORES[0])
