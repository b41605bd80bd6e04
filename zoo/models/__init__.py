"""The networks, one file each: `build(config, activation, classes)` gives a Keras model with logits.

`activation` is a factory: it is called with the name of each site and returns that site's layer.
"""

from fnmatch import fnmatchcase
from importlib import import_module

import keras

import keras_adaptact as ka
from zoo.config.schema import Activation, Config, Rule
from zoo.errors import ConfigError
from zoo.models.blocks import Factory


def build(config: Config, classes: int) -> keras.Model:
    """The network of a config, with its activations, for 32x32x3 images.

    Raises:
        ConfigError: for an unknown activation or option, a site without a rule, or a rule without a site.
    """
    network = import_module(f"zoo.models.{config.model.name}")
    try:
        model = network.build(config.model, factory(config.activation), classes)
        _check_settings(model)
    except (ConfigError, MemoryError):
        raise
    except Exception as error:  # whatever Keras and a backend raise for an initial value or a constraint
        first = next(iter(str(error).strip().splitlines()), "")[:200]
        raise ConfigError(f"activation: the network can't be built: {type(error).__name__}: {first}") from error
    if isinstance(config.activation, list):
        _check_rules(config.activation, model)
    return model


def _check_settings(model: keras.Model) -> None:
    """Applies constraints and regularizers of the activations once, so that their errors appear now."""
    for variable in model.trainable_variables:
        for setting in (variable.constraint, variable.regularizer):
            if setting is not None:
                setting(variable.value)


def factory(activation: Activation | list[Rule]) -> Factory:
    """Makes the layer of a site: `conv1` gets `conv1_activation`."""
    rules = activation if isinstance(activation, list) else [activation]

    def make(site: str) -> keras.layers.Layer:
        for i, rule in enumerate(rules):
            if isinstance(rule, Rule) and not fnmatchcase(site, rule.sites):
                continue
            try:
                return ka.get(rule.options(), name=f"{site}_activation")
            except (TypeError, ValueError) as error:
                where = f"activation.{i}" if isinstance(activation, list) else "activation"
                raise ConfigError(f"{where}: {error}") from None
        patterns = ", ".join(rule.sites for rule in rules if isinstance(rule, Rule))
        raise ConfigError(f'activation: no rule for the site {site!r}; there are {patterns}; add one for "*"')

    return make


def _check_rules(rules: list[Rule], model: keras.Model) -> None:
    """Refuses rules without a site: a misspelt pattern would silently leave its sites to a later rule."""
    names = (layer.name for layer in model.layers)
    sites = [name.removesuffix("_activation") for name in names if name.endswith("_activation")]
    firsts = {next(i for i, rule in enumerate(rules) if fnmatchcase(site, rule.sites)) for site in sites}
    for i in sorted(set(range(len(rules))) - firsts):
        there = ", ".join(sites[:8]) + (f" and {len(sites) - 8} more" if len(sites) > 8 else "")
        raise ConfigError(
            f"activation.{i}.sites: {rules[i].sites!r} is not the first match of any site; there are {there}"
        )
