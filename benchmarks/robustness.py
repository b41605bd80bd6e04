"""Attacks on the zoo by generated input, and what came of them, as in benchmarks/results/checks.json.xz:

    python benchmarks/robustness.py --configs 10000 --commands 100 --damages 20 --signals 100 --kills 100 --pairs 10

`configs`: so many mutations of the configs in configs/, as many of the sweeps and of the searches, checked in process.
`commands`: of all of them, given to the commands. `damages`: of each file in the folder of a run, which is then
reported, asked and resumed. Those of processes are in `robustness_processes.py`. A status that isn't one of the
commands', a traceback, a message of more than a line, or a byte lost counts as failed; the exit status is 1 where
anything did.
"""

import argparse
import contextlib
import copy
import io
import json
import math
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from old import OLD

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    10**30,
    2**63,
    1e308,
    -0.5,
    "",
    "x",
    "\x00",
    "\ud800",
    "٣",
    [],
    {},
    [0],
    {"name": 3},
]


def mutate(content: Any, rng: random.Random) -> Any:
    """A copy with one to three places replaced, removed, or added to."""
    found = copy.deepcopy(content)
    for _ in range(rng.randint(1, 3)):
        place, key = found, None
        while isinstance(place, dict | list) and len(place) and (key is None or rng.random() < 0.7):
            parent = place
            key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            place = place[key]
        if key is None:
            return found
        action = rng.random()
        if action < 0.15:
            del parent[key]
        elif action < 0.25 and isinstance(parent, dict):
            parent[key + "x"] = copy.deepcopy(rng.choice(ODD))
        else:
            parent[key] = copy.deepcopy(rng.choice(ODD))
    return found


def _copied(folder: str) -> list[tuple[Path, Callable[[Path], Any]]]:
    """The configs, sweeps and searches of the repository in a folder, and what reads each."""
    from tuner.searches import space
    from zoo import config
    from zoo.sweeps import grid

    place = Path(shutil.copytree(ROOT / "configs", Path(folder, "configs")))
    kinds: list[tuple[str, Callable[[Path], Any]]] = [
        (".", config.load),
        ("sweeps", grid.load),
        ("search", space.load),
    ]
    return [
        (path, read)
        for part, read in kinds
        for path in sorted((place / part).glob("*.json"))
        if path.name not in ("schema.json", "all.json")  # the second only joins others
    ]


def configs(each: int, rng: random.Random) -> Counter:
    """Loads so many mutated configs, sweeps and searches each: all are accepted, or refused in one line."""
    from zoo.errors import UserError

    found: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        every = _copied(folder)
        for path, read in every:
            content = json.loads(path.read_text())
            target = path.with_name(f"mutated-{path.name}")
            for _ in range(math.ceil(each / sum(kind is read for _, kind in every))):
                target.write_text(json.dumps(mutate(content, rng)))
                try:
                    read(target)
                    found["accepted"] += 1
                except UserError as error:
                    found["refused" if len(str(error)) < 2000 else "failed: a long message"] += 1
                except Exception as error:
                    found[f"failed: {type(error).__name__} of {path.name}: {str(error)[:80]}"] += 1
            target.unlink()
    return found


def commands(count: int, rng: random.Random) -> Counter:
    """Gives mutated configs to the commands: `zoo.train`, `zoo.sweep --dry-run` and `tuner.search`, in process.

    What is accepted would train, and is refused at last, as its folder holds a file.
    """
    from tuner import search
    from zoo import config, sweep, train
    from zoo.sweeps import grid

    found: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        every, taken = _copied(folder), Path(folder, "taken")
        taken.mkdir()
        (taken / "mine.txt").write_text("dear")
        for _ in range(count):
            path, read = rng.choice(every)
            target = path.with_name(f"mutated-{path.name}")
            target.write_text(json.dumps(mutate(json.loads(path.read_text()), rng)))
            out = ["--out", str(taken), "--data-dir", str(Path(folder, "no images"))]
            if read is config.load:
                more = ["--set", "dataset.name=cifar10"] if rng.random() < 0.9 else ["--set", "\ud800=3"]
                found[_ended(lambda t=target, m=more, o=out: train.main([str(t), *m, *o]))] += 1
            elif read is grid.load:
                found[_ended(lambda t=target, o=out: sweep.main([str(t), "--dry-run", *o]))] += 1
            else:
                found[_ended(lambda t=target, o=out: search.main([str(t), *o]))] += 1
            target.unlink()
    return found


def _ended(call: Callable[[], int]) -> str:
    """How a command ended: by a status of its own, and one line where that is 2."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = call()
    except SystemExit as error:  # of argparse
        return "refused" if error.code == 2 else f"failed: exit {error.code}"
    except BaseException as error:
        return f"failed: {type(error).__name__}: {str(error)[:120]}"
    lines = [line for line in said.getvalue().splitlines() if "UserWarning" not in line]
    if status == 2 and len([line for line in lines if line.startswith("error: ")]) != 1:
        return f"failed: {len(lines)} lines"
    return {0: "done", 2: "refused", 3: "diverged"}.get(status, f"failed: status {status}")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file cut, emptied, with bytes flipped, or replaced by JSON of another shape."""
    kind = rng.randrange(4)
    if kind == 0:
        return content[: rng.randrange(len(content) + 1)]
    if kind == 1:
        return rng.choice([b"", b"null", b"[]", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"status": NaN}'])
    flipped = bytearray(content)
    for _ in range(rng.randint(1, 8) if content else 0):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def folders(each: int, rng: random.Random, alone: bool = False) -> Counter:
    """Damages each file of a run, and has it reported, asked and resumed: an answer comes of it, or one line.

    With `alone` it is reported only, which takes no backend.
    """
    import keras

    from zoo import train

    found: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(shutil.copytree(OLD / "sweep", Path(folder, "sweep")))
        for part in (sweep, *(sweep / "runs").glob("tiny*")):
            found += _damage(part, each, rng, "a report", lambda run: _reported(sweep))
        if not alone:
            run = Path(shutil.copytree(OLD / "finished", Path(folder, "finished")))
            found += _damage(run, each, rng, "a prediction", _asked)
            cut = OLD / f"cut-{keras.config.backend()}"
            for name in sorted(path.name for path in cut.iterdir()):
                for _ in range(each):
                    run = Path(shutil.copytree(cut, Path(folder, "cut")))
                    (run / name).write_bytes(damaged((run / name).read_bytes(), rng))
                    found[_ended(lambda r=run: train.main(["--resume", str(r)]))] += 1
                    shutil.rmtree(run)
    return found


def _damage(folder: Path, each: int, rng: random.Random, what: str, read: Callable[[Path], Any]) -> Counter:
    found: Counter = Counter()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        content = path.read_bytes()
        for _ in range(each):
            path.write_bytes(damaged(content, rng))
            found[_answer(lambda: read(folder), f"{what} of {path.name}")] += 1
        path.write_bytes(content)
    return found


def _answer(call: Callable[[], Any], what: str) -> str:
    from zoo.errors import UserError

    try:
        call()
        return "read"
    except UserError:
        return "refused"
    except Exception as error:
        return f"failed: {type(error).__name__} in {what}: {str(error)[:80]}"


def _reported(sweep: Path) -> None:
    """All that a report reads of runs, without its pictures."""
    from zoo.reports import provenance, sound
    from zoo.reports.groups import Results

    results = Results(sweep)
    provenance.check(results, True)
    sound.sections(results)
    for run in results.finished:
        run.history("loss")
        run.has_held_weights()


def _asked(run: Path) -> None:
    import numpy as np

    from zoo import runs

    runs.Run(run).predict(np.zeros((1, 32, 32, 3), "uint8"))


def main() -> int:
    from benchmarks import robustness_processes as processes

    attacks: dict[str, Callable[[int, random.Random], Counter]] = {
        "configs": configs,
        "commands": commands,
        "damages": folders,
        "signals": processes.signals,
        "kills": processes.kills,
        "pairs": processes.pairs,
    }
    parser = argparse.ArgumentParser(description="Attack the zoo by generated input.")
    for name, attack in attacks.items():
        said = (attack.__doc__ or "").splitlines()[0]
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help=said)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON that the table is added to")
    arguments = parser.parse_args()
    failed = 0
    for name, attack in attacks.items():
        if count := getattr(arguments, name):
            found = attack(count, random.Random(arguments.seed))
            bad = {kind: n for kind, n in found.items() if kind.startswith("failed")}
            failed += sum(bad.values())
            print(f"| {name} | {found.total()} tried | {sum(bad.values())} failed |", dict(found), flush=True)
            if arguments.out:
                _add(arguments.out, name, count, found)
    return int(failed > 0)


def _add(path: Path, name: str, count: int, found: Counter) -> None:
    import tables

    from zoo.environment import code

    row = {
        "asked": count,
        "tried": found.total(),
        "failed": sum(n for kind, n in found.items() if kind.startswith("failed")),
        "outcomes": dict(sorted(found.items())),
        "code": {package: code(package) for package in ("zoo", "tuner")},
    }
    tables.write_part(path, row, "robustness", f"{name} on {os.environ.get('KERAS_BACKEND', '')}")


if __name__ == "__main__":
    sys.exit(main())
