"""On TensorFlow: one graph for a step, compiled by XLA where Keras would (on a GPU)."""

import tensorflow as tf

from zoo.data.splits import Rows
from zoo.training.engine import in_batches, read


class Engine:
    dispatch = 1

    def __init__(self, model, pipeline, images, targets, batch_size):
        self.batch_size = batch_size
        self.data = () if not isinstance(images, Rows) else (images, targets)
        there = () if self.data else (tf.constant(images), tf.constant(targets))

        @tf.function(jit_compile=model.jit_compile)
        def step(*chosen):
            model.train_step(pipeline.batch(*there, *chosen))

        @tf.function(jit_compile=model.jit_compile)
        def forward(images):
            return model(pipeline.inputs(images), training=False)

        self._step, self._forward = step, forward

    def train(self, plan, start, stop):
        if self.data:
            for i in range(start, stop):
                self._step(*map(tf.constant, read(*self.data, plan, i)))
            return
        parts = [tf.constant(x[start:stop]) for x in plan.parts]
        for i in range(stop - start):
            self._step(*(x[i] for x in parts))

    def synchronize(self):
        tf.test.experimental.sync_devices()

    def predict(self, images):
        return in_batches(lambda batch: self._forward(tf.constant(batch)).numpy(), images, self.batch_size)
