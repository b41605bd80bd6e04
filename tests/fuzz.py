"""Replaces and folds activations in random models, and compares what they compute.

    KERAS_BACKEND=torch python tests/fuzz.py --graphs 3000 --seed 1000

Each graph is built of plain activations and replaced (equal to the bit); then its numbers are made random, and it is
folded: in float64 equal to a relative 1e-9, in float32 to 1e-5 or four times the model's own error. What was replaced
(of odd seeds) or folded (of even ones) is equal to the bit after a save and a load. With --export every tenth is run
in another runtime, too. What fails is made shorter and printed as a program.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import keras
import numpy as np
from fuzz_graphs import FUNCTIONS, Program, program
from keras import ops
from keras.src.initializers import random_initializers

import keras_adaptact as ka
from benchmarks.runtimes import computing_in_float64, exported
from keras_adaptact.sites import name_of

NEW = {"relu": "arelu", "tanh": "atanh", "sigmoid": "asigmoid", "silu": "swish", "elu": "pelu"}
CAN_CONVOLVE_CHANNELS_FIRST = keras.config.backend() != "tensorflow"  # on a CPU


class Different(Exception):
    """A copy computes something else."""


@contextmanager
def settings() -> Iterator[None]:
    """Lets Keras compute in float64, and draw weights without a program for each shape, which JAX would compile."""
    with computing_in_float64(), mock.patch.object(random_initializers, "random", _drawing()):
        yield


def _drawing() -> SimpleNamespace:
    """What Keras's initializers draw from, with NumPy's numbers."""

    def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        return ops.convert_to_tensor(np.random.default_rng(seed).uniform(minval, maxval, shape), dtype)

    def normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return ops.convert_to_tensor(np.random.default_rng(seed).normal(mean, stddev, shape), dtype)

    keras_own = vars(random_initializers.random)
    return SimpleNamespace(**keras_own | {"uniform": uniform, "normal": normal, "truncated_normal": normal})


def call(model: keras.Model, x: np.ndarray) -> list[np.ndarray]:
    """The outputs of a model, whose seeds are those of a new one."""
    for variable in model.variables:
        if variable.name == "seed_generator_state":
            variable.assign(np.array([7, 0], "uint32"))
    return [ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def error(found, expected) -> float:
    """The largest difference, relative to the largest output."""
    worst = 0.0
    for y, z in zip(found, expected, strict=True):
        if not np.array_equal(np.isfinite(y), np.isfinite(z)):
            return np.inf
        known = np.isfinite(z)
        if known.any():
            size = max(np.abs(z[known]).max(), 1e-3)
            worst = max(worst, float(np.abs(y[known].astype("float64") - z[known]).max() / size))
    return worst


def same_bits(what: str, found, expected) -> None:
    if not all(np.array_equal(y, z, equal_nan=True) for y, z in zip(found, expected, strict=True)):
        raise Different(f"{what}: off by {error(found, expected):.2e}")


def spec_of(function: str, granularity: str) -> dict:
    name = NEW.get(function)
    spec = {"name": name} if name else {"name": "adaptive", "function": keras.activations.get(function)}
    return spec | {"granularity": granularity}


def replaced(model: keras.Model, x: np.ndarray, rng: np.random.Generator) -> keras.Model:
    """A model with trainable activations where it has functions: of one by its name, then of all others."""
    by_channel = ("layer", "channel")
    source = str(rng.choice(sorted(NEW)))
    model = one_step(model, x, source=source, new=spec_of(source, str(rng.choice(by_channel))))
    granularity = {function: str(rng.choice(by_channel)) for function in FUNCTIONS}

    def choose(layer):
        function = getattr(layer, "activation", None)
        name = name_of(layer if function is None else function).lower().replace("re_lu", "relu")
        return spec_of(name, granularity[name]) if name in FUNCTIONS and "Leaky" not in type(layer).__name__ else None

    return one_step(model, x, choose=choose)


def one_step(model: keras.Model, x: np.ndarray, **rule) -> keras.Model:
    """A replacement, if it finds a site; equal to the bit where the plan says so, and else close."""
    plan = [site for site in ka.plan_replacement(model, **rule) if site.replaced]
    if not plan:
        return model
    new = ka.replace_activations(model, **rule)
    before, after = call(model, x), call(new, x)
    is_single = keras.config.floatx() == "float32"  # which plans speak of
    if is_single and all(site.starts_equal for site in plan):
        same_bits("replacing", after, before)
    elif (off := error(after, before)) > (1e-5 if is_single else 1e-9):
        raise Different(f"replacing in {keras.config.floatx()}: off by {off:.2e}")
    return new


def shake(model: keras.Model, rng: np.random.Generator) -> None:
    """Gives every activation and bias numbers of its own, and every statistic."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, ka.TrainableActivation) and layer.variables and layer.parameter_shape is not None:
            low = 0.3 if isinstance(layer, ka.PELU | ka.Swish | ka.Mixture) else -1.5
            values = layer.get_parameters()
            fresh = {name: rng.uniform(low, 1.5, value.shape) for name, value in values.items() if rng.random() < 0.8}
            layer.set_parameters(**fresh)
        own = [*layer._trainable_variables, *layer._non_trainable_variables]
        for v in own:
            if v.name in ("bias", "beta", "moving_mean"):
                v.assign(rng.normal(0, 0.4, v.shape))
            elif v.name in ("gamma", "moving_variance"):
                v.assign(rng.uniform(0.5, 2.0, v.shape))


def reloaded(model: keras.Model) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return keras.saving.load_model(path)


def saved(what: str, model: keras.Model, x: np.ndarray, made: Program) -> None:
    """Compares a model with itself, saved and loaded, if Keras can do that with the program as it is."""
    try:
        same_bits(f"saving {what}", call(reloaded(model), x), call(model, x))
    except Exception:
        try:
            reloaded(made.build())
        except ValueError:  # a layer that is in a nested model and beside it
            return
        raise


def copied(source: keras.Model, target: keras.Model) -> keras.Model:
    for old, new in zip(source.variables, target.variables, strict=True):
        new.assign(ops.convert_to_numpy(old.value))
    return target


def precision(name: str) -> None:
    keras.config.set_floatx(name)  # or Keras multiplies matrices of float64 in float32
    keras.config.set_dtype_policy(name)


def trained(made: Program, x: np.ndarray, policy: str) -> keras.Model:
    precision(policy)
    return replaced(made.build(), x, np.random.default_rng(made.seed))


def shipped(kind: str, model: keras.Model, x: np.ndarray, made: Program) -> None:
    """Compares the last output of a model with what another runtime makes of it, if Keras alone can ship its like."""
    model = keras.Model(model.inputs, model.outputs[-1])
    expected = call(model, x)
    try:
        off = error([_exported(model, kind, x)], expected)
    except Exception:
        try:
            plain = made.plain().build()
            _exported(keras.Model(plain.inputs, plain.outputs[-1]), kind, x)
        except Exception:  # of a converter or a runtime: each raises its own
            return
        raise
    if off > 1e-4:
        raise Different(f"{kind}: off by {off:.2e}")


def _exported(model: keras.Model, kind: str, x: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        return exported(model, kind, Path(folder), x)


def check(made: Program, export: str | None = None) -> None:
    """Raises what is wrong with the copies of a model, and with what is exported in a format.

    Raises:
        Different: where something else is computed.
    """
    rng = np.random.default_rng(made.seed)
    try:
        x = rng.normal(size=(3, *made.shape))
        exact = trained(made, x, "float64")
        shake(exact, rng)
        expected = call(exact, x)
        off = error(call(ka.fold_activations(exact), x), expected)
        if off > 1e-9:
            raise Different(f"folding in float64: off by {off:.2e}")
        short = x.astype("float32")
        model = copied(exact, trained(made, short, "float32"))
        folded = ka.fold_activations(model)
        own, off = (error(call(m, short), expected) for m in (model, folded))
        if off > max(1e-5, 4 * own):
            raise Different(f"folding in float32: off by {off:.2e}, and the model itself by {own:.2e}")
        saved(*(("what was replaced", model) if made.seed % 2 else ("what was folded", folded)), short, made)
        if export:
            shipped(export, folded, short, made)
    finally:
        precision("float32")


def can_be_built(made: Program) -> bool:
    try:
        with settings():
            made.build()
    except Exception:  # what Keras itself refuses: a stack that doesn't fit
        return False
    return True


def programs(count: int, seed: int) -> Iterator[Program]:
    """So many programs that Keras can build, of seeds from one on."""
    while count:
        made = program(seed, CAN_CONVOLVE_CHANNELS_FIRST)
        if can_be_built(made):
            count -= 1
            yield made
        seed += 1


def failure(made: Program, export: str | None = None) -> str | None:
    try:
        with settings():
            check(made, export)
    except Different as wrong:
        return str(wrong)
    except Exception as wrong:
        return f"{type(wrong).__name__}: {wrong}\n{traceback.format_exc(limit=-4)}"
    return None


def report(made: Program, export: str | None = None) -> str | None:
    """What is wrong with a program, and the shortest one that has it, to be pasted into a file."""
    wrong = failure(made, export)
    if wrong is None:
        return None
    less = shorter(made, wrong, export)
    return f"seed {made.seed}: {wrong}\n{less.text()}\n# {failure(less, export)}\n"


def shorter(made: Program, wrong: str, export: str | None) -> Program:
    """A program without blocks that the failure doesn't need."""
    kind = wrong.split(":")[0]
    place = len(made.blocks) - 1
    while place >= 0:
        less = made.without(place)
        if can_be_built(less) and (failure(less, export) or "").startswith(kind):
            made = less
        place = min(place, len(made.blocks)) - 1
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FUZZ_SEED", "0")), help="the first one")
    parser.add_argument("--export", metavar="FORMAT", help="of Keras, in which every tenth is shipped")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    began, bad, last = time.perf_counter(), 0, arguments.seed
    for place, made in enumerate(programs(arguments.graphs, arguments.seed)):
        last = made.seed
        if wrong := report(made, arguments.export if place % 10 == 0 else None):
            bad += 1
            print(wrong, flush=True)
    print(
        f"{arguments.graphs} graphs of seeds {arguments.seed} to {last} on {keras.config.backend()}: {bad} failed; "
        f"{time.perf_counter() - began:.0f} s"
    )
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
