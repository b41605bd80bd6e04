"""Evaluates the network of a finished run: `python -m zoo.evaluate runs/mine`."""

import argparse
from pathlib import Path
from typing import Any

from zoo import owncode, signals
from zoo.command import run_command
from zoo.errors import UserError

DOTS = 20_000  # of a picture
NAMES = 30  # of classes that a picture has room for


def evaluate(folder: Path, split: str = "test", data_dir: Path | None = None) -> dict[str, Any]:
    """Returns the metrics of a run's network on all images of a split.

    Writes evaluation-SPLIT.json and confusion-SPLIT.png (for a regression scatter-SPLIT.png) into the folder. The
    images are those of the run, limits included; the backend may differ from the run's.

    Raises:
        UserError: if the folder holds no finished run, its images aren't available, or one of the two files exists and
            wasn't written by this software.
    """
    from zoo import files, manifest, runs
    from zoo.training import metrics

    run = runs.Run(folder)
    dataset = run.dataset(data_dir)
    images = getattr(dataset, split)
    if images is None:
        raise UserError(f"{folder}: this run has no {split} images; use --split test or train")
    logits = run.predict(images.images)
    values, picture = written(folder, split, bool(dataset.classes))
    manifest.check([values, picture])
    found = metrics.task_of(dataset.form).sound(logits, images.labels, split)
    files.write_json(values, found, manifest.claim)
    title = f"{folder.name}, {split}"
    if dataset.classes:
        flat, labels = metrics.flat(logits, images.labels)
        draw = _confusion(flat.argmax(axis=1), labels, dataset.classes, title)
    else:
        draw = _scatter(logits, images.labels, title)
    files.write_whole(picture, draw, manifest.claim)
    return found


def written(folder: Path, split: str, labels: bool) -> tuple[Path, Path]:
    """The files of an evaluation: its numbers, and its picture."""
    return folder / f"evaluation-{split}.json", folder / f"{'confusion' if labels else 'scatter'}-{split}.png"


def _scatter(predicted, targets, title: str):
    """Draws what was predicted against what was to be, a dot for each number, at most so many of them."""
    from matplotlib.figure import Figure

    x, y = (values.reshape(-1)[:DOTS] for values in (targets, predicted))
    ends = min(x.min(), y.min()), max(x.max(), y.max())
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(ends, ends, color="#999999", linewidth=0.8)
    axes.plot(x, y, ".", color="#0072B2", markersize=3)
    axes.set_xlabel("target")
    axes.set_ylabel("predicted")
    axes.set_title(title)
    return lambda path: figure.savefig(path, dpi=150)


def _confusion(predicted, labels, classes: tuple[str, ...], title: str):
    """Draws the confusion matrix into a file; rows sum to 1."""
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    shares = confusion_matrix(labels, predicted, labels=range(len(classes)), normalize="true")
    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    axes = figure.add_subplot()
    many = len(classes) > NAMES
    ConfusionMatrixDisplay(shares, display_labels=None if many else classes).plot(
        ax=axes,
        include_values=not many,
        values_format=".2f",
        cmap="Blues",
        xticks_rotation=45,
        im_kw={"vmin": 0, "vmax": 1},
    )
    if many:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.set_title(f"{title}: share of each true class")
    return lambda path: figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.evaluate", description="Evaluate a finished run's network.")
    parser.add_argument("run", type=Path, help="folder of a finished run of one seed")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with CIFAR-10, if it has moved since")
    parser.add_argument("--trust", action="store_true", help=owncode.HELP)
    return parser


def _main(arguments: argparse.Namespace) -> int:
    from zoo import backend

    owncode.trust(arguments.trust)
    backend.choose()
    backend.load()
    found = evaluate(arguments.run, arguments.split, arguments.data_dir)
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}: " + ", ".join(f"{key} {each:.4f}" for key, each in value.items()))
        else:
            print(f"{name}: {value:.4f}")
    values, picture = written(arguments.run, arguments.split, f"{arguments.split}_accuracy" in found)
    print(f"wrote {values}, {picture.name}")
    return 0


if __name__ == "__main__":
    signals.leave(main())
