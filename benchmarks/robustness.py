"""Attacks on the zoo by generated input: `python benchmarks/robustness.py --configs 10000 --damages 20 --signals 100`.

`configs`: mutations of each file in configs/, checked in process. `folders`: a run of version 0.1.0 with each of its
files damaged, read by what reads runs. `signals`: `zoo.train` sent SIGTERM or SIGINT at random moments from 0.2 s on.
Prints what was tried and what failed, by kind; the exit status is 1 where anything did.
"""

import argparse
import copy
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
OLD = ROOT / "tests" / "data" / "v0.1.0" / "finished"
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
EXPECTED = {signal.SIGTERM: 4, signal.SIGINT: 130}


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


def configs(each: int, rng: random.Random) -> Counter:
    """Loads mutated configs, sweeps and searches: each is accepted, or refused in one line."""
    from zoo import config, grid
    from zoo.errors import UserError

    found: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(shutil.copytree(ROOT / "configs", Path(folder, "configs")))
        readers = [(path, config.load) for path in sorted(place.glob("*.json")) if path.name != "schema.json"]
        readers += [(place / "sweeps" / "quick.json", grid.load)]
        for path, read in readers:
            content = json.loads(path.read_text())
            target = path.with_name(f"mutated-{path.name}")
            for _ in range(each):
                target.write_text(json.dumps(mutate(content, rng)))
                try:
                    read(target)
                    found["accepted"] += 1
                except UserError as error:
                    found["refused" if len(str(error)) < 2000 else "failed: a long message"] += 1
                except Exception as error:
                    found[f"failed: {type(error).__name__} of {path.name}: {str(error)[:80]}"] += 1
    return found


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


def folders(each: int, rng: random.Random) -> Counter:
    """Reads damaged files of a run: nothing but an answer or one line comes of it."""
    from zoo import checkpoint, config, earlier, results
    from zoo.errors import UserError

    def read_checkpoint(path: Path) -> None:
        try:
            arrays = checkpoint._arrays(path, 1e8)
            checkpoint._check(json.loads(arrays.pop("record").tobytes()), arrays)
        except Exception as error:  # as `checkpoint.load` has it
            raise UserError(str(error)) from None

    readers = {"config.json": config.load, "checkpoint.npz": read_checkpoint}
    readers["mixing_weights.csv"] = lambda path: earlier.mixing_weights(path.parent)
    readers |= dict.fromkeys(("environment.json", "metrics.json", "preprocessing.json"), results.read_json)
    found: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(OLD, Path(folder, "run")))
        for name, read in readers.items():
            content = (run / name).read_bytes()
            for _ in range(each):
                (run / name).write_bytes(damaged(content, rng))
                try:
                    read(run / name)
                    found["read"] += 1
                except UserError:
                    found["refused"] += 1
                except Exception as error:
                    found[f"failed: {type(error).__name__} of {name}: {str(error)[:80]}"] += 1
            (run / name).write_bytes(content)
    return found


def signals(count: int, rng: random.Random) -> Counter:
    """`zoo.train`, stopped at random moments: its status, no traceback, and a folder that resumes or isn't there."""
    found: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            out, sent = Path(folder, str(i)), rng.choice(list(EXPECTED))
            command = [sys.executable, "-m", "zoo.train", str(ROOT / "configs" / "quickstart.json"), "--out", str(out)]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
                time.sleep(rng.uniform(0.2, 12.0))
                run.send_signal(sent)
                _, said = run.communicate()
            if run.returncode == 0:
                found["finished before"] += 1
            elif run.returncode != EXPECTED[sent] or "Traceback" in said:
                found[f"failed: {sent.name} gave {run.returncode}{', a traceback' if 'Traceback' in said else ''}"] += 1
            else:
                found["stopped"] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Attack the zoo by generated input.")
    parser.add_argument("--configs", type=int, default=0, metavar="N", help="mutations of each config")
    parser.add_argument("--damages", type=int, default=0, metavar="N", help="of each file of a run")
    parser.add_argument("--signals", type=int, default=0, metavar="N", help="at random moments of a run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    failed = 0
    for name, attack in (("configs", configs), ("damages", folders), ("signals", signals)):
        if count := getattr(arguments, name):
            found = attack(count, rng)
            bad = {kind: n for kind, n in found.items() if kind.startswith("failed")}
            failed += sum(bad.values())
            print(f"| {name} | {found.total()} tried | {sum(bad.values())} failed |", dict(found), flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
