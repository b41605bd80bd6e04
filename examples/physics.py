"""A physics-informed network with adaptive tanh: Poisson's equation in one dimension, whose solution is known.

    KERAS_BACKEND=jax python examples/physics.py

``u''(x) = f(x)`` on [-1, 1] with u(-1) = u(1) = 0, where f belongs to ``u(x) = sin(pi x) + 0.2 sin(5 pi x)``. The
network sees f at 128 points, and never u. Adaptive activations for such networks: Jagtap et al., "Adaptive activation
functions accelerate convergence in deep and physics-informed neural networks", 2020.
"""

import argparse
import time

import keras
import numpy as np
from keras import ops

import keras_adaptact as ka

MODES = ((1.0, np.pi), (0.2, 5 * np.pi))  # amplitude and frequency
POINTS = np.linspace(-1, 1, 128, dtype="float32")[:, None]


def solution(x: np.ndarray) -> np.ndarray:
    return sum(amplitude * np.sin(frequency * x) for amplitude, frequency in MODES)


def right_side(x: np.ndarray) -> np.ndarray:
    return sum(-amplitude * frequency**2 * np.sin(frequency * x) for amplitude, frequency in MODES)


def derivative(function):
    """The derivative of a function of x, both of shape (n, 1), by the backend's own differentiation."""
    match keras.backend.backend():
        case "jax":
            import jax

            return lambda x: jax.jvp(function, (x,), (ops.ones_like(x),))[1]
        case "torch":
            import torch

            def by_torch(x):
                with torch.enable_grad():  # which Keras turns off where it builds the model
                    x = x if x.requires_grad else x.detach().requires_grad_()
                    return torch.autograd.grad(function(x).sum(), x, create_graph=True)[0]

            return by_torch
        case "tensorflow":
            import tensorflow as tf

            def by_tensorflow(x):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = function(x)
                return tape.gradient(y, x)

            return by_tensorflow


class Poisson(keras.Model):
    """x -> u''(x) of the network u, so that `fit` against f solves the equation."""

    def __init__(self, activation):
        super().__init__()
        hidden = [keras.layers.Dense(32, activation=activation()) for _ in range(3)]
        self.network = keras.Sequential([keras.layers.Input((1,)), *hidden, keras.layers.Dense(1)])

    def u(self, x):
        return (1 - x**2) * self.network(x)  # 0 at both ends, whatever the network says

    def call(self, x):
        return derivative(derivative(self.u))(x)


def error(activation, seed: int, steps: int) -> float:
    """Relative L2 error of the solution, ``|u - exact| / |exact|``."""
    keras.utils.set_random_seed(seed)
    model = Poisson(activation)
    rate = keras.optimizers.schedules.CosineDecay(0.005, steps)
    model.compile(keras.optimizers.Adam(rate), "mse")
    x = np.tile(POINTS, (steps, 1))  # all points are one batch, and all steps one epoch
    model.fit(x, right_side(x), batch_size=len(POINTS), shuffle=False, verbose=0)
    x = np.linspace(-1, 1, 1001, dtype="float32")[:, None]
    exact = solution(x)
    return float(np.linalg.norm(ops.convert_to_numpy(model.u(ops.array(x))) - exact) / np.linalg.norm(exact))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--steps", type=int, default=2000, help="of each training (default: 2000)")
    options = parser.parse_args()
    started = time.perf_counter()
    print(f"relative L2 error of the solution, over {options.seeds} seeds")
    for name, activation in {"tanh": lambda: "tanh", "atanh": ka.ATanh}.items():
        errors = [error(activation, seed, options.steps) for seed in range(options.seeds)]
        each = ", ".join(f"{e:.2e}" for e in errors)
        print(f"{name:6} mean {np.mean(errors):.2e}, standard deviation {np.std(errors, ddof=1):.2e} ({each})")
    print(f"{time.perf_counter() - started:.0f} s on {keras.backend.backend()}")


if __name__ == "__main__":
    main()
