"""A physics-informed network with adaptive tanh: Poisson's equation in one dimension, whose solution is known.

    KERAS_BACKEND=jax python examples/physics.py
    KERAS_BACKEND=jax python examples/physics.py --activations tanh arelu method1 --bfgs 500

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


def flat(arrays) -> np.ndarray:
    return np.concatenate([np.ravel(ops.convert_to_numpy(array)) for array in arrays]).astype("float64")


def loss_and_gradient(model, x, y):
    """A function of all trained numbers in one vector, as optimizers outside Keras want it."""
    variables = model.trainable_variables
    ends = np.cumsum([int(np.prod(v.shape)) for v in variables])[:-1]

    def loss(values):
        outputs, _ = model.stateless_call(values, model.non_trainable_variables, x)
        return ops.mean((outputs - y) ** 2)

    match keras.backend.backend():
        case "jax":
            import jax

            evaluate = jax.jit(jax.value_and_grad(loss))
        case "torch":
            import torch

            def evaluate(values):
                values = [value.detach().requires_grad_() for value in values]
                result = loss(values)
                return result.detach(), torch.autograd.grad(result, values)

        case "tensorflow":
            import tensorflow as tf

            @tf.function
            def evaluate(values):
                with tf.GradientTape() as tape:
                    tape.watch(values)
                    result = loss(values)
                return result, tape.gradient(result, values)

    def of_vector(vector):
        parts = np.split(vector.astype("float32"), ends)
        value, gradient = evaluate([ops.array(p.reshape(v.shape)) for p, v in zip(parts, variables, strict=True)])
        return float(value), flat(gradient)

    def assign(vector):
        for part, variable in zip(np.split(vector, ends), variables, strict=True):
            variable.assign(part.reshape(variable.shape))

    return of_vector, assign


def bfgs(model, x, y, steps: int) -> float:
    """Trains by SciPy's L-BFGS, and returns the loss."""
    from scipy.optimize import minimize

    of_vector, assign = loss_and_gradient(model, ops.array(x), ops.array(y))
    options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": 50, "ftol": 0.0, "gtol": 0.0}
    found = minimize(of_vector, flat(model.trainable_variables), jac=True, method="L-BFGS-B", options=options)
    assign(found.x)
    return float(found.fun)


def error(activation, seed: int, steps: int, bfgs_steps: int = 0) -> float:
    """Relative L2 error of the solution, ``|u - exact| / |exact|``."""
    keras.utils.set_random_seed(seed)
    model = Poisson(activation)
    rate = keras.optimizers.schedules.CosineDecay(0.005, steps)
    model.compile(keras.optimizers.Adam(rate), "mse")
    x = np.tile(POINTS, (steps, 1))  # all points are one batch, and all steps one epoch
    model.fit(x, right_side(x), batch_size=len(POINTS), shuffle=False, verbose=0)
    if bfgs_steps:
        bfgs(model, POINTS, right_side(POINTS), bfgs_steps)
    x = np.linspace(-1, 1, 1001, dtype="float32")[:, None]
    exact = solution(x)
    return float(np.linalg.norm(ops.convert_to_numpy(model.u(ops.array(x))) - exact) / np.linalg.norm(exact))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--steps", type=int, default=2000, help="of each training (default: 2000)")
    parser.add_argument("--activations", nargs="+", default=["tanh", "atanh"], help="names (default: tanh atanh)")
    parser.add_argument("--bfgs", type=int, default=0, help="steps of L-BFGS after these (default: 0)")
    options = parser.parse_args()
    started = time.perf_counter()
    print(f"relative L2 error of the solution, over {options.seeds} seeds")
    for name in options.activations:
        seeds = range(options.seeds)
        errors = [error(lambda name=name: ka.get(name), seed, options.steps, options.bfgs) for seed in seeds]
        each = ", ".join(f"{e:.2e}" for e in errors)
        print(
            f"{name:8} mean {np.mean(errors):.2e}, standard deviation {np.std(errors, ddof=1):.2e} ({each})", flush=True
        )
    print(f"{time.perf_counter() - started:.0f} s on {keras.backend.backend()}")


if __name__ == "__main__":
    main()
