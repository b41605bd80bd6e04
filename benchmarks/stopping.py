"""What the median rule would have saved in a search that stopped no trial, and how often it would have lost the best.

    python benchmarks/stopping.py searches/without --out benchmarks/results/decisions.json

The search's own curves are gone through in 1,000 random orders, as if its trials had come in that order, which is as
likely where they were drawn at random. Nothing is trained. Epochs stand for time.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tuner.reports.trials import SearchResults
from zoo import backend
from zoo.environment import describe_environment

backend.choose()  # before KerasTuner imports Keras

import numpy as np
import tables

from tuner.searches import oracle, space
from tuner.searches.folder import SearchFolder

ORDERS = 1000


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("search", type=Path, help="folder of a random search without stopping")
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
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
    if arguments.out:
        environment = describe_environment("curves of a search", ["python", "benchmarks/stopping.py", *sys.argv[1:]])
        search = found.search.model_dump(by_alias=True, mode="json")
        content = {"environment": environment, "search": search, "orders": ORDERS, "rows": rows, "curves": curves}
        tables.write_part(arguments.out, content, "stopping")
    return 0


if __name__ == "__main__":
    sys.exit(main())
