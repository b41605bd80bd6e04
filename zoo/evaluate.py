"""Evaluates the network of a finished run: `python -m zoo.evaluate runs/mine`."""

import argparse
from pathlib import Path
from typing import Any

from zoo import signals
from zoo.command import run_command
from zoo.errors import UserError


def evaluate(folder: Path, split: str = "test", data_dir: Path | None = None) -> dict[str, Any]:
    """Returns the metrics of a run's network on all images of a split.

    Writes evaluation-SPLIT.json and confusion-SPLIT.png into the folder. The images are those of the run, limits
    included; the backend may differ from the run's.

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
    values, picture = folder / f"evaluation-{split}.json", folder / f"confusion-{split}.png"
    manifest.check([values, picture])
    found = metrics.sound(logits, images.labels, dataset.classes, split)
    files.write_json(values, found, manifest.claim)
    draw = _confusion(logits.argmax(axis=1), images.labels, dataset.classes, f"{folder.name}, {split}")
    files.write_whole(picture, draw, manifest.claim)
    return found


def _confusion(predicted, labels, classes: tuple[str, ...], title: str):
    """Draws the confusion matrix into a file; rows sum to 1."""
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    shares = confusion_matrix(labels, predicted, labels=range(len(classes)), normalize="true")
    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    axes = figure.add_subplot()
    ConfusionMatrixDisplay(shares, display_labels=classes).plot(
        ax=axes, values_format=".2f", cmap="Blues", xticks_rotation=45, im_kw={"vmin": 0, "vmax": 1}
    )
    axes.set_title(f"{title}: share of each true class")
    return lambda path: figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.evaluate", description="Evaluate a finished run's network.")
    parser.add_argument("run", type=Path, help="folder of a finished run of one seed")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with CIFAR-10, if it has moved since")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    from zoo import backend

    backend.choose()
    backend.load()
    found = evaluate(arguments.run, arguments.split, arguments.data_dir)
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}: " + ", ".join(f"{key} {each:.4f}" for key, each in value.items()))
        else:
            print(f"{name}: {value:.4f}")
    print(f"wrote {arguments.run}/evaluation-{arguments.split}.json, confusion-{arguments.split}.png")
    return 0


if __name__ == "__main__":
    signals.leave(main())
