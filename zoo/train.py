"""Trains the network of a config: `python -m zoo.train configs/quickstart.json`."""

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import owncode, signals
from zoo.command import run_command
from zoo.errors import ConfigError, UserError
from zoo.process import stop_without_parent

SPLITS = ("train", "validation", "test")
DIVERGED, STOPPED = 3, signals.STOPPED  # exit status after a NaN loss, and after SIGTERM

if TYPE_CHECKING:  # --help needs neither a backend nor pydantic
    from zoo.config.schema import Config
    from zoo.data.datasets import Dataset
    from zoo.training.trainer import Trainer


def _never(*_) -> bool:
    return False


def run(
    config: "Config",
    out: Path,
    data_dir: Path | None = None,
    argv: list[str] | None = None,
    is_over: Callable[[], bool] = _never,
    is_enough: Callable[[dict], bool] = _never,
) -> list[dict]:
    """Trains a config once for each of its seeds, and returns the metrics of each seed.

    One seed writes its files to `out`; several write to `out/seed-0` and so on, with `out/summary.json` for all.

    Args:
        config: what to run, from `zoo.config.load`.
        out: a new folder, or an empty one.
        data_dir: the folder with CIFAR-10; without it Keras downloads it.
        argv: the command line, to be recorded.
        is_over: called every few steps; if it returns True the run stops at a checkpoint and raises `Stopped`.
        is_enough: called with each epoch's row of history.csv; if it returns True the seed ends there as "stopped".

    Raises:
        UserError: for anything that the user can fix.
        zoo.training.trainer.Stopped: if `is_over` stopped it.
    """
    from zoo import files, folders, runs
    from zoo.data import datasets
    from zoo.environment import describe_environment, from_folder

    config = runs.hold_weights(config)
    files.check_free(out)
    dataset = datasets.load_for(config.dataset, data_dir)
    trainer = _trainer(config, dataset)
    files.new_folder(out)
    environment = describe_environment(dataset.provenance, argv) | {
        "data_dir": from_folder(data_dir, out),
        "data_digest": dataset.digest(),
        "images": {name: len(part.labels) for name in SPLITS if (part := getattr(dataset, name))},
    }
    if found := owncode.record(runs.own_code(config), out, runs.own_files(config)):
        environment["own_code"] = found
    with folders.locked(out):
        files.check_free(out)  # again: another run may have begun here meanwhile
        _begin(out, config, environment)
        return _train(trainer, dataset, out, environment, is_over, is_enough)


def pace(config: "Config", data_dir: Path | None = None) -> tuple[float, float]:
    """How many seconds an epoch of a run would take, and how many it took to find out, by steps that are forgotten.

    Raises:
        UserError: as `run` does.
    """
    from zoo import runs
    from zoo.data import datasets

    config = runs.hold_weights(config)
    dataset = datasets.load_for(config.dataset, data_dir)
    trainer = _trainer(config, dataset)
    trainer.attach(dataset)
    return trainer.pace()


def resume(
    folder: Path,
    data_dir: Path | None = None,
    is_over: Callable[[], bool] = _never,
    is_enough: Callable[[dict], bool] = _never,
) -> list[dict]:
    """Resumes an interrupted run, and returns the metrics of each seed; a finished run isn't changed.

    Args:
        folder: of the run.
        data_dir: the folder with CIFAR-10; by default the one that the run used.
        is_over, is_enough: as for `run`.

    Raises:
        UserError: if this isn't the folder of a run, or its config, its images or the backend have changed.
    """
    import keras

    from zoo import config, files, folders, runs
    from zoo.data import datasets
    from zoo.environment import recorded_path

    environment = files.read_json(folder / "environment.json")
    if environment.get("backend") != keras.config.backend():
        raise UserError(
            f"{folder}: this run was begun on {environment.get('backend')} and can't be resumed with "
            f"KERAS_BACKEND={keras.config.backend()}"
        )
    with folders.locked(folder):
        written = files.read_json(folder / "config.json", *runs.SECTIONS)
        if environment.get("config_digest") not in (None, config.digest(written)):
            raise UserError(f"{folder / 'config.json'}: changed since this run began; undo that, or begin another run")
        settings = runs.with_own_code(config.load(folder / "config.json"), folder, environment)
        place = data_dir or recorded_path(folder, environment.get("data_dir"))
        dataset = datasets.load_for(settings.dataset, place)
        if dataset.digest() != environment.get("data_digest"):
            raise UserError(f"{folder}: this run was begun with other images than these: {dataset.provenance}")
        return _train(_trainer(settings, dataset), dataset, folder, environment, is_over, is_enough)


def _begin(folder: Path, config: "Config", environment: dict[str, Any]) -> None:
    """Writes what a run asks for and where it is made; with the second file it has begun."""
    from zoo import files
    from zoo.config import digest

    written = config.resolved(folder)
    files.write_json(folder / "config.json", written)
    files.write_json(folder / "environment.json", environment | {"config_digest": digest(written)})


def _trainer(config: "Config", dataset: "Dataset") -> "Trainer":
    """
    Raises:
        UserError: if the network and the data don't fit each other, or the machine.
    """
    from zoo.data import datasets
    from zoo.training import memory
    from zoo.training.trainer import Trainer

    datasets.check_use(config, dataset)
    samples = len(dataset.train.labels)
    is_checked = memory.check(config, dataset.form, samples)
    trainer = Trainer(config, dataset.form)
    if not is_checked:
        memory.refuse(trainer.model, config, samples)
    return trainer


def _train(trainer, dataset, out: Path, environment: dict[str, Any], is_over, is_enough) -> list[dict]:
    """Trains the seeds that are left, each in its folder."""
    from zoo import card, files, folders
    from zoo.environment import from_folder, recorded_path, slow_dtype
    from zoo.training.trainer import summarize

    if said := slow_dtype(environment["backend"], trainer.config.training.dtype):
        print(said, flush=True)
    trainer.attach(dataset)
    seeds = trainer.config.training.seeds
    recorded = environment.get("own_code", [])
    owncode.keep(recorded, out)
    found = []
    for seed in seeds:
        folder = out if len(seeds) == 1 else out / f"seed-{seed}"
        if (folder / "metrics.json").exists():
            found.append(files.read_json(folder / "metrics.json"))
            continue
        if folder != out:
            if not (folders.check_inside(folder, out) / "environment.json").exists():
                folders.clear_unbegun(folder)
            folder.mkdir(exist_ok=True)
            place = from_folder(recorded_path(out, environment.get("data_dir")), folder)
            own = {"own_code": owncode.moved(recorded, out, folder)} if recorded else {}
            _begin(folder, trainer.config.with_seed(seed), environment | {"data_dir": place} | own)
            owncode.keep(own.get("own_code", []), folder)
        with folders.locked(folder) if folder != out else contextlib.nullcontext():
            folders.remove_unfinished(folder)
            found.append(trainer.train(seed, folder, is_over, is_enough))
            if found[-1]["status"] == "finished" and "test_loss" in found[-1]:
                settings, form = trainer.config.with_seed(seed).resolved(folder), trainer.pipeline.written()
                files.write_text(folder / "card.md", card.text(settings, environment, found[-1], form, "model.keras"))
    if len(seeds) > 1:
        files.write_json(out / "summary.json", summarize(found))
    return found


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    arguments.command = ["python", "-m", "zoo.train", *(sys.argv[1:] if argv is None else argv)]
    stop_without_parent()
    return run_command(_main, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.train", description="Train the network of a config.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("config", type=Path, nargs="?", help="a JSON file, such as configs/quickstart.json")
    what.add_argument("--resume", type=Path, metavar="DIR", help="resume an interrupted run")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=VALUE",
        dest="overrides",
        help="override fields: --set training.epochs=3 activation.name=arelu",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results; by default in runs/")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder with cifar-10-batches-bin/ or cifar-10-batches-py/",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, say how long it would take, and stop")
    parser.add_argument("--trust", action="store_true", help=f"with --resume, {owncode.HELP}")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    if arguments.resume:
        return _resume(arguments)
    from zoo import backend, config

    if arguments.trust:
        raise UserError("--trust is for --resume: a config's own code runs as it is named there")
    settings = config.load(arguments.config, arguments.overrides)
    name = backend.choose()
    if arguments.dry_run:
        return _say_pace(settings, name, arguments)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = arguments.out or Path("runs") / f"{arguments.config.stem}-{name}-{stamp}"
    print(f"{arguments.config} on the {name} backend, results in {out}", flush=True)

    def train(over):
        try:
            return run(settings, out, arguments.data_dir, arguments.command, over)
        except ConfigError as error:  # found while building the network
            raise ConfigError(f"{arguments.config}: {error}") from None

    return _stoppable(out, train)


def _say_pace(settings: "Config", name: str, arguments: argparse.Namespace) -> int:
    from zoo import backend
    from zoo.training.progress import Cost

    began = time.monotonic()
    backend.load()
    epoch, measuring = pace(settings, arguments.data_dir)
    training = settings.training
    cost = Cost(time.monotonic() - began - measuring, epoch)
    print(f"{arguments.config} on the {name} backend: {cost.said(training.epochs, len(training.seeds))}", flush=True)
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    from zoo import backend, files  # neither imports Keras

    if arguments.overrides or arguments.out or arguments.dry_run:
        raise UserError("--resume resumes a run as it was begun; --set, --out and --dry-run are for new runs")
    owncode.trust(arguments.trust)
    begun_on = files.read_json(arguments.resume / "environment.json").get("backend")
    backend.choose(begun_on)
    print(f"{arguments.resume} on the {begun_on} backend", flush=True)
    return _stoppable(arguments.resume, lambda over: resume(arguments.resume, arguments.data_dir, over))


def _stoppable(out: Path, train: Callable[[Callable[[], bool]], list[dict[str, Any]]]) -> int:
    """Trains until done, or until SIGTERM asks to stop; returns the exit status."""
    from zoo import backend

    backend.load()
    from zoo.training.trainer import Stopped

    asked: list[int] = []

    def interrupt(number, frame):
        asked.append(number)
        raise KeyboardInterrupt

    def is_over() -> bool:
        if signal.SIGINT in asked:  # which a callback of a backend may have swallowed
            raise KeyboardInterrupt
        return bool(asked)

    try:
        with signals.handled(lambda number, frame: asked.append(number), interrupt):
            return _report(train(is_over), out)
    except Stopped:
        print(f"stopped; python -m zoo.train --resume {out} resumes it", flush=True)
        return STOPPED
    except KeyboardInterrupt:
        print(f"python -m zoo.train --resume {out} resumes from the last checkpoint", file=sys.stderr)
        raise


def _report(found: list[dict[str, Any]], out: Path) -> int:
    """Prints how each seed ended; returns the exit status."""
    from zoo.training.metrics import headline

    for metrics in found:
        if metrics["status"] == "diverged":
            print(f"seed {metrics['seed']}: {lost(metrics)}{_why(metrics)}")
            continue
        split = "test" if "test_loss" in metrics else "validation"
        print(
            f"seed {metrics['seed']}: {headline(metrics, split)}; "
            f"{metrics['images_per_second']:,.0f} images/s, {metrics['seconds']:.0f} s in total"
        )
    print(f"results are in {out}")
    return DIVERGED if any(metrics["status"] == "diverged" for metrics in found) else 0


def lost(metrics: dict[str, Any]) -> str:
    """Where a run diverged; only one that did not in training is measured on test samples."""
    return "no finite loss on test samples" if "test_loss" in metrics else f"NaN loss in epoch {metrics['epochs']}"


def _why(metrics: dict[str, Any]) -> str:
    """What diverged first, and what to try."""
    import keras_adaptact as ka

    if "divergence" not in metrics:
        return ""
    found = ka.Divergence(**metrics["divergence"])
    advice = f"--set training.optimizer.learning_rate={found.learning_rate / 4:.2g}, or a longer schedule.warmup"
    return f"; {found.what}\ntry {advice}"


if __name__ == "__main__":
    signals.leave(main())
