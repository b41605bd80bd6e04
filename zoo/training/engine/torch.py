"""On torch: eager steps.

`torch.compile` of Keras's `train_step` takes a minute to begin on a CPU, and its steps take 1.3 times as long for LeNet
with ReLU, 2.3 to 2.4 times for LeNet and AlexNet with method 1, whose kernels it leaves for the formula.
"""

from typing import Any

import torch
from keras.ops import convert_to_tensor

from zoo.data.splits import Rows
from zoo.training.engine import in_batches, read


class Engine:
    dispatch = 1

    def __init__(self, model, pipeline, images, targets, batch_size):
        self.model, self.pipeline, self.batch_size = model, pipeline, batch_size
        self.data: tuple[Any, Any] = (images, targets)
        if not isinstance(images, Rows):
            self.data = convert_to_tensor(images), convert_to_tensor(targets)

    def train(self, plan, start, stop):
        on_disk = isinstance(self.data[0], Rows)
        parts = [] if on_disk else [convert_to_tensor(x[start:stop]) for x in plan.parts]
        for i in range(stop - start):
            _seed(plan.seed + start + i)  # Keras's Dropout draws from torch's global state
            there = [] if on_disk else [*self.data, *(x[i] for x in parts)]
            what = there or [*map(convert_to_tensor, read(*self.data, plan, start + i))]
            self.model.train_step(self.pipeline.batch(*what))

    def synchronize(self):
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def predict(self, images):
        with torch.no_grad():
            return in_batches(self._forward, images, self.batch_size)

    def _forward(self, batch):
        return self.model(self.pipeline.inputs(convert_to_tensor(batch)), training=False).float().cpu().numpy()


def _seed(seed):
    """Like `torch.manual_seed`, without the 0.2 ms that it takes to look for other devices."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
