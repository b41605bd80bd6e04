"""Trains the network of a config: `python -m zoo.train configs/quickstart.json`."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import UserError

if TYPE_CHECKING:  # so that --help needs neither a backend nor pydantic
    from zoo.config import Config


def run(config: "Config", out: Path, data_dir: Path | None = None, argv: list[str] | None = None) -> list[dict]:
    """Trains a config once for each of its seeds, and returns the metrics of each run.

    One seed leaves its files in `out`, several in `out/seed-0` and so on, with `out/summary.json` beside them.

    Args:
        config: what to run, from `zoo.config.load`.
        out: a new folder, or an empty one.
        data_dir: where CIFAR-10 lies; without it Keras downloads it.
        argv: the command line to write down.

    Raises:
        UserError: for anything that its user can mend.
    """
    from zoo import data, results, training

    training.check(config)
    results.check_free(out)
    settings = config.dataset
    images = data.load(
        settings.name,
        limit=settings.limit,
        test_limit=settings.test_limit,
        validation=settings.validation,
        data_dir=data_dir,
    )
    results.new_folder(out)
    seeds = config.training.seeds
    arrays = training.prepare(images, settings.standardize)
    environment = results.environment(images.provenance, argv)
    found = []
    for seed in seeds:
        folder = out if len(seeds) == 1 else results.new_folder(out / f"seed-{seed}")
        results.write_json(folder / "config.json", config.with_seed(seed).resolved())
        results.write_json(folder / "environment.json", environment)
        found.append(training.train(config, seed, images.classes, arrays, folder))
    if len(seeds) > 1:
        results.write_json(out / "summary.json", training.summarize(found))
    return found


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return _main(arguments, argv)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"error: the package {error.name} is not installed; pip install '.[zoo]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.train", description="Train the network of a config.")
    parser.add_argument("config", type=Path, help="a JSON file, such as configs/quickstart.json")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=VALUE",
        dest="overrides",
        help="override fields, after the config: --set training.epochs=3 activation.name=arelu",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results; by default in runs/")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder with cifar-10-batches-bin/ or cifar-10-batches-py/",
    )
    return parser


def _main(arguments: argparse.Namespace, argv: list[str] | None) -> int:
    from zoo import backend, config

    settings = config.load(arguments.config, arguments.overrides)
    name = backend.choose()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = arguments.out or Path("runs") / f"{arguments.config.stem}-{name}-{stamp}"
    print(f"{arguments.config} on the {name} backend, results in {out}", flush=True)
    command = ["python", "-m", "zoo.train", *(sys.argv[1:] if argv is None else argv)]
    found = run(settings, out, arguments.data_dir, command)
    print(_summary(found, out))
    return 0


def _summary(found: list[dict[str, Any]], out: Path) -> str:
    lines = []
    for metrics in found:
        lines.append(
            f"seed {metrics['seed']}: test accuracy {metrics['test_accuracy']:.4f}, "
            f"macro precision {metrics['test_precision_macro']:.4f}, loss {metrics['test_loss']:.4f}; "
            f"{metrics['images_per_second']:,.0f} images/s, {metrics['seconds']:.0f} s in all"
        )
    return "\n".join([*lines, f"everything is in {out}"])


if __name__ == "__main__":
    sys.exit(main())
