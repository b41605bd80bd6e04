"""Value and gradients of a layer in training as NumPy arrays, by the running backend's own differentiation."""

import keras
import numpy as np
from keras import ops

import keras_adaptact as ka


def differentiate(layer, z, upstream):
    """The output, its gradient by the input, and one by each trainable variable, as backend tensors."""
    backend = keras.backend.backend()
    z = ops.convert_to_tensor(z)
    layer.build(z.shape)
    upstream = ops.cast(ops.convert_to_tensor(upstream), layer.compute_dtype)
    return {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}[backend](layer, z, upstream)


def flat(found):
    y, by_z, by_variables = found
    return [y, by_z, *by_variables]


def gradients(layer, z, upstream):
    """The output, and gradients by z and the variables, as NumPy; in a graph on TensorFlow, where the kernels run."""
    return [ops.convert_to_numpy(x) for x in flat(differentiate(layer, z, upstream))]


def _training(layer) -> dict:
    return {"training": True} if isinstance(layer, ka.TrainableActivation) else {}


def _jax(layer, z, upstream):
    import jax

    fixed = [v.value for v in layer.non_trainable_variables]

    def run(trained, z):
        return layer.stateless_call(trained, fixed, z, **_training(layer))[0]

    y, pull = jax.vjp(run, [v.value for v in layer.trainable_variables], z)
    by_variables, by_z = pull(upstream)
    return y, by_z, by_variables


def _torch(layer, z, upstream):
    import torch

    z = z.clone().requires_grad_(True)
    variables = [v.value for v in layer.trainable_variables]
    y = layer(z, **_training(layer))
    by_z, *by_variables = torch.autograd.grad(y, [z, *variables], upstream)
    return y, by_z, by_variables


def _tensorflow(layer, z, upstream):
    import tensorflow as tf

    variables = [v.value for v in layer.trainable_variables]

    @tf.function  # as in training: large tensors are computed otherwise there
    def run(z, upstream):
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = layer(z, **_training(layer))
        return y, *tape.gradient(y, [z, variables], upstream)

    return run(z, upstream)


def by_name(layer, gradients) -> dict[str, np.ndarray]:
    """Gradients by variable, as float64 NumPy, taken apart by parameter's name."""
    found = {}
    values = layer.get_parameters()
    names = [name for name in values if name != "weights"]
    shared = {name for name in names if values[name].ndim < len(layer.parameter_shape)}
    lie = {"parameters": [n for n in names if n not in shared], "shared_parameters": [n for n in names if n in shared]}
    for variable, gradient in zip(layer.trainable_variables, gradients, strict=True):
        gradient = ops.convert_to_numpy(gradient).astype("float64")
        if variable.name == "mixing_weights":
            found["weights"] = gradient.reshape(values["weights"].shape)
        else:  # row by row, whether it is stored so or flat
            own = lie[variable.name]
            found |= dict(zip(own, gradient.reshape(-1, *values[own[0]].shape), strict=True))
    return found
