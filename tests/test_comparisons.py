"""What a comparison asks, how it chooses rates, its statistics and its words, by themselves."""

import json

import numpy as np
import pytest

from zoo import config
from zoo.comparisons import question, words
from zoo.comparisons.rates import choose
from zoo.reports import judge, statistics
from zoo.reports.score import ACCURACY, POINTS, Score
from zoo.reports.statistics import Ratio


def test_rates_are_chosen_alike_where_they_are_not_told_apart():
    """By hand: both rates of `a` spread by 0.1, so that an error is 0.1 x sqrt(2 / 3) = 0.0816."""
    a = {"1": [0.4, 0.5, 0.6], "2": [0.479, 0.579, 0.679]}
    b = {"1": [0.8, 0.8, 0.8], "2": [0.1, 0.1, 0.1]}
    assert choose({"a": a, "b": b}) == {"a": "1", "b": "1"}
    a["2"] = [0.483, 0.583, 0.683]
    assert choose({"a": a, "b": b}) == {"a": "2", "b": "1"}
    assert choose({"a": {"1": [0.5], "2": [0.51]}, "b": {"1": [0.8], "2": [0.1]}}) == {"a": "2", "b": "1"}
    unstable = {"1": [0.90, 0.91, 0.92], "2": [0.91, 0.92, 0.93], "3": [0.2, 0.95, 0.95], "4": [0.99, 0.99]}
    assert choose({"a": unstable, "b": {"3": [0.9] * 3, "1": [0.1] * 3}}) == {"a": "2", "b": "3"}
    assert choose({"a": {"1": [], "2": []}, "b": {"2": [0.9] * 3, "1": [0.1] * 3}}) == {"a": "2", "b": "2"}


def test_times_are_compared_within_seeds():
    """A machine that becomes three times as slow hides nothing, as both activations of a seed find it so."""
    load = np.array([1, 1, 1.5, 2, 3, 3.0])
    found = statistics.ratio(1.1 * load * [1.01, 0.99, 1, 1.01, 0.99, 1], load, 0.05)
    assert found.value == pytest.approx(1.1, rel=1e-3) and 1.08 < found.low < 1.1 < found.high < 1.12 and found.is_known
    assert not statistics.ratio(np.array([1, 2, 1, 2, 1, 2.0]), np.array([2, 1, 2, 1, 2, 1.0]), 0.05).is_known
    few = statistics.ratio(np.full(5, 1.5), np.ones(5), 0.05)  # 2 / 2^5 > 0.05
    assert not few.is_known and str(few) == "1.50"


def test_seeds_that_a_difference_needs():
    """Cohen (1988), table 2.4.1: two-tailed, 5 %, power 0.8."""
    assert [statistics.seeds_to_see(effect, 0.05) for effect in (0.5, 0.8, 1.0, 1.2)] == [64, 26, 17, 12]
    assert statistics.power(statistics.visible(9, 0.01), 9, 0.01) == pytest.approx(statistics.POWER)
    assert statistics.seeds_to_see(0.001, 0.05) is None


def verdict(arm, status, mean, low, high, reason=""):
    found = statistics.Difference(mean, low, high, 0.01, 0.009)
    return judge.Verdict(judge.Comparison(arm, "relu"), status, reason, found, None, 0.01)


def test_less_can_be_better():
    error = Score("rmse", False, POINTS._replace(factor=1, unit="K"), "RMSE")
    found = [verdict("a", "below", -0.5, -0.75, -0.25), verdict("b", "above", 1, 0.5, 2)]
    said = words.sentence(found, error, 9, {"a": Ratio(1.1, 1.04, 1.16), "b": Ratio(1.2, 0.9, 1.5)})
    assert said == (
        "a improves RMSE over relu on your data by 0.50 K, 95 % interval 0.25 to 0.75, at 1.10 times the training "
        "time (1.04 to 1.16); b worsens RMSE by 1.00 K, 95 % interval 0.50 to 2.00."
    )


def test_nothing_is_seen():
    said = words.sentence(
        [verdict("a", "open", 0.001, -0.01, 0.01), verdict("b", "open", 0, -0.01, 0.01)], ACCURACY, 9, {}
    )
    assert said == (
        "No activation shows a difference in accuracy from relu on your data that 9 seeds could see: one of 0.90 "
        "points would have been found with a probability of 80 %."
    )


@pytest.mark.parametrize(
    "own, labels",
    [
        ({"name": "relu"}, ["relu", "arelu", "prelu", "swish", "method1"]),
        ({"name": "tanh"}, ["tanh", "atanh", "prelu", "swish", "method1"]),
        ({"name": "gelu"}, ["gelu", "adaptive gelu", "prelu", "swish", "method1"]),
        ({"name": "method1"}, ["relu", "method1", "arelu", "prelu", "swish"]),
        ([{"sites": "*", "name": "tanh"}], ["relu", "configured", "arelu", "prelu", "swish", "method1"]),
    ],
)
def test_what_is_compared_by_default(own, labels, tmp_path):
    (tmp_path / "my.json").write_text(json.dumps({"activation": own}))
    asked = question.ask(config.load(tmp_path / "my.json"))
    assert list(asked.activations) == labels
    assert asked.rates == [0.005, 0.0158, 0.05, 0.158, 0.5] and asked.rate_seeds == [0, 1, 2]
    assert asked.seeds == list(range(3, 13))
