"""Of the schema of a run what it is trained on, and networks that aren't the zoo's."""

import difflib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from zoo.owncode import split

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**6)]  # more than any machine gets through
Width = Annotated[int, Field(ge=1, le=16384)]
Few = Annotated[int, Field(ge=1, le=256)]
Positive = Annotated[float, Field(gt=0, le=3e38)]  # float32's largest
NotNegative = Annotated[float, Field(ge=0, le=3e38)]
IGNORED = ("$schema", "notes", "metrics.tensorboard", "training.checkpoint_minutes")  # without influence on results
PLACES = {"dataset": ("file", "folder", "load"), "model": ("build", "kerashub")}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def named(default: str):
    """Chooses a class by the name in what is read, or of the object that is written."""

    return Discriminator(lambda value: name_of(default, value))


def name_of(default: str, value) -> str:
    return str(value.get("name", default)) if isinstance(value, dict) else getattr(value, "name", default)


def unknown_field(name: str, known: Iterable[str]) -> str:
    """A message for a field that doesn't exist, with the closest one that does."""
    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"unknown field {name!r}; {hint}"


OWN = r"^[^\x00]{1,4096}$"
PRESET = "config.json"  # of a folder that KerasHub's `save_to_preset` wrote
CODE = r"^[^\x00]{1,4096}:[A-Za-z_][A-Za-z0-9_]{0,200}$"
Side = Annotated[int, Field(ge=1, le=16384)]


def _alone(given, fields: Mapping[str, type]):
    """Of a name and the fields that stand in its place one is given."""
    found = [field for field in ("name", *fields) if isinstance(given, dict) and field in given]
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)} exclude each other; leave out all but one")
    return given


class Samples(Strict):
    """How data is split and scaled."""

    limit: Count | None = Field(None, description="the first n training images of a fixed shuffle; null: all")
    test_limit: Count | None = Field(None, description="the first n test images of a fixed shuffle; null: all")
    validation: Share = Field(0.1, description="share of the training images held out, at most 5,000 images")
    standardize: Literal["none", "feature", "channel", "per_image"] = Field(
        "channel",
        description="by the training images' mean and deviation per channel or for each number of an image (feature), "
        "or each image by its own",
    )
    augmentation: Literal["none", "crop_flip"] = Field(
        "none", description="training images as they are, or shifted by up to 4 pixels and mirrored at random"
    )


class NamedDataset(Samples):
    """The images, and how they are split and scaled."""

    name: Literal["cifar10", "digits", "cifar100", "fashion_mnist", "mnist"] = "cifar10"


class OwnData(Samples):
    """Data of one's own."""

    task: Literal["classification", "regression"] | None = Field(
        None, description="null: what the targets say: integers, names and one-hot rows are classes, others numbers"
    )
    classes: Count | Annotated[list[str], Field(min_length=2)] | None = Field(
        None, description="how many there are, or their names in the order of their numbers; null: what the data says"
    )
    standardize: Literal["none", "feature", "channel", "per_image"] | None = Field(  # type: ignore[assignment]
        None, description="as for named data sets; null: channel, and none for integers other than pictures' bytes"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, given):
        return _alone(given, DATA)


class File(OwnData):
    """Arrays x_train, y_train, x_test and y_test in a file, and x_validation and y_validation where it has some."""

    file: Annotated[str, Field(pattern=OWN)] = Field(description="an .npz, found from this config")


class PictureFolder(OwnData):
    """The same arrays as x_train.npy and so on; or pictures, train/CLASS/*.png and test/CLASS/*.png."""

    folder: Annotated[str, Field(pattern=OWN)] = Field(description="found from this config")
    image_size: Annotated[list[Side], Field(min_length=2, max_length=2)] | None = Field(
        None, description="height and width of pictures; null: theirs, or 256x256 where they differ"
    )
    color_mode: Literal["rgb", "grayscale", "rgba"] = Field("rgb", description="of pictures")


class Loaded(OwnData):
    """What a function returns: a dict with the same arrays."""

    load: Annotated[str, Field(pattern=CODE)] = Field(
        description='"my_data.py:load", a file found from this config, or "package.module:load"'
    )


class OwnNetwork(Strict):
    """A network that isn't the zoo's; other fields than those named are options of what makes it."""

    MINE: ClassVar[set[str]] = set()  # options that aren't for a config to give
    WHENCE: ClassVar[str] = ""  # they come instead
    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, given):
        return _alone(given, NETWORKS)

    @model_validator(mode="after")
    def _nothing_of_ours(self):
        if given := sorted(self.MINE & set(self.model_extra or ())):
            raise ValueError(f"{given[0]} comes from {self.WHENCE}; leave it out")
        return self

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Built(OwnNetwork):
    """The network that a function of one's own returns; other fields are its options."""

    build: Annotated[str, Field(pattern=CODE)] = Field(
        description='"my_nets.py:small_unet", a file found from this config, or "package.module:small_unet"'
    )

    @property
    def called(self) -> str:
        return self.build.rpartition(":")[2]


class Application(OwnNetwork):
    """A network of keras.applications, with other activations in the place of its own."""

    MINE: ClassVar[set[str]] = {"include_top", "input_shape", "classes", "classifier_activation", "input_tensor"}
    WHENCE = "the data"

    application: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,100}$")] = Field(description="such as MobileNetV3Small")
    weights: Literal["imagenet"] | None = Field(
        None, description='null: random; "imagenet": all but the last layer, if they are cached or can be downloaded'
    )
    source: str | None = Field(
        None, description="which activation is replaced; null: the one that most of its sites have"
    )

    @property
    def called(self) -> str:
        return self.application


class Hub(OwnNetwork):
    """A backbone of KerasHub with other activations in the place of its own, and a head for the data."""

    MINE: ClassVar[set[str]] = {"load_weights", "dtype", "image_shape"}
    WHENCE = "other fields, or the data"

    kerashub: Annotated[str, Field(pattern=OWN)] = Field(
        description='a folder that save_to_preset wrote, as "my_preset/", found from this config; or the name of a '
        "preset, which KerasHub downloads, or has in its cache"
    )
    weights: Literal["preset"] | None = Field(None, description='null: random; "preset" where it has some')
    source: str | None = Field(
        None, description="which activation is replaced; null: the one that most of its sites have"
    )

    @property
    def folder(self) -> Path | None:
        """Of the preset, where it is no name."""
        return Path(self.kerashub) if self.kerashub.startswith("/") else None

    @property
    def called(self) -> str:
        return self.kerashub.rstrip("/").rpartition("/")[2]


def field_of(fields: Mapping[str, type], value) -> str | None:
    """The tag of the class that a field of what is read chooses, or that an object to be written has."""
    if isinstance(value, dict):
        return next((f"by {field}" for field in fields if field in value), None)
    return next((f"by {field}" for field, kind in fields.items() if isinstance(value, kind)), None)


DATA: dict[str, type[Strict]] = {"file": File, "folder": PictureFolder, "load": Loaded}
NETWORKS: dict[str, type[Strict]] = {"build": Built, "application": Application, "kerashub": Hub}
AnyData = Annotated[
    Annotated[NamedDataset, Tag("by name")]
    | Annotated[File, Tag("by file")]
    | Annotated[PictureFolder, Tag("by folder")]
    | Annotated[Loaded, Tag("by load")],
    Discriminator(lambda value: field_of(DATA, value) or "by name"),
]


def absolute(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A config that was read in a folder, with its paths from the root."""
    return _changed(content, lambda path: str((folder / path).resolve()))


def relative(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A config as it is written in a folder, so that it doesn't name where on the machine that is."""
    return _changed(content, lambda path: os.path.relpath(path, folder.resolve()) if path.startswith("/") else path)


def fields(content: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The fields of a config by dotted path, and their values as JSON."""
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from fields(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, json.dumps(content)


def digest(content: dict[str, Any]) -> str:
    """A hash of what a written config asks for, wherever its data and code lie."""
    asked = {field: value for field, value in fields(_changed(content, lambda path: "?")) if field not in IGNORED}
    return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).hexdigest()


def _changed(content: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    found = dict(content)
    for section, fields in PLACES.items():
        part = content.get(section)
        if not isinstance(part, Mapping):
            continue
        for field in fields:
            if isinstance(value := part.get(field), str) and "\0" not in value:
                found[section] = dict(found[section]) | {field: _changed_value(field, value, change)}
    return found


def _changed_value(field: str, value: str, change: Callable[[str], str]) -> str:
    if field in ("file", "folder"):
        return change(value)
    if field == "kerashub":
        return _preset(value, change(value))
    path, _, function = split(value)
    return f"{change(str(path))}:{function}" if path else value


def _preset(value: str, changed: str) -> str:
    """A folder, with a slash at its end; or the name of a preset as it is."""
    is_folder = "/" in value or (changed != value and Path(changed).is_dir())
    return f"{changed.rstrip('/')}/" if is_folder and "://" not in value else value
