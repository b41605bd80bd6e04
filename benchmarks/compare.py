"""Whether `zoo.compare` finds a difference where there is none, and a planted one.

    KERAS_BACKEND=torch python benchmarks/compare.py --first 200 --out benchmarks/results/checks.json.xz
    KERAS_BACKEND=torch python benchmarks/compare.py --planted --out benchmarks/results/checks.json.xz

Each repetition is a whole comparison of LeNet on few digits with ReLU as "relu" and as "again": two learning rates
with three runs each, then five seeds of each. No two repetitions share a seed, and --first begins with others. Seeds
are the same for all activations, and the same activation with the same seed is the same network; so that chance has its
part, the runs of "again" are trained with other seeds than the comparison says. Runs are trained in this process.

The planted difference: the target is a sum of two sines, which eight adaptive sines can be and eight ReLUs can't.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo import backend

backend.choose()

import numpy as np
import tables

from zoo import config, files, train
from zoo.comparisons.folder import Folder
from zoo.comparisons.page import Answer
from zoo.comparisons.question import RATE_SEEDS, Question, ask
from zoo.environment import describe_environment
from zoo.sweeps.folder import SweepFolder
from zoo.training.progress import Cost

APART = 10**6  # between the seeds of both names
NETWORK = {
    "dataset": {"name": "digits", "limit": 200, "test_limit": 200, "validation": 0.2},
    "training": {"epochs": 4, "batch_size": 32},
}


def run(sweep, planned, lock, deadline, show) -> str:
    """Trains a run here, one of "again" with another seed, and writes down the one that the sweep says."""
    folder, seed = sweep.folder(planned), planned.config.training.seeds[0]
    shifted = seed + APART if planned.labels["activation"] == "again" else seed
    train.run(planned.config.with_seed(shifted), folder)
    for name, field in (("config.json", "training"), ("metrics.json", None)):
        content = files.read_json(folder / name)
        (content[field] if field else content).update({"seeds": [seed]} if field else {"seed": seed})
        files.write_json(folder / name, content)
    return sweep.state(planned)


def repetition(number: int, seeds: int, place: Path) -> dict:
    """The verdict of a comparison whose seeds no other one has."""
    network = place / "network.json"
    network.write_text(json.dumps(NETWORK))
    first = 1000 * number
    question = Question(
        activations={"relu": {"name": "relu"}, "again": {"name": "relu"}},
        rates=[0.02, 0.05],
        rate_epochs=4,
        rate_seeds=list(range(first, first + RATE_SEEDS)),
        seeds=list(range(first + RATE_SEEDS, first + RATE_SEEDS + seeds)),
    )
    folder = Folder(place / "out", config.load(network), question, os.environ["KERAS_BACKEND"])
    folder.begin(dict.fromkeys(question.activations, Cost(0, 0)))
    folder.train(None, None, None)
    answer = Answer(folder)
    (verdict,) = answer.verdicts
    found = verdict.found
    return {
        "repetition": number,
        "rates": answer.chosen,
        "verdict": verdict.status,
        "reason": verdict.reason,
        "p": verdict.p,
        "difference": found.mean if found else None,
        "interval": [found.low, found.high] if found else None,
    }


def network(activation):
    import keras

    inputs = keras.Input((2,))
    hidden = activation("hidden")(keras.layers.Dense(8)(inputs))
    return keras.Model(inputs, keras.layers.Dense(1)(hidden))


def load() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.uniform(-3, 3, (600, 2)).astype("float32")
    y = np.sin(1.5 * x).sum(axis=1)
    return {"x_train": x[:400], "y_train": y[:400], "x_test": x[400:], "y_test": y[400:]}


def planted(place: Path) -> dict:
    """The answer of a comparison of ReLU and adaptive sine."""
    training = {"epochs": 50, "batch_size": 32, "optimizer": {"name": "adam", "learning_rate": 0.01}}
    content = {
        "model": {"build": f"{Path(__file__).resolve()}:network"},
        "dataset": {"load": f"{Path(__file__).resolve()}:load", "validation": 0.2},
        "training": training | {"schedule": {"name": "constant"}},
    }
    sine = {"name": "adaptive", "function": "sin"}
    (place / "network.json").write_text(json.dumps(content))
    settings = config.load(place / "network.json")
    question = ask(settings, {"relu": "relu", "sine": sine}, rates=[0.01, 0.03, 0.1], seeds=6)
    folder = Folder(place / "out", settings, question, os.environ["KERAS_BACKEND"])
    folder.begin(dict.fromkeys(question.activations, Cost(0, 0)))
    folder.train(None, None, None)
    return Answer(folder).content()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first repetition")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--planted", action="store_true", help="find the planted difference, once")
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    SweepFolder.run = run  # type: ignore[method-assign]
    if arguments.planted:
        with tempfile.TemporaryDirectory() as place:
            found = planted(Path(place))
        print(found["sentence"])
        if arguments.out:
            environment = describe_environment("made", ["python", *sys.argv])
            tables.write_part(arguments.out, {"environment": environment, "answer": found}, "compare", "planted")
        return 0
    rows = []
    for number in range(arguments.first, arguments.first + arguments.repetitions):
        with tempfile.TemporaryDirectory() as place:
            rows.append(repetition(number, arguments.seeds, Path(place)))
        print(rows[-1], flush=True)
        if arguments.out:
            told = sum(row["verdict"] in ("above", "below") for row in rows)
            environment = describe_environment("digits", ["python", *sys.argv])
            content = {"environment": environment, "told_apart": told, "of": len(rows), "rows": rows}
            tables.write_part(arguments.out, content, "compare", "alike")
    return 0


if __name__ == "__main__":
    sys.exit(main())
