"""All that a machine with an NVIDIA GPU is to show: that the kernels are right on it, and what they save.

    python benchmarks/gpu.py --out gpu                          # everything, on JAX and torch: about an hour
    python benchmarks/gpu.py --out gpu --only kernels tests     # in parts, where time is short

Each part is a process of its own, with `KERAS_ADAPTACT_CUDA=1`; its output and its results go into the folder.

    kernels      tests/gpu.py: values and gradients against float64, streams, graphs, what is launched, first use
    tests        all tests of the backend
    activations  forward and backward pass of each activation against ReLU, in float32 and bfloat16
    networks     a training step of AlexNet and ResNet50 with method 1 against ReLU
    zoo          images a second in `zoo.train` against plain `fit`

It prints how each part ended; the exit status is 1 where one failed.
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


def parts(backend: str, out: Path) -> dict[str, list[list[str]]]:
    """The arguments of Python for each part."""
    pytest = ["-m", "pytest", "-q", *(["-n", "auto"] if find_spec("xdist") else [])]

    def measure(name: str, *arguments: str) -> list[str]:
        result = out / f"{'-'.join([name, *(x for x in arguments if '16' in x)])}.json"
        return [str(ROOT / "benchmarks" / f"{name}.py"), *arguments, "--out", str(result)]

    return {
        "kernels": [["-m", "pytest", "-s", "tests/gpu.py"]],
        "tests": [[*pytest, "tests"]],
        "activations": [measure("activations", "--dtype", dtype) for dtype in ("float32", "bfloat16")],
        "networks": [
            measure("networks", "--only", "alexnet", "resnet50", "--stem", "cifar", "--activations", "relu", "method1")
        ],
        "zoo": [
            measure("training", "--only", "alexnet", "resnet50", "--stem", "cifar", "--activation", "method1", *dtype)
            for dtype in ([], ["--dtype", "mixed_bfloat16"])
        ],
    }


def run(command: list[str], backend: str, log: Path) -> str:
    """Runs a command, and says how it ended."""
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "KERAS_ADAPTACT_CUDA": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # tests are several processes on one GPU
    }
    began = time.perf_counter()
    with log.open("a") as file:
        file.write(f"$ KERAS_BACKEND={backend} python {' '.join(command)}\n")
        file.flush()
        status = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        ).returncode
    return f"{'passed' if status == 0 else f'FAILED ({status})':12} {time.perf_counter() - began:6.0f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(parts("torch", Path()))
    parser.add_argument("--out", type=Path, required=True, help="a folder for results")
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="PART")
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS)
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    has_failed = False
    for name in arguments.only:
        for backend in arguments.backends:
            log = out / f"{name}-{backend}.txt"
            log.unlink(missing_ok=True)
            for command in parts(backend, out)[name]:
                ended = run(command, backend, log)
                has_failed |= "FAILED" in ended
                print(f"{name:12} {backend:6} {ended}  {log}", flush=True)
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
