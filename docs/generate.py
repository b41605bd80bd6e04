"""Writes docs/gallery.md, docs/fields.md, docs/results.md and pictures, results/summary.json, and tables in guides.

Formulas and starts come from the table in docs/layers.md, references from the docstrings, costs and what can be
exported from benchmarks/results, fields from the schemas of runs, sweeps and searches, and the page of results from
docs/evidence.py: python -m docs.generate
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from keras import ops
from matplotlib.figure import Figure

import keras_adaptact as ka
from benchmarks import stability_report, tables
from docs import evidence
from docs.evidence import in_networks
from tuner.searches import entry, space
from zoo import files
from zoo.config import own, schema
from zoo.reports import document
from zoo.sweeps import grid

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
STABILITY = tables.RESULTS / "stability.csv.gz"
BACKENDS = ("jax", "torch", "tensorflow")
Z = np.linspace(-5, 5, 201, dtype="float32")
LINES = (("#000000", "-"), ("#0072B2", "--"), ("#D55E00", "-."))  # of Okabe and Ito

# What the picture of each name shows beside its start: a label, and the options that make it.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "asigmoid": {
        "a = 3": {"a_initializer": 3.0},
        "b = 2, d = -1": {"b_initializer": 2.0, "d_initializer": -1.0},
    },
    "atanh": {
        "a = 0.5, b = 2": {"a_initializer": 0.5, "b_initializer": 2.0},
        "c = -1, d = 0.5": {"c_initializer": -1.0, "d_initializer": 0.5},
    },
    "arelu": {
        "b = 0.25": {"b_initializer": 0.25},
        "b = -0.5, c = d = 0.5": {"b_initializer": -0.5, "c_initializer": 0.5, "d_initializer": 0.5},
    },
    "adaptive": {
        "a = 3": {"a_initializer": 3.0},
        "b = 0.5, c = 2": {"b_initializer": 0.5, "c_initializer": 2.0},
    },
    "mixture": {
        "weights 0.5, 0.3, 0.2": {"weights": [0.5, 0.3, 0.2]},
        "weights 1, 0.5, -0.5": {"weights": [1.0, 0.5, -0.5]},
    },
    "method1": {
        "weights 0.6, 0.2, 0.2": {"weights": [0.6, 0.2, 0.2]},
        "AReLU's b = -0.5": {"arelu_b_initializer": -0.5},
    },
    "method2": {
        "weights 0.6, 0.2, 0.2": {"weights": [0.6, 0.2, 0.2]},
        "weights 0.1, 0.1, 0.8": {"weights": [0.1, 0.1, 0.8]},
    },
    "frelu": {"b = -1": {"b_initializer": -1.0}, "b = 0.5": {"b_initializer": 0.5}},
    "pelu": {"a = 2": {"a_initializer": 2.0}, "b = 2": {"b_initializer": 2.0}},
    "xielu": {"alpha_p = -2": {"alpha_p_initializer": -2.0}, "alpha_n = 1": {"alpha_n_initializer": 1.0}},
    "prelu": {"alpha = 0.05": {"alpha_initializer": 0.05}, "alpha = 0.6": {"alpha_initializer": 0.6}},
}
EXAMPLES = {"adaptive": {"function": "silu"}, "mixture": {"members": ["gelu", "tanh", "sin"]}}
MEASURED = {"adaptive": "adaptive silu"}  # under another name


def text() -> str:
    """The page."""
    measured = {backend: table("every activation", backend) for backend in BACKENDS}
    parts = [
        "# Gallery",
        "<!-- Written by `python -m docs.generate`; edit that. -->",
        "Every trainable activation of the library: its curve and slope at the start (black) and with other parameters,"
        " its formula, what it starts as, and what it costs.",
        f"![Curves and slopes of {', '.join(layer for layer, *_ in rows())}](pictures/gallery.svg)",
        "Cost is the time of a forward and a backward pass over that of the backend's own ReLU, the shortest of "
        "several turns in one process, on CPU; the library's kernels may beat it. In a whole network's training step "
        f"Method1 took {in_networks('method1')} that of ReLU and Method2 {in_networks('method2')} (medians; "
        "`benchmarks/results/speed.json`).",
    ]
    for layer, name, formula, start in rows():
        example = f"ka.{layer}({', '.join(f'{k}={v!r}' for k, v in EXAMPLES.get(name, {}).items())})"
        costs = ", ".join(f"{backend} {cost(backend, name)}" for backend in BACKENDS)
        parts += [
            f"## {layer}",
            f"* Formula: {formula}\n"
            f"* Starts as: {start}\n"
            f"* Example: `{example}`, or by name: `{name}`\n"
            f"* Cost: {costs}\n"
            f"* Reference: {reference(getattr(ka, layer))}",
        ]
    parts += ["## How the costs were measured", "\n".join(how_measured(b, found) for b, found in measured.items())]
    return "\n\n".join(parts) + "\n"


def table(measurement: str, backend: str) -> dict[str, Any]:
    return tables.part(tables.RESULTS / "speed.json", measurement, backend)


def rows() -> list[tuple[str, str, str, str]]:
    """Class, name, formula and start of each layer, from the table in docs/layers.md."""
    table = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)\(.*?\)` \| `(\w+)` \| (.+) \| (.+) \|$", table, re.MULTILINE)


def reference(layer: type) -> str:
    """From the docstring of the class, or of the first one above it that has a reference."""
    pattern = r"Reference: (.*?)(?:\n\s*\n|$(?![\r\n]))"
    found = (re.search(pattern, cls.__doc__ or "", re.DOTALL) for cls in layer.__mro__)
    return " ".join(next(match for match in found if match)[1].split())


def cost(backend: str, name: str) -> str:
    """`1.37 times`, as the library runs it, per layer in float32."""
    for row in table("every activation", backend)["rows"]:
        if (row["activation"], row["granularity"], row["dtype"]) == (MEASURED.get(name, name), "layer", "float32"):
            return f"{row['times_relu']:.2f} times"
    for row in table("activations", backend)["rows"]:
        if row["activation"] == MEASURED.get(name, name) and row["way"] in ("fast", "keras"):
            return f"{row['times_relu']:.2f} times"
    return "not measured"


def how_measured(backend: str, measured: dict[str, Any]) -> str:
    environment = measured["environment"]
    versions = environment["versions"]
    package = "tensorflow-cpu" if backend == "tensorflow" else backend
    return (
        f"* {backend}: `KERAS_BACKEND={backend} {environment['command']}`; {environment['processors']} processors, "
        f"{environment['platform']}; Keras {versions['keras']}, {package} {versions[package]}; "
        f"shape {tuple(measured['shape'])}, {environment['data']}; "
        f"commit {environment['git_commit'][:7]}{' and later changes' if environment['git_changed_files'] else ''}"
    )


RUNTIMES = {
    "tf_saved_model": "TensorFlow",
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
    "litert": "LiteRT",
    "torch": "`torch.export`",
}
TABLE = re.compile(r"(?<=<!-- python -m docs.generate -->\n)\|.*?\n(?=\n)", re.DOTALL)  # in pages written by hand


def costs() -> str:
    """The median and the largest of all members' times over ReLU's, and how many miss their goal."""
    dtypes = ("float32", "per channel", "bfloat16", "per channel")
    header = ("times ReLU: median, largest", *dtypes, "over their goal")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for backend in BACKENDS:
        cells = []
        every = table("every activation", backend)["rows"]
        for dtype in ("float32", "bfloat16"):
            for granularity in ("layer", "channel"):
                rows = [row for row in every if row["dtype"] == dtype]
                times = [row["times_relu"] for row in rows if row["granularity"] == granularity]
                cells.append(f"{np.median(times):.2f}, {max(times):.2f}")
        cells.append(f"{sum(row['times_relu'] > row['goal'] for row in every)} of {len(every)}")
        lines.append(" | ".join([f"| {backend}", *cells]) + " |")
    return "\n".join(lines) + "\n"


def stability(cells: stability_report.grid.Cells) -> str:
    """How many limits of adaptive functions lie below their counterpart's."""
    return "\n".join(stability_report.tally_table(cells)) + "\n"


def recipes() -> str:
    """The loss that a short run of each recipe ends with, by activation."""
    found = tables.part(tables.RESULTS / "checks.json.xz", "recipes", "rows")
    names = list(dict.fromkeys(row["activation"] for row in found))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for network, recipe in dict.fromkeys((row["network"], row["recipe"]) for row in found):
        ends = {row["activation"]: row for row in found if (row["network"], row["recipe"]) == (network, recipe)}
        cells = [f"{ends[name]['last_loss']:.2f}" if ends[name]["status"] == "finished" else "NaN" for name in names]
        lines.append(" | ".join([f"| {network}, {recipe}", *cells]) + " |")
    return "\n".join(lines) + "\n"


def exports() -> str:
    """A table of which networks went from which backend into which format, and how far their outputs were off."""
    lines = ["| format, runtime | from TensorFlow | from torch | from JAX |", "|---|---|---|---|"]
    backends = ("tensorflow", "torch", "jax")
    measured = {row["format"] for backend in backends for row in export_rows(backend)}
    for kind, runtime in RUNTIMES.items():
        if kind not in measured:
            continue
        cells = [exported(kind, backend) for backend in backends]
        lines.append(" | ".join([f"| `{kind}`, {runtime}", *cells]) + " |")
    return "\n".join(lines) + "\n"


def export_rows(backend: str) -> list[dict[str, str]]:
    return tables.part(tables.RESULTS / "checks.json.xz", "export", backend)["rows"]


def exported(kind: str, backend: str) -> str:
    results: dict[str, list[str]] = {}  # of each network, as trained and folded
    for row in export_rows(backend):
        if row["format"] == kind:
            results.setdefault(row["network"], []).append(row["result"])
    right = {name: max(map(float, found)) for name, found in results.items() if all(map(is_number, found))}
    if not right:
        return "none"
    wrong = [name for name in results if name not in right]
    some = "all" if not wrong else f"{len(right)} of {len(results)}"
    return f"{some}, {max(right.values()):.1e}" + (f"; not {', '.join(wrong)}" if wrong else "")


def is_number(result: str) -> bool:
    return re.fullmatch(r"[\d.]+e[-+]\d+", result) is not None


def fields_page() -> str:
    """The page of every field of a run, a sweep and a search."""
    kinds = {section: {of(kind): kind for kind in found} for section, found in schema.NAMED.items()}
    networks = kinds["model"] | {f"`{field}`": kind for field, kind in own.NETWORKS.items()}
    data = {"`name`": own.NamedDataset} | {f"`{field}`": kind for field, kind in own.DATA.items()}
    searched = {of(kind): kind for kind in (space.Random, space.Grid, space.Bayesian, space.Hyperband)}
    return (
        "\n\n".join(
            (
                "# Fields of configs",
                "<!-- Written by `python -m docs.generate` from the schemas; edit those. -->",
                "A run, a sweep and a search are a JSON file each. What has a default may be left out, and a field "
                "that doesn't exist is refused. Dotted paths such as `training.optimizer.learning_rate` name a field "
                "within others: in `--set`, in the axes of a sweep and in the space of a search. "
                "`configs/schema.json` lets editors complete and check a run.",
                "## A run",
                example("quickstart.json"),
                *fields("model", "network", networks),
                *fields("activation", "", {"": schema.Activation}),
                "Also the initializer (a number, a name or an object), the regularizer and the constraint of each "
                "parameter, as `a_initializer`, and of a mixture's members, as `arelu_b_initializer`. Instead of one "
                "activation for all sites there may be a list, each with `sites`, a pattern of site names such as "
                "`conv*`; the first that matches a site wins.",
                *fields("dataset", "with", data),
                *fields("training", "", {"": schema.Training}),
                *fields("training.optimizer", "name", kinds["optimizer"]),
                *fields("training.schedule", "name", kinds["schedule"]),
                *fields("metrics", "", {"": schema.Metrics}),
                "## A sweep",
                example("sweeps/quick.json"),
                *fields("", "", {"": grid.Sweep}),
                *fields("comparisons", "", {"": grid.Comparisons}),
                "## A search",
                example("search/quick.json"),
                *fields("", "", {"": space.Search}),
                *fields("space, a list of entries", "", {"": entry.Entry}),
                *fields("tuner", "name", searched),
                *fields("stopping", "", {"": space.Median}),
                *fields("contrast", "", {"": space.Contrast}),
            )
        )
        + "\n"
    )


def of(kind: type[schema.Strict]) -> str:
    """The names by which an object of a kind is told from others."""
    named = kind.model_fields.get("name")
    return ", ".join(f"`{name}`" for name in get_args(named.annotation)) if named else ""


def example(path: str) -> str:
    return f'```json title="configs/{path}"\n{(ROOT / "configs" / path).read_text(encoding="utf-8").rstrip()}\n```'


def fields(path: str, told_by: str, kinds: dict[str, type[schema.Strict]]) -> Iterator[str]:
    """A heading, and a table of the fields of objects of some kinds, one row for those that are alike."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, kind in kinds.items():
        found = kind.model_json_schema(by_alias=True)
        for field, said in found["properties"].items():
            if field != "$schema" and not (field == "name" and name and name == of(kind)):
                default = "needed" if field in found.get("required", ()) else f"`{json.dumps(said.get('default'))}`"
                if isinstance(said.get("default"), dict) and said["default"]:
                    default = "those below"
                meaning = said.get("description", "")
                rows.setdefault((field, values(said, found.get("$defs", {})), default, meaning), []).append(name)
    header = ("field", *([told_by] if len(kinds) > 1 else []), "value", "default", "")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for (field, *rest), names in rows.items():
        which = [] if len(kinds) == 1 else ["" if len(names) == len(kinds) else ", ".join(names)]
        lines.append("| " + " | ".join([f"`{field}`", *which, *rest]).replace("\n", " ") + " |")
    if path:
        yield f"### {path}"
    if rows:
        yield "\n".join(lines)


def values(said: dict[str, Any], definitions: dict[str, Any], s: str = "") -> str:
    """What a field may be, in words; with an s, in the plural."""
    if "$ref" in said:
        return values(definitions[said["$ref"].rpartition("/")[2]], definitions, s)
    if several := said.get("anyOf") or said.get("oneOf"):
        return " or ".join(dict.fromkeys(values(each, definitions, s) for each in several))
    if "const" in said or "enum" in said:
        return ", ".join(f"`{json.dumps(value)}`" for value in said.get("enum") or [said["const"]])
    kind = said.get("type", "anything")
    if kind == "array":
        return f"list{s} of {values(said['items'], definitions, 's')}" if said.get("items") else f"list{s}"
    if kind in ("integer", "number"):
        return f"{kind}{s} {', '.join(bounds(said))}".rstrip()
    return {"boolean": "`true`, `false`", "null": "`null`", "string": f"text{s}"}.get(kind, f"{kind}{s}")


def bounds(said: dict[str, Any]) -> Iterator[str]:
    """Of a number; without those that are there only to catch slips."""
    for key, sign in {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}.items():
        if key in said and abs(said[key]) < 10**6:
            yield f"{sign} {said[key]:g}"


def variants(name: str) -> dict[str, dict[str, Any]]:
    """What a picture shows beside the start: by default the first parameter doubled and halved, or moved from 0."""
    if name in VARIANTS:
        return VARIANTS[name]
    layer = ka.get(name)
    layer(Z[:, None])
    parameter, start = next(iter(layer.get_parameters().items()))
    values = (2 * float(start), float(start) / 2) if start else (1.0, -0.5)
    return {f"{parameter} = {value:g}": {f"{parameter}_initializer": value} for value in values}


def picture(name: str) -> Figure:
    """Curves on the left, slopes on the right."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (label, options), (colour, line) in zip(({"start": {}} | variants(name)).items(), LINES, strict=True):
        layer = ka.get({"name": name} | EXAMPLES.get(name, {}) | options)
        y = ops.convert_to_numpy(layer(Z[:, None]))[:, 0]
        left.plot(Z, y, line, color=colour, label=label)
        right.plot(Z, np.gradient(y, Z), line, color=colour)
    for axes, title in ((left, "curve"), (right, "slope")):
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("z", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        axes.axvline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
    left.legend(fontsize=8, frameon=False)
    return figure


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    drawings = {layer: document.svg(picture(name)) for layer, name, *_ in rows()}
    (PICTURES / "gallery.svg").write_text(document.sheet(drawings), encoding="utf-8")
    (ROOT / "docs" / "gallery.md").write_text(text(), encoding="utf-8")
    (ROOT / "docs" / "fields.md").write_text(fields_page(), encoding="utf-8")
    cells = stability_report.grid.Cells(STABILITY)
    stability_report.draw(cells, PICTURES / "stability.svg", "tensorflow", "momentum")
    made = {"ship-it": exports(), "costs": costs(), "training-well": stability(cells), "zoo": recipes()}
    for name, table in made.items():
        guide = ROOT / "docs" / f"{name}.md"
        guide.write_text(TABLE.sub(lambda _, table=table: table, guide.read_text(encoding="utf-8")), encoding="utf-8")
    (PICTURES / "learned.svg").write_text(evidence.learned(), encoding="utf-8")
    files.write_json(ROOT / "results" / "summary.json", evidence.summary())
    page, drawings = evidence.page()
    for name, drawing in drawings.items():
        (PICTURES / name).write_text(drawing, encoding="utf-8")
    (ROOT / "docs" / "results.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
