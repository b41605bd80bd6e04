"""A finished run read back: its network, its images, and the mixing weights that it learned."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

import keras_adaptact as ka
from zoo import config, files, owncode
from zoo.config.own import PRESET
from zoo.config.schema import Activation, Config, FromRun, Rule
from zoo.data import datasets
from zoo.data.splits import Form
from zoo.environment import recorded_path
from zoo.errors import ConfigError, UserError

SECTIONS = ("model", "activation", "dataset", "training", "metrics")  # of config.json; a run writes them all
CODE = (("dataset", "load"), ("model", "build"))  # fields that name functions of one's own
SITE = r"[A-Za-z0-9_./-]+"
BATCH = 250  # images at a time


class Run:
    """A finished run of one seed: its config, images and network.

    Raises:
        UserError: if the folder holds none.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("environment.json", "preprocessing.json", "metrics.json", "model.keras"):
            if not (folder / name).exists():
                raise UserError(f"{folder / name}: no such file; expected the folder of one seed's finished run")
        files.read_json(folder / "config.json", *SECTIONS)
        self.environment = files.read_json(folder / "environment.json")
        found = config.load(folder / "config.json", ["training.devices=1"])
        self.config = with_own_code(found, folder, self.environment)
        self.preprocessing = files.read_json(folder / "preprocessing.json")
        self.form = Form.read(self.preprocessing, datasets.CLASSES.get(getattr(found.dataset, "name", ""), ()))
        self.classes = self.form.classes

    def dataset(self, data_dir: Path | None = None) -> datasets.Dataset:
        """The run's images, by default from the folder that it used.

        Raises:
            UserError: if they aren't there, or own data has changed.
        """
        then = recorded_path(self.folder, self.environment.get("data_dir"))
        found = datasets.load_for(self.config.dataset, data_dir or then)
        if not hasattr(self.config.dataset, "name") and found.digest() != self.environment.get("data_digest"):
            raise UserError(f"{self.folder}: this run was trained on other data than {found.provenance} is now")
        return found

    def predict(self, images: Any) -> np.ndarray:
        """The network's outputs for stored samples, float32 (n, ...), on this backend: logits, or numbers."""
        from zoo import models
        from zoo.data.pipeline import Pipeline
        from zoo.training.engine import in_batches
        from zoo.training.trainer import Trainer

        model = Trainer(self.config, self.form).model
        path = self.folder / "model.keras"
        try:
            model.load_weights(path)
        except Exception as error:  # whatever h5py, zipfile and Keras raise for a damaged file
            raise UserError(f"{path}: its weights don't fit the network of config.json ({error})") from None
        pipeline = Pipeline.read(self.preprocessing, models.data_format(self.config), self.form)
        return in_batches(lambda batch: model.predict_on_batch(pipeline.inputs(batch)), images, BATCH)


def own_code(asked: Config) -> list[str]:
    """The functions of one's own that a config names."""
    return [code for section, field in CODE if (code := getattr(getattr(asked, section), field, None))]


def own_files(asked: Config) -> list[Path]:
    """Files that say what a network is."""
    folder = getattr(asked.model, "folder", None)
    return [folder / PRESET] if folder else []


def with_own_code(asked: Config, folder: Path, environment: Mapping[str, Any]) -> Config:
    """The config of a run as it may be used: its own code is what it was, or with --trust the copy in its folder.

    Raises:
        UserError: where it isn't.
    """
    if not own_code(asked) and not own_files(asked):
        return asked
    known = owncode.unchanged(environment.get("own_code", []), folder)
    changes: dict[str, Any] = {}
    for path in own_files(asked):
        changes["model"] = asked.model.model_copy(update={"kerashub": f"{owncode.used(path, known, folder).parent}/"})
    for section, field in CODE:
        part = getattr(asked, section)
        if code := getattr(part, field, None):
            used = owncode.known(code, known, folder)
            changes[section] = part.model_copy(update={field: used})
    return asked.model_copy(update=changes)


def mixing_weights(folder: Path) -> dict[str, dict[str, float]]:
    """The mixing weights after a run's last epoch, by site and member.

    Raises:
        ConfigError: if the run has none, or has them per channel.
    """
    path = folder / "mixing_weights.csv"
    if not path.exists():
        raise ConfigError(f"{path}: no such file; from_run needs the folder of one seed's run")
    try:
        learned = files.read_learned(path)
    except UserError as error:
        raise ConfigError(str(error)) from None
    found: dict[str, dict[str, float]] = {}
    for (site, member, channel), at in learned.items():
        if channel:
            raise ConfigError(f"{path}: the run learned weights per channel; only weights per layer can be fixed")
        if not re.fullmatch(SITE, site):
            raise ConfigError(f"{path}: {site[:40]!r} is not the name of a site")
        found.setdefault(site, {})[member] = at[max(at)]
    if not found:
        raise ConfigError(f"{path}: the run has no mixtures, hence no mixing weights")
    return found


def hold_weights(asked: Config) -> Config:
    """Replaces `{"from_run": DIR}` by the weights of that run: one rule for each of its sites.

    Raises:
        ConfigError: if the run has no weights for these members.
    """
    several = isinstance(asked.activation, list)
    rules: list = asked.activation if isinstance(asked.activation, list) else [asked.activation]
    held: list[Activation] = []
    sources = []
    for i, rule in enumerate(rules):
        if not isinstance(rule.weights, FromRun):
            held.append(rule)
            continue
        where = f"activation.{i}" if several else "activation"
        source = Path(rule.weights.from_run)
        sources.append(str(source))
        members = _members(rule, where)
        for site, weights in _learned(source, where).items():
            if isinstance(rule, Rule) and not fnmatchcase(site, rule.sites):
                continue
            if list(weights) != members:
                raise ConfigError(
                    f"{where}.weights: {source} mixes {', '.join(weights)} at {site}, and {rule.name} mixes "
                    f"{', '.join(members)}"
                )
            fields = rule.model_dump(exclude_defaults=True) | {"sites": site, "weights": list(weights.values())}
            held.append(Rule.model_validate(fields))
    if not sources:
        return asked
    notes = f"{asked.notes} Mixing weights held as learned in {', '.join(sources)}.".strip()
    return asked.model_copy(update={"activation": held, "notes": notes})


def _learned(source: Path, where: str) -> dict[str, dict[str, float]]:
    try:
        return mixing_weights(source)
    except ConfigError as error:
        raise ConfigError(f"{where}.weights.from_run: {error}") from None


def _members(rule: Activation, where: str) -> list[str]:
    try:
        layer = ka.get(rule.model_copy(update={"weights": "learned"}).options())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None
    if not isinstance(layer, ka.Mixture):
        raise ConfigError(f"{where}.weights: {rule.name} isn't a mixture and has no mixing weights")
    return layer.member_names
