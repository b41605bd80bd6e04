"""What the cells of `benchmarks/stability.py` say: a table of stability limits, and a picture.

    python benchmarks/stability_report.py benchmarks/results/stability-tensorflow.csv --out docs/pictures/stability.svg

A number of the table is the limit of an adaptive activation, in steps of factor 2 from its counterpart's: +1 is twice
the rate. `>` says that the ladder ended there, `none` that no rate of it trained in every seed, `?` that cells are
missing.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import stability as grid

from zoo.reports import document

COLOURS = {"": "black", "bare": "tab:red", "limited": "tab:blue"}


def settled(cells: grid.Cells, group: grid.Cell) -> str:
    """The limit against the counterpart's, or what keeps it from being known."""
    steps, limit = grid.ladder(cells, group), grid.counterpart_limit(cells, group)
    if limit is None or grid.bracket(cells, group, steps[0], min(steps), max(steps)) is not None:
        return "?"
    own = cells.limit(group)
    if own is None:
        return "none"
    return f"{'>' if own == max(steps) else ''}{own - limit:+d}"


def groups(cells: grid.Cells) -> dict[grid.Cell, None]:
    return dict.fromkeys(c._replace(step=0, seed=0, training="") for c in cells.found if c.activation in grid.ADAPTIVE)


def table(cells: grid.Cells) -> list[str]:
    rows = ["| network, data, optimizer | activation | counterpart's limit | bare | limited |", "|---|---|---|---|---|"]
    for group in groups(cells):
        limit = grid.counterpart_limit(cells, group)
        if limit is None:
            continue
        found = [settled(cells, group._replace(training=training)) for training in grid.TRAININGS]
        name = group.activation + (" by channel" if group.granularity == "channel" else "")
        rows.append(f"| {group.network}, {group.data}, {group.optimizer} | {name} | 2^{limit} | {' | '.join(found)} |")
    return rows


def summary(cells: grid.Cells) -> list[str]:
    lines = [f"{len(cells.found)} cells"]
    for training in grid.TRAININGS:
        found = [settled(cells, group._replace(training=training)) for group in groups(cells)]
        known = [text for text in found if text != "?"]
        below = sum(text == "none" or text.startswith("-") for text in known)
        above = sum("+" in text and not text.endswith("+0") for text in known)
        lines.append(f"{training}: of {len(known)} limits {below} below the counterpart's, {above} above")
        trained = [o for c, o in cells.found.items() if c.training == training and grid.trained(c, o)]
        if trained:
            moved = np.quantile([o.moved for o in trained], [0.5, 0.95])
            bound = np.mean([o.bound for o in trained])
            lines[-1] += f"; farthest move of a parameter: median {moved[0]:.2f}, 95 % below {moved[1]:.2f}"
            lines[-1] += f"; on a bound: {bound:.1%} of parameters"
    return lines


def by_chance(cells: grid.Cells) -> str:
    """How far limits of plain functions lie apart with other seeds."""
    apart = []
    for group in {c._replace(step=0, seed=0): None for c in cells.found if c.seed in grid.OTHER_SEEDS}:
        if next(grid.towards_limit(cells, group, grid.OTHER_SEEDS), None) is None:
            limits = [cells.limit(group, seeds) for seeds in (grid.SEEDS, grid.OTHER_SEEDS)]
            if None not in limits:
                apart.append(limits[1] - limits[0])
    below, two, above = sum(s < 0 for s in apart), sum(s < -1 for s in apart), sum(s > 0 for s in apart)
    return f"plain with other seeds: of {len(apart)} limits {below} below, {two} by two or more, {above} above"


def at_best_rates(cells: grid.Cells) -> str:
    """Accuracy at the counterpart's best rate, where the activation trained without the limit."""
    found = []
    for group in groups(cells):
        best = [step for plain in grid.counterparts(group) if (step := cells.best(plain)) is not None]
        for step in dict.fromkeys(best):
            pair = [group._replace(step=step, training=training) for training in grid.TRAININGS]
            values = [cells.accuracy(cell) for cell in pair]
            if None not in values and cells.passes(pair[0]):
                found.append(values)
    if not found:
        return "no pair at a best rate"
    bare, limited = np.mean(found, axis=0)
    return (
        f"at the counterpart's best rate, mean accuracy of {len(found)} pairs: bare {bare:.4f}, limited {limited:.4f}"
    )


def draw(cells: grid.Cells, path: Path, optimizer: str) -> None:
    """Accuracy, the worst seed's, against the rate in steps from the counterpart's limit."""
    from matplotlib import pyplot

    networks = list(dict.fromkeys(c.network for c in cells.found if c.optimizer == optimizer))
    names = list(dict.fromkeys(c.activation for c in cells.found if c.activation in grid.MAIN))
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
            start = grid.Cell(network, "digits", optimizer, name, "layer", "", 0, 0)
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
    worst: dict[int, float] = {}
    for cell, outcome in cells.found.items():
        if cell._replace(step=0, seed=0) == group._replace(step=0, seed=0):
            value = outcome.accuracy if np.isfinite(outcome.loss) else 0.0
            worst[cell.step] = min(value, worst.get(cell.step, 1.0))
    steps = sorted(worst)
    axis.plot([s - limit for s in steps], [worst[s] for s in steps], "o-", color=colour, markersize=3, label=label)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path, help="of benchmarks/stability.py")
    parser.add_argument("--out", type=Path, metavar="FILE", help="picture")
    parser.add_argument("--optimizer", choices=grid.OPTIMIZERS, default="momentum", help="of the picture")
    arguments = parser.parse_args()
    cells = grid.Cells(arguments.cells)
    print("\n".join([*table(cells), "", *summary(cells), by_chance(cells), at_best_rates(cells)]))
    if arguments.out:
        draw(cells, arguments.out, arguments.optimizer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
