"""On JAX: pure steps that pass on their state; on a GPU many in one dispatch.

On CPU each step is dispatched alone, as convolutions inside `lax.scan` are about ten times slower there. It is also
waited for: a step that begins before the last one has freed its memory takes longer, 1 to 4 % for LeNet.
"""

import os
from pathlib import Path
from typing import Any

import jax
import keras
from jax import lax

from zoo.data.splits import Rows
from zoo.training.engine import in_batches, read

SCANNED = 32  # steps in one dispatch on a GPU


class Engine:
    def __init__(self, model, pipeline, images, targets, batch_size):
        self.model, self.batch_size = model, batch_size
        self.split, self.whole = _shardings()
        self.on_disk = isinstance(images, Rows)
        self.data: tuple[Any, Any] = (images, targets)
        if not self.on_disk:
            self.data = jax.device_put(self.data, self.whole)
        self.dispatch = SCANNED if jax.default_backend() == "gpu" else 1
        self.one_by_one = jax.default_backend() == "cpu"
        self.state = None  # while it is newer than the model's variables

        def step(state, data, chosen):
            return model.train_step(state, pipeline.batch(*data, *chosen))[1]

        def many(state, data, chosen):
            return lax.scan(lambda state, chosen: (step(state, data, chosen), None), state, chosen)[0]

        def forward(trained, fixed, images):
            return model.stateless_call(trained, fixed, pipeline.inputs(images), training=False)[0]

        self._step, self._many = jax.jit(step, donate_argnums=0), jax.jit(many, donate_argnums=0)
        self._forward = jax.jit(forward)

    def train(self, plan, start, stop):
        state = self.state or [[v.value for v in group] for group in self._variables()]
        while start < stop:
            data = self.data
            if self.on_disk:
                end, run = start + 1, self._step
                samples, targets, *parts = read(*self.data, plan, start)
                data, chosen = jax.device_put((samples, targets), self.whole), jax.device_put(parts, self.split)
            elif self.dispatch > 1 and stop - start >= self.dispatch:
                end, run = start + self.dispatch, self._many
                chosen = [x[start:end] for x in plan.parts]
            else:
                end, run = start + 1, self._step
                chosen = jax.device_put([x[start] for x in plan.parts], self.split)
            state = run(state, data, chosen)
            if self.one_by_one:
                state[0][0].block_until_ready()  # all outputs of a step are ready at the same time
            start = end
        self.state = state

    def synchronize(self):
        if self.state is None:
            return
        jax.block_until_ready(self.state)
        for group, values in zip(self._variables(), self.state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        self.state = None

    def predict(self, images):
        self.synchronize()
        trained, fixed = ([v.value for v in group] for group in self._variables()[:2])

        def forward(batch):
            return self._forward(trained, fixed, jax.device_put(batch, self.split))

        return in_batches(forward, images, self.batch_size)

    def _variables(self):
        model = self.model
        return (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )


def _shardings():
    """The shardings of a batch, and of what each device holds whole; None for a single device."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None, None
    mesh = distribution.device_mesh.backend_mesh
    spec = jax.sharding.PartitionSpec
    return jax.sharding.NamedSharding(mesh, spec("batch")), jax.sharding.NamedSharding(mesh, spec())


def _keep_programs():
    """Has JAX cache compiled programs for later runs, unless the user has configured a cache.

    Small programs too: initializing GoogLeNet compiles one for each shape of a kernel, which takes half a minute.
    """
    if jax.config.jax_compilation_cache_dir is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(home / "keras_adaptact" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


_keep_programs()  # before a network is built
