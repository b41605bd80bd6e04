"""What a run with each activation takes: tried for a few seconds each, which also finds what can't be trained."""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from zoo import config, signals
from zoo.comparisons.question import Question, Spec
from zoo.errors import UserError
from zoo.process import supervise
from zoo.training.progress import Cost

ERROR = "error: "  # before what a command finds wrong


def check(path: Path, overrides: Sequence[str], question: Question) -> None:
    """
    Raises:
        ConfigError: for an activation with a field or a value that no config may have.
    """
    for label, spec in question.activations.items():
        config.load(path, _with(overrides, spec), f"--activations {label}:")


def measure(
    path: Path, overrides: Sequence[str], question: Question, data_dir: Path | None, show: Callable[[str], None]
) -> dict[str, Cost]:
    """A run's cost by activation, each found in a process of its own, which leaves no memory in use.

    Args:
        path: of the config.
        overrides: of its fields.
        question: whose activations are tried.
        data_dir: where CIFAR-10 lies.
        show: called with a line for each activation.

    Raises:
        UserError: for one that can't be trained; what its process said before that is on stderr.
    """
    found: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as place:
        for label, spec in question.activations.items():
            words = ["--dry-run", "--set", *_with(overrides, spec)]
            words += ["--data-dir", str(data_dir)] if data_dir else []
            log = Path(place) / f"{len(found)}.txt"
            lines: list[str] = []
            last, code = supervise([sys.executable, "-m", "zoo.train", str(path), *words], log, lines.append)
            if code in (signals.STOPPED, signals.INTERRUPTED):
                raise signals.Stop
            cost = next(filter(None, map(Cost.read, reversed(lines))), None)
            if code or cost is None:
                raise UserError(f"{label}: {_why(log) or last or f'ended with status {code}'}")
            found[label] = cost
            show(f"{label}: {cost.start:.1f} s to start, {cost.epoch:.3g} s an epoch")
    return found


def _with(overrides: Sequence[str], spec: Spec) -> list[str]:
    kept = [each for each in overrides if each.partition("=")[0] != "activation"]
    return [*kept, f"activation={json.dumps(spec)}"]


def _why(log: Path) -> str:
    """The line that says what was wrong; prints the others, such as a traceback of its user's own code."""
    lines = log.read_text(encoding="utf-8").rstrip().splitlines()
    said = next((line for line in reversed(lines) if line.startswith(ERROR)), "")
    for line in lines:
        if line != said:
            print(line, file=sys.stderr)
    return said.removeprefix(ERROR)
