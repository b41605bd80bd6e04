"""Random models, as programs: a list of blocks of Python, each of which makes `x` of `x`."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import layers, ops

FUNCTIONS = ("relu", "tanh", "sigmoid", "silu", "gelu", "elu", "softplus", "relu6", "leaky_relu")
HEAD = """import keras
from keras import layers, ops
from fuzz_graphs import Gated, Standardized

import keras_adaptact as ka

keras.utils.set_random_seed(0)
outputs = []
"""


@keras.saving.register_keras_serializable("fuzz")
class Gated(layers.Layer):
    """Multiplies what its activation gives."""

    def __init__(self, units, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.activation = units, keras.activations.get(activation)

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], 2 * self.units))

    def call(self, x):
        left, right = ops.split(ops.matmul(x, self.kernel), 2, axis=-1)
        return self.activation(left) * right

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        if isinstance(self.activation, keras.layers.Layer):
            activation = keras.saving.serialize_keras_object(self.activation)
        return super().get_config() | {"units": self.units, "activation": activation}


@keras.saving.register_keras_serializable("fuzz")
class Standardized(layers.Conv2D):
    """A convolution of a kernel without mean and size."""

    def call(self, inputs):
        kernel = self.kernel - ops.mean(self.kernel, axis=(0, 1, 2), keepdims=True)
        kernel = kernel / (ops.std(kernel, axis=(0, 1, 2), keepdims=True) + 0.1)
        z = ops.conv(inputs, kernel, padding=self.padding, data_format=self.data_format)
        bias = self.bias if self.data_format == "channels_last" else ops.reshape(self.bias, (1, -1, 1, 1))
        return self.activation(z + bias)


@dataclass(frozen=True)
class Program:
    """A model as Python: it can be run, printed, and made shorter."""

    seed: int
    shape: tuple[int, ...]
    blocks: tuple[str, ...]

    def text(self) -> str:
        end = "model = keras.Model(inputs, [*outputs, x] if outputs else x)"
        return "\n".join([f"{HEAD}x = inputs = keras.Input({self.shape})", *self.blocks, end])

    def build(self) -> keras.Model:
        scope: dict = {}
        keras.utils.clear_session(free_memory=False)
        exec(compile(self.text(), f"<seed {self.seed}>", "exec"), scope)
        return scope["model"]

    def without(self, place: int) -> "Program":
        return Program(self.seed, self.shape, self.blocks[:place] + self.blocks[place + 1 :])

    def plain(self) -> "Program":
        """One of Keras alone: each activation of the library is a tanh."""
        blocks = (re.sub(r"ka\.\w+\(.*?\)", "keras.activations.tanh", block) for block in self.blocks)
        return Program(self.seed, self.shape, tuple(blocks))


def program(seed: int, channels_first: bool) -> Program:
    """The program of a seed; `channels_first` says whether the backend can convolve such images here."""
    return _Writer(random.Random(seed), channels_first).write(seed)


class _Writer:
    def __init__(self, rng: random.Random, channels_first: bool):
        self.rng, self.pick, self.count = rng, rng.choice, 0
        self.format = self.pick(["channels_first", "channels_last"]) if channels_first else "channels_last"

    def write(self, seed: int) -> Program:
        self.kind = self.pick(["vector", "sequence", "image", "image"])
        shape = {"vector": (4,), "sequence": (6, 4), "image": (6, 6, 4)}[self.kind]
        if self.kind == "image" and self.format == "channels_first":
            shape = (4, 6, 6)
        blocks = [self.block() for _ in range(self.rng.randint(3, 8))]
        return Program(seed, shape, tuple(blocks))

    def block(self) -> str:
        self.count += 1
        rest = (self.recurrent, self.wrapped, self.attention)
        kinds: dict[str, list[Callable[[], str]]] = {
            "vector": [*self.anywhere(), self.unflat, self.nested_dense, self.gated, self.shared],
            "sequence": [*self.anywhere(), *[self.sequence] * 4, *rest, self.flat],
            "image": [*self.anywhere(), *[self.image] * 5, self.pooled, self.norm, self.flat],
        }
        return self.pick(kinds[self.kind])()

    # Pieces

    def number(self, low=-1.0, high=1.0) -> str:
        return f"{self.rng.uniform(low, high):.3g}"

    def activation(self) -> str:
        """An activation for `activation=`: mostly a function, at times one of the library's with numbers."""
        if self.rng.random() < 0.25:
            return self.layer()
        return repr(self.pick(FUNCTIONS))

    def layer(self) -> str:
        name = self.pick(
            ["ATanh", "ASigmoid", "AReLU", "Swish", "FReLU", "PELU", "Method1", "Method2", "sin", "softplus"]
        )
        names = {"Swish": ["beta"], "FReLU": ["b"], "PELU": ["a", "b"], "Method1": [], "Method2": []}.get(name, "abcd")
        low = 0.3 if name in ("PELU", "Swish") else -1.5
        settings = [f"{n}_initializer={self.number(low, 1.5)}" for n in names]
        if name == "Method2":
            settings = [
                self.pick(["", "weights=[0.0, 1.5, 0.0]", "weights=[0.5, 0.0, 0.5]", "normalization='softmax'"])
            ]
        if name.islower():
            settings, name = [repr(name), *settings], "AdaptiveActivation"
        return f"ka.{name}({', '.join(filter(None, settings))})"

    def anywhere(self) -> list[Callable[[], str]]:
        return [self.dense, self.dense, self.itself, self.itself, self.dropped, self.merged, self.left, self.axis_norm]

    def dense(self) -> str:
        last = "4" if self.kind != "image" else self.pick(["4", "6"])
        return f"x = layers.Dense({last}, use_bias={self.pick([True, True, False])}, activation={self.maybe()})(x)"

    def maybe(self) -> str:
        return self.pick(["None", self.activation()])

    def itself(self) -> str:
        function = self.pick(FUNCTIONS)
        return self.pick(
            [
                f"x = layers.Activation({function!r})(x)",
                "x = layers.ReLU()(x)",
                f"x = {self.layer()}(x)",
                f"x = {self.layer()}(x)",
                f"x = keras.activations.{self.pick(['relu', 'silu', 'tanh'])}(x)",
                "x = layers.LeakyReLU(0.1)(x)",
            ]
        )

    def dropped(self) -> str:
        option = self.pick(["", "", ", training=False", ", training=True"])
        kind = self.pick(
            ["Dropout(0.3, seed=1)", "GaussianNoise(0.1, seed=1)", "Identity()", "ActivityRegularization(0.1)"]
        )
        option = option if "seed" in kind else ""
        return f"x = layers.{kind}(x{option})"

    def merged(self) -> str:
        merge = self.pick(["Add", "Multiply", "Average", "Maximum", "Subtract"])
        return f"y = layers.Activation({self.pick(FUNCTIONS)!r})(x)\nx = layers.{merge}()([x, {self.layer()}(y)])"

    def left(self) -> str:
        return "outputs.append(x)"

    def axis_norm(self) -> str:
        rank = {"vector": 2, "sequence": 3, "image": 4}[self.kind]
        axis = self.rng.randint(1, rank - 1)
        return self.pick(
            [
                f"x = layers.BatchNormalization(axis={axis})(x)",
                f"x = layers.BatchNormalization(axis={axis}, center=False)(x)",
                "x = layers.LayerNormalization()(x)",
                f"x = layers.UnitNormalization(axis={axis})(x)",
                f"x = layers.GroupNormalization(1, axis={axis})(x)",
            ]
        )

    # Vectors

    def unflat(self) -> str:
        self.kind = "sequence"
        return "x = layers.Reshape((2, -1))(layers.Dense(8)(x))"

    def nested_dense(self) -> str:
        name = f"inner_{self.count}"
        stack = f"layers.Dense(4, activation={self.maybe()}), {self.layer()}, layers.Dense(x.shape[-1])"
        made = f"{name} = keras.Sequential([layers.Input(x.shape[1:]), {stack}], name={name!r})"
        use = self.pick([f"x = {name}(x)", f"x = {name}({name}(x))", f"x = {name}.layers[0]({name}(x))"])
        return f"{made}\n{use}"

    def gated(self) -> str:
        return f"x = Gated(4, activation={self.activation()})(x)"

    def shared(self) -> str:
        made = f"same = layers.Dense(x.shape[-1], activation={self.maybe()})"
        return f"{made}\nx = same({self.layer()}(same(x)))"

    # Sequences

    def sequence(self) -> str:
        layer = self.pick(
            [
                f'Conv1D(4, 2, padding="{self.pick(["same", "causal", "valid"])}", activation={self.maybe()})',
                f'SeparableConv1D(4, 2, padding="same", activation={self.maybe()})',
                f"Dense(5, activation={self.maybe()})",
                f'AveragePooling1D(2, strides=1, padding="{self.pick(["same", "valid"])}")',
                f'MaxPooling1D(2, strides=1, padding="{self.pick(["same", "valid"])}")',
                "ZeroPadding1D(1)",
                "SpatialDropout1D(0.2)",
                f"EinsumDense('abc,cd->abd', (None, 4), bias_axes='d', activation={self.maybe()})",
            ]
        )
        return f"x = layers.{layer}(x)"

    def recurrent(self) -> str:
        kind = self.pick(["LSTM", "GRU", "SimpleRNN"])
        more = self.pick(["", "return_sequences=True, "])
        self.kind = "sequence" if more else "vector"
        return f"x = layers.{kind}(3, {more}activation={self.activation()})(x)"

    def wrapped(self) -> str:
        inner = f"layers.Dense(4, activation={self.activation()})"
        return self.pick(
            [
                f"x = layers.TimeDistributed({inner})(x)",
                f"x = layers.Bidirectional(layers.LSTM(2, activation={self.activation()}, return_sequences=True))(x)",
                f"x = layers.RNN(layers.SimpleRNNCell(3, activation={self.activation()}), return_sequences=True)(x)",
                f"x = layers.SpectralNormalization({inner})(x)",
            ]
        )

    def attention(self) -> str:
        return "x = layers.MultiHeadAttention(2, 3)(x, x)"

    # Images

    def image(self) -> str:
        form = self.format if self.rng.random() < 0.85 or self.format == "channels_last" else "channels_last"
        pad = self.pick(["same", "valid"])
        size = self.pick(["1", "2"]) if pad == "same" else "1"
        layer = self.pick(
            [
                *[f"layers.Conv2D(4, {size}, padding={pad!r}, use_bias={self.pick([True, False])}"] * 3,
                f"layers.Conv2D(4, {size}, padding={pad!r}, groups=2",
                f"layers.DepthwiseConv2D({size}, padding={pad!r}",
                f"layers.SeparableConv2D(4, {size}, padding={pad!r}",
                f"layers.Conv2DTranspose(4, {size}, padding={pad!r}",
                f"Standardized(4, {size}, padding={pad!r}",
            ]
        )
        return f"x = {layer}, data_format={form!r}, activation={self.maybe()})(x)"

    def pooled(self) -> str:
        form = self.pick([self.format, self.format, "channels_last"])
        layer = self.pick(
            [
                f"AveragePooling2D(2, strides=1, padding={self.pick(['same', 'valid'])!r}",
                f"MaxPooling2D(2, strides=1, padding={self.pick(['same', 'valid'])!r}",
                "SpatialDropout2D(0.2",
                "UpSampling2D(1",
            ]
        )
        return f"x = layers.{layer}, data_format={form!r})(x)"

    def norm(self) -> str:
        return f"x = layers.BatchNormalization(axis={1 if self.format == 'channels_first' else 3})(x)"

    def flat(self) -> str:
        rank = "1D" if self.kind == "sequence" else "2D"
        form = "channels_last" if self.kind == "sequence" else self.format
        self.kind = "vector"
        kind = self.pick(["Flatten", f"GlobalAveragePooling{rank}", f"GlobalMaxPooling{rank}"])
        return f"x = layers.{kind}(data_format={form!r})(x)"
