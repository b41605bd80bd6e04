"""Searches the configs of a space: `python -m tuner.search configs/search/quick.json --out searches/quick`."""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.searches import space
from zoo import owncode, signals
from zoo.command import run_command
from zoo.errors import UserError
from zoo.sweeps import cluster

if TYPE_CHECKING:  # --help needs neither a backend nor pydantic
    from tuner.searches.folder import SearchFolder
    from tuner.searches.journal import Event
    from tuner.searches.space import Search

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before gRPC is imported: we report its errors ourselves
FAILED = 1  # exit status of a search that could not finish, or whose trials all failed
UNCONFIRMED = 3  # exit status if none of the best trials was confirmed
LATE = 30.0  # seconds that a worker waits for a chief that resumes a finished search
KERASTUNER = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tuner.search",
        description="Search the configs of a space with KerasTuner.",
        epilog=f"On several machines: run the same command on each, with {', '.join(KERASTUNER)} set.",
    )
    parser.add_argument("search", type=Path, help="a JSON file, such as configs/search/quick.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the search; by default searches/NAME")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with CIFAR-10, as for zoo.train")
    parser.add_argument("--resume", action="store_true", help="resume the search in --out, if there is one")
    parser.add_argument(
        "--workers",
        type=count,
        default=1,
        metavar="N",
        help="number of trials at a time on this machine, each on a GPU of its own if there are several",
    )
    parser.add_argument("--trust", action="store_true", help=f"in trials that are resumed, {owncode.HELP}")
    cluster.add_options(parser)
    return parser


def count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 9) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number, 1 or more; found {text!r}")
    return int(text)


def _main(arguments: argparse.Namespace) -> int:
    from tuner.searches.folder import SearchFolder
    from zoo import backend

    owncode.trust(arguments.trust)
    nodes = cluster.of(arguments)
    search = space.load(arguments.search)
    folder = SearchFolder(arguments.out or Path("searches") / arguments.search.stem)
    name = backend.choose()
    who = role()
    if who and arguments.workers > 1:
        raise UserError(
            f"--workers {arguments.workers} is for this machine alone, {KERASTUNER[0]} for several; leave one out"
        )
    if who not in (None, "chief"):
        with signals.raised():
            return follow(folder.path, who, folder.died)
    backend.load()
    _check(arguments.search, search, arguments.data_dir)
    with folder.led(), signals.raised():
        folder.begin(arguments.search, search, arguments.data_dir, name, arguments.resume)
        with nodes or contextlib.nullcontext():
            return _lead(folder, search, arguments.workers if who is None else 0, nodes)


def role() -> str | None:
    """The role of this process by KerasTuner's variables: None if they aren't set; "chief"; or a worker's name.

    Raises:
        UserError: if only some are set, or the name is invalid.
    """
    given = [name for name in KERASTUNER if os.environ.get(name)]
    if not given:
        return None
    if missing := [name for name in KERASTUNER if name not in given]:
        raise UserError(f"{given[0]} is set, but not {' and '.join(missing)}; several machines need all three")
    from tuner.searches.records import worker_name

    worker = worker_name(os.environ["KERASTUNER_TUNER_ID"])
    return "chief" if "chief" in worker else worker


def follow(path: Path, name: str, on_death: Callable[[str, str], None]) -> int:
    """Runs a worker of a chief on another machine, and restarts it if it dies; returns the exit status."""
    from tuner.searches.folder import ENDED
    from tuner.workers import secret
    from tuner.workers.processes import Workers
    from tuner.workers.service import PATIENCE

    secret.of(os.environ["KERASTUNER_ORACLE_IP"])
    deadline = time.monotonic() + PATIENCE
    while not (path / "search.json").exists():
        if time.monotonic() > deadline:
            raise UserError(
                f"{path}: no chief began a search here within {PATIENCE:.0f} s; do the machines share this folder?"
            )
        time.sleep(1.0)
    deadline = time.monotonic() + LATE
    while (path / ENDED).exists():
        if time.monotonic() > deadline:
            print(f"{path}: the search is finished")
            return 0
        time.sleep(1.0)
    print(f"{name}: working for {path}; log: {path / name}.log", flush=True)
    workers = Workers(path, [name], {}, on_death)
    try:
        while workers.tick():
            time.sleep(0.2)
    except KeyboardInterrupt:
        workers.interrupt()
        raise
    finally:
        workers.stop()
    if workers.ended[name]:
        last = (path / f"{name}.log").read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise UserError(f"{name}: {last[0].removeprefix('error: ') if last else 'died'}")
    return 0


def lead(path: Path, oracle, workers: int, on_death: Callable[[str, str], None]) -> bool:
    """Serves an oracle to workers of this machine, or of others with 0 workers; returns whether it finished."""
    from tuner.workers.processes import Workers
    from tuner.workers.service import SILENT, Chief

    here = workers > 0
    host, port = ("127.0.0.1", "0") if here else (os.environ[name] for name in KERASTUNER[1:])
    chief = Chief(oracle, host, port)
    if not here:
        print(f"chief of {path} at {host}:{port}", flush=True)
        try:
            return chief.serve(SILENT, lambda: not chief.is_forsaken())
        finally:
            chief.stop()
    names = [f"tuner{i}" for i in range(workers)]
    oracle.release_others(names)
    environment = dict(zip(KERASTUNER[1:], ("127.0.0.1", str(chief.port)), strict=True)) | {"no_proxy": "127.0.0.1"}
    kept = Workers(path, names, environment, on_death)
    before = oracle.on_event

    def on_event(event: "Event") -> None:
        if event.event == "ended":
            kept.lives(event.worker)
        before(event)

    oracle.on_event = on_event
    try:
        return chief.serve(SILENT, kept.tick)
    except KeyboardInterrupt:
        kept.interrupt()
        raise
    finally:
        chief.stop()
        kept.stop()


def ended(path: Path) -> None:
    """Records that the search is finished, for workers that come late."""
    from tuner.searches.folder import ENDED
    from zoo import files

    files.write_own_json(path / ENDED, {"ended": time.strftime("%Y-%m-%d %H:%M:%S")})


def _lead(folder: "SearchFolder", search: "Search", workers: int, nodes: cluster.Cluster | None) -> int:
    from tuner.searches import oracles
    from zoo.training.progress import duration

    began = time.perf_counter()

    def on_event(event: "Event") -> None:
        if event.event == "begun":
            print(f"trial {event.trial} begins: {_point(search, event.values)}", flush=True)
        if event.event == "ended":
            outcome = event.outcome
            value = "" if outcome.value is None else f", {search.objective} {outcome.value:.4f}"
            ranking = oracle.ranking()
            best = f"; best: {oracle.outcomes[ranking[0]].value:.4f} of trial {ranking[0]}" if ranking else ""
            reason = f": {outcome.reason}" if outcome.reason else ""
            print(f"trial {event.trial} {outcome.status}{reason}{value}{best}", flush=True)
            folder.settle(search, oracle)

    oracle = oracles.of(search, folder.ended, journal=folder.journal, on_event=on_event)
    if oracle.outcomes:
        print(f"{folder.path}: resuming after {len(oracle.outcomes)} trials", flush=True)
    folder.settle(search, oracle)
    oracle.compares_later = nodes is not None
    try:
        is_done = lead(folder.path, oracle, workers, folder.died)
        if is_done and nodes:
            _compare(nodes, folder, oracle)
    except KeyboardInterrupt:
        print(f"the same command with --resume resumes the search in {folder.path}", file=sys.stderr)
        raise
    ranking = oracle.ranking()
    counts = f"{len(oracle.outcomes)} trials, {duration(time.perf_counter() - began)}"
    if not is_done:
        why = f"no worker is left; see {folder.path}/tuner*.log" if workers else "no worker answered for 5 minutes"
        print(f"error: {counts}: {why}; --resume resumes it", file=sys.stderr)
        return FAILED
    folder.settle(search, oracle)
    ended(folder.path)
    if not ranking:
        first = next((o.reason for o in oracle.outcomes.values() if o.reason), "there was none")
        print(f"error: all trials failed ({counts}); the first: {first}", file=sys.stderr)
        return FAILED
    best = oracle.outcomes[ranking[0]]
    print(f"{counts}; best is trial {ranking[0]}, {search.objective} {best.value:.4f}:")
    print(f"  {_point(search, oracle.trials[ranking[0]].hyperparameters.values)}", flush=True)
    return _hand_over(folder, search, oracle, nodes) if search.confirm else _say_what_next(folder)


def _compare(nodes: cluster.Cluster, folder: "SearchFolder", oracle) -> None:
    from tuner.workers import processes

    ended(folder.path)
    processes.compare(nodes, folder, oracle)


def _hand_over(folder: "SearchFolder", search: "Search", oracle, nodes: cluster.Cluster | None = None) -> int:
    """Confirms the best trials, best first; the first that finishes is the result. Returns the exit status."""
    from tuner.trials import confirm, here
    from tuner.workers import processes

    try:
        proved = confirm(folder, search, oracle, partial(processes.start, nodes) if nodes else here)
    except KeyboardInterrupt:
        print(f"the same command with --resume resumes the search in {folder.path}", file=sys.stderr)
        raise
    folder.hand_over(search, oracle, proved)
    if proved is None:
        print(
            f"error: none of the best trials finished with the settings of the final run; {folder.best} was not "
            "written; lower the learning rates of the space",
            file=sys.stderr,
        )
        return UNCONFIRMED
    print(f"trial {proved} is confirmed; it is {folder.best}")
    return _say_what_next(folder)


def _say_what_next(folder: "SearchFolder") -> int:
    print(f"report: python -m tuner.report {folder.path}; final run: python -m zoo.train {folder.best}")
    return 0


def _point(search: "Search", values: dict[str, Any]) -> str:
    from tuner.searches.space import FINAL, describe

    again = f" (trial {values[FINAL + 'of']} again, seed {values[FINAL + 'seed']})" if FINAL + "of" in values else ""
    epochs = f", {values['tuner/epochs']} epochs" if "tuner/epochs" in values else ""
    return describe(search.labelled(values)) + epochs + again


def _check(path: Path, search: "Search", data_dir: Path | None) -> None:
    """Loads the images and makes the activations once, so that errors appear before the first trial."""
    import keras_adaptact as ka
    from tuner.searches.space import CLASSIFICATION, REGRESSION, describe
    from zoo.data import datasets
    from zoo.errors import ConfigError

    seen: dict[str, Any] = {}
    for point in search.corners():
        found = search.trial(point, path.parent / search.base)
        for chosen in found.activation if isinstance(found.activation, list) else [found.activation]:
            try:
                if chosen.weights == "learned" or isinstance(chosen.weights, list):
                    ka.get(chosen.options())
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{path}: at {describe(search.labelled(point))}: activation: {error}") from None
        like = found.dataset.model_dump_json(include={"name", "file", "folder", "load", "task"})
        if like not in seen:
            seen[like] = datasets.load_for(found.dataset, data_dir)
        datasets.check_use(found, seen[like])
        measured = REGRESSION if not seen[like].classes else CLASSIFICATION
        if search.objective not in measured:
            raise ConfigError(
                f"{path}: objective: {search.objective} isn't measured on this data; there are {', '.join(measured)}"
            )


if __name__ == "__main__":
    signals.leave(main())
