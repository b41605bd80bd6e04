"""All that a machine with an NVIDIA GPU is to show: that the kernels are right on it, and what they save.

    python benchmarks/gpu.py --out gpu                          # everything, on JAX and torch
    python benchmarks/gpu.py --out gpu --only kernels tests     # in parts, where time is short

Each command is a process of its own, with or without `KERAS_ADAPTACT_CUDA=1`; its output and its results go into the
folder.

    kernels      tests/gpu.py: values and gradients against float64, streams, graphs, what is launched, first use
    tests        all tests of the backend, with the kernels and without
    activations  forward and backward pass of each activation, by layer and by channel, in float32 and bfloat16, against
                 ReLU, with the kernels and without; and of some against the plain formula, compiled
    networks     a training step of AlexNet and ResNet50 with method 1 against ReLU, in both dtypes
    zoo          images a second in `zoo.train` against plain `fit`

It prints how each command ended; the exit status is 1 where one failed.
"""

import argparse
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
BACKENDS = ("jax", "torch")
PARTS = ("kernels", "tests", "activations", "networks", "zoo")
SHAPE = "256,56,56,64"  # more than the cache of any GPU holds


def commands(part: str, out: Path) -> list[tuple[str, list[str]]]:
    """The arguments of Python, each with the value of KERAS_ADAPTACT_CUDA."""
    pytest = ["-m", "pytest", "-q", *(["-n", "auto"] if find_spec("xdist") else [])]
    networks = ["--only", "alexnet", "resnet50", "--stem", "cifar"]

    def measure(result: str, name: str, *arguments: str) -> list[str]:
        return [str(ROOT / "benchmarks" / f"{name}.py"), *arguments, "--out", str(out / f"{result}.json")]

    if part == "kernels":
        return [("1", ["-m", "pytest", "-s", "tests/gpu.py"])]
    if part == "tests":
        return [(wanted, [*pytest, "tests"]) for wanted in "10"]
    if part == "activations":
        every = [(n, measure(f"every-{n}", "activations", "--every", "--shape", SHAPE)) for n in "10"]
        dtypes = ("float32", "bfloat16")
        return every + [("1", measure(d, "activations", "--dtype", d, "--shape", SHAPE)) for d in dtypes]
    if part == "networks":
        return [("1", measure("networks", "networks", "--dtypes", *networks))]
    dtypes = ("float32", "mixed_bfloat16")
    return [("1", measure(f"zoo-{d}", "training", "--activation", "method1", "--dtype", d, *networks)) for d in dtypes]


def run(command: list[str], wanted: str, backend: str, log: Path) -> bool:
    """Runs a command, and prints how it ended."""
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "KERAS_ADAPTACT_CUDA": wanted,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # tests are several processes on one GPU
    }
    began = time.perf_counter()
    with log.open("a") as file:
        file.write(f"$ KERAS_BACKEND={backend} KERAS_ADAPTACT_CUDA={wanted} python {' '.join(command)}\n")
        file.flush()
        status = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        ).returncode
    ended = "passed" if status == 0 else f"FAILED ({status})"
    print(f"{log.stem:20} {ended:12} {time.perf_counter() - began:6.0f} s  {' '.join(command)}", flush=True)
    return status == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for results")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS)
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    passed = []
    for part in arguments.only:
        for backend in arguments.backends:
            log = out / f"{part}-{backend}.txt"
            log.unlink(missing_ok=True)
            passed += [run(command, wanted, backend, log) for wanted, command in commands(part, out)]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
