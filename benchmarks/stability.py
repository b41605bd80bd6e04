"""The largest learning rate at which each activation trains, beside its plain counterpart's.

    KERAS_BACKEND=tensorflow python benchmarks/stability.py --out benchmarks/results/stability.csv.gz
    KERAS_BACKEND=tensorflow python benchmarks/stability.py --part 1 --out ...     # one network of six
    python benchmarks/stability_report.py benchmarks/results/stability.csv.gz --out docs/pictures/stability.svg

A cell is one short training: backend, network, data, optimizer, activation, granularity, training, rate and seed. It
has trained where its loss is finite and below that of chance, and its test accuracy well above chance (with batch norm
by the statistics of the test images, as its moving averages lag behind activations that move at a constant high rate).
For a plain function rates go up or down in factors of 2 until they bracket its limit, the largest rate at which every
seed trains; an adaptive one gets a ladder of rates around its counterpart's limit, with `--above 0` none above it,
which costs a third and tells whether its limit is lower. Cells stand in one file, a line each; the same command runs
what is missing, most telling cells first.
"""

import argparse
import csv
import gzip
import os
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
if __name__ == "__main__":
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

from zoo import backend

backend.choose()

import keras
import numpy as np
from stability_training import CHANCE, NETWORKS, OPTIMIZERS, TRAININGS, Cell, Group, Outcome, trained

SEEDS = (0, 1, 2)
OTHER_SEEDS = (3, 4, 5)  # with which a plain function's limit is found again: how far chance moves it
LADDER = (0, -1, 1, -2, 2, -3)  # steps of factor 2 from the counterpart's limit, most telling first
LOWEST = 6  # steps below the first rate, where the search for a plain limit ends
FEW = ("lamb", "muon")  # optimizers with three rates only
RELUS = ("relu", "leaky_relu")
ADAPTIVE = {  # and the plain functions whose smaller limit is theirs to reach
    "arelu": RELUS,
    "method1": RELUS,
    "pelu": ("elu",),
    "atanh": ("tanh",),
    "asigmoid": ("sigmoid",),
    "method2": RELUS,
    "prelu": RELUS,
    "frelu": RELUS,
    "swish": ("silu",),
}
PLAIN = tuple(dict.fromkeys(name for names in ADAPTIVE.values() for name in names))


class Cells:
    """The cells of a file, by what they are."""

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[Cell, Outcome] = {}
        self.steps: dict[Cell, set[int]] = {}  # that were tried, whatever the seed, of each group
        self.open = gzip.open if path.suffix == ".gz" else open
        if path.exists():
            with self.open(path, "rt", encoding="utf-8") as file:
                rows = list(csv.reader(file))[1:]
            for row in rows:
                if len(row) == len(Cell._fields) + len(Outcome._fields):  # not one that was cut off
                    names, step, seed, *values = row[:7], row[7], row[8], *row[9:]
                    self.keep(Cell(*names, int(step), int(seed)), Outcome(*map(float, values)))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.write((*Cell._fields, *Outcome._fields))

    def keep(self, cell: Cell, outcome: Outcome) -> None:
        self.found[cell] = outcome
        self.steps.setdefault(cell._replace(step=0, seed=0), set()).add(cell.step)

    def add(self, cell: Cell, outcome: Outcome) -> None:
        self.keep(cell, outcome)
        self.write([*map(str, cell), *(f"{value:.4g}" for value in outcome)])

    def write(self, row: Iterable[str]) -> None:
        with self.open(self.path, "at", encoding="utf-8") as file:
            file.write(",".join(row) + "\n")

    def passes(self, cell: Cell, seeds: tuple[int, ...] = SEEDS) -> bool | None:
        """Whether all seeds trained; None while that isn't known."""
        outcomes = [(c, self.found.get(c)) for c in (cell._replace(seed=seed) for seed in seeds)]
        if any(outcome is not None and not trained(c, outcome) for c, outcome in outcomes):
            return False
        return None if any(outcome is None for _, outcome in outcomes) else True

    def tried(self, cell: Cell) -> set[int]:
        return self.steps.get(cell._replace(step=0, seed=0), set())

    def limit(self, cell: Cell, seeds: tuple[int, ...] = SEEDS) -> int | None:
        """The largest step at which all seeds trained, of those that were tried."""
        return max((s for s in self.tried(cell) if self.passes(cell._replace(step=s), seeds)), default=None)

    def accuracy(self, cell: Cell) -> float | None:
        """The mean over the seeds; None while one is missing."""
        found = [self.found.get(cell._replace(seed=seed)) for seed in SEEDS]
        return None if None in found else float(np.mean([outcome.accuracy for outcome in found if outcome]))

    def best(self, cell: Cell) -> int | None:
        """The step of the highest accuracy, of those that were tried with all seeds."""
        known = {
            step: found for step in self.tried(cell) if (found := self.accuracy(cell._replace(step=step))) is not None
        }
        return max(known, key=lambda step: (known[step], -step), default=None)


def bracket(
    cells: Cells, group: Cell, first: int, lowest: int, highest: int, seeds: tuple[int, ...] = SEEDS
) -> int | None:
    """The next step that the search for a limit needs, from `first` up or down; None where it is found."""
    step = first
    if cells.passes(group._replace(step=first), seeds) is False:
        while cells.passes(group._replace(step=step), seeds) is False and step > lowest:
            step -= 1
    else:
        while cells.passes(group._replace(step=step), seeds) and step < highest:
            step += 1
    return step if cells.passes(group._replace(step=step), seeds) is None else None


def plan(cells: Cells, groups: Iterable[tuple[Cell, str]], above: int = max(LADDER)) -> Iterator[Cell]:
    """The cells to run, one by one; a group is a cell without its step and seed, and what is asked of it.

    A step that failed with one seed is not run with others, unless the whole ladder is.
    """
    for group, asked in groups:
        seeds = OTHER_SEEDS if asked == "other seeds" else SEEDS
        if asked == "best rate":
            best = [cells.best(plain) for plain in counterparts(group)]
            steps = [step for step in best if step is not None]
        elif asked == "ladder":
            steps = ladder(cells, group)
        else:
            yield from towards_limit(cells, group, seeds, above)
            continue
        for step in steps:
            yield from missing(cells, group._replace(step=step), seeds)


def towards_limit(
    cells: Cells, group: Cell, seeds: tuple[int, ...] = SEEDS, above: int = max(LADDER)
) -> Iterator[Cell]:
    """The cells that the search for a limit needs: an adaptive one up to `above` steps above its counterpart's, a plain
    one with other seeds up to the limit with the first ones."""
    first = OPTIMIZERS[group.optimizer][1]
    lowest, highest = first - LOWEST, 99
    if group.activation not in PLAIN:
        steps = ladder(cells, group)
        if not steps:
            return
        first, lowest, highest = steps[0], min(steps), min(max(steps), steps[0] + above)
    elif seeds is OTHER_SEEDS:
        if (known := cells.limit(group)) is None:
            return
        first, highest = known, known
    while (step := bracket(cells, group, first, lowest, highest, seeds)) is not None:
        yield missing(cells, group._replace(step=step), seeds)[0]


def ladder(cells: Cells, group: Cell) -> list[int]:
    """The steps of an adaptive group: around the smaller of its counterparts' limits."""
    limit = counterpart_limit(cells, group)
    offsets = LADDER[:3] if group.optimizer in FEW else LADDER
    return [] if limit is None else [limit + offset for offset in offsets]


def counterpart_limit(cells: Cells, group: Cell, seeds: tuple[int, ...] = SEEDS) -> int | None:
    limits = [cells.limit(cell, seeds) for cell in counterparts(group)]
    found = [limit for limit in limits if limit is not None]
    return min(found) if len(found) == len(limits) else None


def counterparts(group: Cell) -> list[Cell]:
    names = ADAPTIVE.get(group.activation, (group.activation,))
    return [group._replace(activation=name, granularity="", training="") for name in names]


def missing(cells: Cells, cell: Cell, seeds: tuple[int, ...]) -> list[Cell]:
    return [c for c in (cell._replace(seed=seed) for seed in seeds) if c not in cells.found]


MAIN = tuple(ADAPTIVE)[:5]
FIVE = tuple(OPTIMIZERS)[:5]
ROUNDS = (  # most telling first: optimizers, activations, granularities, and what is asked of each
    (("momentum", "adam"), MAIN, ("layer",), "limit"),
    (FIVE, MAIN, ("layer",), "limit"),
    (FIVE, tuple(ADAPTIVE), ("layer", "channel"), "limit"),
    (FIVE, PLAIN, ("",), "other seeds"),
    (FIVE, MAIN, ("layer",), "best rate"),
    (tuple(OPTIMIZERS), tuple(ADAPTIVE), ("layer", "channel"), "ladder"),
)
ASKED = tuple(dict.fromkeys(what for *_, what in ROUNDS))


def groups_of(networks, optimizers, data: str, trainings, asked) -> Iterator[tuple[Cell, str]]:
    """All groups, most telling first; plain functions before the adaptive ones that are measured by them."""
    for chosen, activations, granularities, what in ROUNDS:
        for optimizer, network in ((o, n) for o in chosen if o in optimizers for n in networks if what in asked):
            start = Cell(keras.backend.backend(), network, data, optimizer, "", "", "", 0, 0)
            if activations is PLAIN:
                yield from ((start._replace(activation=name), what) for name in PLAIN)
                continue
            for plain in dict.fromkeys(name for activation in activations for name in ADAPTIVE[activation]):
                yield start._replace(activation=plain), "limit"
            for granularity, name, training in product(granularities, activations, trainings):
                yield start._replace(activation=name, granularity=granularity, training=training), what


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="cells; those in it are not run again")
    parser.add_argument("--part", type=int, choices=range(1, len(NETWORKS) + 1), help="one network only")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--asked", nargs="+", choices=ASKED, default=list(ASKED), help="what of each group")
    parser.add_argument(
        "--above", type=int, metavar="STEPS", default=max(LADDER), help="how far above a counterpart's limit to look"
    )
    parser.add_argument("--data", choices=CHANCE, default="digits")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with CIFAR-10, as for zoo.train")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further cell after so long")
    return parser


def main() -> int:
    chosen = parser().parse_args()
    networks = [list(NETWORKS)[chosen.part - 1]] if chosen.part else chosen.networks
    cells, began, group = Cells(chosen.out), time.monotonic(), None
    groups = groups_of(networks, chosen.optimizers, chosen.data, chosen.trainings, chosen.asked)
    for cell in plan(cells, groups, chosen.above):
        if time.monotonic() - began > chosen.minutes * 60:
            break
        if group is None or group.group != cell._replace(step=0, seed=0):
            keras.utils.clear_session()
            group = Group(cell._replace(step=0, seed=0), chosen.data_dir)
        outcome = group.run(cell)
        cells.add(cell, outcome)
        print(*filter(None, cell[1:7]), cell.step, cell.seed, *(f"{value:.3g}" for value in outcome), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
