"""Predicts with the network of a finished run, for pictures and arrays: `python -m zoo.predict runs/mine cat.png`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo import owncode, signals
from zoo.command import run_command
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.runs import Run


def predict(folder: Path, paths: Sequence[Path]) -> list[dict[str, float]]:
    """For each sample, the classes with their probabilities, the most likely first; or the predicted numbers.

    A file is a picture, resized to the network's size whatever its proportions; or an .npy, an .npz with an array x,
    or a CSV, with any number of samples. For a class at each pixel, the share of pixels where it is the most likely.

    Raises:
        UserError: if the folder holds no finished run, or a file no such samples.
    """
    from zoo import runs

    return [row for rows in _by_file(runs.Run(folder), paths) for row in rows]


def _by_file(run: "Run", paths: Sequence[Path]) -> list[list[dict[str, float]]]:
    from zoo.data import pictures

    found = [pictures.read_samples(path, run.form) for path in paths]
    outputs = run.predict(np.concatenate(found))
    ends = np.cumsum([len(each) for each in found])[:-1]
    by_file = np.split(outputs, ends)
    for path, rows in zip(paths, by_file, strict=True):
        if odd := [i for i, row in enumerate(rows) if not np.isfinite(row).all()]:
            raise UserError(f"{path}: row {odd[0]}: the network's output is NaN or infinite")
    return [[_said(row, run.classes) for row in rows] for rows in by_file]


def _said(output: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
    from scipy.special import softmax

    if not classes:
        numbers = output.reshape(-1)
        return {"value": float(numbers[0])} if len(numbers) == 1 else {str(i): float(x) for i, x in enumerate(numbers)}
    if output.ndim == 1:
        shares = softmax(output.astype("float64"))
    else:
        shares = np.bincount(output.argmax(axis=-1).reshape(-1), minlength=len(classes)) / output[..., 0].size
    named = zip(classes, map(float, shares), strict=True)
    return dict(sorted(named, key=lambda pair: -pair[1]))


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo.predict", description="Predict with a run's network, for pictures or arrays."
    )
    parser.add_argument("run", type=Path, help="folder of a finished run of one seed")
    parser.add_argument("images", type=Path, nargs="+", metavar="FILE", help="a picture, .npy, .npz (x) or .csv")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="number of classes to print (3)")
    parser.add_argument("--trust", action="store_true", help=owncode.HELP)
    return parser


def _main(arguments: argparse.Namespace) -> int:
    from zoo import backend

    if arguments.top < 1:
        raise UserError(f"--top {arguments.top}: expected 1 or more")
    owncode.trust(arguments.trust)
    backend.choose()
    backend.load()
    from zoo import runs
    from zoo.data.pictures import ARRAYS

    run = runs.Run(arguments.run)
    for path, rows in zip(arguments.images, _by_file(run, arguments.images), strict=True):
        for i, found in enumerate(rows):
            named = list(found.items())
            said = (
                [f"{name} {share:.3f}" for name, share in named[: arguments.top]]
                if run.classes
                else [f"{number:.6g}" for _, number in named]
            )
            print(f"{path}{f', row {i}' if path.suffix.lower() in ARRAYS else ''}: {', '.join(said)}")
    return 0


if __name__ == "__main__":
    signals.leave(main())
