"""Whether each recipe of `configs/` trains with each activation: the loss after a few hundred steps, beside ReLU's.

    KERAS_BACKEND=tensorflow python benchmarks/recipes.py --data-dir DIR --out benchmarks/results/checks.json.xz

Five networks, two recipes each (`NAME.json` and the report's `NAME-reference.json`), eight activations. A run takes
three epochs on 1,600 images of CIFAR-10, in batches of 16, with the reference stem: its rate, its schedule (squeezed
into three epochs) and all else are the recipe's. It has collapsed where its loss ends above chance and doesn't fall,
and ReLU's does; the losses are means over an epoch. The file is written after each run, and `--resume` keeps the
rows that are in it.
"""

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo import backend

backend.choose()  # before Keras is imported

import tables

from zoo import config, files, train
from zoo.environment import describe_environment

NETWORKS = ("lenet", "alexnet", "googlenet", "resnet50", "densenet")
RECIPES = {"modern": "", "reference": "-reference"}
ACTIVATIONS = ("relu", "sigmoid", "asigmoid", "tanh", "atanh", "arelu", "method1", "method2")
CONFIGS = Path(__file__).parents[1] / "configs"
IMAGES, EPOCHS, BATCH = 1600, 3, 16


def measure(network: str, recipe: str, activation: str, data_dir: Path | None) -> dict:
    """What a short run of a recipe comes to."""
    overrides = [f'activation={{"name": "{activation}"}}', f"training.epochs={EPOCHS}", f"training.batch_size={BATCH}"]
    overrides += [f"dataset.limit={IMAGES}", "dataset.test_limit=256"]
    if network != "lenet":
        overrides.append("model.stem=reference")
    chosen = config.load(CONFIGS / f"{network}{RECIPES[recipe]}.json", overrides)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        (found,) = train.run(chosen, Path(folder, "run"), data_dir)
        epochs = files.read_history(Path(folder, "run", "history.csv"))
    return {
        "network": network,
        "recipe": recipe,
        "activation": activation,
        "status": found["status"],
        "first_loss": epochs[0]["loss"],
        "last_loss": epochs[-1]["loss"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def trains(row: dict) -> bool:
    """Whether a loss falls, or has fallen below that of chance."""
    return row["status"] == "finished" and row["last_loss"] < max(math.log(10), row["first_loss"] - 0.01)


def collapsed(row: dict, rows: list[dict]) -> bool:
    """Whether a run doesn't train where ReLU does, or has no loss at all."""
    same = ("network", "recipe")
    relu = next(r for r in rows if r["activation"] == "relu" and all(r[key] == row[key] for key in same))
    return row["status"] != "finished" or (trains(relu) and not trains(row))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with CIFAR-10, as for zoo.train")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are in the file")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True)
    chosen = parser.parse_args()
    about = describe_environment("CIFAR-10", ["python", "benchmarks/recipes.py", *sys.argv[1:]])
    rows = tables.part(chosen.out, "recipes").get("rows", []) if chosen.resume else []
    done = {(row["network"], row["recipe"], row["activation"]) for row in rows}
    for network in chosen.only:
        for recipe in chosen.recipes:
            for activation in ACTIVATIONS:
                if (network, recipe, activation) not in done:
                    rows.append(measure(network, recipe, activation, chosen.data_dir))
                    print(rows[-1], flush=True)
                    tables.write_part(chosen.out, {"environment": about, "rows": rows}, "recipes")
    bad = [row for row in rows if collapsed(row, rows)]
    print(f"{len(rows)} runs, {len(bad)} diverged or collapsed where ReLU didn't")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
