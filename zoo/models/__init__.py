"""The networks, one file each: `build(config, activation, classes)` gives a Keras model with logits.

`activation` is a factory: it is called with the name of each site and returns that site's layer.
"""

from fnmatch import fnmatchcase
from importlib import import_module

import keras

import keras_adaptact as ka
from zoo.config import Activation, Config, ConfigError, Rule
from zoo.models.blocks import Factory


def build(config: Config, classes: int) -> keras.Model:
    """The network of a config, with its activations, for 32x32x3 images.

    Raises:
        ConfigError: for an activation that doesn't exist or has no such options, or a site without a rule.
    """
    network = import_module(f"zoo.models.{config.model.name}")
    return network.build(config.model, factory(config.activation), classes)


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
