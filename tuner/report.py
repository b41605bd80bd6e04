"""Writes the report of a search: `python -m tuner.report searches/quick`."""

import argparse
import shlex
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import signals
from zoo.command import run_command

if TYPE_CHECKING:  # --help needs neither pydantic nor matplotlib
    from tuner.searches.folder import SearchResults, Trial
    from zoo.reports.document import Figure, Heading, Paragraph, Table

    Block = Heading | Paragraph | Table | Figure

SHUFFLES = 50  # of each column, for its importance
ENOUGH = 8  # trials for importances


def blocks(found: "SearchResults", note: str = "") -> "Iterator[Block]":
    from tuner.reports import contrast
    from zoo.reports.document import Heading, Paragraph

    if found.search.contrast:
        yield contrast.summary(found)
    yield Paragraph(f"{note} {_provenance(found)}".strip())
    yield Heading("Ranking")
    yield from _ranking(found)
    if found.confirmed:
        yield Heading("Trained as the final run would be")
        yield _confirmed(found)
    if found.search.contrast:
        yield Heading(f"Which {found.search.contrast.by}")
        yield from contrast.blocks(found)
    if found.whole:
        yield Heading("What mattered")
        yield from _importance(found)
        yield from _figures(found)


def _provenance(found: "SearchResults") -> str:
    search = found.search
    counts: dict[str, int] = {}
    for trial in found.trials.values():
        counts[trial.outcome.status] = counts.get(trial.outcome.status, 0) + 1
    many = ", ".join(f"{n} {status}" for status, n in counts.items()) or "none"
    seconds = sum(trial.outcome.seconds for trial in [*found.trials.values(), *found.finals])
    return (
        f"{search.notes} Tuner: {search.tuner.name}, seed {search.seed}. Objective: {search.objective} on images held "
        f"out of the training images, after the last of {search.epochs} epochs; no trial of the search used the "
        f"test images. Trials ended: {many}; they trained for {seconds / 60:.1f} minutes in total. Made by "
        f"`{_command(found)}` and `{shlex.join(['python', '-m', 'tuner.report', str(found.shown)])}`. "
        f"{_recorded(found)}"
    ).strip()


def _command(found: "SearchResults") -> str:
    """A command to paste."""
    described = found.described
    words = ["python", "-m", "tuner.search", described.file or "SEARCH.json", "--out", str(found.shown)]
    words += ["--data-dir", described.data_dir] if described.data_dir else []
    return f"KERAS_BACKEND={described.backend} {shlex.join(words)}"


def _recorded(found: "SearchResults") -> str:
    """The environment of the first trial with a folder."""
    from zoo.files import read_json

    folders = [found.folder.run(trial.name) for trial in [*found.ranking, *found.finals]]
    path = next((folder / "environment.json" for folder in folders if (folder / "environment.json").exists()), None)
    if path is None:
        return ""
    environment = read_json(path, "device", "processors", "versions", "git_commit", "data")
    said = {
        "Device": environment["device"],
        "Processor": environment.get("processor", "not recorded"),
        "Logical processors": environment["processors"],
        "Settings": environment.get("settings", "not recorded"),
        "C compiler": environment.get("compiler", "not recorded"),
        "Versions": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
        "Commit": environment["git_commit"],
        "Data": environment["data"],
        "Digest of the images": environment.get("data_digest", "not recorded"),
        "Images": environment.get("images", "not recorded"),
    }
    return " ".join(f"{what}: {value}." for what, value in said.items())


def _ranking(found: "SearchResults") -> "Iterator[Block]":
    from tuner.searches.space import describe
    from zoo.reports.document import Paragraph, Table

    search = found.search
    if not found.trials:
        yield Paragraph("No trial has ended yet.")
        return
    failed = [trial for trial in found.trials.values() if trial.outcome.value is None]
    rows = []
    for place, trial in enumerate([*found.ranking, *failed], start=1):
        outcome, labels = trial.outcome, search.labelled(trial.point)
        spread = f" ± {statistics.stdev(outcome.values):.4f}" if len(outcome.values) > 1 else ""
        value = "" if outcome.value is None else f"{outcome.value:.4f}{spread}"
        cells = [describe({"": labels[e.name]}).strip() if e.name in labels else "" for e in search.space]
        state = outcome.status if outcome.status in ("finished", "diverged") else f"{outcome.status}: {outcome.reason}"
        rows.append([str(place), trial.name, value, *cells, str(len(outcome.curve)), state.rstrip(": ")])
    names = [entry.name for entry in search.space]
    caption = f"Trials, the best first: {search.objective}" + (", mean ± std" if search.executions > 1 else "")
    yield Table("ranking", caption, ["", "trial", search.objective, *names, "epochs", "state"], rows)
    proved = [name for name, outcome in found.confirmed.items() if outcome.status == "finished"]
    best = found.ranking[0].name if found.ranking and not search.confirm else next(iter(proved), None)
    if best and found.folder.best.exists():
        yield Paragraph(
            f"The best{' that was confirmed' if proved else ''} is trial {best}. `best.json` is its config, with all "
            f"training images and the epochs of the base: `python -m zoo.train {found.best}` is the final run, "
            "the only one that uses the test images."
        )


def _confirmed(found: "SearchResults") -> "Table":
    from zoo.reports.document import Table

    rows = [[name, outcome.status, outcome.reason] for name, outcome in found.confirmed.items()]
    caption = "The best trials' settings with the epochs and images of the base and a fresh seed, until one finished"
    return Table("confirmed", caption, ["trial", "state", "reason"], rows)


def _columns(found: "SearchResults", trials: "Sequence[Trial]") -> dict[str, list[Any]]:
    """The values of each entry, None if it is inactive; simplexes as weights."""
    columns: dict[str, list[Any]] = {}
    labelled = [found.search.labelled(trial.point) for trial in trials]
    for entry in found.search.space:
        values = [labels.get(entry.name) for labels in labelled]
        if entry.simplex:
            for i in range(entry.simplex):
                columns[f"{entry.name} {i + 1}"] = [None if v is None else v[i] for v in values]
        else:
            columns[entry.name] = values
    return {name: values for name, values in columns.items() if len(set(map(str, values))) > 1}


def _importance(found: "SearchResults") -> "Iterator[Block]":
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    from tuner.reports.figures import Axis
    from zoo.reports.document import Paragraph, Table

    columns = _columns(found, found.whole)
    y = np.array([trial.outcome.value for trial in found.whole])
    if len(y) < ENOUGH or not columns or np.ptp(y) == 0:
        yield Paragraph(f"Importances need at least {ENOUGH} trials with different values; there are {len(y)}.")
        return
    axes = [Axis(values) for values in columns.values()]
    x = np.array([[axis(v) for v in values] for axis, values in zip(axes, columns.values(), strict=True)]).T
    forest = RandomForestRegressor(500, oob_score=True, random_state=0).fit(x, y)
    drop = permutation_importance(forest, x, y, n_repeats=SHUFFLES, random_state=0)
    order = np.argsort(-drop.importances_mean)
    names = list(columns)
    rows = [[names[i], f"{drop.importances_mean[i]:.3f}", f"{drop.importances_std[i]:.3f}"] for i in order]
    yield Paragraph(
        f"The drop of R² of a random forest of 500 trees, fitted to the {len(y)} trials trained to their end, "
        f"when one column is shuffled. Its R² on trials that a tree did not see is {forest.oob_score_:.2f}: at 0 or "
        f"below, the importances mean nothing yet."
    )
    yield Table("importance", "Importance by permutation", ["hyperparameter", "drop of R²", "std"], rows)


def _figures(found: "SearchResults") -> "Iterator[Block]":
    from tuner.reports import figures
    from zoo.reports.document import Figure

    search = found.search
    objective = [float(trial.outcome.value) for trial in found.whole if trial.outcome.value is not None]
    columns = _columns(found, found.whole)
    logs = {entry.name for entry in search.space if entry.log}
    name = search.objective
    if columns:
        drawn = figures.parallel(columns, logs, objective, name, search.maximize)
        yield Figure("parallel", "Each trial as a line; brighter is better.", drawn)
    every = [*found.ranking, *(trial for trial in found.trials.values() if trial.outcome.value is None)]
    if sliced := _columns(found, every):
        caption = (
            f"{name} against each hyperparameter. A ring is a trial that was stopped early, at its value then; a cross "
            "one that diverged or failed, at the edge."
        )
        drawn = figures.slices(sliced, logs, [trial.outcome for trial in every], name, search.maximize)
        yield Figure("slices", caption, drawn)
    for entry in search.space:
        labelled = [search.labelled(trial.point).get(entry.name) for trial in found.whole]
        known = [(w, o) for w, o in zip(labelled, objective, strict=True) if w is not None]
        if entry.simplex == 3 and known:
            corners = [f"{entry.name} {i + 1}" for i in range(3)]
            drawn = figures.triangle([w for w, _ in known], corners, [o for _, o in known], name, search.maximize)
            yield Figure(
                f"simplex-{entry.name}", f"{name} over {entry.name}, whose corners are 1, 0, 0 and so on.", drawn
            )


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tuner.report", description="Write the report of a search.")
    parser.add_argument("search", type=Path, help="folder of a search, such as searches/quick")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report; by default report/ in that one")
    parser.add_argument(
        "--note", metavar="TEXT", help="a note for the top; by default that of note.txt in the search's folder"
    )
    return parser


def _main(arguments: argparse.Namespace) -> int:
    from zoo import pack

    with pack.opened(arguments.search) as folder:
        return _write(folder, arguments)


def _write(folder: Path, arguments: argparse.Namespace) -> int:
    from tuner.searches.folder import SearchFolder, SearchResults
    from zoo.reports import document

    found = SearchResults(SearchFolder(folder), arguments.search)
    out = document.folder(arguments.out, arguments.search)
    document.write(out, f"Search {arguments.search.name}", list(blocks(found, document.note(folder, arguments.note))))
    print(f"wrote {out}/report.html and report.md: {len(found.trials)} trials, {len(found.finals)} runs after them")
    return 0


if __name__ == "__main__":
    signals.leave(main())
