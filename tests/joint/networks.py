"""Writes a weights file of each network, or prints each network's loss from the files of another backend.

python tests/joint/networks.py write|read FOLDER small|full
"""

import json
import sys
from pathlib import Path

import numpy as np

from zoo import config
from zoo.data import datasets, pipeline
from zoo.data.splits import Split
from zoo.training.trainer import Trainer

SMALL = {
    "lenet": {},
    "alexnet": {"widths": [32, 16]},
    "googlenet": {"width": 0.125},
    "resnet50": {"width": 8, "blocks": [1, 1, 1, 1]},
    "densenet": {"blocks": [1, 1, 1, 1], "growth": 8},
}


def trainer(network: str, structure: dict) -> Trainer:
    model = {"name": network} | structure
    model |= {"stem": "reference"} if network != "lenet" else {}
    model |= {"dropout": 0.0} if network != "resnet50" else {}
    settings = {"batch_size": 16, "optimizer": {"learning_rate": 0.01}, "schedule": {"name": "constant", "warmup": 0.0}}
    return Trainer(config.Config(model=model, activation={"name": "method1"}, training=settings))


def losses(made: Trainer) -> list[float]:
    """In training, before and after a step."""
    rng = np.random.default_rng(0)
    images = Split(rng.integers(0, 256, (16, 32, 32, 3), "uint8"), rng.integers(0, 10, 16, "int32"))
    made.attach(datasets.Dataset("random", datasets.CIFAR10_CLASSES, images, None, images, "random"))
    found = []
    for _ in range(2):
        made.model.reset_metrics()
        made.engine.train(pipeline.plan(16, 16, seed=0, epoch=1), 0, 1)
        made.engine.synchronize()
        found.append(float(made.model.get_metrics_result()["loss"]))
    return found


def main(action: str, folder: Path, size: str) -> None:
    found = {}
    for network, structure in SMALL.items():
        made = trainer(network, structure if size == "small" else {})
        path = folder / f"{network}.weights.h5"
        if action == "write":
            made.model.save_weights(path)
        else:
            made.model.load_weights(path)
            found[network] = losses(made)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
