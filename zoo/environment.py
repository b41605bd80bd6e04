"""The environment of a run: what it takes to repeat it, and to decide whether two runs can be compared."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SCHEMA = 1  # version of the files that runs, sweeps and searches write; 0.1.0 wrote none
PACKAGES = ("keras", "jax", "torch", "tensorflow", "tensorflow-cpu", "numpy", "scipy", "scikit-learn", "pydantic")
CODE = ("keras_adaptact", "zoo")  # the packages that a run's results depend on
SETTINGS = (
    "OMP_NUM_THREADS",
    "KERAS_ADAPTACT_IMPLEMENTATION",
    "XLA_FLAGS",
    "CC",
)  # variables that they depend on
# Dtypes that a backend has no fast way for on CPUs without any of some features, and what a step of AlexNet takes there
# over one in float32 (benchmarks/networks.py --dtypes; AVX2 and AVX-512 by oneDNN's ONEDNN_MAX_CPU_ISA).
SLOW = {
    ("torch", "mixed_bfloat16"): ({"avx512_bf16", "amx_bf16", "bf16"}, "2 times with AVX-512, 15 times without"),
    ("torch", "mixed_float16"): ({"avx512_fp16", "amx_fp16", "fphp"}, "16 times"),
    ("tensorflow", "mixed_float16"): ({"avx512_fp16", "amx_fp16", "fphp"}, "3 times"),
}


def describe_environment(provenance: str, argv: Sequence[str] | None) -> dict[str, Any]:
    """What environment.json records."""
    import keras

    changed = (_git("status", "--porcelain", "--untracked-files=no") or "").splitlines()
    return {
        "schema": SCHEMA,
        "command": shlex.join(map(from_here, argv)) if argv is not None else None,
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "backend": keras.config.backend(),
        "device": _device(keras.config.backend()),
        "versions": {"python": platform.python_version()} | _versions(),
        "platform": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "compiler": _compiler(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changed_files": changed,
        "code": {package: code(package) for package in CODE},
        "data": provenance,
    }


def from_folder(path: Path | None, folder: Path) -> str | None:
    """A path relative to the folder that records it, so that the record doesn't name a place on this machine."""
    return os.path.relpath(path.resolve(), folder.resolve()) if path else None


def recorded_path(folder: Path, recorded: str | None) -> Path | None:
    """Resolves a path that a folder records; version 0.1.0 recorded absolute paths."""
    if not recorded:
        return None
    path = Path(recorded)
    return path if path.is_absolute() else Path(os.path.relpath((folder / path).resolve()))


def from_here(word: str) -> str:
    """A command-line argument with an absolute path made relative to the working directory, or cut to its last part."""
    option, equals, path = word.rpartition("=")
    if not path.startswith("/"):
        return word
    inside = Path(path).is_relative_to(Path.cwd())
    return f"{option}{equals}{os.path.relpath(path) if inside else Path(path).name}"


def code(package: str) -> str:
    """Identifies the code of a package: its git tree and uncommitted changes; its version outside of a checkout."""
    tree = _git("rev-parse", f"HEAD:{package}")
    if tree is None:
        return _versions(("keras-adaptact",)).get("keras-adaptact", "unknown")
    changes = _git("diff", "HEAD", "--", package)
    return f"{tree}+{hashlib.blake2b(changes.encode(), digest_size=6).hexdigest()}" if changes else tree


def memory_of_machine() -> float | None:
    """Bytes of memory, or what its container may take; None where nothing tells."""
    found = [
        _number("/proc/meminfo", "MemTotal:", 1024),
        _number("/sys/fs/cgroup/memory.max"),
        _number("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ]
    return min(filter(None, found), default=None)


def _number(path: str, name: str = "", unit: int = 1) -> float | None:
    """The first number in a file of Linux, after a name where one is given."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        return float(text[text.index(name) + len(name) :].split()[0]) * unit
    except (OSError, ValueError, IndexError):  # another system, no container, or one without a limit
        return None


def slow_dtype(backend: str, dtype: str) -> str:
    """What a user should know of a dtype on this CPU; nothing of one that isn't known to be slow, and on a GPU."""
    if (backend, dtype) not in SLOW:
        return ""
    fast, times = SLOW[backend, dtype]
    features = _features()
    if not features or features & fast or _device(backend) != "cpu":
        return ""
    return (
        f"{dtype} is slow with {backend} on this CPU: a step of AlexNet took {times} as long as in float32; "
        "--set training.dtype=float32 is the way out"
    )


def _features() -> set[str]:
    """The processor's features; none where nothing tells."""
    return {name for said in _cpuinfo("flags", "Features") for name in said.split()}


def _processor() -> str:
    return next(iter(_cpuinfo("model name")), "") or platform.processor() or platform.machine()


def _cpuinfo(*names: str) -> list[str]:
    """What Linux says of each processor under some names; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(names)]


def _compiler() -> str | None:
    """The first line of the C compiler's `--version`; it compiles the kernels."""
    try:
        asked = shlex.split(os.environ.get("CC", ""))
    except ValueError:  # an unclosed quotation
        return None
    named = asked or [name for name in ("cc", "gcc", "clang") if shutil.which(name)][:1]
    return (_said([*named, "--version"]) or "").partition("\n")[0] or None if named else None


def _versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _device(backend: str) -> str:
    if backend == "jax":
        import jax

        return jax.devices()[0].device_kind
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu") if gpus else "cpu"


def _git(*arguments: str) -> str | None:
    return _said(["git", *arguments])


def _said(command: Sequence[str]) -> str | None:
    """The output of a command; None if it fails or doesn't exist."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.rstrip()
