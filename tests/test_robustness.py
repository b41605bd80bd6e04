"""A quick part of `benchmarks/robustness.py`; its docstring says how to run the rest."""

import random

import pytest

from benchmarks import robustness


@pytest.mark.parametrize("attack, count", [(robustness.configs, 60), (robustness.folders, 20)])
def test_generated_input_is_answered_or_refused(attack, count):
    found = attack(count, random.Random(1))
    assert not [kind for kind in found if kind.startswith("failed")], found
    assert len(found) == 2
