"""What an activation costs: forward, backward and the bytes kept between them, against ReLU and the plain formula.

    KERAS_BACKEND=jax python benchmarks/activations.py --out benchmarks/results/speed.json
    KERAS_BACKEND=jax python benchmarks/activations.py --every --out benchmarks/results/speed.json

Everything runs in one process, in turns, so that ratios hold while the machine's speed drifts; a time is the minimum
and the median over the turns. "plain" is the formula as it stands, "compiled" the same under the backend's compiler
(XLA, `torch.compile`), "fast" what the library does. Where torch is installed its compiler's time for method 1 as plain
torch writes it ("torch's own") stands in the table of every backend. Peers that are installed take part:
torch_activation's ABU.

`--every` measures each layer and function of the library as it is run, by layer and by channel, in float32 and
bfloat16, over Keras's ReLU in the same dtype, and holds them against the goals in GOALS. On TensorFlow, method 1 is
there again, called without `training=True`.
"""

import argparse
import contextlib
import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo import backend as chosen_backend
from zoo.environment import describe_environment

BACKEND = chosen_backend.choose()  # before Keras is imported

import keras
import numpy as np
import tables
from keras import ops

import keras_adaptact as ka

SPECS = {
    "relu": "relu",
    "silu": "silu",
    "atanh": "atanh",
    "asigmoid": "asigmoid",
    "arelu": "arelu",
    "adaptive silu": {"name": "adaptive", "function": "silu"},
    "swish": "swish",
    "frelu": "frelu",
    "pelu": "pelu",
    "prelu": "prelu",
    "method2": "method2",
    "method1": "method1",
    "method1 by channel": {"name": "method1", "granularity": "channel"},
}
# What isn't measured as an adaptive function: functions of several values, and what needs options.
NOT_ALONE = ("adaptive", "leaky_relu", "linear", "log_softmax", "mixture", "softmax", "sparsemax")
MIXTURES = ("method1", "method2")
GOALS = {  # times ReLU at most: of one function, of a mixture, and of a mixture by channel
    "jax": (1.5, 2.0, 3.0),
    "tensorflow": (1.5, 2.0, 3.0),
    "torch": (2.2, 4.0, 4.0),  # whose ReLU is faster
}
Step = Callable[[], object]


def _training(layer) -> dict:
    return {"training": True} if isinstance(layer, ka.TrainableActivation) else {}


def steps_jax(layer, z, gradient, compiled):
    import jax

    trained = [v.value for v in layer.trainable_variables]
    fixed = [v.value for v in layer.non_trainable_variables]

    def forward(trained, z):
        return layer.stateless_call(trained, fixed, z, **_training(layer))[0]

    def both(trained, z, gradient):
        y, pull = jax.vjp(forward, trained, z)
        return y, pull(gradient)

    forward_program, program = jax.jit(forward), jax.jit(both)
    temporary = program.lower(trained, z, gradient).compile().memory_analysis().temp_size_in_bytes
    run = (
        lambda: jax.block_until_ready(forward_program(trained, z)),
        lambda: jax.block_until_ready(program(trained, z, gradient)),
    )
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(jax.vjp(forward, trained, z)[1]))
    return *run, kept, temporary


def steps_torch(layer, z, gradient, compiled):
    import torch

    if compiled:  # each layer is a new program of Keras's one `Layer.__call__`, of which torch compiles eight
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 256
    z = z.clone().requires_grad_(True)
    function = functools.partial(torch.compile(layer) if compiled else layer, **_training(layer))
    variables = [v.value for v in layer.trainable_variables]
    kept = _kept_by_torch(lambda: function(z))

    def forward():
        with torch.no_grad():
            return function(z)

    def both():
        y = function(z)
        return y, torch.autograd.grad(y, [z, *variables], gradient)

    return _waited(forward), _waited(both), kept, None


def _waited(run: Step) -> Step:
    """Until a GPU has done what torch gave it to do."""
    import torch

    def step():
        found = run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return found

    return step


def _kept_by_torch(run: Step) -> int:
    """Bytes of the tensors that autograd keeps for the backward pass."""
    import torch

    found: dict = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda x: found.setdefault(x.data_ptr(), x), lambda x: x):
        run()
    return sum(x.nbytes for x in found.values())


def steps_tensorflow(layer, z, gradient, compiled, is_told=True):
    import tensorflow as tf

    variables = [v.value for v in layer.trainable_variables]
    options = _training(layer) if is_told else {}

    @tf.function(jit_compile=compiled)
    def forward(z):
        return layer(z, **options)

    @tf.function(jit_compile=compiled)
    def both(z, gradient):
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = layer(z, **options)
        return y, tape.gradient(y, [z, *variables], gradient)

    return lambda: forward(z).numpy, lambda: both(z, gradient)[1][0].numpy, None, None


def steps(layer, z, gradient, compiled=False):
    """Forward, forward and backward, bytes kept between them, bytes of temporaries; None where not measured."""
    return {"jax": steps_jax, "torch": steps_torch, "tensorflow": steps_tensorflow}[BACKEND](
        layer, z, gradient, compiled
    )


def _tensors(shape, dtype: str) -> tuple:
    """An input, a gradient by the output, and the policy of a layer that takes them."""
    rng = np.random.default_rng(0)
    z, gradient = (
        ops.cast(ops.convert_to_tensor(rng.standard_normal(shape, "float32") * scale), dtype) for scale in (2, 1)
    )
    return z, gradient, {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}[dtype]


def _adaptive(function: str) -> dict:
    return {"name": "adaptive", "function": function}


def candidates(shape, dtype, names) -> dict[tuple[str, str], tuple]:
    z, gradient, policy = _tensors(shape, dtype)
    found = {}
    for name in names:
        ways = ("keras",) if name in ("relu", "silu", "prelu") else ("fast", "plain", "compiled")
        for way in ways:
            if way == "compiled" and BACKEND == "jax":
                continue  # under jit the plain formula is compiled already
            spec = SPECS[name] if isinstance(SPECS[name], dict) else {"name": SPECS[name]}
            layer = _layer(spec, policy)
            layer.build(shape)
            implementation = "fast" if way in ("fast", "keras") else "plain"
            with _running(implementation):
                forward, both, kept, temporary = steps(layer, z, gradient, way == "compiled")
            found[name, way] = (_within(implementation, forward), _within(implementation, both), kept, temporary)
    return found | _torchs_own(z, gradient) | _peers(z, gradient)


@contextlib.contextmanager
def _running(implementation):
    ka.config.set_implementation(implementation)
    yield
    ka.config.set_implementation("fast")


def _within(implementation, run):
    def step():
        with _running(implementation):
            return run()

    return step


def _layer(spec, policy):
    if spec["name"] in ("relu", "silu"):
        return keras.layers.Activation(spec["name"], dtype=policy)
    return ka.get(spec | {"dtype": policy})


def _torchs_own(z, gradient):
    """Method 1 as plain torch writes it, under `torch.compile`: what this machine can do without this library."""
    if not find_spec("torch"):
        return {}
    import torch

    def method1(z, packed, raw):
        at, bt, ct, dt, a, b, c, d, ar, br, cr, dr = packed
        x, y, w = raw / raw.sum()
        tanh, sigmoid = bt * torch.tanh(at * z + ct) + dt, b * torch.sigmoid(a * z + c) + d
        return x * tanh + y * sigmoid + w * torch.maximum(ar * z + cr, br * z + dr)

    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    z, gradient = (
        torch.tensor(ops.convert_to_numpy(ops.cast(x, "float32"))).to(place, _torch_dtype(z)) for x in (z, gradient)
    )
    start = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    parameters = (torch.tensor(x, device=place, requires_grad=True) for x in (start, [1.0] * 3))
    inputs = z.requires_grad_(), *parameters
    compiled = torch.compile(method1)
    kept = _kept_by_torch(lambda: compiled(*inputs))

    def forward():
        with torch.no_grad():
            return compiled(*inputs)

    def both():
        return torch.autograd.grad(compiled(*inputs), inputs, gradient)

    return {("method1", "torch's own"): (_waited(forward), _waited(both), kept, None)}


def _torch_dtype(z):
    import torch

    return getattr(torch, keras.backend.standardize_dtype(z.dtype))


def _peers(z, gradient):
    if BACKEND != "torch" or not find_spec("torch_activation"):
        return {}
    import torch
    import torch_activation

    module = torch_activation.ABU()
    z = z.clone().requires_grad_(True)
    variables = [p for p in module.parameters() if p.requires_grad]
    kept = _kept_by_torch(lambda: module(z))

    def forward():
        with torch.no_grad():
            return module(z)

    def both():
        return torch.autograd.grad(module(z), [z, *variables], gradient)

    return {("torch_activation.ABU", "peer"): (_waited(forward), _waited(both), kept, None)}


def measure(found: dict[tuple[str, str], tuple], turns: int) -> list[dict]:
    both = _in_turns({(key, i): run for key, (*runs, _, _) in found.items() for i, run in enumerate(runs)}, turns)
    times = {key: (both[key, 0], both[key, 1]) for key in found}
    relu = min(times["relu", "keras"][1])
    return [
        {
            "activation": name,
            "way": way,
            "forward_ms": round(min(times[name, way][0]), 3),
            "both_ms": round(min(times[name, way][1]), 3),
            "both_median_ms": round(statistics.median(times[name, way][1]), 3),
            "times_relu": round(min(times[name, way][1]) / relu, 2),
            "kept_bytes": kept,
            "temporary_bytes": temporary,
        }
        for (name, way), (_, _, kept, temporary) in found.items()
    ]


def members() -> dict[str, dict]:
    """Each trainable layer of the library, and each function made adaptive: a spec by its name."""
    found: dict[str, dict] = {}
    for name in ka.names():
        if name in (*NOT_ALONE, "prelu"):
            continue
        is_layer = isinstance(ka.get(name), ka.TrainableActivation)
        found[name if is_layer else f"adaptive {name}"] = {"name": name} if is_layer else _adaptive(name)
    return found


def measure_every(shape, turns: int, dtypes: Sequence[str]) -> list[dict]:
    """A row for each member, granularity and dtype; all of a dtype are run in turns."""
    rows = []
    for dtype in dtypes:
        z, gradient, policy = _tensors(shape, dtype)
        relu = _layer({"name": "relu"}, policy)
        runs = {("relu", ""): steps(relu, z, gradient)[1]}
        for (name, spec), granularity in product(members().items(), ("layer", "channel")):
            layer = _layer(spec | {"granularity": granularity}, policy)
            layer.build(shape)
            runs[name, granularity] = steps(layer, z, gradient)[1]
            if BACKEND == "tensorflow" and name == "method1":
                untold = steps_tensorflow(layer, z, gradient, compiled=False, is_told=False)
                runs["method1, not told that it trains", granularity] = untold[1]
        times = _in_turns(runs, turns)
        fastest = min(times["relu", ""])
        rows += [
            {
                "activation": name,
                "granularity": granularity,
                "dtype": dtype,
                "both_ms": round(min(found), 3),
                "times_relu": round(min(found) / fastest, 2),
                "goal": _goal(name, granularity),
            }
            for (name, granularity), found in times.items()
        ]
    return rows


def _goal(name: str, granularity: str) -> float:
    function, mixture, by_channel = GOALS[BACKEND]
    if not name.startswith(MIXTURES):
        return function
    return by_channel if granularity == "channel" else mixture


def _in_turns(runs: dict, turns: int) -> dict:
    times: dict = {key: [] for key in runs}
    for turn in range(turns + 2):
        for key, run in runs.items():
            began = time.perf_counter()
            run()
            if turn > 1:  # the first ones compile
                times[key].append((time.perf_counter() - began) * 1e3)
    return times


def _print_every(rows: list[dict]) -> None:
    print(f"{'activation':32} {'by':8} {'dtype':9} {'both ms':>8}  x ReLU  goal")
    for row in rows:
        missed = " missed" if row["times_relu"] > row["goal"] else ""
        print(
            f"{row['activation']:32} {row['granularity']:8} {row['dtype']:9} {row['both_ms']:8.2f} "
            f"{row['times_relu']:7.2f} {row['goal']:5.1f}{missed}"
        )
    missed = sum(row["times_relu"] > row["goal"] for row in rows)
    print(f"{missed} of {len(rows)} rows miss their goals ({missed / len(rows):.1%})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="64,32,32,64", help="of the tensor, channels last")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--only", nargs="+", default=list(SPECS), choices=list(SPECS), metavar="NAME")
    parser.add_argument("--every", action="store_true", help="all members, by layer and channel, in two dtypes")
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    shape = tuple(map(int, arguments.shape.split(",")))
    environment = describe_environment("normal random numbers", ["python", *sys.argv])
    if arguments.every:
        rows = measure_every(shape, arguments.turns, ("float32", "bfloat16"))
        _print_every(rows)
        if arguments.out:
            content = {"environment": environment, "shape": shape, "rows": rows}
            tables.write_part(arguments.out, content, "every activation", BACKEND)
        return
    names = list(dict.fromkeys(["relu", *arguments.only]))
    rows = measure(candidates(shape, arguments.dtype, names), arguments.turns)
    print(f"{BACKEND}, {shape} {arguments.dtype}, minima of {arguments.turns} turns")
    print(f"{'activation':22} {'way':11}  forward      both    median  x ReLU  kept MB  temp MB")
    for row in rows:
        megabytes = ["" if row[k] is None else f"{row[k] / 1e6:.1f}" for k in ("kept_bytes", "temporary_bytes")]
        print(
            f"{row['activation']:22} {row['way']:11} {row['forward_ms']:9.2f} {row['both_ms']:9.2f} "
            f"{row['both_median_ms']:9.2f} {row['times_relu']:7.2f} {megabytes[0]:>8} {megabytes[1]:>8}"
        )
    if arguments.out:
        content = {"environment": environment, "shape": shape, "dtype": arguments.dtype, "rows": rows}
        tables.write_part(arguments.out, content, "activations", BACKEND)


if __name__ == "__main__":
    main()
