"""Whether a difference between arms of an experiment may be believed. NumPy and SciPy alone.

An *arm* is a treatment with one score for each of its seeds, a *section* the arms that are compared with each other, a
*plan* the comparisons that were named before the runs. `judge` gives each planned comparison a verdict. Its choices:

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
  0.05; a reference near chance (less than a tenth of the way from a guess to a perfect score); or one whose
  cross-entropy is above that of a guess, ln K.
* **Confounded** comparisons, of arms that had unequal effort or differ in more than the treatment, get no verdict.
* **Over several networks**: the interquartile mean with a stratified bootstrap and the probability of improvement
  (Agarwal et al. 2021, as their library rliable has them), and average ranks (Demsar, JMLR 2006). They describe; with
  a handful of networks they test nothing.
* **Test images are a sample, too** (Jordan 2023): `image_error` is the standard error that a difference has from them.
  Intervals are over seeds, for the test images as they are.
"""

import functools
import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05
POWER = 0.8
LEAST = 5  # seeds an arm
SKILL = 0.1  # of the way from a guess to a perfect score
ARRANGEMENTS, DRAWN = 200_000, 99_999
SIMULATED = 200  # experiments without an effect, for the smallest detectable difference
RESAMPLED = 2_000


@dataclass(frozen=True)
class Arm:
    """The runs of one treatment: the scores of those that finished by seed, and how many there were to be."""

    scores: Mapping[Hashable, float]
    planned: int
    lost: int = 0
    cross_entropy: float | None = None

    @property
    def values(self) -> np.ndarray:
        return np.array(list(self.scores.values()), "float64")

    def scored_as(self, guess: float) -> "Arm":
        """The same arm where each lost run scores as a guess."""
        filled: dict[Hashable, float] = {("lost", i): guess for i in range(self.lost)}
        return Arm(filled | dict(self.scores), self.planned)


class Comparison(NamedTuple):
    """Of an arm with a reference, planned before the runs."""

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
        classes: how many a guess chooses from; None where a score isn't an accuracy.
        paired: whether seeds pair the runs of two arms by design.
        confounded: why a comparison isn't one of the treatments alone.
    """

    arms: Mapping[str, Arm]
    plan: Sequence[Comparison]
    baseline: str
    classes: int | None = None
    paired: bool = False
    confounded: Mapping[Comparison, str] = field(default_factory=dict)


class Difference(NamedTuple):
    """Of two means: a simultaneous interval, the p-value uncorrected, and what could have been detected."""

    mean: float
    low: float
    high: float
    p: float
    detectable: float


@dataclass(frozen=True)
class Verdict:
    """On a planned comparison.

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
    """Why a comparison gets no verdict ("" where it gets one), its difference, and the one with losses as guesses."""
    arm, reference = section.arms[comparison.arm], section.arms[comparison.reference]
    found, guessed = compare(arm, reference, level, section.paired), None
    if section.classes and (arm.lost or reference.lost):
        guess = 1 / section.classes
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
        ],
        "confounded": [section.confounded[comparison]] if comparison in section.confounded else [],
    }
    status = next((status for status, why in reasons.items() if why), "")
    return status, "; ".join(reasons.get(status, ())), found, guessed


def void(section: Section, family: int) -> list[str]:
    """Why nothing in a section can be judged; empty where something can."""
    return gates(section, section.baseline, family)


def gates(section: Section, name: str, family: int) -> list[str]:
    """Why nothing can be judged by an arm."""
    arm = section.arms.get(name)
    if arm is None:
        return [f"there is no arm {name}"]
    reasons = _few(section, name, family)
    if section.classes and len(arm.scores):
        guess, accuracy = 1 / section.classes, float(arm.values.mean())
        if accuracy < guess + SKILL * (1 - guess):
            reasons.append(f"{name} reaches {100 * accuracy:.2f} %, near the {100 * guess:.2f} % of a guess")
        if arm.cross_entropy is not None and arm.cross_entropy > math.log(section.classes):
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


def smallest_p(n: int, m: int, paired: bool = False) -> float:
    """The smallest two-sided p that the exact test can give."""
    return min(1.0, 2 / (2**n if paired else math.comb(n + m, n)))


def enough(family: int, paired: bool = False) -> int:
    """The least number of seeds an arm with which the exact test can reject one of so many planned comparisons."""
    return next(n for n in itertools.count(LEAST) if smallest_p(n, n, paired) * family <= LEVEL)


def compare(arm: Arm, reference: Arm, level: float = LEVEL, paired: bool = False) -> Difference | None:
    """The difference of two arms' means, with an interval at 1 - level; None where either has no score."""
    x, y = arm.values, reference.values
    if paired:
        shared = [seed for seed in arm.scores if seed in reference.scores]
        x, y = (np.array([each.scores[seed] for seed in shared]) for each in (arm, reference))
    if not len(x) or not len(y):
        return None
    low, high, p = _inverted(x, y, level, paired)
    return Difference(
        float(x.mean() - y.mean()), low, high, p, _spread(x, y, paired) * _detectable(len(x), len(y), level, paired)
    )


def _spread(x: np.ndarray, y: np.ndarray, paired: bool) -> float:
    """The pooled standard deviation; of pairs, that of their differences."""
    if paired:
        return float(np.std(x - y, ddof=1)) if len(x) > 1 else math.nan
    free = len(x) + len(y) - 2
    return math.sqrt((np.var(x) * len(x) + np.var(y) * len(y)) / free) if free else math.nan


def _inverted(x: np.ndarray, y: np.ndarray, level: float, paired: bool) -> tuple[float, float, float]:
    """The ends of the interval at 1 - level, and the two-sided p: twice the smaller one-sided one, as SciPy's.

    An arrangement that swaps the scores S of x with the scores T of y gives no smaller difference than the one observed
    where x is shifted down by mean(S) - mean(T) or more. So one-sided p-values count these shifts, and the ends of the
    interval are two of them; flipped signs of paired differences give means of subsets in the same way.
    """
    swaps, same = _flips(len(x)) if paired else _swaps(len(x), len(y))
    values = x - y if paired else np.concatenate([x, y])
    shifts = swaps @ values
    count, tie = len(shifts) + same, 1e-12 * np.abs(values).max(initial=0.0)
    one_sided = min(same + np.sum(shifts <= tie), same + np.sum(shifts >= -tie)) / count
    rank = math.floor(level / 2 * count + 1e-9) - same  # of the last shift that is still rejected, from 0
    if rank < 0:
        return -math.inf, math.inf, min(1.0, 2 * float(one_sided))
    ordered = np.partition(shifts, [rank, len(shifts) - 1 - rank])
    return float(ordered[rank]), float(ordered[len(shifts) - 1 - rank]), min(1.0, 2 * float(one_sided))


@functools.lru_cache(maxsize=4)
def _swaps(n: int, m: int) -> tuple[np.ndarray, int]:
    """How scores can be dealt to two arms otherwise than they were, as weights (ways, n + m) whose product with the
    scores is mean(S) - mean(T); and how many ways leave them as they were."""
    if math.comb(n + m, n) <= ARRANGEMENTS:
        chosen = np.array(list(itertools.combinations(range(n + m), n)))
    else:
        drawn = np.random.default_rng(0).permuted(np.tile(np.arange(n + m), (DRAWN, 1)), axis=1)[:, :n]
        chosen = np.concatenate([np.arange(n)[None], drawn])
    first = np.zeros((len(chosen), n + m), bool)
    np.put_along_axis(first, chosen, True, axis=1)
    moved = first != (np.arange(n + m) < n)
    return _weights(moved, moved[:, :n].sum(axis=1), np.where(np.arange(n + m) < n, 1.0, -1.0))


@functools.lru_cache(maxsize=4)
def _flips(n: int) -> tuple[np.ndarray, int]:
    """The same for signs of paired differences."""
    if 2**n <= ARRANGEMENTS:
        flipped = (np.arange(2**n)[:, None] >> np.arange(n)) % 2 == 1
    else:
        drawn = np.random.default_rng(0).integers(0, 2, (DRAWN, n)) == 1
        flipped = np.concatenate([np.zeros((1, n), bool), drawn])
    return _weights(flipped, flipped.sum(axis=1), np.ones(n))


def _weights(moved: np.ndarray, count: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, int]:
    other = count > 0
    return moved[other] * signs / count[other, None], int(np.sum(~other))


@functools.lru_cache
def _detectable(n: int, m: int, level: float, paired: bool) -> float:
    """The difference that is found with a probability of `POWER`, in standard deviations."""
    random = np.random.default_rng(0)
    lows = [
        _inverted(random.normal(size=n), np.zeros(n) if paired else random.normal(size=m), level, paired)[0]
        for _ in range(SIMULATED)
    ]
    return -float(np.quantile(lows, 1 - POWER, method="lower"))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Probabilities corrected for their number by Holm's step-down method (1979), in the order given.

    The smallest of k is multiplied by k, the next by k - 1 and so on; none becomes smaller than one before it, or
    larger than 1.
    """
    order = np.argsort(probabilities)
    count = len(order)
    corrected = np.empty(count)
    corrected[order] = np.maximum.accumulate(np.asarray(probabilities)[order] * np.arange(count, 0, -1))
    return np.minimum(corrected, 1.0).tolist()


def rate(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a rate of which `count` of so many were seen (Clopper and Pearson, 1934)."""
    found = stats.binomtest(count, of).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


class Estimate(NamedTuple):
    """A number over networks, with a 95 % interval by a bootstrap of the seeds of each network."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: Sequence[np.ndarray]) -> Estimate:
    """The mean of the middle half of an arm's scores on several networks, one array each."""
    return _bootstrapped(lambda drawn: float(stats.trim_mean(np.concatenate(drawn), 0.25)), scores)


def improvement(scores: Sequence[np.ndarray], baseline: Sequence[np.ndarray]) -> Estimate:
    """The probability that a run of one arm scores higher than one of another on the same network; a tie is half."""

    def mean(drawn: Sequence[np.ndarray]) -> float:
        pairs = zip(drawn[: len(scores)], drawn[len(scores) :], strict=True)
        return float(np.mean([(np.sign(x[:, None] - y).mean() + 1) / 2 for x, y in pairs]))

    return _bootstrapped(mean, [*scores, *baseline])


def _bootstrapped(statistic, strata: Sequence[np.ndarray]) -> Estimate:
    random = np.random.default_rng(0)
    drawn = [statistic([random.choice(each, len(each)) for each in strata]) for _ in range(RESAMPLED)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(statistic(strata), float(low), float(high))


def average_ranks(scores: np.ndarray) -> np.ndarray:
    """Of arms over networks, 1 the best, from mean scores (networks, arms); ties share theirs (Demsar 2006)."""
    return stats.rankdata(-scores, axis=1).mean(axis=0)


def image_error(first: np.ndarray, second: np.ndarray) -> float:
    """The standard error that a difference of two accuracies has from the test images: whether each run of two arms was
    right on each of the same images, bool (runs, images)."""
    each = first.mean(axis=0) - second.mean(axis=0)
    return float(np.std(each, ddof=1) / math.sqrt(len(each)))
