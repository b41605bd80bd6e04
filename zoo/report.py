"""Writes the report of a sweep: `python -m zoo.report results/quick --out report`."""

import argparse
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import signals
from zoo.command import run_command

if TYPE_CHECKING:  # so that --help imports neither matplotlib nor a backend
    from zoo.reports.document import Figure, Heading, Paragraph, Table
    from zoo.reports.groups import Results

    Block = Heading | Paragraph | Table | Figure


def blocks(results: "Results", banners: list[str], note: str = "", data_dir: Path | None = None) -> "Iterator[Block]":
    from zoo.reports import curves, judge, provenance, sound, tables, verdicts
    from zoo.reports.document import Heading, Paragraph

    found, scales = judge.judge(sound.sections(results)), sound.scales(results)
    if scales:
        yield verdicts.summary({title: found[title] for title in scales}, scales)
    for banner in banners:
        yield Paragraph(f"Note: {banner}")
    yield Paragraph(f"{note} {results.notes} {provenance.states(results)}".strip())
    yield from provenance.blocks(results)
    outputs: list[tuple[str, str, Callable]] = [
        ("sound", "What an activation brings, and what it costs", lambda results, _: sound.blocks(results, found)),
        ("sound", "All networks together", lambda results, _: sound.all_networks(results, found)),
        ("table1", "Table 1: five networks, eight activations", tables.table1),
        ("table2", "Table 2: AlexNet, three trials", tables.table2),
        ("table3", "Table 3: mixing weights of AlexNet", tables.weights),
        ("table4", "Table 4: mixing weights of LeNet", tables.weights),
        ("table5", "Table 5: AlexNet with mixing weights held fixed", tables.table5),
        ("figure3", "Figure 3: loss against epoch", curves.figure3),
        ("figure4", "Figure 4: both methods against epoch", curves.figure4),
    ]
    for output, title, make in outputs:
        if results.groups(output):
            yield Heading(title)
            yield from make(results, output)
    yield Heading("Figures 1 and 2: shapes")
    yield from curves.classical()
    yield Heading("What the activations learned")
    yield from curves.learned(results)
    if tables.is_taken(results):
        yield Heading("The report's measure")
        yield from tables.noise(results, data_dir)


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.report", description="Write the report of a sweep.")
    parser.add_argument("results", type=Path, help="folder of a sweep, such as results/quick")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report; by default report/ in that one")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder with CIFAR-10; by default where the runs found it"
    )
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="report runs that differ in data, backend, config or code together, with a note at the top",
    )
    parser.add_argument(
        "--note",
        metavar="TEXT",
        help="a note for the top, such as what the images are; by default that of note.txt in the sweep's folder",
    )
    return parser


def _main(arguments: argparse.Namespace) -> int:
    from zoo import pack

    with pack.opened(arguments.results) as folder:
        return _write(folder, arguments)


def _write(folder: Path, arguments: argparse.Namespace) -> int:
    from zoo import backend
    from zoo.reports import provenance
    from zoo.reports.groups import Results

    results = Results(folder, arguments.results)
    banners = provenance.check(results, arguments.mixed)
    made_on = results.sweep.get("backend")
    backend.choose(made_on if made_on and find_spec(made_on) else None)
    backend.load()
    from zoo.reports import document

    out = document.folder(arguments.out, arguments.results)
    found = list(blocks(results, banners, document.note(folder, arguments.note), arguments.data_dir))
    document.write(out, f"Report of {arguments.results.resolve().name}", found)
    print(f"wrote {out}/report.html and {out}/report.md, with {len(results.finished)} of {len(results.every)} runs")
    return 0


if __name__ == "__main__":
    signals.leave(main())
