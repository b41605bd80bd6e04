"""The judge against SciPy, hand-computed cases and the formulas of rliable."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from zoo.reports import judge, statistics
from zoo.reports.judge import Arm, Comparison, Section

SLEEP = (  # Student's sleep data, as in R's manual
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)


def arm(values, planned=None, lost=0, cross_entropy=None):
    return Arm(dict(enumerate(values)), planned or len(values) + lost, lost, cross_entropy)


def difference(x, y, axis=-1):
    return np.mean(x, axis=axis) - np.mean(y, axis=axis)


# The exact test and its intervals


@pytest.mark.parametrize("paired", [False, True], ids=["arms", "pairs"])
@pytest.mark.parametrize("sizes", [(6, 6), (5, 7), (3, 4)], ids=str)
def test_p_is_scipys(sizes, paired):
    random = np.random.default_rng(sum(sizes))
    x, y = random.normal(0.8, 1, sizes[0]), random.normal(0, 2, sizes[0 if paired else 1])
    kind = "samples" if paired else "independent"
    expected = stats.permutation_test((x, y), difference, permutation_type=kind, n_resamples=np.inf, vectorized=True)
    assert judge.compare(arm(x), arm(y), paired=paired).p == pytest.approx(expected.pvalue, abs=1e-9)


def test_p_of_ties_is_scipys():
    """Accuracies on 1,000 images, many of them equal; of whole numbers the sums are exact."""
    random = np.random.default_rng(3)
    for _ in range(10):
        x, y = random.integers(530, 534, 6), random.integers(531, 535, 6)
        expected = stats.permutation_test(
            (x, y), lambda x, y, axis=-1: x.sum(axis), n_resamples=np.inf, vectorized=True
        )
        assert judge.compare(arm(x / 1000), arm(y / 1000)).p == pytest.approx(expected.pvalue, abs=1e-9)


def test_students_sleep_in_pairs():
    """Of 2^10 signs, the sum of the differences is as small as observed for 1 and as large for none other: by hand, all
    differences but one 0 are of one sign, so that p = 2 * 2 / 1024."""
    found = judge.compare(arm(SLEEP[0]), arm(SLEEP[1]), paired=True)
    assert found.mean == pytest.approx(-1.58) and found.p == pytest.approx(4 / 1024)


def test_the_interval_is_the_test_inverted():
    """A shift by anything inside it isn't rejected, by anything outside it is; SciPy says so."""
    random = np.random.default_rng(0)
    x, y = random.normal(1, 1, 6), random.normal(0, 1, 5)
    found = judge.compare(arm(x), arm(y), level=0.1)
    for at, rejected in ((found.low - 1e-6, 1), (found.low + 1e-6, 0), (found.high - 1e-6, 0), (found.high + 1e-6, 1)):
        p = stats.permutation_test((x - at, y), difference, n_resamples=np.inf, vectorized=True).pvalue
        assert (p <= 0.1) == rejected, at
    pairs = judge.compare(arm(x[:5]), arm(y), level=0.2, paired=True)
    for at, rejected in ((pairs.low - 1e-6, 1), (pairs.low + 1e-6, 0), (pairs.high - 1e-6, 0), (pairs.high + 1e-6, 1)):
        d = x[:5] - y - at
        zeros = np.zeros(5)
        p = stats.permutation_test(
            (d, zeros), difference, permutation_type="samples", n_resamples=np.inf, vectorized=True
        ).pvalue
        assert (p <= 0.2) == rejected, at


def test_six_seeds_by_hand():
    """At 0.05 / 18 only complete separation is rejected: 1 / 924 <= 0.00139 < 2 / 924."""
    x, y = np.arange(6.0) + 20, np.arange(6.0)
    found = judge.compare(arm(x), arm(y), level=0.05 / 18)
    assert (found.low, found.high) == (20 - 5, 25 - 0)
    assert found.p == pytest.approx(2 / 924) == statistics.smallest_p(6, 6)
    assert judge.compare(arm(x), arm(y), level=0.05 / 24).low == -math.inf


def test_many_seeds_are_drawn():
    random = np.random.default_rng(0)
    x, y = random.normal(0.5, 1, 12), random.normal(0, 1, 12)
    found = judge.compare(arm(x), arm(y))
    student = stats.ttest_ind(x, y)
    assert found.p == pytest.approx(student.pvalue, abs=0.02)
    assert (found.low, found.high) == pytest.approx(tuple(student.confidence_interval(0.95)), abs=0.1)


def test_the_detectable_difference_is_found_that_often():
    random = np.random.default_rng(1)
    found = [judge.compare(arm(random.normal(0, 1, 6)), arm(random.normal(0, 1, 6))) for _ in range(300)]
    size = statistics._detectable(6, 6, 0.05, False)
    assert np.mean([each.low > -size for each in found]) == pytest.approx(statistics.POWER, abs=0.08)
    x, y = np.array([0.0, 1, 2, 3, 4, 5]), np.array([0.0, 2, 4, 6, 8, 10])
    pooled = math.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2)
    assert judge.compare(arm(x), arm(y)).detectable == pytest.approx(size * pooled)


def test_holm():
    """The example in Holm's method on Wikipedia, and one with values cut at 1."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.6]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_rates_are_clopper_and_pearsons():
    """By the quantiles of the beta distribution."""
    assert statistics.rate(4, 6) == pytest.approx((stats.beta.ppf(0.025, 4, 3), stats.beta.ppf(0.975, 5, 2)), abs=1e-6)
    assert statistics.rate(0, 6) == pytest.approx((0, 1 - 0.025 ** (1 / 6)), abs=1e-9)


# Verdicts


PLAN = (Comparison("tanh", "relu", True), Comparison("atanh", "relu"))


def sections(**arms):
    noise = np.array([0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
    made = {"relu": arm(0.5 + noise), "tanh": arm(0.6 + noise), "atanh": arm(0.51 + noise)} | arms
    return {"net": Section(made, PLAN, "relu", classes=10)}


def statuses(made):
    return {verdict.comparison.arm: verdict.status for verdict in judge.judge(made)["net"]}


def test_the_plan_is_the_family():
    (tanh, atanh) = judge.judge(sections())["net"]
    assert (tanh.status, atanh.status) == ("above", "open")
    assert tanh.p == pytest.approx(2 * 2 / 924)
    assert (tanh.found.low, tanh.found.high) == judge.compare(
        arm([0.6, 0.61, 0.62, 0.63, 0.64, 0.65]), arm([0.5, 0.51, 0.52, 0.53, 0.54, 0.55]), 0.025
    )[1:3]


def test_a_diverged_arm_stays_in_the_family():
    """Its p is 1: that of another doesn't fall by its failing."""
    whole = judge.judge(sections())["net"][0].p
    (tanh, atanh) = judge.judge(sections(atanh=arm([], 6, 6)))["net"]
    assert tanh.p == whole and (atanh.status, atanh.p, atanh.found) == ("lost", 1.0, None)
    assert atanh.reason == "atanh lost 6 of 6"


def test_a_lost_run_gives_no_verdict_but_scores_as_a_guess_beside():
    tanh = judge.judge(sections(tanh=arm([0.9, 0.91], 6, 4)))["net"][0]
    assert (tanh.status, tanh.reason) == ("lost", "tanh lost 4 of 6")
    assert tanh.found.mean == pytest.approx(0.905 - 0.525)
    assert tanh.guessed.mean == pytest.approx((0.9 + 0.91 + 4 * 0.1) / 6 - 0.525)
    assert tanh.guessed.p > 0.05
    assert set(statuses(sections(relu=arm([0.5] * 5, 6, 1))).values()) == {"lost"}  # the baseline's run


def test_runs_that_are_not_there_give_no_verdict():
    made = sections(relu=arm([0.50, 0.51, 0.52], 6))
    assert statuses(made) == {"tanh": "incomplete", "atanh": "incomplete"}
    assert judge.judge(made)["net"][0].reason == "relu has 3 of 6 runs"


@pytest.mark.parametrize(
    "relu, reason",
    {
        "few": (arm([0.5, 0.51]), "2 seeds of relu, too few for 2 planned comparisons; 5 would do"),
        "chance": (arm([0.1025] * 6), "relu reaches 10.25 %, near the 10.00 % of a guess"),
        "no skill": (arm([0.0312] * 6), "relu reaches R² 0.0312, near the 0 of a guess"),
        "nats": (arm([0.5] * 6, None, 0, 2.45), "cross-entropy on test images is 2.45, above the ln 10 = 2.303 of"),
    }.values(),
)  # fmt: skip
def test_gates(relu, reason):
    made = sections(relu=relu)
    if "R²" in reason:
        made["net"] = replace(made["net"], classes=None, r2=True)
    assert set(statuses(made).values()) == {"void"}
    assert reason in judge.judge(made)["net"][0].reason and any(reason in why for why in judge.void(made["net"], 2))


def test_pairs_are_of_seeds_that_both_arms_have():
    """Three of six are shared: too few to tell anything, and said so; without any there is no difference."""
    for first, shared in ((3, 3), (6, 0)):
        arms = {
            name: judge.Arm({seed: 0.5 + 0.1 * (name == "b") + seed / 1000 for seed in range(start, start + 6)}, 6)
            for name, start in {"a": 0, "b": first}.items()
        }
        section = judge.Section(arms, [judge.Comparison("b", "a")], "a", 10, paired=True)
        (verdict,) = judge.judge({"": section})[""]
        assert (verdict.status, verdict.p) == ("incomplete", 1.0)
        assert verdict.reason == f"b and a share {shared} of {6 + first} seeds"


def test_five_seeds_are_too_few_for_a_large_plan():
    """2 / C(10, 5) = 0.0079, times 7 above 0.05; with six seeds 2 / 924 times 23 is 0.0498."""
    assert [judge.enough(family) for family in (1, 6, 7, 23, 24)] == [5, 5, 6, 6, 7]
    assert judge.enough(1, paired=True) == 6  # 2 / 2^6 = 0.031


def test_what_is_confounded_gets_no_verdict():
    made = sections()["net"]
    made = Section(made.arms, made.plan, "relu", 10, confounded={made.plan[0]: "13 trials and 8"})
    (tanh, _) = judge.judge({"net": made})["net"]
    assert (tanh.status, tanh.reason, tanh.p) == ("confounded", "13 trials and 8", 1.0)


# Over networks


def test_the_interquartile_mean_by_hand():
    """rliable's `aggregate_iqm`: the mean of the middle half of all runs of all tasks."""
    scores = [np.array([0.1, 0.9, 0.5, 0.6]), np.array([0.2, 0.8, 0.7, 0.3])]
    found = statistics.interquartile_mean(scores)
    assert found.value == pytest.approx((0.3 + 0.5 + 0.6 + 0.7) / 4)
    assert found.low < found.value < found.high


def test_the_probability_of_improvement_is_mann_whitneys():
    random = np.random.default_rng(0)
    first, second = ([random.integers(0, 8, 6).astype(float) for _ in range(3)] for _ in range(2))
    expected = [stats.mannwhitneyu(x, y).statistic / 36 for x, y in zip(first, second, strict=True)]
    assert statistics.improvement(first, second).value == pytest.approx(np.mean(expected))


def test_average_ranks_by_hand():
    assert statistics.average_ranks(np.array([[0.9, 0.8, 0.7], [0.5, 0.6, 0.5]])) == pytest.approx([1.75, 1.5, 2.75])


def test_the_error_of_the_images_by_hand():
    """Two runs on four images: the arms differ by 0.5, 0, 0 and 0 on them, whose deviation is 0.25."""
    first, second = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], bool), np.array([[1, 1, 0, 0], [0, 1, 0, 0]], bool)
    assert statistics.image_error(first, second) == pytest.approx(0.25 / 2)
