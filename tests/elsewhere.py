"""A model opened and run by another backend of Keras's, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

import keras_adaptact as ka

PROGRAM = """
import sys, keras, numpy as np, keras_adaptact as ka
backend, tolerance = sys.argv[1], float(sys.argv[2])
assert keras.config.backend() == backend
if backend == "openvino":  # else it rounds to bfloat16, where the processor has it
    import functools, openvino
    openvino.compile_model = functools.partial(openvino.compile_model, config={"INFERENCE_PRECISION_HINT": "f32"})
model, folded, data = *map(keras.saving.load_model, ("model.keras", "folded.keras")), np.load("data.npz")
for each in (model, folded, ka.fold_activations(model), ka.replace_activations(model, "relu", "arelu")):
    np.testing.assert_allclose(each.predict(data["x"], verbose=0), data["y"], rtol=tolerance, atol=tolerance)
"""


def predicts_as_here(backend: str, folder: Path, tolerance: float) -> None:
    """Activations of each kind inside layers and as layers, by layer and by channel: also folded and replaced there."""
    model = keras.Sequential(
        [
            layers.Input((6, 6, 3)),
            layers.Conv2D(4, 3, activation=ka.AReLU(c_initializer=0.5)),
            ka.Method1(granularity="channel"),
            layers.Conv2D(4, 3, activation="relu"),
            ka.PELU(a_initializer=1.5),
            ka.get("prelu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation=ka.Mixture(["gelu", "atanh"], normalization="softmax")),
            layers.Dense(2, activation=ka.AdaptiveActivation("celu", a_initializer=1.25)),
        ]
    )
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype("float32")
    model.save(folder / "model.keras")
    ka.fold_activations(model).save(folder / "folded.keras")
    np.savez(folder / "data.npz", x=x, y=ops.convert_to_numpy(model(x)))
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": path}
    command = [sys.executable, "-c", PROGRAM, backend, str(tolerance)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
