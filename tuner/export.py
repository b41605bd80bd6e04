"""Exports the trials of a search: `python -m tuner.export searches/quick --optuna study.db --csv trials.csv`.

`--optuna` writes an Optuna storage, which `optuna-dashboard sqlite:///study.db` opens; it needs
`pip install '.[optuna]'`. Trials that were stopped early are pruned there, diverged ones have failed, and the objective
after each epoch is an intermediate value. `--csv` writes a table with a row for each trial, and for each run of the
comparison after the search.
"""

import argparse
import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import signals
from zoo.command import run_command
from zoo.errors import UserError

if TYPE_CHECKING:
    from tuner.searches.folder import SearchResults, Trial
    from tuner.searches.space import Search

STATES = {"finished": "COMPLETE", "stopped": "PRUNED", "diverged": "FAIL", "failed": "FAIL"}  # as Optuna calls them


def to_optuna(found: "SearchResults", path: Path, name: str) -> None:
    """Writes the trials of a search in the order in which they ended, as a study in an SQLite file.

    Raises:
        ImportError: if Optuna isn't installed.
    """
    from zoo import files

    files.write_whole(path, lambda unfinished: _fill(found, unfinished, name))


def _fill(found: "SearchResults", path: Path, name: str) -> None:
    import optuna
    from optuna.trial import TrialState, create_trial

    search = found.search
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
    try:
        direction = "maximize" if search.maximize else "minimize"
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
        study.set_user_attr("notes", search.notes)
        for trial in found.trials.values():
            outcome, values = trial.outcome, numbers(search, trial.point)
            made = create_trial(
                state=TrialState[STATES[outcome.status]],
                value=outcome.value if outcome.status == "finished" else None,
                params=values,
                distributions={name: each for name, each in _distributions(search).items() if name in values},
                user_attrs={"trial": trial.name, "seconds": outcome.seconds, "reason": outcome.reason},
                intermediate_values={i: v for i, v in enumerate(outcome.curve, start=1) if v is not None},
            )
            study.add_trial(made)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def numbers(search: "Search", point: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each entry at a point, simplexes as weights; rounding beyond the bounds is undone."""
    found: dict[str, Any] = {}
    for entry in search.active(point):
        value = entry.value(point) if entry.simplex else point[entry.name]
        if entry.simplex:
            found |= {f"{entry.name} {i}": min(max(weight, 0.0), 1.0) for i, weight in enumerate(value, start=1)}
        elif entry.choice or entry.boolean:
            found[entry.name] = value
        else:
            low, high = entry.ends
            found[entry.name] = min(max(value, low), high)
    return found


def _distributions(search: "Search") -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for entry in search.space:
        if entry.simplex:
            found |= {f"{entry.name} {i}": FloatDistribution(0.0, 1.0) for i in range(1, entry.simplex + 1)}
        elif entry.choice or entry.boolean:
            found[entry.name] = CategoricalDistribution(entry.ends)
        else:
            kind: Any = IntDistribution if entry.int_ else FloatDistribution
            found[entry.name] = kind(*entry.ends, log=entry.log)
    return found


def to_csv(found: "SearchResults") -> str:
    """A row for each trial that ended, and for each run of the comparison, with the trial that it repeats."""
    from tuner.searches.space import FINAL

    names = list(dict.fromkeys(n for trial in found.trials.values() for n in numbers(found.search, trial.point)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "again", "seed", "state", found.search.objective, "epochs", "seconds", "reason", *names])

    def write(trial: "Trial") -> None:
        outcome, values = trial.outcome, numbers(found.search, trial.point)
        own = [
            trial.name,
            trial.point.get(FINAL + "of"),
            trial.point.get(FINAL + "seed"),
            outcome.status,
            outcome.value,
        ]
        own += [len(outcome.curve), outcome.seconds, outcome.reason]
        writer.writerow([*own, *(values.get(name) for name in names)])

    for trial in [*found.trials.values(), *found.finals]:
        write(trial)
    return text.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tuner.export", description="Export the trials of a search.")
    parser.add_argument("search", type=Path, help="folder of a search, such as searches/quick")
    parser.add_argument("--optuna", type=Path, metavar="FILE", help="a new SQLite file, for optuna-dashboard")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a new table")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    from tuner.searches.folder import SearchFolder, SearchResults
    from zoo import files, pack

    paths = [path for path in (arguments.optuna, arguments.csv) if path]
    if not paths:
        raise UserError("nothing to write: give --optuna FILE, --csv FILE, or both")
    if len(paths) == 2 and paths[0].absolute() == paths[1].absolute():
        raise UserError(f"{paths[0]}: both files can't be this one; name another")
    for path in paths:
        if path.exists() or path.is_symlink():
            raise UserError(f"{path}: this file exists; name a new one")
    with pack.opened(arguments.search) as folder:
        found = SearchResults(SearchFolder(folder), arguments.search)
        if arguments.optuna:
            try:
                to_optuna(found, arguments.optuna, arguments.search.resolve().name)
            except ImportError as error:
                raise UserError(f"--optuna needs Optuna ({error}): pip install '.[optuna]'") from None
        if arguments.csv:
            files.write_text(arguments.csv, to_csv(found))
    print(f"wrote {len(found.trials)} trials to {' and '.join(map(str, paths))}")
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


if __name__ == "__main__":
    signals.leave(main())
