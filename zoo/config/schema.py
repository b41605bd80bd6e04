"""The schema of a run: fields, types, defaults, and combinations that are refused."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from zoo.config import own
from zoo.config.own import (
    DATA,
    NETWORKS,
    AnyData,
    Application,
    Built,
    Few,
    Hub,
    NamedDataset,
    NotNegative,
    Positive,
    Share,
    Width,
    field_of,
    name_of,
    named,
)
from zoo.config.own import Count as Count
from zoo.config.own import Strict as Strict
from zoo.config.own import unknown_field as unknown_field

Blocks = Annotated[list[Few], Field(min_length=1, max_length=5)]
Stem = Annotated[
    Literal["reference", "cifar"],
    Field(description='"reference": as in Hu et al.; "cifar": 3x3 with stride 1, and no first pool'),
]
Norm = Annotated[
    Literal["batch", "none"],
    Field(description='"batch": batch norm before each activation; "none": biases in its place'),
]
_PARAMETER_SETTING = r"^[a-z0-9_]+_(initializer|regularizer|constraint)$"


class LeNet(Strict):
    """LeNet with 'same' padding, and dropout before the last layer."""

    name: Literal["lenet"] = "lenet"
    norm: Norm = "none"
    dropout: Share = Field(0.1, description="share of the outputs of the last hidden layer that are dropped")


class AlexNet(Strict):
    """AlexNet with two groups and local response normalization."""

    name: Literal["alexnet"] = "alexnet"
    stem: Stem = "cifar"
    norm: Norm = "batch"
    widths: list[Width] = Field([1024, 2048], min_length=2, max_length=2, description="of the dense layers")
    dropout: Share = Field(0.1, description="share of the outputs of each hidden dense layer that are dropped")


class GoogLeNet(Strict):
    """GoogLeNet, the first Inception, without auxiliary classifiers."""

    name: Literal["googlenet"] = "googlenet"
    stem: Stem = "cifar"
    norm: Norm = "batch"
    width: Annotated[float, Field(gt=0, le=64)] = Field(
        1.0, description="times the published number of filters of each convolution"
    )
    dropout: Share = Field(0.1, description="share of the outputs of the last pool that are dropped")


class ResNet50(Strict):
    """ResNet of bottlenecks, with activations after the additions."""

    name: Literal["resnet50"] = "resnet50"
    stem: Stem = "cifar"
    norm: Norm = "batch"
    width: Annotated[int, Field(ge=1, le=4096)] = Field(
        64, description="filters of the first convolution; each stage has twice the one before"
    )
    blocks: Blocks = Field([3, 4, 6, 3], description="how many bottlenecks each stage has")


class DenseNet(Strict):
    """DenseNet-BC."""

    name: Literal["densenet"] = "densenet"
    stem: Stem = "cifar"
    norm: Norm = "batch"
    blocks: Blocks = Field([6, 12, 48, 32], description="how many bottlenecks each dense block has")
    growth: Few = Field(24, description="filters that a bottleneck adds")
    bottleneck: Few = Field(4, description="filters of a bottleneck's 1x1 convolution, in growths")
    compression: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="share of filters after a transition")
    dropout: Share = Field(0.2, description="share of the outputs of each convolution but the first that are dropped")


class FromRun(Strict):
    """Mixing weights fixed at those that an earlier run learned, site by site."""

    from_run: Annotated[str, Field(pattern=r"^[^\x00]{1,4096}$")] = Field(
        description="folder of that run, which holds mixing_weights.csv"
    )


class Activation(Strict):
    """An activation and its options, as `keras_adaptact.get` takes them; defaults may be left out."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False})

    name: str = Field(description="one of keras_adaptact.names()")
    granularity: Literal["layer", "channel"] = Field("layer", description="what gets parameters of its own")
    weights: Annotated[
        Annotated[Literal["learned"], Tag("word")]
        | Annotated[list[float], Tag("list")]
        | Annotated[FromRun, Tag("object")],
        Discriminator(lambda value: {list: "list", dict: "object", FromRun: "object"}.get(type(value), "word")),
    ] = Field("learned", description='of a mixture: "learned", fixed values used as given, or {"from_run": DIR}')
    normalization: Literal["sum", "softmax", "none"] = Field("sum", description="of a mixture's learned weights")
    members: list[str | dict[str, Any]] | None = Field(None, description='of "mixture": what it mixes')
    function: str | None = Field(None, description='of "adaptive": the function made adaptive')
    negative_slope: float | None = Field(None, description='of "leaky_relu"')

    @model_validator(mode="after")
    def _extra_fields_are_settings_of_parameters(self):
        for name in self.model_extra or {}:
            if not re.match(_PARAMETER_SETTING, name):
                raise ValueError(unknown_field(name, type(self).model_fields))
        return self

    @model_validator(mode="after")
    def _initial_values_are_numbers_or_names(self):
        _refuse_booleans(self.model_extra)
        _refuse_booleans(self.members)
        return self

    @model_validator(mode="after")
    def _fixed_weights_are_used_as_given(self):
        if isinstance(self.weights, list) and not any(self.weights):
            raise ValueError(f"at least one weight must differ from 0; found {self.weights}")
        if self.weights != "learned" and self.normalization != "sum":
            raise ValueError(
                f"normalization {self.normalization!r} applies to learned weights only; leave it out, or weights"
            )
        return self

    def options(self) -> dict[str, Any]:
        """The spec for `keras_adaptact.get`, without defaults, which not every activation accepts."""
        return {"name": self.name} | self.model_dump(exclude_defaults=True, exclude={"sites"})


def _refuse_booleans(given: Any) -> None:
    """True isn't a number, though Python treats it as 1."""
    for key, value in given.items() if isinstance(given, dict) else enumerate(given or ()):
        if isinstance(value, bool):
            raise ValueError(f"{key}: expected a number, a name or an object; found {json.dumps(value)}")
        if isinstance(value, dict | list):
            _refuse_booleans(value if isinstance(value, list) else {k: v for k, v in value.items() if k != "config"})


class Rule(Activation):
    """An activation for the sites whose name matches a pattern such as "conv*"."""

    sites: str = Field(description="pattern of site names, with * and ?; the first rule that matches wins")


class SGD(Strict):
    """Stochastic gradient descent."""

    name: Literal["sgd"] = "sgd"
    learning_rate: Positive = 0.05
    momentum: Share = 0.9
    nesterov: bool = True


class Adam(Strict):
    """Adam."""

    name: Literal["adam"] = "adam"
    learning_rate: Positive = 1e-3


class Schedule(Strict):
    """The learning rate over the steps of a run: a linear warm-up, then constant or a cosine to 0."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup: Share = Field(0.05, description="share of the steps")


class Steps(Strict):
    """The learning rate times a factor after each of some epochs."""

    name: Literal["steps"] = "steps"
    epochs: list[Count] = Field(min_length=1, description="after which it changes, in order")
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="of each change")

    @model_validator(mode="after")
    def _in_order(self):
        if self.epochs != sorted(set(self.epochs)):
            raise ValueError(f"schedule epochs must rise; found {self.epochs}")
        return self


Network = Annotated[
    Annotated[LeNet, Tag("lenet")]
    | Annotated[AlexNet, Tag("alexnet")]
    | Annotated[GoogLeNet, Tag("googlenet")]
    | Annotated[ResNet50, Tag("resnet50")]
    | Annotated[DenseNet, Tag("densenet")]
    | Annotated[Built, Tag("by build")]
    | Annotated[Application, Tag("by application")]
    | Annotated[Hub, Tag("by kerashub")],
    Discriminator(lambda value: field_of(NETWORKS, value) or name_of("lenet", value)),
]
Optimizer = Annotated[Annotated[SGD, Tag("sgd")] | Annotated[Adam, Tag("adam")], named("sgd")]
AnySchedule = Annotated[
    Annotated[Schedule, Tag("cosine")] | Annotated[Schedule, Tag("constant")] | Annotated[Steps, Tag("steps")],
    named("cosine"),
]
NAMED: dict[str, tuple[type[Strict], ...]] = {  # the classes that `name` selects from, the default first
    "model": (LeNet, AlexNet, GoogLeNet, ResNet50, DenseNet),
    "dataset": (NamedDataset,),
    "optimizer": (SGD, Adam),
    "schedule": (Schedule, Steps),
}
OWN: dict[str, dict[str, type[Strict]]] = {"model": NETWORKS, "dataset": DATA}  # and by a field that only it has


class Training(Strict):
    """How a network is trained."""

    epochs: Count = 150
    batch_size: Count = Field(128, description="an epoch leaves out the images that don't fill a whole batch")
    optimizer: Optimizer = SGD()
    schedule: AnySchedule = Schedule()
    weight_decay: NotNegative = Field(
        0.0, description="L2 penalty of half this times each squared kernel, in the loss; nothing else decays"
    )
    activation_rate: Positive = Field(1.0, description="factor on the learning rate of the activations' parameters")
    activation_step: Positive | None = Field(
        None,
        description="longest step of an activation's parameters, for SGD before momentum; null: no limit",
    )
    label_smoothing: Share = Field(0.0, description="share of each label that is spread over all classes")
    dtype: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32", description="of the computation; variables are float32"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field([0], min_length=1, description="one run each")
    devices: Few = Field(1, description="GPUs that share each batch; more than one on JAX only")
    checkpoint_minutes: Positive = Field(10.0, description="minutes between two checkpoints within an epoch")

    @model_validator(mode="after")
    def _seeds_differ(self):
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must differ from each other")
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of devices {self.devices}")
        return self


class Metrics(Strict):
    """What is measured besides loss and accuracy."""

    report_batch: Count | None = Field(
        64,
        description="number of test images for the report's measure after each epoch; null: don't measure it",
    )
    test: bool = Field(True, description="false: no test image is used, as in the trials of a search")
    tensorboard: bool = Field(False, description="true: write it for TensorBoard too; pip install '.[tensorboard]'")

    @model_validator(mode="after")
    def _test_images_are_looked_at_or_not(self):
        if not self.test and self.report_batch is not None:
            raise ValueError("report_batch uses test images, which test: false rules out; set it to null")
        return self


class Config(Strict):
    """A run: one network, one data set, one way of training."""

    schema_: str | None = Field(None, alias="$schema", description="the JSON Schema of this file, for editors")
    notes: str = Field("", description="command, hardware, expected result")
    model: Network = LeNet()
    activation: Annotated[
        Annotated[Activation, Tag("one")] | Annotated[list[Rule], Tag("list"), Field(min_length=1)],
        Discriminator(lambda value: "list" if isinstance(value, list) else "one"),
    ] = Activation(name="relu")
    dataset: AnyData = NamedDataset()
    training: Training = Training()
    metrics: Metrics = Metrics()

    @model_validator(mode="before")
    @classmethod
    def _report_measures_its_own_data(cls, given):
        """The report's measure is asked for by name on other data than the report's."""
        if isinstance(given, dict) and field_of(DATA, given.get("dataset")):
            metrics = given.get("metrics", {})
            return given | {"metrics": {"report_batch": None} | metrics if isinstance(metrics, dict) else metrics}
        return given

    @model_validator(mode="after")
    def _something_is_measured(self):
        if not self.metrics.test and not self.dataset.validation:
            raise ValueError("metrics.test: false and dataset.validation: 0 leave no images to evaluate on")
        return self

    def with_seed(self, seed: int) -> "Config":
        """This config with one seed."""
        return self.model_copy(update={"training": self.training.model_copy(update={"seeds": [seed]})})

    def resolved(self, folder: Path | None = None) -> dict[str, Any]:
        """All fields, defaults included, as JSON; with paths relative to a folder, if one is given."""
        found = self.model_dump(by_alias=True, mode="json")
        return found if folder is None else own.relative(found, folder)


def network(model: Any) -> str:
    """What a network is called in tables: by its name, or by what builds it."""
    return getattr(model, "name", None) or model.called


def json_schema(activations: Sequence[str]) -> dict[str, Any]:
    """The JSON Schema of a config; `activations` are the allowed names."""
    schema = Config.model_json_schema(by_alias=True)
    for name in ("Activation", "Rule"):
        definition = schema["$defs"][name]
        definition["properties"]["name"]["enum"] = list(activations)
        definition["patternProperties"] = {_PARAMETER_SETTING: {}}
    for _, *others in NAMED.values():
        for other in others:
            schema["$defs"][other.__name__]["required"] = ["name"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
