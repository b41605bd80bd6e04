"""Random models, replaced and folded: `tests/fuzz.py` in processes of its own, as it sets what Keras computes in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GRAPHS, PARTS = 20, 2  # as many as CI has cores


@pytest.mark.parametrize("part", range(PARTS))
def test_random_models(part):
    command = [sys.executable, str(Path(__file__).parent / "fuzz.py")]
    numbers = ["--graphs", str(GRAPHS // PARTS), "--seed", str(GRAPHS // PARTS * part)]
    ran = subprocess.run([*command, *numbers], env=os.environ | {"JAX_ENABLE_X64": "1"}, capture_output=True, text=True)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr[-3000:]}"
