"""A quick part of `benchmarks/robustness.py`; its docstring says how to run the rest."""

import random
from functools import partial

import pytest

from benchmarks import robustness

ATTACKS = {
    "configs": (robustness.configs, 300),
    "commands": (robustness.commands, 6),
    "damages": (partial(robustness.folders, alone=True), 10),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_generated_input_is_answered_or_refused(name):
    attack, count = ATTACKS[name]
    found = attack(count, random.Random(1))
    assert not [kind for kind in found if kind.startswith("failed")], found
    assert len(found) >= 2 or name == "commands"
