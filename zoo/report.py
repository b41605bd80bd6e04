"""Tables and figures of a sweep: `python -m zoo.report results/quick --out report`."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.command import run_command
from zoo.errors import UserError

if TYPE_CHECKING:  # so that --help imports neither matplotlib nor a backend
    from zoo.collected import Results
    from zoo.document import Figure, Heading, Paragraph, Table

    Block = Heading | Paragraph | Table | Figure

NOTE = "note.txt"  # in the folder of a sweep, to stand at the top of its report


def blocks(results: "Results", note: str = "", data_dir: Path | None = None) -> "Iterator[Block]":
    from zoo.document import Heading, Paragraph
    from zoo.sections import curves, measure, shapes, sound, tables

    yield Paragraph(f"{note} {_provenance(results)}".strip())
    asked = results.outputs()
    sections: list[tuple[str, str, Callable]] = [
        ("sound", "What an activation brings, and what it costs", sound.blocks),
        ("table1", "Table 1: five networks, eight activations", tables.table1),
        ("table2", "Table 2: AlexNet, three trials", tables.table2),
        ("table3", "Table 3: mixing weights of AlexNet", tables.weights),
        ("table4", "Table 4: mixing weights of LeNet", tables.weights),
        ("table5", "Table 5: AlexNet with mixing weights held fixed", tables.table5),
        ("figure3", "Figure 3: loss against epoch", curves.figure3),
        ("figure4", "Figure 4: both methods against epoch", curves.figure4),
    ]
    for output, title, make in sections:
        if output in asked:
            yield Heading(title)
            yield from make(results, output)
    yield Heading("Figures 1 and 2: shapes")
    yield from shapes.classical()
    yield Heading("What the activations learned")
    yield from shapes.learned(results)
    yield Heading("The report's measure")
    yield from measure.blocks(results, data_dir)


def _provenance(results: "Results") -> str:
    states = Counter(run.state for run in results.every)
    counted = ", ".join(f"{states[state]} {state}" for state in sorted(states))
    said = f"{results.notes} Of its {len(results.every)} runs: {counted}."
    environments = [run.environment for run in results.every if run.state in ("finished", "diverged")]
    if not environments:
        return said

    def each(value: Callable[[dict], Any]) -> str:
        return "; ".join(dict.fromkeys(str(value(environment)) for environment in environments))

    versions = each(lambda e: ", ".join(f"{name} {version}" for name, version in e["versions"].items()))
    commits = each(lambda e: f"{e['git_commit']}{' with changes' if e['git_changed_files'] else ''}")
    sweep = " ".join(["python -m zoo.sweep", *filter(None, [results.sweep.get("file")]), f"--out {results.folder}"])
    return (
        f"{said} Backend: {each(lambda e: e['backend'])}. Device: {each(lambda e: e['device'])}, "
        f"{each(lambda e: e['processors'])} processors. Versions: {versions}. Commit: {commits}. Data: "
        f"{each(lambda e: e['data'])}. Made by `{sweep}` and `python -m zoo.report {results.folder}`; each run's "
        "folder holds the command that makes it again."
    )


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.report", description="Tables and figures of a sweep.")
    parser.add_argument("results", type=Path, help="folder of a sweep, such as results/quick")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report; by default report/ in that one")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder with CIFAR-10; by default where the runs found it"
    )
    parser.add_argument(
        "--note",
        metavar="TEXT",
        help=f"to stand at the top, such as what the images are; by default what is in {NOTE} of that folder",
    )
    return parser


def _main(arguments: argparse.Namespace) -> int:
    from zoo import backend
    from zoo.collected import Results

    results = Results(arguments.results)
    made_on = results.sweep.get("backend")
    backend.choose(made_on if made_on and find_spec(made_on) else None)
    from zoo import document

    out = arguments.out or arguments.results / "report"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: no folder can be made here: {error.strerror}") from None
    found = list(blocks(results, _note(arguments), arguments.data_dir))
    document.write(out, f"Report of {arguments.results.resolve().name}", found)
    print(f"{len(results.finished)} of {len(results.every)} runs are in {out}/report.html and {out}/report.md")
    return 0


def _note(arguments: argparse.Namespace) -> str:
    if arguments.note is not None:
        return arguments.note
    path = arguments.results / NOTE
    return " ".join(path.read_text(encoding="utf-8").split()) if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
