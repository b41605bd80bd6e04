"""How a compiled Keras model is trained on images that stay on the device; one `Engine` for each backend.

An `Engine(model, pipeline, images, targets, batch_size)` has

* `train(plan, start, stop)`: the steps of a `pipeline.Plan` from start up to stop, without waiting for the device;
* `wait()`: returns when they are done, with everything in the model's variables;
* `dispatch`: how many steps go to the device at once, of which start is a multiple;
* `predict(images)`: logits of uint8 images, NumPy float32.

Keras's own `fit` cuts arrays into batches on the host and sends each batch over; here only the numbers of the images
go there. The step itself is Keras's `train_step`, with its losses, metrics and loss scaling.
"""

from importlib import import_module

import keras

Engine = import_module(f"zoo.training.engine.{keras.config.backend()}").Engine
