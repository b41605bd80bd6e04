"""A trained model with its card, as a folder to upload: python -m zoo.card runs/mine upload/mine

The folder holds Keras's own unzipped form of `model.keras` (`config.json`, `metadata.json`, `model.weights.h5`), so
that `keras.saving.load_model(folder)`, or `load_model("hf://...")` once it is on a hub, opens it; the run's config as
`run.json`; how images are standardized as `preprocessing.json`; and the card as `README.md`.
"""

import argparse
import contextlib
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from zoo import signals
from zoo.command import run_command
from zoo.errors import UserError

PARTS = ("config.json", "metadata.json", "model.weights.h5")  # of Keras's form
LARGEST = 2**33  # bytes; a larger part is refused
LICENSE = "apache-2.0"  # of the model, as hubs spell it

TEMPLATE = """---
library_name: keras
license: {license}
pipeline_tag: {task}
tags:
  - keras
  - keras_adaptact
  - {task}
---

# {network} with {activation}

A {network} with {parameters:,} parameters, trained on {data} with `zoo.train` of keras_adaptact. Its
activation functions come from that package: import it before loading the model.

```python
import keras
import keras_adaptact

model = keras.saving.load_model("{name}")
```

It takes {dtype} {samples} ({shape}), standardized as `preprocessing.json` says ({standardize}), and returns {outputs}.

## Results

After the last epoch, on {tested} test {samples}, which were not used to choose anything: {accuracy}. This is one run
with seed {seed}; other seeds give other results.

## Training

{epochs} epochs on {trained} {samples}, batch size {batch_size}, {optimizer}, learning rate {rate:g} ({schedule}),
weight decay {decay:g}, on {backend} ({device}), Keras {keras}. `run.json` is the complete config. To train it again:
`KERAS_BACKEND={backend} python -m zoo.train run.json`.

## Licence

{license}, like keras_adaptact. The {samples} have a licence of their own.
"""


def text(
    config: dict[str, Any],
    environment: dict[str, Any],
    metrics: dict[str, Any],
    form: dict[str, Any],
    name: str,
    license: str = LICENSE,
) -> str:
    """The card of a finished run: Markdown with the front matter that model hubs read.

    Raises:
        UserError: for a run that isn't finished, or wasn't tested.
    """
    if metrics.get("status") != "finished" or "test_loss" not in metrics:
        raise UserError(f"a card needs a finished and tested run; this one is {metrics.get('status')}")
    training, dataset = config["training"], config["dataset"]
    shares = ("test_accuracy", "accuracy"), ("test_precision_macro", "macro precision")
    measured = [f"{called} {metrics[key]:.2%}" for key, called in shares if key in metrics]
    if "test_accuracy" in metrics:
        measured.append(f"cross-entropy {metrics['test_loss']:.3f}")
    numbers = ("test_r2", "R²"), ("test_mae", "mean absolute error"), ("test_rmse", "root mean square error")
    measured += [f"{called} {metrics[key]:.4g}" for key, called in numbers if key in metrics]
    images = environment.get("images", {})  # version 0.1.0 did not count them
    return TEMPLATE.format(
        license=license,
        name=name,
        network=_network(config["model"]),
        activation=_activation(config["activation"]),
        parameters=metrics["parameters"],
        data=environment["data"],
        standardize=form.get("standardize", dataset["standardize"]),
        **_said(form, metrics),
        tested=f"all {images['test']:,}" if "test" in images else "all",
        accuracy=", ".join(measured),
        seed=metrics["seed"],
        epochs=metrics["epochs"],
        trained=f"{images['train']:,}" if "train" in images else "the training",
        batch_size=training["batch_size"],
        optimizer=training["optimizer"]["name"],
        rate=training["optimizer"]["learning_rate"],
        schedule=training["schedule"]["name"],
        decay=training["weight_decay"],
        backend=environment["backend"],
        device=environment["device"],
        keras=environment["versions"]["keras"],
    )


def _network(model: dict[str, Any]) -> str:
    own = model.get("build", "").rpartition(":")[2] or model.get("application") or model.get("kerashub", "").rstrip("/")
    return own or model["name"]


def _said(form: dict[str, Any], metrics: dict[str, Any]) -> dict[str, str]:
    """What it takes and returns; version 0.1.0, which wrote nothing down, had images of one size."""
    shape, target = form.get("shape", [32, 32, 3]), form.get("target", [])
    classes = len(metrics.get("test_precision_per_class", ()))
    is_picture = len(shape) == 3
    given = f"a logit for each of {classes} classes" if classes else f"numbers of shape ({', '.join(map(str, target))})"
    return {
        "task": ("image" if is_picture else "tabular") + ("-classification" if classes else "-regression"),
        "samples": "images" if is_picture else "samples",
        "dtype": "int32" if form.get("dtype") == "int32" and form.get("standardize") == "none" else "float32",
        "shape": ", ".join(map(str, ["n", *shape])),
        "outputs": given + (f" at each of {tuple(target)} places" if classes and target else ""),
    }


def _activation(rules: dict[str, Any] | list[dict[str, Any]]) -> str:
    """The activations of a config; with their sites if there are several rules."""
    if isinstance(rules, dict):
        return rules["name"]
    return ", ".join(f"{rule['name']} at {rule['sites']}" for rule in rules)


def write(run: Path, out: Path, license: str = LICENSE) -> None:
    """Writes the folder of a finished run.

    Raises:
        UserError: if `run` isn't a finished run, its model is damaged, or `out` isn't empty.
    """
    from zoo import files

    config = files.read_json(run / "config.json", "model", "activation", "dataset", "training")
    environment = files.read_json(run / "environment.json", "backend", "device", "versions", "data")
    metrics = files.read_json(run / "metrics.json", "status")
    try:
        form = files.read_json(run / "preprocessing.json")
        card = text(config, environment, metrics, form, out.name, license)
    except UserError as error:
        raise UserError(f"{run}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run}: not what zoo.train writes ({error!r})") from None
    with _model(run / "model.keras") as model:
        files.new_folder(out)
        for part in PARTS:
            files.write_whole(out / part, partial(_copy, model, part))
    files.write_json(out / "run.json", config)
    files.write_whole(out / "preprocessing.json", lambda path: shutil.copyfile(run / "preprocessing.json", path))
    files.write_text(out / "README.md", card)


@contextlib.contextmanager
def _model(path: Path) -> Iterator[zipfile.ZipFile]:
    """
    Raises:
        UserError: if the file isn't one that Keras saved.
    """
    try:
        with zipfile.ZipFile(path) as model:
            sizes = {entry.filename: entry.file_size for entry in model.infolist()}
            if wrong := next((part for part in PARTS if not 0 < sizes.get(part, 0) < LARGEST), None):
                raise UserError(f"{path}: not what Keras saves: its {wrong} is missing, empty or too large")
            if damaged := model.testzip():
                raise UserError(f"{path}: its {damaged} is damaged")
            yield model
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a card needs a run with its weights") from None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise UserError(f"{path}: can't be read as a model: {error}") from None


def _copy(model: zipfile.ZipFile, part: str, path: Path) -> None:
    with model.open(part) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.card", description="A trained model with its card, to upload.")
    parser.add_argument("run", type=Path, help="folder of one seed's finished run")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--license", default=LICENSE, help=f"of the model, as hubs spell it ({LICENSE})")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    write(arguments.run, arguments.out, arguments.license)
    print(f"{arguments.out} holds the model and its card; keras.saving.load_model opens it")
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


if __name__ == "__main__":
    signals.leave(main())
