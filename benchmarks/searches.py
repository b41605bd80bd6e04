"""What a search's tuner and its stopping rule are worth; nothing is trained.

    KERAS_BACKEND=jax python benchmarks/searches.py planted
    KERAS_BACKEND=jax python benchmarks/searches.py stopping searches/without

`planted`: whether the Bayesian search finds a planted optimum of fixed mixing weights more often than the random one.
The objective is minus the distance from a point of the simplex, drawn for each seed, to the weights that a trial
proposes. It counts as found where one of the trials comes nearer than 0.05.

`stopping`: what the median rule would have saved in a search that stopped no trial, and how often it would have lost
the best. The search's own curves are gone through in 1,000 random orders, as if its trials had come in that order,
which is as likely where they were drawn at random. Epochs stand for time.
"""

import argparse
import math
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tuner.searches import space
from tuner.searches.folder import SearchResults
from zoo import backend
from zoo.environment import describe_environment

backend.choose()  # before KerasTuner imports Keras

import numpy as np
import tables

from tuner.searches import oracle, oracles
from tuner.searches.folder import SearchFolder
from tuner.searches.records import Outcome

NEAR = 0.05
ORDERS = 1000


def nearest(tuner: str, seed: int, trials: int) -> float:
    """The distance of the nearest trial."""
    optimum = np.random.default_rng(seed).dirichlet([1, 1, 1])
    search = space.parse(
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


def planted(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    rows = []
    print(f"nearest of {arguments.trials} trials; found: within {NEAR}\nseed  bayesian  random")
    for seed in range(arguments.seeds):
        found = {tuner: nearest(tuner, seed, arguments.trials) for tuner in ("bayesian", "random")}
        rows.append({"seed": seed} | found)
        print(f"{seed:4}  {found['bayesian']:8.3f}  {found['random']:6.3f}", flush=True)
    counts = {tuner: sum(row[tuner] < NEAR for row in rows) for tuner in ("bayesian", "random")}
    print(f"found: bayesian {counts['bayesian']}, random {counts['random']} of {len(rows)}")
    return "none", {"trials": arguments.trials, "rows": rows}


def replay(curves: list[list[float]], rule: space.Median, maximize: bool) -> tuple[int, bool]:
    """Epochs that the trials take in this order, and whether the one that ends best is stopped."""
    sign = 1 if maximize else -1
    best = max(range(len(curves)), key=lambda i: sign * curves[i][-1])
    seen: list[list[float]] = []
    lost = False
    for i, curve in enumerate(curves):
        ends = (n for n in range(1, len(curve)) if oracle.is_poor(curve[:n], seen, rule, maximize))
        epochs = next(ends, len(curve))
        lost |= i == best and epochs < len(curve)
        seen.append(curve[:epochs])
    return sum(map(len, seen)), lost


def stopping(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    found = SearchResults(SearchFolder(arguments.search))
    curves = [trial.outcome.curve for trial in found.ranking]
    rng = np.random.default_rng(0)
    rows = []
    print(f"{len(curves)} trials of {found.search.epochs} epochs, {ORDERS} orders\nepochs trials  saved  best lost")
    for epochs, trials in ((1, 4), (2, 4), (3, 4), (2, 8)):
        rule = space.Median(epochs=epochs, trials=trials)
        ended = [
            replay([curves[i] for i in rng.permutation(len(curves))], rule, found.search.maximize)
            for _ in range(ORDERS)
        ]
        saved = 1 - statistics.fmean(taken for taken, _ in ended) / sum(map(len, curves))
        lost = statistics.fmean(lost for _, lost in ended)
        rows.append({"epochs": epochs, "trials": trials, "saved": saved, "best_lost": lost})
        print(f"{epochs:6} {trials:6}  {saved:5.1%}  {lost:9.1%}")
    search = found.search.model_dump(by_alias=True, mode="json")
    return "curves of a search", {"search": search, "orders": ORDERS, "rows": rows, "curves": curves}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", default=tables.RESULTS / "checks.json.xz")
    commands = parser.add_subparsers(dest="what", required=True)
    for_planted = commands.add_parser("planted")
    for_planted.add_argument("--seeds", type=int, default=10)
    for_planted.add_argument("--trials", type=int, default=30)
    for_stopping = commands.add_parser("stopping")
    for_stopping.add_argument("search", type=Path, help="folder of a random search without stopping")
    arguments = parser.parse_args()
    images, content = {"planted": planted, "stopping": stopping}[arguments.what](arguments)
    environment = describe_environment(images, ["python", "benchmarks/searches.py", *sys.argv[1:]])
    tables.write_part(arguments.out, {"environment": environment} | content, arguments.what)
    return 0


if __name__ == "__main__":
    sys.exit(main())
