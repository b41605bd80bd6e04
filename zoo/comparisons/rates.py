"""At which learning rate each activation is judged."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median, stdev

Tried = Mapping[str, Mapping[str, Sequence[float]]]  # scores of runs that finished, by activation and rate


def choose(tried: Tried) -> dict[str, str]:
    """The rate of each activation: of those that are as good as its best one, that which most activations share.

    Rates are as good as the best where their means lie within one standard error of the difference (Breiman et al.,
    1984, choose trees so), by the median of the spreads that the runs of a rate have. The mean of a few runs can't tell
    such rates apart, and two activations at different rates differ by more than the activation. One run a rate has no
    spread: each activation then has its best rate.

    ```python
    runs = {"relu": {"0.01": [0.80, 0.82], "0.1": [0.81, 0.82]}, "swish": {"0.01": [0.85, 0.86], "0.1": [0.70, 0.72]}}
    choose(runs)  # {"relu": "0.01", "swish": "0.01"}
    ```

    Args:
        tried: scores on validation data, more is better. Rates that lost runs have fewer, and come behind the others.
    """
    behind = {name: _as_good(values) for name, values in tried.items()}
    shared = Counter(rate for rates in behind.values() for rate in rates)
    regret = {rate: fmean(rates[rate] for rates in behind.values() if rate in rates) for rate in shared}
    return {name: min(rates, key=lambda rate: (-shared[rate], regret[rate])) for name, rates in behind.items()}


def _as_good(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The rates that are as good as the best, and how far behind it each is."""
    count = max(map(len, values.values()))
    whole = {rate: scores for rate, scores in values.items() if len(scores) == count}
    if not count:
        return dict.fromkeys(whole, 0.0)
    best = max(map(fmean, whole.values()))
    error = median(map(stdev, whole.values())) * math.sqrt(2 / count) if count > 1 else 0.0
    return {rate: best - fmean(scores) for rate, scores in whole.items() if best - fmean(scores) <= error}
