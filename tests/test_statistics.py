"""Statistics against published numbers."""

import numpy as np
import pytest

from zoo import statistics


def test_difference_is_welchs():
    """R's manual, `t.test(extra ~ group, data = sleep)`: Student's sleep data."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = statistics.difference(first, second)
    assert found == pytest.approx((0.75 - 2.33, -3.3654832, 0.2054832, 0.07939), rel=1e-4)


def test_paired_differences_are_students():
    """R's manual, `t.test(extra ~ group, data = sleep, paired = TRUE)`: the same ten patients."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    assert statistics.paired(first, second) == pytest.approx((-1.58, -2.4598858, -0.7001142, 0.002833), rel=1e-4)
    assert statistics.paired([1.0, 2.0], [0.0, 1.0]) is None
    assert statistics.paired([1.0], [0.0]) is None


def test_a_difference_needs_values_that_vary():
    assert statistics.difference([1.0], [0.0, 1.0]) is None
    assert statistics.difference([1.0, 1.0], [0.0, 0.0]) is None
    assert statistics.difference([1.0, 1.0], [0.0, 0.5]) is not None


def test_holm():
    """The example in Holm's method on Wikipedia, and one with values cut at 1."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.6]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_how_fast_a_loss_falls():
    loss = np.array([3.0, 1.0, 1.5])
    assert statistics.area(loss) == pytest.approx(2.0 + 1.25)
    assert statistics.epochs_to_reach(loss, 1.6) == 2
    assert statistics.epochs_to_reach(loss, 0.5) is None
