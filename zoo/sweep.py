"""Trains the missing runs of a sweep: `python -m zoo.sweep configs/sweeps/quick.json --out results/quick`."""

import argparse
import time
from collections import Counter
from pathlib import Path

from zoo import owncode, signals
from zoo.command import count, run_command, seconds
from zoo.environment import from_here
from zoo.sweeps import cluster
from zoo.sweeps.display import seconds_left, sum_of
from zoo.sweeps.folder import SweepFolder
from zoo.sweeps.work import TIME_TO_SAVE, train
from zoo.training.progress import duration

FAILED = 1  # exit status if a run failed


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.sweep", description="Train the missing runs of a sweep.")
    parser.add_argument("sweep", type=Path, help="a JSON file, such as configs/sweeps/quick.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the sweep; by default results/NAME")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with CIFAR-10, as for zoo.train")
    parser.add_argument("--dry-run", action="store_true", help="list the missing runs and their cost")
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="AXIS=LABEL",
        help="only these runs: --only model=lenet activation=relu,arelu",
    )
    parser.add_argument("--limit", type=count, metavar="N", help="train at most N runs")
    parser.add_argument("--trust", action="store_true", help=f"in runs that are resumed, {owncode.HELP}")
    cluster.add_options(parser)
    parser.add_argument("--time-budget", type=seconds, metavar="TIME", help="stop cleanly after 90s, 9m or 2.5h")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    from zoo import backend
    from zoo.sweeps import grid

    owncode.trust(arguments.trust)
    nodes = cluster.of(arguments)
    described, every = grid.load(arguments.sweep)
    name = backend.choose()
    out = arguments.out or Path("results") / arguments.sweep.stem
    sweep = SweepFolder(out, grid.only(every, arguments.only), arguments.data_dir, every)
    if arguments.dry_run:
        return _list(sweep, name)
    sweep.prepare(
        described.model_dump(by_alias=True, exclude={"schema_", "comparisons"})
        | {"plans": grid.plans(arguments.sweep, described), "backend": name, "file": from_here(str(arguments.sweep))},
        every,
    )
    budget = arguments.time_budget
    deadline = began + max(0.0, budget - TIME_TO_SAVE) if budget is not None else None
    train(sweep, name, arguments.limit, deadline, nodes)
    left = sum(not sweep.is_done(run) for run in sweep.planned)
    print(f"{len(sweep.planned) - left} of {len(sweep.planned)} runs are done, in {out}")
    return FAILED if sweep.say_failures() else 0


def _list(sweep: SweepFolder, backend: str) -> int:
    left = seconds_left(sweep, backend)
    for run in sweep.planned:
        if run.name in left:
            cost = left[run.name]
            print(f"{sweep.state(run):8} {run.name}: {'not measured yet' if cost is None else duration(cost)}")
    counted = Counter(map(sweep.state, sweep.planned))
    print(", ".join(f"{n} {state}" for state, n in sorted(counted.items())) + f" of {len(sweep.planned)} runs")
    print(f"left: {sum_of(left)} of training, as measured in {sweep.out} on {backend}, plus each run's startup")
    return 0


if __name__ == "__main__":
    signals.leave(main())
