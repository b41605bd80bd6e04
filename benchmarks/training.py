"""How fast the zoo trains against plain Keras `fit`, on the same network and images, without augmentation.

    KERAS_BACKEND=jax python benchmarks/training.py --only lenet --out benchmarks/results/speed.json

The two train epochs in turns in one process, each first in every other turn, on the same number of random images in
whole batches, with the config's recipe. `fit` gets its images standardized already; the zoo standardizes each batch.
A ratio is the median over the turns of what `fit` took over what the zoo took beside it: above 1 the zoo is faster.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo import backend as chosen_backend
from zoo.data.splits import Split
from zoo.environment import describe_environment

BACKEND = chosen_backend.choose()  # before Keras is imported

import keras
import numpy as np
import tables

from zoo import config, models
from zoo.data import datasets, pipeline
from zoo.training.optimizers import optimizer_of, penalize_kernels
from zoo.training.trainer import Trainer

CONFIGS = Path(__file__).parents[1] / "configs"
NETWORKS = {"lenet": 40, "alexnet": 8, "googlenet": 4, "resnet50": 4, "densenet": 2}  # steps of an epoch on a CPU


def settings(network: str, arguments: argparse.Namespace) -> config.Config:
    overrides = [f'activation={{"name": "{arguments.activation}"}}', f"training.batch_size={arguments.batch}"]
    overrides += [f"training.dtype={arguments.dtype}", "dataset.augmentation=none"]
    if network != "lenet":
        overrides.append(f"model.stem={arguments.stem}")
    return config.load(CONFIGS / f"{network}.json", overrides)


def zoo_epoch(chosen: config.Config, images: Split):
    trainer = Trainer(chosen)
    trainer.attach(datasets.Dataset("random", datasets.CIFAR10_CLASSES, images, None, images, "random"))
    epochs = iter(range(1, 1000))

    def epoch():
        plan = pipeline.plan(len(images.labels), chosen.training.batch_size, 0, next(epochs))
        trainer.engine.train(plan, 0, plan.steps)
        trainer.engine.synchronize()

    return epoch, trainer.pipeline


def fit_epoch(chosen: config.Config, images: Split, prepare: pipeline.Pipeline):
    keras.config.set_image_data_format(pipeline.fast_format())
    model = models.build(chosen, classes=10)
    penalize_kernels(model, chosen.training.weight_decay)
    optimizer = optimizer_of(chosen, len(images.labels) // chosen.training.batch_size, model)
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    x = keras.ops.convert_to_numpy(prepare.inputs(images.images))
    y = np.eye(10, dtype="float32")[images.labels]
    return lambda: model.fit(x, y, batch_size=chosen.training.batch_size, verbose=0)


def measure(network: str, arguments: argparse.Namespace) -> dict:
    chosen = settings(network, arguments)
    rng = np.random.default_rng(0)
    steps = arguments.steps or NETWORKS[network]
    size = arguments.batch * steps
    images = Split(rng.integers(0, 256, (size, 32, 32, 3), dtype="uint8"), rng.integers(0, 10, size, dtype="int32"))
    zoo, prepare = zoo_epoch(chosen, images)
    runs = {"zoo": zoo, "fit": fit_epoch(chosen, images, prepare)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(arguments.turns + 1):
        for name in sorted(runs, reverse=bool(turn % 2)):
            began = time.perf_counter()
            runs[name]()
            if turn:  # the first compiles
                times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    return {
        "network": network,
        "steps": steps,
        "zoo_images_per_second": round(size / medians["zoo"], 1),
        "fit_images_per_second": round(size / medians["fit"], 1),
        "times_fit": round(statistics.median(f / z for f, z in zip(times["fit"], times["zoo"], strict=True)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), choices=NETWORKS, metavar="NETWORK")
    parser.add_argument("--activation", default="relu")
    parser.add_argument("--stem", default="reference", choices=("reference", "cifar"), help="of all but LeNet")
    parser.add_argument("--dtype", default="float32", choices=("float32", "mixed_bfloat16", "mixed_float16"))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, help="of one epoch; by default 2 to 40, fewer of slower networks")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    rows = []
    print(f"{BACKEND}, batch {arguments.batch}, {arguments.turns} turns")
    print("network     zoo images/s  fit images/s  times fit")
    for network in arguments.only:
        row = measure(network, arguments)
        print(
            f"{row['network']:10} {row['zoo_images_per_second']:13,.0f} {row['fit_images_per_second']:13,.0f} "
            f"{row['times_fit']:10.3f}",
            flush=True,
        )
        rows.append(row)
    if arguments.out:
        environment = describe_environment("random numbers", ["python", *sys.argv])
        what = {name: getattr(arguments, name) for name in ("activation", "stem", "dtype", "batch", "turns")}
        threads = os.environ.get("OMP_NUM_THREADS", "as many as processors")
        content = {"environment": environment, "threads": threads, **what, "rows": rows}
        tables.write_part(arguments.out, content, "training", BACKEND)


if __name__ == "__main__":
    main()
