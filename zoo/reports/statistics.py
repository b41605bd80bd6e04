"""Exact permutation tests and their intervals, Holm's correction, and measures over several networks.

NumPy and SciPy alone; `zoo/reports/judge.py` has the reasons and sources.
"""

import bisect
import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

POWER = 0.8
ARRANGEMENTS, DRAWN = 200_000, 99_999
SIMULATED = 200  # experiments without an effect, for the smallest detectable difference
RESAMPLED = 2_000


class Difference(NamedTuple):
    """The difference of two means: a simultaneous interval, the uncorrected p-value, and the detectable difference."""

    mean: float
    low: float
    high: float
    p: float
    detectable: float


def difference(x: np.ndarray, y: np.ndarray, level: float, paired: bool = False) -> Difference:
    """The difference of two means, with an interval at 1 - level; `paired` values are in the same order."""
    low, high, p = _inverted(x, y, level, paired)
    detectable = spread(x, y, paired) * _detectable(len(x), len(y), level, paired)
    return Difference(float(x.mean() - y.mean()), low, high, p, detectable)


class Ratio(NamedTuple):
    """How many times as large values of pairs are, by geometric mean, and an interval."""

    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether the interval has no 1 in it."""
        return not self.low <= 1 <= self.high

    def __str__(self) -> str:
        return f"{self.value:.2f}" + (f" [{self.low:.2f}, {self.high:.2f}]" if self.low < self.high < math.inf else "")


def ratio(x: np.ndarray, y: np.ndarray, level: float) -> Ratio:
    """Of paired positive values, with an interval at 1 - level by flipped signs of their logarithms."""
    logarithms = np.log(x) - np.log(y)
    low, high, _ = _inverted(logarithms, np.zeros(len(x)), level, paired=True)
    return Ratio(*(float(np.exp(each)) for each in (logarithms.mean(), low, high)))


def smallest_p(n: int, m: int, paired: bool = False) -> float:
    """The smallest two-sided p of the exact test."""
    return min(1.0, 2 / (2**n if paired else math.comb(n + m, n)))


def spread(x: np.ndarray, y: np.ndarray, paired: bool) -> float:
    """The pooled standard deviation; for pairs, that of their differences."""
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
    """Other assignments of scores to two arms, as weights (ways, n + m) whose product with the scores is
    mean(S) - mean(T); and the number of assignments that change nothing."""
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
    """The difference that is detected with probability `POWER`, in standard deviations."""
    random = np.random.default_rng(0)
    lows = [
        _inverted(random.normal(size=n), np.zeros(n) if paired else random.normal(size=m), level, paired)[0]
        for _ in range(SIMULATED)
    ]
    return -float(np.quantile(lows, 1 - POWER, method="lower"))


def power(effect: float, seeds: int, level: float) -> float:
    """The probability that a t-test of two arms of so many seeds finds a true difference, in standard deviations.

    With more seeds than a few the permutation test has the same, and no arrangements need be counted.
    """
    free = 2 * seeds - 2
    return float(stats.nct.sf(stats.t.isf(level / 2, free), free, effect * math.sqrt(seeds / 2)))


def visible(seeds: int, level: float) -> float:
    """The true difference that this test finds with a probability of `POWER`, in standard deviations."""
    return float(optimize.brentq(lambda effect: power(effect, seeds, level) - POWER, 0, 100))


def seeds_to_see(effect: float, level: float, most: int = 10_000) -> int | None:
    """The least number of seeds with which it finds a difference so often; None above `most`."""
    if power(effect, most, level) < POWER:
        return None
    return 2 + bisect.bisect_left(range(2, most), True, key=lambda seeds: power(effect, seeds, level) >= POWER)


def holm(probabilities: Sequence[float]) -> list[float]:
    """P-values corrected by Holm's step-down method (1979), in the order given.

    The smallest of k is multiplied by k, the next by k - 1 and so on; none becomes smaller than one before it, or
    larger than 1.
    """
    order = np.argsort(probabilities)
    count = len(order)
    corrected = np.empty(count)
    corrected[order] = np.maximum.accumulate(np.asarray(probabilities)[order] * np.arange(count, 0, -1))
    return np.minimum(corrected, 1.0).tolist()


def rate(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a rate after `count` events in `of` trials (Clopper and Pearson, 1934)."""
    found = stats.binomtest(count, of).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


class Estimate(NamedTuple):
    """A statistic over networks, with a 95 % interval by a bootstrap of the seeds of each network."""

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
    """Mean ranks of arms over networks, from mean scores (networks, arms); 1 is best, ties share (Demsar 2006)."""
    return stats.rankdata(-scores, axis=1).mean(axis=0)


def image_error(first: np.ndarray, second: np.ndarray) -> float:
    """The standard error that a difference of two accuracies has from the test images: whether each run of two arms was
    right on each of the same images, bool (runs, images)."""
    each = first.mean(axis=0) - second.mean(axis=0)
    return float(np.std(each, ddof=1) / math.sqrt(len(each)))
