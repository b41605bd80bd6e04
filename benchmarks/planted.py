"""Whether the Bayesian search finds a planted optimum of fixed mixing weights more often than the random one.

    KERAS_BACKEND=jax python benchmarks/planted.py --out benchmarks/results/decisions.json

The objective is minus the distance from a point of the simplex, drawn for each seed, to the weights that a trial
proposes: nothing is trained. It counts as found where one of the trials comes nearer than 0.05.
"""

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tuner.searches import loading
from zoo import backend
from zoo.environment import describe_environment

backend.choose()  # before KerasTuner imports Keras

import numpy as np
import tables

from tuner.searches import oracles
from tuner.searches.records import Outcome

NEAR = 0.05


def nearest(tuner: str, seed: int, trials: int) -> float:
    """The distance of the nearest trial."""
    optimum = np.random.default_rng(seed).dirichlet([1, 1, 1])
    search = loading.parse(
        {
            "base": "none",
            "space": [{"name": "w", "simplex": 3}],
            "tuner": {"name": tuner},
            "trials": trials,
            "epochs": 1,
            "seed": seed,
        },
        "planted",
    )
    distances: list[float] = []
    oracle = oracles.of(search, lambda trial: Outcome("finished", -distances[-1]))
    while (trial := oracle.create_trial("tuner0")).status != oracle.STOPPED:
        weights = search.labelled(trial.hyperparameters.values)["w"]
        distances.append(math.dist(weights, optimum))
        oracle.end_trial(trial)
    return min(distances)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    rows = []
    print(f"nearest of {arguments.trials} trials; found: within {NEAR}\nseed  bayesian  random")
    for seed in range(arguments.seeds):
        found = {tuner: nearest(tuner, seed, arguments.trials) for tuner in ("bayesian", "random")}
        rows.append({"seed": seed} | found)
        print(f"{seed:4}  {found['bayesian']:8.3f}  {found['random']:6.3f}", flush=True)
    counts = {tuner: sum(row[tuner] < NEAR for row in rows) for tuner in ("bayesian", "random")}
    print(f"found: bayesian {counts['bayesian']}, random {counts['random']} of {len(rows)}")
    if arguments.out:
        environment = describe_environment("none", ["python", "benchmarks/planted.py", *sys.argv[1:]])
        content = {"environment": environment, "trials": arguments.trials, "rows": rows}
        tables.write_part(arguments.out, content, "planted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
