"""Networks as people write them: in the style of keras.io, with code of their own."""

import keras
from keras import layers, ops

from examples.physics import derivative


@keras.saving.register_keras_serializable("tests")
class TransformerBlock(layers.Layer):
    """As in keras.io's "Text classification with Transformer", without a configuration of its own."""

    def __init__(self, embed_dim, num_heads, ff_dim, rate=0.1):
        super().__init__()
        self.att = layers.MultiHeadAttention(num_heads=num_heads, key_dim=embed_dim)
        self.ffn = keras.Sequential([layers.Dense(ff_dim, activation="relu"), layers.Dense(embed_dim)])
        self.layernorm1 = layers.LayerNormalization(epsilon=1e-6)
        self.layernorm2 = layers.LayerNormalization(epsilon=1e-6)
        self.dropout1 = layers.Dropout(rate)
        self.dropout2 = layers.Dropout(rate)

    def call(self, inputs):
        attention = self.dropout1(self.att(inputs, inputs))
        first = self.layernorm1(inputs + attention)
        return self.layernorm2(first + self.dropout2(self.ffn(first)))


@keras.saving.register_keras_serializable("tests")
class TokenAndPositionEmbedding(layers.Layer):
    def __init__(self, maxlen, vocab_size, embed_dim):
        super().__init__()
        self.token_emb = layers.Embedding(vocab_size, embed_dim)
        self.pos_emb = layers.Embedding(maxlen, embed_dim)

    def call(self, x):
        return self.token_emb(x) + self.pos_emb(ops.arange(0, ops.shape(x)[-1], 1))


def transformer(length=6, words=12, width=8, blocks=1) -> keras.Model:
    """Functional, around layers of one's own."""
    inputs = keras.Input((length,), dtype="int32")
    x = TokenAndPositionEmbedding(length, words, width)(inputs)
    for _ in range(blocks):
        x = TransformerBlock(width, 2, 16)(x)
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(x))
    x = layers.Dense(10, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="classes")(x))


class ResidualBlock(layers.Layer):
    """Layers in attributes, a list, and a sequence; a method that calls them."""

    def __init__(self, filters, stride=1, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.stride = filters, stride
        self.first = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)
        self.norm, self.relu = layers.BatchNormalization(), layers.ReLU()
        self.rest = [layers.Conv2D(filters, 3, padding="same"), layers.BatchNormalization()]
        self.gate = keras.Sequential(
            [
                layers.GlobalAveragePooling2D(keepdims=True),
                layers.Conv2D(4, 1),
                layers.ReLU(),
                layers.Conv2D(filters, 1, activation="sigmoid"),
            ]
        )
        self.shortcut = layers.Conv2D(filters, 1, stride) if stride > 1 else None
        self.out = layers.Activation("relu")

    def call(self, x, training=False):
        y = self.relu(self.norm(self.first(x), training=training))
        for layer in self.rest:
            y = layer(y)
        y = y * self.gate(y)
        return self.out(y + (x if self.shortcut is None else self.shortcut(x)))


@keras.saving.register_keras_serializable("tests")
class ResNet(keras.Model):
    def __init__(self, width=4, classes=3, **kwargs):
        super().__init__(**kwargs)
        self.stem = layers.Conv2D(width, 3, padding="same", activation="relu")
        self.blocks = [ResidualBlock(width), ResidualBlock(2 * width, 2)]
        self.pool, self.head = layers.GlobalAveragePooling2D(), layers.Dense(classes)

    def call(self, x, training=False):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(self.pool(x))


def unet() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    outer = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(layers.MaxPooling2D()(outer))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(x))
    x = layers.Conv2DTranspose(4, 2, 2, activation="relu")(x)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.Concatenate()([outer, x]))
    return keras.Model(inputs, layers.Conv2D(1, 1)(x))


def convolutions() -> keras.Model:
    """Of series: one dimension."""
    stack = [layers.Input((16, 2)), layers.Conv1D(6, 3, activation="relu"), layers.MaxPooling1D()]
    stack += [layers.Conv1D(8, 3), layers.Activation("relu"), layers.GlobalAveragePooling1D(), layers.Dense(1)]
    return keras.Sequential(stack)


@keras.saving.register_keras_serializable("tests")
class Autoencoder(keras.Model):
    """With a `train_step` of its own, as the guides of Keras write one for each backend."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = keras.Sequential([layers.Dense(8, activation="elu"), layers.Dense(2)])
        self.decoder = keras.Sequential([layers.Dense(8), layers.ELU(), layers.Dense(6)])

    def call(self, x, training=False):
        return self.decoder(self.encoder(x))

    def train_step(self, *arguments):
        return {"jax": self._by_jax, "torch": self._by_torch, "tensorflow": self._by_tensorflow}[
            keras.backend.backend()
        ](*arguments)

    def _by_torch(self, data):
        self.zero_grad()
        loss = ops.mean((self(data[0], training=True) - data[0]) ** 2)
        loss.backward()
        self.optimizer.apply([v.value.grad for v in self.trainable_variables], self.trainable_variables)
        return {"error": loss}

    def _by_tensorflow(self, data):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = ops.mean((self(data[0], training=True) - data[0]) ** 2)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"error": loss}

    def _by_jax(self, state, data):
        import jax

        trained, others, steps, metrics = state

        def loss(trained):
            return ops.mean((self.stateless_call(trained, others, data[0], training=True)[0] - data[0]) ** 2)

        value, gradients = jax.value_and_grad(loss)(trained)
        trained, steps = self.optimizer.stateless_apply(steps, gradients, trained)
        return {"error": value}, (trained, others, steps, metrics)


@keras.saving.register_keras_serializable("tests")
class Poisson(keras.Model):
    """Physics-informed: x -> u''(x) of the network u, so that training against f solves u'' = f."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.network = keras.Sequential(
            [layers.Dense(8, activation="tanh"), layers.Dense(8), layers.Activation("tanh")]
        )
        self.head = layers.Dense(1)

    def call(self, x, training=False):
        return derivative(derivative(lambda x: (1 - x**2) * self.head(self.network(x))))(x)
