"""Folders of pictures, a subfolder for each class, as Keras's `image_dataset_from_directory` has them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.environment import memory_of_machine
from zoo.errors import DataError, UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
SIZE = (256, 256)  # Keras's, where pictures differ in size
SPLITS = ("train", "validation", "test")


def load(folder: Path, size: Sequence[int] | None, color_mode: str) -> dict[str, Any]:
    """Arrays x_train, y_train and so on, uint8 (n, h, w, c) and names of classes.

    Raises:
        DataError: where a split, a class or a picture is missing or can't be read.
    """
    found = {split: _files(folder / split) for split in SPLITS if (folder / split).is_dir()}
    if missing := [split for split in ("train", "test") if split not in found]:
        raise DataError(
            f"{folder}: has no folder {missing[0]}/; expected train/CLASS/*.png and test/CLASS/*.png, or x_train.npy, "
            "y_train.npy, x_test.npy and y_test.npy"
        )
    mode = MODES[color_mode]
    height, width = size or _size([path for paths in found.values() for path, _ in paths])
    needed = 2 * sum(map(len, found.values())) * height * width * len(mode)
    if (there := memory_of_machine()) and needed > there:
        raise DataError(
            f"{folder}: its pictures take {needed / 1e9:,.1f} GB at {height}x{width}, and there are {there / 1e9:,.1f} "
            "GB of memory; set dataset.image_size to a smaller one"
        )
    arrays: dict[str, Any] = {"classes": sorted({name for _, name in found["train"]})}
    for split, paths in found.items():
        arrays[f"x_{split}"] = np.stack([read(path, (height, width), mode) for path, _ in paths])
        arrays[f"y_{split}"] = np.array([name for _, name in paths])
    return arrays


def read(path: Path, size: tuple[int, int], mode: str) -> np.ndarray:
    """A picture as uint8 (height, width, colours), scaled to a size whatever its proportions.

    Raises:
        UserError: for a file that is missing, or no picture.
    """
    from PIL import Image

    with _picture(path) as image:
        try:
            found = np.asarray(image.convert(mode).resize(size[::-1], Image.Resampling.BILINEAR))
        except (OSError, ValueError, SyntaxError) as error:  # one that was cut off is decoded only now
            raise DataError(f"{path}: can't be read as a picture: {error}") from None
    return found.reshape(*size, len(mode))


def mode_of(shape: tuple[int, ...]) -> str | None:
    """Pillow's name for the colours of pictures of a shape; None where there is none."""
    known = {len(mode): mode for mode in MODES.values()}
    return known.get(shape[2]) if len(shape) == 3 else None


def _picture(path: Path):
    from PIL import Image

    try:
        return Image.open(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: can't be read as a picture: {error}") from None


def _size(paths: Sequence[Path]) -> tuple[int, int]:
    """Height and width that all have, or else Keras's default."""
    sizes = set()
    for path in paths:
        with _picture(path) as image:
            sizes.add(image.size)
        if len(sizes) > 1:
            return SIZE
    ((width, height),) = sizes
    return height, width


def _files(folder: Path) -> list[tuple[Path, str]]:
    """The pictures below each class's folder, and the class of each."""
    found = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        inside = sorted(_pictures(place))
        if not inside:
            raise DataError(f"{place}: holds no picture ({', '.join(SUFFIXES)}), and a folder is a class")
        found += [(path, place.name) for path in inside]
    if not found:
        raise DataError(f"{folder}: holds no folder; expected one for each class, with its pictures")
    return found


def _pictures(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            yield path
