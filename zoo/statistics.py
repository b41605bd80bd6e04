"""What repeated runs say: differences with intervals, corrected for how many there are, and how fast a loss falls."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import integrate, stats


class Difference(NamedTuple):
    """Of two means, with a 95 % interval and the probability of one as large by chance."""

    mean: float
    low: float
    high: float
    p: float


def difference(sample: Sequence[float], baseline: Sequence[float]) -> Difference | None:
    """The mean of one sample minus that of another, by Welch's t-test, which takes no equal variances.

    None where either has fewer than two values, or neither varies: there is nothing to judge a difference by.
    """
    x, y = np.asarray(sample), np.asarray(baseline)
    if min(len(x), len(y)) < 2 or (np.ptp(x) == 0 and np.ptp(y) == 0):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a sample whose values are equal, which is no mistake
        found = stats.ttest_ind(x, y, equal_var=False)
    low, high = found.confidence_interval(0.95)
    return Difference(float(x.mean() - y.mean()), float(low), float(high), float(found.pvalue))


def paired(sample: Sequence[float], baseline: Sequence[float]) -> Difference | None:
    """The mean difference of two samples taken in pairs, by Student's t-test of the differences.

    None where there are fewer than two pairs, or all differ by the same: there is nothing to judge it by.
    """
    differences = np.asarray(sample) - np.asarray(baseline)
    if len(differences) < 2 or np.ptp(differences) == 0:
        return None
    found = stats.ttest_rel(sample, baseline)
    low, high = found.confidence_interval(0.95)
    return Difference(float(differences.mean()), float(low), float(high), float(found.pvalue))


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


def area(loss: np.ndarray) -> float:
    """Area under a curve of one value an epoch, by trapezoids of width 1; 0 for a single epoch."""
    return float(integrate.trapezoid(loss))


def epochs_to_reach(loss: np.ndarray, level: float) -> int | None:
    """The first epoch, counted from 1, whose loss is at `level` or below; None where none is."""
    return next((epoch for epoch, value in enumerate(loss, start=1) if value <= level), None)
