"""Tables and figures of a sweep: `python -m zoo.report results/quick --out report`."""

import argparse
import csv
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.command import run_command
from zoo.errors import UserError

if TYPE_CHECKING:  # so that --help imports neither matplotlib nor a backend
    import numpy as np

    from zoo.document import Figure, Heading, Paragraph, Table

    Block = Heading | Paragraph | Table | Figure

REFERENCE = Path(__file__).parent / "reference.json"
COLUMN = {"resnet50": "resnet"}  # of the report's Table 1, where it has another name
MISSING = "missing"
BATCHES = 2_000  # that the histogram of the report's measure draws
SITES = 9  # that are drawn of a network with more


@dataclass(frozen=True)
class Result:
    """What a run of a sweep left behind so far."""

    name: str
    labels: dict[str, str]
    outputs: tuple[str, ...]
    folder: Path

    @property
    def network(self) -> str:
        return self.labels["model"]

    @property
    def activation(self) -> str:
        return self.labels.get("activation", "as configured")

    @cached_property
    def metrics(self) -> dict[str, Any] | None:
        """None unless the run is finished."""
        return self._written if self._written.get("status") == "finished" else None

    @property
    def diverged(self) -> bool:
        return self._written.get("status") == "diverged"

    @cached_property
    def _written(self) -> dict[str, Any]:
        path = self.folder / "metrics.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @cached_property
    def settings(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text())

    @cached_property
    def environment(self) -> dict[str, Any]:
        return json.loads((self.folder / "environment.json").read_text())

    def history(self, column: str) -> "np.ndarray":
        """A column of history.csv; empty where it has none."""
        import numpy as np

        return np.array([float(row[column]) for row in self.rows("history.csv") if column in row])

    def rows(self, file: str) -> list[dict[str, str]]:
        with (self.folder / file).open(newline="", encoding="utf-8") as opened:
            return list(csv.DictReader(opened))

    def milliseconds_a_step(self) -> float:
        assert self.metrics
        return self.settings["training"]["batch_size"] / self.metrics["images_per_second"] * 1e3


class Results:
    """The runs of a sweep's folder.

    Raises:
        UserError: for a folder that holds no sweep.
    """

    def __init__(self, folder: Path):
        try:
            self.sweep = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
            self.every = [
                Result(run["name"], run["labels"], tuple(run["outputs"]), folder / "runs" / run["name"])
                for run in self.sweep["runs"]
            ]
        except FileNotFoundError:
            raise UserError(f"{folder / 'sweep.json'}: no such file; expected the folder of a zoo.sweep") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / 'sweep.json'}: not what zoo.sweep writes ({error!r})") from None
        self.folder = folder
        self.finished = [run for run in self.every if run.metrics]

    def of(self, output: str, finished: bool = True) -> dict[str, dict[str, list[Result]]]:
        """Runs by network and activation, in the order of the sweep; an activation without finished runs has none."""
        found: dict[str, dict[str, list[Result]]] = {}
        for run in self.every:
            if output in run.outputs:
                runs = found.setdefault(run.network, {}).setdefault(run.activation, [])
                runs += [run] if run.metrics or not finished else []
        return found

    def outputs(self) -> set[str]:
        return {output for run in self.every for output in run.outputs}


def blocks(results: Results, note: str = "") -> "Iterator[Block]":
    from zoo.document import Heading, Paragraph

    yield Paragraph(f"{note} {_provenance(results)}".strip())
    asked = results.outputs()
    sections: list[tuple[str, str, Callable]] = [
        ("sound", "What an activation brings, and what it costs", _sound),
        ("table1", "Table 1: five networks, eight activations", _table1),
        ("table2", "Table 2: AlexNet, three trials", _table2),
        ("table3", "Table 3: mixing weights of AlexNet", _weights),
        ("table4", "Table 4: mixing weights of LeNet", _weights),
        ("table5", "Table 5: AlexNet with mixing weights held fixed", _table5),
        ("figure3", "Figure 3: loss against epoch", _figure3),
        ("figure4", "Figure 4: both methods against epoch", _figure4),
    ]
    for output, title, make in sections:
        if output in asked:
            yield Heading(title)
            yield from make(results, output)
    yield Heading("Figures 1 and 2: shapes")
    yield from _shapes()
    yield Heading("What the activations learned")
    yield from _learned(results)
    yield Heading("The report's measure")
    yield from _report_measure(results)


def _provenance(results: Results) -> str:
    done, total = len(results.finished), len(results.every)
    notes = results.sweep["notes"]
    if not results.finished:
        return f"{notes} None of its {total} runs is finished."
    environments = [run.environment for run in results.finished]

    def each(value: Callable[[dict], Any]) -> str:
        return "; ".join(dict.fromkeys(str(value(environment)) for environment in environments))

    versions = each(lambda e: ", ".join(f"{name} {version}" for name, version in e["versions"].items()))
    commits = each(lambda e: f"{e['git_commit']}{' with changes' if e['git_changed_files'] else ''}")
    return (
        f"{notes} {done} of {total} runs are finished. Backend: {each(lambda e: e['backend'])}. Device: "
        f"{each(lambda e: e['device'])}, {each(lambda e: e['processors'])} processors. Versions: {versions}. "
        f"Commit: {commits}. Data: {each(lambda e: e['data'])}. Made by `python -m zoo.sweep` and "
        f"`python -m zoo.report {results.folder}`; each run's folder holds the command that makes it again."
    )


# The sound measure


def _sound(results: Results, output: str) -> "Iterator[Block]":
    from zoo import statistics as stats
    from zoo.document import Paragraph, Table

    yield Paragraph(
        "After the last epoch, on all test images, which take part in no choice. Mean and standard deviation over "
        "seeds. Differences from ReLU are in accuracy, in percentage points, with a 95 % interval by Welch's t-test; "
        "p is corrected by Holm's method for all comparisons on this page. The training loss is what the optimizer "
        "minimizes, label smoothing and the penalty on kernels included; the area under it is in nats times epochs, "
        "and the next column has the first epoch whose mean loss is at or below ReLU's last one. Peak memory is that "
        "of the process on a CPU, of the device on a GPU; step times hold for the machine as it was, whatever else "
        "ran on it."
    )
    groups = results.of(output)
    differences = {
        (network, name): stats.difference(_test(runs, "accuracy"), _test(activations["relu"], "accuracy"))
        for network, activations in groups.items()
        for name, runs in activations.items()
        if name != "relu" and "relu" in activations
    }
    known = {key: found for key, found in differences.items() if found is not None}
    corrected = dict(zip(known, stats.holm([found.p for found in known.values()]), strict=True))
    header = (
        *("activation", "seeds", "accuracy", "macro precision", "minus ReLU [95 %]", "p (Holm)"),
        *("area under loss", "epochs to ReLU's loss", "ms a step", "times ReLU's", "peak MB"),
    )
    diverged = Counter((run.network, run.activation) for run in results.every if run.diverged)
    for network, activations in groups.items():
        relu = activations.get("relu", [])
        level = _mean_loss(relu)[-1] if relu else None
        pace = statistics.median(run.milliseconds_a_step() for run in relu) if relu else None
        rows = []
        for name, runs in activations.items():
            lost = diverged[network, name]
            if not runs:
                rows.append([name, "0", f"{lost} diverged" if lost else MISSING, *[""] * 8])
                continue
            loss = _mean_loss(runs)
            reached = stats.epochs_to_reach(loss, level) if level is not None else None
            step = statistics.median(run.milliseconds_a_step() for run in runs)
            peaks = [run.metrics["peak_memory_mb"] for run in runs if run.metrics]
            found = known.get((network, name))
            rows.append(
                [
                    name,
                    f"{len(runs)}, {lost} diverged" if lost else str(len(runs)),
                    _spread(_test(runs, "accuracy")),
                    _spread(_test(runs, "precision_macro")),
                    f"{100 * found.mean:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]" if found else "",
                    f"{corrected[network, name]:.2g}" if found else "",
                    f"{stats.area(loss):.2f}",
                    str(reached or "never"),
                    f"{step:.1f}",
                    f"{step / pace:.2f}" if pace else "",
                    f"{statistics.median(peaks):.0f}",
                ]
            )
        yield Table(f"sound-{network}", f"{network}: the sound measure, in % where it is a share", header, rows)
        yield Paragraph(_in_words(network, activations, known, corrected))


def _test(runs: list[Result], measure: str) -> list[float]:
    return [run.metrics[f"test_{measure}"] for run in runs if run.metrics]


def _mean_loss(runs: list[Result]) -> "np.ndarray":
    return _stacked(runs, "loss").mean(axis=0)


def _stacked(runs: list[Result], column: str) -> "np.ndarray":
    """(seeds, epochs), as far as all of them got."""
    import numpy as np

    curves = [run.history(column) for run in runs]
    return np.stack([curve[: min(map(len, curves))] for curve in curves])


def _spread(values: list[float], scale: float = 100, digits: int = 2) -> str:
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _in_words(network: str, activations, known, corrected) -> str:
    """A paragraph of what the numbers say."""
    if not activations.get("relu"):
        return f"{network}: there is no finished run with ReLU to compare with."
    baseline = f"With ReLU {network} reaches {_spread(_test(activations['relu'], 'accuracy'))} % test accuracy"
    better: list[str] = []
    worse: list[str] = []
    open_: list[str] = []
    for (of, name), found in known.items():
        if of == network:
            text = f"{name} ({100 * found.mean:+.2f} points, {100 * found.low:+.2f} to {100 * found.high:+.2f})"
            (open_ if corrected[of, name] >= 0.05 else better if found.mean > 0 else worse).append(text)
    if not better and not worse and not open_:
        return f"{baseline}; a single seed says nothing about differences."
    sentences = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("beyond chance above it", better),
            ("beyond chance below it", worse),
            ("not told apart from it by these seeds", open_),
        )
        if names
    ]
    return f"{baseline}. " + "; ".join(sentences).capitalize() + "."


# The report's tables


def _reference() -> dict[str, Any]:
    return json.loads(REFERENCE.read_text())


def _measure(runs: list[Result], key: str) -> list[float]:
    return [run.metrics[key] for run in runs if run.metrics and key in run.metrics]


def _beside(own: str, published: float | None, digits: int = 4) -> str:
    return own if published is None else f"{own} ({published:.{digits}f})"


MEASURE = (
    "The report's measure: weighted precision on one batch of 64 test images after each epoch, whose maximum lies far "
    "above what a network does on all test images. In brackets what the report says."
)


def _table1(results: Results, output: str) -> "Iterator[Block]":
    from zoo.document import Table

    published = _reference()["table1"]
    groups = results.of(output)
    rows = []
    for name in dict.fromkeys(name for activations in groups.values() for name in activations):
        cells = []
        for network, activations in groups.items():
            own = _measure(activations.get(name, []), "report_precision_max")
            column = published["columns"].index(COLUMN.get(network, network))
            cells.append(
                _beside(_spread(own, 1, 4) if own else MISSING, published["rows"].get(name, {column: None})[column])
            )
        rows.append([name, *cells])
    yield Table("table1", f"Maximum over epochs. {MEASURE}", ["activation", *groups], rows)


def _trials(results: Results, output: str, published: Callable[[str], list | None]) -> "Iterator[Block]":
    """The shape of Tables 2 and 5: the maximum, its epoch, and the last value."""
    from zoo.document import Table

    header = ("activation", "trials", "maximum", "the report's", "epochs of it", "the report's", "last", "the report's")
    for activations in results.of(output).values():
        rows = []
        for name, runs in activations.items():
            there = published(name)
            theirs = ("",) * 3
            if there:
                theirs = (f"{there[0]:.4f} ± {there[1]:.4f}", str(there[2]), f"{there[3]:.4f} ± {there[4]:.4f}")
            highest, last = _measure(runs, "report_precision_max"), _measure(runs, "report_precision_last")
            own = (MISSING, "", "")
            if highest:
                at = ", ".join(str(run.metrics["report_precision_max_epoch"]) for run in runs if run.metrics)
                own = (_spread(highest, 1, 4), at, _spread(last, 1, 4))
            rows.append([name, str(len(highest)), *(cell for pair in zip(own, theirs, strict=True) for cell in pair)])
        yield Table(output, MEASURE.replace("In brackets what", "Beside it what"), header, rows)


def _table2(results: Results, output: str) -> "Iterator[Block]":
    return _trials(results, output, _reference()["table2"]["rows"].get)


def _table5(results: Results, output: str) -> "Iterator[Block]":
    tables = _reference()

    def published(label: str) -> list | None:
        method, at, weight = label.partition(" at ")
        return tables["table5"]["rows"].get(method, {}).get(weight) if at else tables["table2"]["rows"].get(method)

    return _trials(results, output, published)


def _weights(results: Results, output: str) -> "Iterator[Block]":
    """Tables 3 and 4."""
    from zoo import earlier
    from zoo.document import Table

    published = _reference()[output]
    for activations in results.of(output).values():
        rows, sites = [], published["columns"]
        for name, runs in activations.items():
            learned = earlier.mixing_weights(runs[0].folder) if runs else {}
            for i, (symbol, theirs) in enumerate(published["rows"].get(name, {}).items()):
                own = [f"{list(learned[site].values())[i]:.3f}" if site in learned else MISSING for site in sites]
                rows.append([f"{name} {symbol}", *(_beside(*pair, 3) for pair in zip(own, theirs, strict=True))])
        caption = "After the last epoch, X of tanh, Y of sigmoid, Z of ReLU. In brackets what the report says."
        yield Table(output, caption, ["weight", *sites], rows)


# Figures


def _figure3(results: Results, output: str) -> "Iterator[Block]":
    from zoo import figures
    from zoo import statistics as stats
    from zoo.document import Figure

    groups = _with_runs(results.of(output))
    if not groups:
        return
    curves = {n: {name: _stacked(runs, "loss") for name, runs in found.items()} for n, found in groups.items()}
    caption = "Training loss against epoch: mean over seeds, and a band from the lowest to the highest."
    yield Figure("figure3", caption, figures.against_epoch(curves, "training loss"))
    areas = {
        n: {name: [stats.area(run) for run in values] for name, values in found.items()} for n, found in curves.items()
    }
    yield Figure(
        "figure3-area",
        "Area under each training loss: the smaller, the faster it fell. A dot for each seed.",
        figures.bars(areas, "area under the loss, nats times epochs"),
    )


def _figure4(results: Results, output: str) -> "Iterator[Block]":
    from zoo import figures
    from zoo.document import Figure

    chosen = ("method1", "method2", "relu")
    groups = {n: {k: v for k, v in found.items() if k in chosen} for n, found in results.of(output).items()}
    groups = _with_runs(groups)
    for column, y in (("loss", "training loss"), ("report_precision", "precision on 64 test images")):
        curves = {n: {name: _stacked(runs, column) for name, runs in found.items()} for n, found in groups.items()}
        if curves:
            what = "Training loss" if column == "loss" else "The report's measure"
            yield Figure(
                f"figure4-{column}", f"{what} against epoch, both methods and ReLU.", figures.against_epoch(curves, y)
            )


def _with_runs(groups):
    found = {network: {name: runs for name, runs in each.items() if runs} for network, each in groups.items()}
    return {network: each for network, each in found.items() if each}


def _shapes() -> "Iterator[Block]":
    from zoo import figures
    from zoo.document import Figure

    fixed = {name: {name: figures.curve({"name": name})} for name in ("sigmoid", "tanh", "relu")}
    yield Figure("figure1", "Figure 1: the classical activations.", figures.shapes(fixed))
    settings = [{}, {"a": 2.0}, {"b": 0.5}, {"c": 1.0, "d": -0.5}]
    adaptive = {}
    for name in ("asigmoid", "atanh", "arelu"):
        adaptive[name] = {
            ", ".join(f"{k} = {v:g}" for k, v in changed.items()) or "as it starts": figures.curve(
                {"name": name}, changed
            )
            for changed in settings
        }
    yield Figure(
        "figure2", "Figure 2: the adaptive activations, with some of their numbers changed.", figures.shapes(adaptive)
    )


def _learned(results: Results) -> "Iterator[Block]":
    """For the first finished run of each network and activation: mixing weights, and the shape at each site."""
    from zoo.document import Paragraph

    firsts: dict[tuple[str, str], Result] = {}
    for run in results.finished:
        firsts.setdefault((run.network, run.activation), run)
    shown = False
    for run in firsts.values():
        for figure in (_mixing_figure(run), _shape_figure(run)):
            if figure:
                shown = True
                yield figure
    if not shown:
        yield Paragraph("No finished run has an activation with one set of trained numbers for each layer.")


def _mixing_figure(run: Result) -> "Figure | None":
    import numpy as np

    from zoo import figures
    from zoo.document import Figure

    rows = [row for row in run.rows("mixing_weights.csv") if not row["channel"] and int(row["epoch"]) > 0]
    panels: dict[str, dict[str, Any]] = {}
    for site in _some(list(dict.fromkeys(row["site"] for row in rows))):
        of_site = [row for row in rows if row["site"] == site]
        panels[site] = {
            member: np.array([[float(row["weight"]) for row in of_site if row["member"] == member]])
            for member in dict.fromkeys(row["member"] for row in of_site)
        }
    if not panels:
        return None
    caption = f"{run.name}: mixing weights against epoch{_of_sites(rows)}."
    return Figure(f"weights-{run.name}", caption, figures.against_epoch(panels, "mixing weight", small=True))


def _shape_figure(run: Result) -> "Figure | None":
    import numpy as np

    from zoo import config, figures, models
    from zoo.document import Figure

    rows = run.rows("parameters.csv")
    make = models.factory(config.Config.model_validate(run.settings).activation)
    panels: dict[str, dict[str, Any]] = {}
    for site in _some(list(dict.fromkeys(row["site"] for row in rows))):
        of_site = [row for row in rows if row["site"] == site]
        for epoch in dict.fromkeys(row["epoch"] for row in of_site):
            values: dict[str, list[float]] = {}
            for row in of_site:
                if row["epoch"] == epoch:
                    values.setdefault(row["parameter"], []).append(float(row["value"]))
            layer = make(site)
            layer.set_parameters(
                **{name: np.reshape(v, layer.get_parameters()[name].shape) for name, v in values.items()}
            )
            panels.setdefault(site, {})[f"epoch {epoch}"] = figures.evaluate(layer)
    if not panels:
        return None
    caption = f"{run.name}: the activation at each site as it was learned{_of_sites(rows)}."
    return Figure(f"shapes-{run.name}", caption, figures.shapes(panels, in_order=True))


def _some(sites: list[str]) -> list[str]:
    """All of few sites, and evenly chosen ones of many."""
    if len(sites) <= SITES:
        return sites
    return [sites[round(i * (len(sites) - 1) / (SITES - 1))] for i in range(SITES)]


def _of_sites(rows: list[dict[str, str]]) -> str:
    count = len({row["site"] for row in rows})
    return f", at {SITES} of {count} sites" if count > SITES else ""


def _report_measure(results: Results) -> "Iterator[Block]":
    """How far the maximum of a precision on 64 images lies from the precision on all."""
    import numpy as np

    from zoo import earlier, figures, metrics
    from zoo.document import Figure, Paragraph

    if not results.finished:
        yield Paragraph("There is no finished run to show it on.")
        return
    run = results.finished[0]
    try:
        loaded = earlier.Run(run.folder)
        test = loaded.dataset().test
    except UserError as error:
        yield Paragraph(f"Its distribution needs the images of {run.name}, which are not here: {error}")
        return
    logits = loaded.predict(test.images)
    size = min(run.settings["metrics"]["report_batch"] or 64, len(test.labels))
    drawn = [metrics.report_batch(test.labels, size, 0, i) for i in range(BATCHES)]
    samples = [metrics.report(logits[chosen], test.labels[chosen]) for chosen in drawn]
    whole = metrics.sound(logits, test.labels, loaded.classes, "test")["test_precision_weighted"]
    epochs = run.settings["training"]["epochs"]
    maxima = np.reshape(samples[: len(samples) // epochs * epochs], (-1, epochs)).max(axis=1)
    expected = f"{maxima.mean():.3f}" if len(maxima) else f"more than {max(samples):.3f}"
    yield Paragraph(
        f"The network of {run.name}, trained and left as it is, on {BATCHES:,} batches of {size} test images each: "
        f"weighted precision has a standard deviation of {np.std(samples):.3f} and a mean of {np.mean(samples):.3f}, "
        f"where on all {len(test.labels):,} images it is {whole:.3f}. The maximum over {epochs} such batches, one for "
        f"each epoch of this run, is {expected} on average: so much of a table of maxima is the measure itself."
    )
    title = f"{run.name}: precision on {size} test images"
    yield Figure(
        "report-measure", "The report's measure on one trained network.", figures.histogram(samples, whole, title)
    )


def main(argv: list[str] | None = None) -> int:
    return run_command(_main, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.report", description="Tables and figures of a sweep.")
    parser.add_argument("results", type=Path, help="folder of a sweep, such as results/quick")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report; by default report/ in that one")
    parser.add_argument("--note", default="", metavar="TEXT", help="to stand at the top, such as what the images are")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    results = Results(arguments.results)
    from zoo import backend

    backend.choose(results.sweep.get("backend"))
    from zoo import document

    out = arguments.out or arguments.results / "report"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: no folder can be made here: {error.strerror}") from None
    found = list(blocks(results, arguments.note))
    document.write(out, f"Report of {arguments.results.name}", found)
    print(f"{len(results.finished)} of {len(results.every)} runs are in {out}/report.html and {out}/report.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
