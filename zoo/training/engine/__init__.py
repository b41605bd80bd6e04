"""Trains a compiled Keras model on images that stay on the device; one `Engine` for each backend.

An `Engine(model, pipeline, images, targets, batch_size)` has

* `train(plan, start, stop)`: takes the steps of a `pipeline.Plan` from start to stop, without waiting for the device;
* `synchronize()`: waits for them, and puts the results into the model's variables;
* `dispatch`: how many steps go to the device at once; start is a multiple of it;
* `predict(images)`: the logits of uint8 images, NumPy float32.

Keras's `fit` cuts arrays into batches on the host and copies each batch to the device; here only indices of images are
copied. The step itself is Keras's `train_step`, with its losses, metrics and loss scaling.
"""

from importlib import import_module

import keras

Engine = import_module(f"zoo.training.engine.{keras.config.backend()}").Engine
