"""Which activation a site gets, by the rules of a config."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import keras

import keras_adaptact as ka
from zoo.config.schema import Activation, Rule
from zoo.errors import ConfigError
from zoo.models.blocks import Factory


def factory(activation: Activation | list[Rule]) -> Factory:
    """Makes the layer of a site: `conv1` gets `conv1_activation`."""

    def make(site: str) -> keras.layers.Layer:
        index = rule_of(activation, site)
        rule = activation[index] if isinstance(activation, list) else activation
        try:
            return ka.get(rule.options(), name=f"{site}_activation")
        except (TypeError, ValueError) as error:
            where = f"activation.{index}" if isinstance(activation, list) else "activation"
            raise ConfigError(f"{where}: {error}") from None

    return make


def rule_of(activation: Activation | list[Rule], site: str) -> int:
    """Which rule is the first for a site.

    Raises:
        ConfigError: where none is.
    """
    rules = activation if isinstance(activation, list) else [activation]
    for i, rule in enumerate(rules):
        if not isinstance(rule, Rule) or fnmatchcase(site, rule.sites):
            return i
    patterns = ", ".join(rule.sites for rule in rules if isinstance(rule, Rule))
    raise ConfigError(f'activation: no rule for the site {site!r}; there are {patterns}; add one for "*"')


def check_rules(rules: Sequence[Rule], sites: Iterable[str]) -> None:
    """A misspelt pattern would leave its sites to a later rule without a word."""
    names = list(sites)
    firsts = {rule_of(list(rules), site) for site in names}
    for i in sorted(set(range(len(rules))) - firsts):
        there = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise ConfigError(
            f"activation.{i}.sites: {rules[i].sites!r} is not the first match of any site; there are {there}"
        )
