"""What an earlier run left behind, as a later one uses it."""

import csv
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import keras_adaptact as ka
from zoo.config import Activation, Config, ConfigError, FromRun, Rule
from zoo.errors import UserError


def read_json(path: Path) -> Any:
    """
    Raises:
        UserError: for a file that is missing or isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the folder of a run of zoo.train") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as JSON: {error}") from None


def mixing_weights(folder: Path) -> dict[str, dict[str, float]]:
    """The mixing weights after a run's last epoch: for each site, each member's.

    Raises:
        ConfigError: where the run has none, or has some for each channel.
    """
    path = folder / "mixing_weights.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        last = max((int(row["epoch"]) for row in rows), default=0)
        rows = [row for row in rows if int(row["epoch"]) == last]
        if any(row["channel"] for row in rows):
            raise ConfigError(f"{path}: the run learned weights by channel; only weights by layer can be held")
        found: dict[str, dict[str, float]] = {}
        for row in rows:
            found.setdefault(row["site"], {})[row["member"]] = float(row["weight"])
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; from_run needs the folder of one seed's run") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not the mixing weights of a run ({error!r})") from None
    if not found:
        raise ConfigError(f"{path}: that run had no mixtures, and so learned no mixing weights")
    return found


def hold_weights(config: Config) -> Config:
    """Puts the numbers in the place of `{"from_run": DIR}`: a rule for each site of that run.

    Raises:
        ConfigError: where the run has no weights for these members.
    """
    several = isinstance(config.activation, list)
    rules: list = config.activation if isinstance(config.activation, list) else [config.activation]
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
        for site, weights in mixing_weights(source).items():
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
        return config
    notes = f"{config.notes} Mixing weights held as learned in {', '.join(sources)}.".strip()
    return config.model_copy(update={"activation": held, "notes": notes})


def _members(rule: Activation, where: str) -> list[str]:
    try:
        layer = ka.get(rule.model_copy(update={"weights": "learned"}).options())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None
    if not isinstance(layer, ka.Mixture):
        raise ConfigError(f"{where}.weights: {rule.name} is no mixture and has no mixing weights")
    return layer.member_names
