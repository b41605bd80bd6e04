"""What the networks share: repeated units, and two layers that Keras lacks, and which activation a site gets.

Import `zoo.models` before loading a saved network: it registers these layers.
"""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

import keras
from keras import layers, ops

import keras_adaptact as ka
from zoo.config.schema import Activation, Norm, Rule
from zoo.errors import ConfigError

Factory = Callable[[str], keras.layers.Layer]
Shape = tuple[int, int, int]  # of an image, in Keras's image data format


def channel_axis() -> int:
    return 1 if keras.config.image_data_format() == "channels_first" else -1


class Builder:
    """Adds units of layers to a network, with one norm and one activation factory.

    The layers of a unit are named after its site: `conv1`, `conv1_norm`, `conv1_activation`. Convolutions have
    'same' padding. Batch norm has momentum 0.9 and epsilon 1e-5; with it, convolutions and dense layers have no
    bias.
    """

    def __init__(self, norm: Norm, activation: Factory, initializer: str = "he_normal"):
        self.norm, self.activation = norm, activation
        self.weights = {"use_bias": norm == "none", "kernel_initializer": initializer}

    def conv(self, x, site: str, filters: int, kernel: int, strides: int = 1, groups: int = 1):
        """A convolution, its norm and its activation."""
        return self.activate(self.convolve(x, site, filters, kernel, strides, groups), site)

    def dense(self, x, site: str, units: int):
        """A dense layer, its norm and its activation."""
        return self.activate(layers.Dense(units, name=site, **self.weights)(x), site)

    def activate(self, x, site: str):
        """A norm and an activation."""
        return self.activation(site)(self.normalize(x, site))

    def convolve(self, x, name: str, filters: int, kernel: int, strides: int = 1, groups: int = 1):
        """A convolution alone."""
        options = {"strides": strides, "padding": "same", "name": name, **self.weights}
        if groups == 1:
            return layers.Conv2D(filters, kernel, **options)(x)
        return GroupedConv2D(filters, kernel, groups=groups, **options)(x)

    def normalize(self, x, name: str):
        """A norm alone."""
        if self.norm == "none":
            return x
        axis = channel_axis()
        return layers.BatchNormalization(axis, momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)


@keras.saving.register_keras_serializable(package="zoo")
class GroupedConv2D(layers.Conv2D):
    """`Conv2D` with groups, as one convolution for each group.

    Keras's own has no gradient on TensorFlow on CPU, and is slow in XLA on CPU.
    """

    def convolution_op(self, inputs, kernel):
        axis = 1 if self.data_format == "channels_first" else -1
        pairs = zip(ops.split(inputs, self.groups, axis), ops.split(kernel, self.groups, -1), strict=True)
        return ops.concatenate([super(GroupedConv2D, self).convolution_op(x, k) for x, k in pairs], axis)


@keras.saving.register_keras_serializable(package="zoo")
class LocalResponseNormalization(layers.Layer):
    """`x / (k + alpha * s)**beta`, `s` the sum of `x**2` over the `size` channels around each.

    After Krizhevsky et al., 2012, whose `alpha` multiplies the sum; Caffe's and torch's multiplies the mean, and is
    `size` times ours. Fewer channels are summed at the ends. Computed in float32 at least.

    Args:
        size: number of channels in the sum, centred on x's own; with an even size one more lies before it.
        k, alpha, beta: floats.
        axis: of the channels.
    """

    def __init__(self, size=5, k=2.0, alpha=1e-4, beta=0.75, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.size, self.k, self.alpha, self.beta, self.axis = size, k, alpha, beta, axis

    def call(self, inputs):
        x = ops.cast(inputs, keras.backend.result_type(self.compute_dtype, "float32"))
        axis = self.axis % len(x.shape)
        padding = [(0, 0)] * len(x.shape)
        padding[axis] = (self.size // 2, (self.size - 1) // 2)
        squares = ops.pad(ops.square(x), padding)
        before, channels = (slice(None),) * axis, x.shape[axis]
        total = sum(squares[(*before, slice(i, i + channels))] for i in range(self.size))
        return ops.cast(x * ops.power(self.k + self.alpha * total, -self.beta), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = {"size": self.size, "k": self.k, "alpha": self.alpha, "beta": self.beta, "axis": self.axis}
        return super().get_config() | own


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
