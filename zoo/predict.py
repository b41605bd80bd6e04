"""Classifies pictures with the network of a finished run: `python -m zoo.predict runs/mine cat.png`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo import signals
from zoo.command import run_command
from zoo.errors import UserError


def predict(folder: Path, paths: Sequence[Path]) -> list[dict[str, float]]:
    """For each picture, the classes with their probabilities, the most likely first.

    Pictures are resized to 32x32, whatever their proportions.

    Raises:
        UserError: if the folder holds no finished run, or a file isn't a picture.
    """
    from scipy.special import softmax

    from zoo import runs

    run = runs.Run(folder)
    images = np.stack([_picture(path) for path in paths])
    found = []
    for row in softmax(run.predict(images).astype("float64"), axis=1):
        named = zip(run.classes, map(float, row), strict=True)
        found.append(dict(sorted(named, key=lambda pair: -pair[1])))
    return found


def _picture(path: Path) -> np.ndarray:
    """The picture in RGB as uint8 (32, 32, 3)."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: can't be read as a picture: {error}") from None


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo.predict", description="Classify pictures with a run's network."
    )
    parser.add_argument("run", type=Path, help="folder of a finished run of one seed")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="a picture, of any size")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="number of classes to print (3)")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    from zoo import backend

    if arguments.top < 1:
        raise UserError(f"--top {arguments.top}: expected 1 or more")
    backend.choose()
    backend.load()
    for path, found in zip(arguments.images, predict(arguments.run, arguments.images), strict=True):
        named = [f"{name} {probability:.3f}" for name, probability in list(found.items())[: arguments.top]]
        print(f"{path}: {', '.join(named)}")
    return 0


if __name__ == "__main__":
    signals.leave(main())
