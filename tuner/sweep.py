"""A sweep of the zoo on several workers: `python -m tuner.sweep configs/sweeps/quick.json --out results/quick`."""

import argparse
import json
import sys
import time
from pathlib import Path

from zoo.command import run_command

WAIT = 1.0  # seconds between two looks at a run that another process is at work on
PLAN = "workers.json"  # what the workers need to know


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    from tuner.search import count

    parser = argparse.ArgumentParser(
        prog="python -m tuner.sweep",
        description="Run what is missing of a sweep, as zoo.sweep does, on KerasTuner's chief and workers.",
    )
    parser.add_argument("sweep", type=Path, help="a JSON file, such as configs/sweeps/quick.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the sweep; by default results/NAME")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with CIFAR-10, as for zoo.train")
    parser.add_argument("--only", nargs="+", action="extend", default=[], metavar="AXIS=LABEL", help="only these runs")
    parser.add_argument("--workers", type=count, default=2, metavar="N", help="runs at a time on this machine")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    from tuner.folder import ENDED
    from tuner.search import FAILED, ended, follow, lead, role
    from zoo import backend, grid, results
    from zoo.sweep import Sweep

    described, every = grid.load(arguments.sweep)
    name = backend.choose()
    out = arguments.out or Path("results") / arguments.sweep.stem
    who = role()
    if who not in (None, "chief"):
        return follow(out, who, lambda worker, how: None)
    sweep = Sweep(out, grid.only(every, arguments.only), arguments.data_dir)
    sweep.prepare(described.model_dump(by_alias=True, exclude={"schema_"}) | {"backend": name}, every)
    data_dir = str(arguments.data_dir.resolve()) if arguments.data_dir else None
    plan = {"sweep": str(arguments.sweep.resolve()), "data_dir": data_dir, "backend": name}
    (out / ENDED).unlink(missing_ok=True)
    results.write_json(out / PLAN, plan)
    missing = [run.name for run in sweep.planned if not sweep.is_done(run)]
    is_done = not missing or _hand_out(out, missing, arguments.workers if who is None else 0, lead)
    print(f"{sum(map(sweep.is_done, sweep.planned))} of {len(sweep.planned)} runs are done, in {out}")
    if is_done:
        ended(out)
    return FAILED if sweep.say_failures() or not is_done else 0


def _hand_out(out: Path, runs: list[str], workers: int, lead) -> bool:
    from tuner.oracles import InOrder
    from tuner.outcome import Outcome

    def on_event(event) -> None:
        verb = {"begun": "begins", "ended": "ended", "released": "is handed out again"}[event["event"]]
        run = oracle.trials[event["trial"]].hyperparameters.values["run"]
        print(f"{run} {verb}, {event.get('worker', '')}".rstrip(", "), flush=True)

    oracle = InOrder("run", runs, lambda trial: Outcome("finished", 0.0), on_event=on_event)
    return lead(out, oracle, workers, lambda worker, how: None)


def work(folder: Path) -> int:
    """A worker of the sweep in a folder; its exit status."""
    from zoo import backend, grid

    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    backend.choose(plan["backend"])

    from tuner.service import Worker
    from zoo.sweep import Sweep

    _, every = grid.load(Path(plan["sweep"]))
    sweep = Sweep(folder, every, Path(plan["data_dir"]) if plan["data_dir"] else None)
    planned = {run.name: run for run in every}

    def run(number: str, point, is_enough) -> None:
        chosen = planned[point["run"]]
        while not sweep.is_done(chosen):
            with sweep.claim(chosen) as lock:
                if lock is not None and not sweep.is_done(chosen):
                    sweep.run(chosen, lock, None, lambda line: print(f"{chosen.name}: {line}", flush=True))
                    return
            time.sleep(WAIT)

    Worker(run, lambda trial: None).search()
    return 0


if __name__ == "__main__":
    sys.exit(main())
