"""What the cells of `benchmarks/stability.py` say: a table of stability limits, and a picture.

    python benchmarks/stability_report.py benchmarks/results/stability.csv.gz --out docs/pictures/stability.svg

A number of the table is the limit of an adaptive activation, in steps of factor 2 from its counterpart's: +1 is twice
the rate. `>=` says that no higher rate was tried, `none` that no rate of the ladder trained in every seed, `?` that
cells are missing.
"""

import argparse
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import stability as grid
from scipy import stats

from zoo.reports import document

HELD_OUT = "rmsprop"  # an optimizer that the limit wasn't chosen with
WORDS = {"bare": "the optimizer as it is", "limited": "with the limit"}
COLOURS = {"": "black", "bare": "tab:red", "limited": "tab:blue"}


class Standing(NamedTuple):
    """Where a limit lies."""

    apart: int | None  # steps above the counterpart's; None: no rate of the ladder trained in every seed
    is_least: bool  # higher rates weren't tried

    def __str__(self):
        return "none" if self.apart is None else f"{'>=' if self.is_least else ''}{self.apart:+d}"


def standing(cells: grid.Cells, group: grid.Cell) -> Standing | None:
    """Where a limit lies; None while cells are missing."""
    steps, limit = grid.ladder(cells, group), grid.counterpart_limit(cells, group)
    if limit is None or next(grid.towards_limit(cells, group, above=0), None) is not None:
        return None
    own = cells.limit(group)
    if own is None:
        return Standing(None, False)
    sought = own < limit or next(grid.towards_limit(cells, group), None) is None
    return Standing(own - limit, not sought or own == max(steps))


def groups(cells: grid.Cells) -> dict[grid.Cell, None]:
    return dict.fromkeys(c._replace(step=0, seed=0, training="") for c in cells.found if c.activation in grid.ADAPTIVE)


def table(cells: grid.Cells) -> list[str]:
    rows = [
        "| backend, network, data, optimizer | activation | counterpart's limit | bare | limited |",
        "|---|---|---|---|---|",
    ]
    for group in groups(cells):
        limit = grid.counterpart_limit(cells, group)
        if limit is None:
            continue
        found = [str(standing(cells, group._replace(training=training)) or "?") for training in grid.TRAININGS]
        name = group.activation + (" by channel" if group.granularity == "channel" else "")
        where = ", ".join((group.backend, group.network, group.data, group.optimizer))
        rows.append(f"| {where} | {name} | 2^{limit} | {' | '.join(found)} |")
    return rows


class Tally(NamedTuple):
    """How many limits are known, and lie below the counterpart's; how many above it, of those sought there."""

    known: int
    below: int
    far_below: int
    above: int = 0
    sought: int = 0


def tally(cells: grid.Cells, found: Iterable[grid.Cell], training: str) -> Tally:
    limits = [limit for group in found if (limit := standing(cells, group._replace(training=training)))]
    apart = [-np.inf if limit.apart is None else limit.apart for limit in limits]
    unsought = sum(limit == Standing(0, True) for limit in limits)
    return Tally(
        len(limits),
        sum(steps < 0 for steps in apart),
        sum(steps < -1 for steps in apart),
        sum(steps > 0 for steps in apart),
        len(limits) - unsought,
    )


def by_chance(cells: grid.Cells, backend: str) -> Tally:
    """Of plain functions: with other seeds than those that the limit was found with."""
    apart = []
    for group in {c._replace(step=0, seed=0): None for c in cells.found if c.seed in grid.OTHER_SEEDS}:
        if group.backend == backend and next(grid.towards_limit(cells, group, grid.OTHER_SEEDS), None) is None:
            limits = [cells.limit(group, seeds) for seeds in (grid.SEEDS, grid.OTHER_SEEDS)]
            if None not in limits:
                apart.append(limits[1] - limits[0])
    return Tally(len(apart), sum(s < 0 for s in apart), sum(s < -1 for s in apart))


def tallies(cells: grid.Cells) -> list[tuple[str, Tally]]:
    """By backend, and for the optimizer and the data that were held out until all else was decided."""
    rows = []
    for backend in dict.fromkeys(c.backend for c in cells.found):
        every = [group for group in groups(cells) if group.backend == backend]
        parts = {
            backend: [g for g in every if g.data == "digits" and g.optimizer != HELD_OUT],
            f"{backend}, {HELD_OUT}": [g for g in every if g.data == "digits" and g.optimizer == HELD_OUT],
            f"{backend}, CIFAR-10": [g for g in every if g.data == "cifar10"],
        }
        for (name, found), training in product(parts.items(), grid.TRAININGS):
            rows.append((f"{name}, {WORDS[training]}", tally(cells, found, training)))
        rows.append((f"{backend}, plain with other seeds", by_chance(cells, backend)))
    return [(name, counts) for name, counts in rows if counts.known]


def tally_table(cells: grid.Cells) -> list[str]:
    rows = ["| | limits | below the counterpart's | two steps or more | above it |", "|---|---|---|---|---|"]
    for name, counts in tallies(cells):
        above = f"{counts.above} of {counts.sought}" if counts.sought > counts.below else ""  # the rest wasn't sought
        rows.append(f"| {name} | {counts.known} | {counts.below} | {counts.far_below} | {above} |")
    return rows


def motion(cells: grid.Cells) -> list[str]:
    lines = [f"{len(cells.found)} cells"]
    for training in grid.TRAININGS:
        trained = [o for c, o in cells.found.items() if c.training == training and grid.trained(c, o)]
        if trained:
            moved = np.quantile([o.moved for o in trained], [0.5, 0.95])
            bound = np.mean([o.bound for o in trained])
            lines.append(
                f"{training}: farthest move of a parameter: median {moved[0]:.2f}, 95 % below {moved[1]:.2f}; "
                f"on a bound: {bound:.1%} of parameters"
            )
    return lines


def at_best_rates(cells: grid.Cells) -> list[tuple[float, float]]:
    """Accuracies, bare and limited, at the counterpart's best rate, where the activation trained without the limit."""
    found = []
    for group in groups(cells):
        best = [step for plain in grid.counterparts(group) if (step := cells.best(plain)) is not None]
        for step in dict.fromkeys(best):
            pair = [group._replace(step=step, training=training) for training in grid.TRAININGS]
            bare, limited = (cells.accuracy(cell) for cell in pair)
            if bare is not None and limited is not None and cells.passes(pair[0]):
                found.append((bare, limited))
    return found


def best_rates(cells: grid.Cells) -> str:
    found = np.array(at_best_rates(cells))
    if len(found) < 2:
        return "no pairs at a best rate"
    (bare, limited), apart = found.mean(axis=0), found[:, 1] - found[:, 0]
    low, high = stats.t.interval(0.95, len(apart) - 1, apart.mean(), stats.sem(apart))
    return (
        f"at the counterpart's best rate, mean accuracy of {len(found)} pairs: bare {bare:.4f}, limited {limited:.4f}; "
        f"difference {apart.mean():+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"
    )


def draw(cells: grid.Cells, path: Path, backend: str, optimizer: str) -> None:
    """Accuracy, the worst seed's, against the rate in steps from the counterpart's limit."""
    from matplotlib import pyplot

    shown = [c for c in cells.found if (c.backend, c.data, c.optimizer) == (backend, "digits", optimizer)]
    networks = list(dict.fromkeys(c.network for c in shown))
    names = [name for name in grid.MAIN if any(c.activation == name for c in shown)]
    figure, axes = pyplot.subplots(
        len(networks),
        len(names),
        figsize=(2.2 * len(names), 1.7 * len(networks)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for row, network in zip(axes, networks, strict=True):
        for axis, name in zip(row, names, strict=True):
            start = grid.Cell(backend, network, "digits", optimizer, name, "layer", "", 0, 0)
            if (limit := grid.counterpart_limit(cells, start)) is not None:
                for training in grid.TRAININGS:
                    curve(axis, cells, start._replace(training=training), limit, COLOURS[training], training)
                for plain in grid.ADAPTIVE[name]:
                    group = start._replace(activation=plain, granularity="")
                    curve(axis, cells, group, limit, COLOURS[""], "plain")
            else:
                axis.text(
                    0.5, 0.5, "plain never\ntrains", transform=axis.transAxes, ha="center", va="center", color="0.5"
                )
            axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
        row[0].set_ylabel(network)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name)
    for axis in axes[-1]:
        axis.set_xlabel("log2 rate / limit")
    axes[0][0].set_xlim(-2.5, 2.5)
    handles = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, frameon=False)
    figure.suptitle(f"Worst accuracy of three seeds, {optimizer}", y=0.02, fontsize="small", color="0.3")
    figure.tight_layout(rect=(0, 0.03, 1, 0.96))
    if path.suffix == ".svg":
        path.write_text(document.svg(figure), encoding="utf-8")
    else:
        figure.savefig(path)


def curve(axis, cells: grid.Cells, group: grid.Cell, limit: int, colour: str, label: str) -> None:
    worst = {}
    for step in sorted(cells.tried(group)):
        found = [cells.found.get(group._replace(step=step, seed=seed)) for seed in grid.SEEDS]
        values = [o.accuracy if np.isfinite(o.loss) else 0.0 for o in found if o]
        if values:
            worst[step - limit] = min(values)
    axis.plot(list(worst), list(worst.values()), "o-", color=colour, markersize=3, label=label)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path, help="of benchmarks/stability.py")
    parser.add_argument("--out", type=Path, metavar="FILE", help="picture")
    parser.add_argument("--backend", default="tensorflow", help="of the picture")
    parser.add_argument("--optimizer", choices=grid.OPTIMIZERS, default="momentum", help="of the picture")
    arguments = parser.parse_args()
    cells = grid.Cells(arguments.cells)
    print("\n".join([*table(cells), "", *tally_table(cells), "", *motion(cells), best_rates(cells)]))
    if arguments.out:
        draw(cells, arguments.out, arguments.backend, arguments.optimizer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
