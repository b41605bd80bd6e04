"""The optimizer of a run, its learning rate schedule, and weight decay."""

import keras

import keras_adaptact as ka
from zoo.config.schema import Config, Steps


def optimizer_of(config: Config, steps: int, model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer of a config, for epochs of `steps` steps."""
    settings = config.training
    chosen = settings.optimizer
    kind = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[chosen.name]
    optimizer = kind(_learning_rate(config, steps), **chosen.model_dump(exclude={"name", "learning_rate"}))
    trained = any(layer.trainable_variables for layer in ka.trainable_activations(model).values())
    if (settings.activation_rate == 1 and settings.activation_step is None) or not trained:
        return optimizer
    return ka.optimizer_for(model, optimizer, settings.activation_rate, settings.activation_step)


def _learning_rate(config: Config, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate schedule, for epochs of `steps` steps."""
    rate, schedule = config.training.optimizer.learning_rate, config.training.schedule
    if isinstance(schedule, Steps):
        last = [epoch * steps - 1 for epoch in schedule.epochs]  # the last steps before each change
        rates = [rate * schedule.factor**i for i in range(len(last) + 1)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(last, rates)
    total = steps * config.training.epochs
    warmup = min(round(schedule.warmup * total), total - 1)
    floor = {"cosine": 0.0, "constant": 1.0}[schedule.name]  # of the cosine, as a share of the peak rate
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else rate,
        total - warmup,
        alpha=floor,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )


def penalize_kernels(model: keras.Model, weight_decay: float) -> None:
    """Adds half the weight decay times each squared kernel to the loss; nothing else decays."""
    for variable in model.trainable_variables:
        if variable.name == "kernel" and weight_decay:
            variable.regularizer = keras.regularizers.L2(weight_decay / 2)
