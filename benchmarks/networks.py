"""What an activation costs in a whole training step: time a step and peak memory, against ReLU.

    KERAS_BACKEND=jax python benchmarks/networks.py --memory --out benchmarks/results/speed.json

    KERAS_BACKEND=jax python benchmarks/networks.py --dtypes --only alexnet resnet50 --stem cifar --batch 16 --steps 2

Plain Keras `fit` on random images, the activations in turns in one process; a time is the minimum and the median over
the turns, and the ratio is the median over the turns of what an activation took over what ReLU took just before.
Peak memory is that of a process of its own, which does a few steps.

`--dtypes` takes ReLU and method 1, by layer and by channel, in float32 and mixed_bfloat16: each over ReLU in the same
dtype, ReLU also over itself in float32, and the seconds of the first step, in which kernels and programs are compiled.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo import backend as chosen_backend
from zoo.environment import describe_environment

BACKEND = chosen_backend.choose()  # before Keras is imported

import keras
import numpy as np
import tables

from zoo import config, models
from zoo.data import pipeline
from zoo.training import memory

CONFIGS = Path(__file__).parents[1] / "configs"
NETWORKS = ("lenet", "alexnet", "googlenet", "resnet50", "densenet")
ACTIVATIONS = ("relu", "sigmoid", "asigmoid", "tanh", "atanh", "arelu", "method1", "method2", "swish", "pelu")
SPECS = {
    "relu": {"name": "relu"},
    "method1": {"name": "method1"},
    "method1 by channel": {"name": "method1", "granularity": "channel"},
}
DTYPES = ("float32", "mixed_bfloat16")


class Candidate:
    """A compiled network and the images that it trains on."""

    def __init__(self, network: str, spec: dict, stem: str, batch: int, steps: int, dtype: str = "float32"):
        keras.utils.set_random_seed(0)
        keras.config.set_image_data_format(pipeline.fast_format())
        overrides = [f"activation={json.dumps(spec)}", f"model.stem={stem}"]
        chosen = config.load(CONFIGS / f"{network}.json", overrides[: 1 if network == "lenet" else 2])
        keras.config.set_dtype_policy(dtype)
        self.model = models.build(chosen, classes=10)
        keras.config.set_dtype_policy("float32")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
        rng = np.random.default_rng(0)
        self.images = rng.standard_normal((batch * steps, *self.model.input_shape[1:]), "float32")
        self.labels = rng.integers(0, 10, batch * steps)
        self.batch, self.steps = batch, steps

    def milliseconds_a_step(self) -> float:
        began = time.perf_counter()
        self.model.fit(self.images, self.labels, batch_size=self.batch, verbose=0, shuffle=False)
        return (time.perf_counter() - began) * 1e3 / self.steps


def peak_memory(network: str, activation: str, stem: str, batch: int) -> float:
    """Megabytes that a fresh process holds at most while it trains a few steps."""
    chosen = f"--peak-of {activation} --only {network} --stem {stem} --batch {batch}"
    command = [sys.executable, __file__, *chosen.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return round(float(done.stdout.split()[-1]), 1)


def measure(network: str, activations: list[str], arguments: argparse.Namespace) -> list[dict]:
    stem, batch, memory = arguments.stem, arguments.batch, arguments.memory
    found = {name: Candidate(network, {"name": name}, stem, batch, arguments.steps) for name in activations}
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(arguments.turns + 1):
        for name, candidate in found.items():
            taken = candidate.milliseconds_a_step()
            if turn:  # the first compiles
                times[name].append(taken)
    return [
        {
            "network": network,
            "activation": name,
            "step_ms": round(min(taken), 2),
            "step_median_ms": round(statistics.median(taken), 2),
            "times_relu": round(statistics.median(a / b for a, b in zip(taken, times["relu"], strict=True)), 3),
            "times_relu_minima": round(min(taken) / min(times["relu"]), 3),
            "peak_mb": peak_memory(network, name, stem, batch) if memory else None,
        }
        for name, taken in times.items()
    ]


def measure_dtypes(network: str, arguments: argparse.Namespace) -> list[dict]:
    keys = [(name, dtype) for dtype in DTYPES for name in SPECS]
    made = {
        (name, dtype): Candidate(network, SPECS[name], arguments.stem, arguments.batch, arguments.steps, dtype)
        for name, dtype in keys
    }
    first = {key: candidate.milliseconds_a_step() * arguments.steps / 1e3 for key, candidate in made.items()}
    turns = [{key: each.milliseconds_a_step() for key, each in made.items()} for _ in range(arguments.turns)]
    least = {key: min(turn[key] for turn in turns) for key in keys}
    return [
        {
            "network": network,
            "activation": name,
            "dtype": dtype,
            "step_ms": round(least[name, dtype], 2),
            "first_s": round(first[name, dtype], 2),
            "times_relu": round(statistics.median(turn[name, dtype] / turn["relu", dtype] for turn in turns), 3),
            "times_relu_minima": round(least[name, dtype] / least["relu", dtype], 3),
            "times_float32": round(least[name, dtype] / least[name, "float32"], 3),
        }
        for name, dtype in keys
    ]


def print_dtypes(arguments: argparse.Namespace) -> None:
    rows = []
    print(f"{BACKEND}, batch {arguments.batch}, {arguments.turns} turns of {arguments.steps} steps")
    print("network  activation          dtype           step ms  first s  x ReLU  by minima  x float32")
    for network in arguments.only:
        for row in measure_dtypes(network, arguments):
            print(
                f"{row['network']:8} {row['activation']:19} {row['dtype']:15} {row['step_ms']:7.1f} "
                f"{row['first_s']:8.2f} {row['times_relu']:7.3f} {row['times_relu_minima']:10.3f} "
                f"{row['times_float32']:10.3f}",
                flush=True,
            )
            rows.append(row)
    if arguments.out:
        environment = describe_environment("normal random numbers", ["python", *sys.argv])
        content = {"environment": environment, "batch": arguments.batch, "stem": arguments.stem, "rows": rows}
        tables.write_part(arguments.out, content, "dtypes of networks", BACKEND)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), choices=NETWORKS, metavar="NETWORK")
    parser.add_argument("--stem", default="reference", choices=("reference", "cifar"), help="of all but LeNet")
    parser.add_argument("--activations", nargs="+", default=list(ACTIVATIONS), metavar="NAME")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="of one turn")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--dtypes", action="store_true", help="ReLU and method 1 in float32 and mixed_bfloat16")
    parser.add_argument("--memory", action="store_true", help="measure peak memory too")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        spec = {"name": arguments.peak_of}
        Candidate(arguments.only[0], spec, arguments.stem, arguments.batch, 3).milliseconds_a_step()
        print(memory.peak_memory())
        return
    if arguments.dtypes:
        print_dtypes(arguments)
        return
    rows = []
    print(f"{BACKEND}, batch {arguments.batch}, {arguments.turns} turns of {arguments.steps} steps")
    print("network  activation   step ms   median  x ReLU  by minima   peak MB")
    for network in arguments.only:
        names = list(dict.fromkeys(["relu", *arguments.activations]))
        for row in measure(network, names, arguments):
            print(
                f"{row['network']:8} {row['activation']:10} {row['step_ms']:9.2f} {row['step_median_ms']:8.2f} "
                f"{row['times_relu']:7.3f} {row['times_relu_minima']:10.3f} {row['peak_mb'] or '':>9}",
                flush=True,
            )
            rows.append(row)
    if arguments.out:
        environment = describe_environment("normal random numbers", ["python", *sys.argv])
        content = {"environment": environment, "batch": arguments.batch, "stem": arguments.stem, "rows": rows}
        tables.write_part(arguments.out, content, "networks", BACKEND)


if __name__ == "__main__":
    main()
