"""The kernels of a formula: statements of its graph, in loops whose text is C and CUDA alike.

native.c calls them for parts of a tensor, and native.cu for the few elements of a thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

import keras

from keras_adaptact.backends.graph import Node, gradients, inputs_first
from keras_adaptact.backends.operations import OPERATIONS
from keras_adaptact.backends.tracing import trace

SPECIAL = {"inf": "INFINITY", "-inf": "(-INFINITY)", "nan": "NAN"}
ELEMENTS = {"float32": "FLOAT32", "bfloat16": "BFLOAT16", "float16": "FLOAT16"}  # as native.c names them


@dataclass(frozen=True)
class Kind:
    """What kernels are made for, beside a formula.

    Attributes:
        sizes: how many parameters each variable holds.
        channels: None where one set of parameters serves the tensor; else those of each channel, which lie "last" in
            memory or "inside" a tensor.
        dtype: of z, its gradient and the result: "float32", "bfloat16" or "float16". Variables are float32.
    """

    sizes: tuple[int, ...]
    channels: str | None = None
    dtype: str = "float32"


def source(form, kind: Kind) -> str:
    """The kernels of a form in C, as the running backend calls them.

    Raises:
        Unknown: for an operation that they can't be made of.
    """
    written, _ = _written(form, kind, "native.c")
    return written + _read(f"native_{keras.backend.backend()}.c")


def cuda_source(form, kind: Kind, threads: int, vector: int) -> tuple[str, int]:
    """The same in CUDA, for blocks of threads that take so many elements at a time; and how many sums they make."""
    written, sums = _written(form, kind, "native.cu")
    return f"#define THREADS {threads}\n#define VECTOR {vector}\n{written}", sums


def _written(form, kind: Kind, name: str) -> tuple[str, int]:
    rows = replace(form.rows, behind=0)
    y, z, variables = trace(lambda z, *variables: form.formula(z, *rows(*variables)), kind.sizes)
    gradient, by_z, by_variables = gradients(y, z, variables)
    results = [node for row in by_variables for node in row]
    sums = [node for node in inputs_first(results, lambda node: node.op == "sum") if node.op == "sum"]
    terms = [node.inputs[0] for node in sums]
    loops = _Loops({id(z): "z", id(gradient): "gradient"}, [y, by_z, *terms])
    way = "lanes" if kind.channels == "last" else "segment"
    formula = [
        *loops.fix(),
        *loops.is_far(way, [y, by_z, *terms]),
        *loops.forward(way, y),
        *loops.backward(way, by_z, terms),
        *_finish(results, sums, kind.sizes),
    ]
    defined = {
        "SUMS": len(sums),
        "FIXED": len(loops.fixed),
        "VARIABLES": len(kind.sizes),
        "CHANNELS": {None: "NONE", "last": "LAST", "inside": "INSIDE"}[kind.channels],
        "BEHIND": form.rows.behind,
        "ELEMENT": ELEMENTS[kind.dtype],
    }
    head = "".join(f"#define {name} {value}\n" for name, value in defined.items())
    common = _read(name).replace("/* MATH */", _read("native_math.h"))
    return head + common.replace("/* FORMULA */", "\n".join(formula)), len(sums)


def _read(name: str) -> str:
    return (files("keras_adaptact.backends") / name).read_text()


def _finish(results: Sequence[Node], sums: Sequence[Node], sizes: Sequence[int]) -> list[str]:
    statements, names = _statements(results, {id(node): f"(float)sums[{i}]" for i, node in enumerate(sums)})
    places = [f"by[{i}][{j} * channels + channel]" for i, size in enumerate(sizes) for j in range(size)]
    return [
        "INLINE void finish(const float *const *v, int64_t channels, int64_t channel, const double *sums,",
        "                   float *const *by) {",
        *statements,
        *(f"{place} = {name};" for place, name in zip(places, names, strict=True)),
        "}",
    ]


class _Loops:
    """The loops over z of a formula and its gradient.

    Values of the parameters alone are computed before, once for each set of them; `fixed` are those that loops take.
    """

    def __init__(self, given: dict[int, str], roots: Sequence[Node]):
        self.given = given  # the names of the tensors
        wide = [node for node in inputs_first(roots) if node.wide]
        used = {id(x): x for node in [*wide, *roots] for x in (node, *node.inputs) if not x.wide}
        self.fixed = [node for node in used.values() if node.op != "constant"]

    def fix(self) -> list[str]:
        statements, names = _statements(self.fixed, {})
        return [
            "INLINE void fix(const float *const *v, int64_t channels, int64_t channel, float *fixed) {",
            *statements,
            *(f"fixed[{i} * LANES] = {name};" for i, name in enumerate(names)),
            "}",
        ]

    def forward(self, way: str, y: Node) -> list[str]:
        return [
            f"INLINE void forward_{way}(const int exact, const float *fixed, const float *restrict z,",
            "    float *restrict result, int64_t size) {",
            *self._loop(way, [y], ["result[i] = {};"]),
            "}",
        ]

    def backward(self, way: str, by_z: Node, terms: Sequence[Node]) -> list[str]:
        uses = ["result[i] = {};", *(f"SUM({i}) += {{}};" for i in range(len(terms)))]
        return [
            f"INLINE void backward_{way}(const int exact, const float *fixed, const float *restrict z,",
            "    const float *restrict gradient, float *restrict result, float *restrict sums, int64_t size) {",
            *self._loop(way, [by_z, *terms], uses),
            "}",
        ]

    def is_far(self, way: str, roots: Sequence[Node]) -> list[str]:
        """Whether the loops over a part of z need the exact form of an operation."""
        wide = [node for node in inputs_first(roots) if node.wide and node.op in OPERATIONS]
        far = [node for node in wide if OPERATIONS[node.op].is_far]
        if not far:
            return [f"#define is_far_{way}(fixed, z, size) 0"]
        uses = [f"far |= {OPERATIONS[node.op].is_far};" for node in far]
        return [
            f"INLINE int is_far_{way}(const float *fixed, const float *restrict z, int64_t size) {{",
            "int far = 0;",
            *self._loop(way, [node.inputs[0] for node in far], uses, "reduction(| : far)"),
            "return far;",
            "}",
        ]

    def _loop(self, way: str, roots: Sequence[Node], uses: Sequence[str], reduction: str = "") -> list[str]:
        """A loop that computes `roots` and puts each to its use."""
        tensors = {id(node): self.given[id(node)] for node in inputs_first(roots) if id(node) in self.given}
        fixed = {id(node): i for i, node in enumerate(self.fixed)}
        needed = [fixed[id(node)] for node in inputs_first(roots, lambda node: id(node) in fixed) if id(node) in fixed]
        place = {"segment": "", "lanes": " + i"}[way]
        values = [f"const float f{i} = fixed[{i} * LANES{place}];" for i in needed]
        names = {key: f"{name}_i" for key, name in tensors.items()} | {key: f"f{i}" for key, i in fixed.items()}
        inside, found = _statements(roots, names, exact="exact")
        return [
            *(values if way == "segment" else ()),
            f"VECTORIZED({reduction})",
            "for (int64_t i = 0; i < size; i++) {",
            *(values if way == "lanes" else ()),
            *(f"const float {name}_i = {name}[i];" for name in tensors.values()),
            *inside,
            *(use.format(name) for use, name in zip(uses, found, strict=True)),
            "}",
        ]


def _statements(roots: Sequence[Node], named: dict[int, str], exact: str | None = None) -> tuple[list[str], list[str]]:
    """Statements that compute `roots` from what is named, and what each is called.

    `exact` says whether operations need their exact form; by default each finds that out by its inputs.
    """
    names = dict(named)
    statements: list[str] = []
    for node in inputs_first(roots, lambda node: id(node) in named):
        if id(node) in names:
            continue
        if node.op == "constant":
            names[id(node)] = SPECIAL.get(repr(node.value)) or f"({node.value!r}f)"
            continue
        is_condition = False
        if node.op == "variable":
            value = "v[{}][{} * channels + channel]".format(*node.value)
        else:
            operation = OPERATIONS[node.op]
            inputs = [names[id(x)] for x in node.inputs]
            value = operation.code.format(*inputs, exact=exact or (operation.is_far or "").format(*inputs))
            is_condition = operation.is_condition
        names[id(node)] = f"t{len(statements)}"
        statements.append(f"const {'int' if is_condition else 'float'} {names[id(node)]} = {value};")
    return statements, [names[id(root)] for root in roots]
