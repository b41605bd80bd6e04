"""A run's history for TensorBoard: `tensorboard --logdir runs`."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo import folders, manifest
from zoo.errors import UserError


class Events:
    """Writes rows of history.csv into the folder `tensorboard` of the run; starts over when the run is resumed.

    Raises:
        UserError: if the package isn't installed.
    """

    def __init__(self, folder: Path, rows: Iterable[dict[str, Any]]):
        writer = require()
        place = folders.check_inside(folder / "tensorboard", folder)
        place.mkdir(exist_ok=True)
        manifest.adopt(place)
        for path in manifest.own(place):
            path.unlink()
        before = set(place.iterdir())
        self.writer = writer(str(place))
        manifest.note(place, [path.name for path in set(place.iterdir()) - before])
        for row in rows:
            self.epoch(row)

    def epoch(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                self.writer.add_scalar(name, value, row["epoch"])
        self.writer.flush()


def require() -> type:
    """TensorBoard's writer, which doesn't need TensorFlow."""
    try:
        from tensorboard.summary import Writer
    except ModuleNotFoundError:
        raise UserError(
            "metrics.tensorboard: the package tensorboard is not installed; pip install '.[tensorboard]'"
        ) from None
    return Writer
