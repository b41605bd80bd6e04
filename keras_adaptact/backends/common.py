"""What the backends have in common."""

import keras


def plain(formula, dtype):
    """The formula in its own precision, between a cast from and to that of z."""

    def in_dtype(z, *parameters):
        return keras.ops.cast(formula(keras.ops.cast(z, dtype), *parameters), z.dtype)

    return in_dtype


def canonical(shape, parameters) -> tuple[tuple, tuple]:
    """Shapes without the axes that an elementwise formula doesn't care for: of z, and of each parameter.

    One value per channel leaves (rows, c) where the channels are last, (rows, c, rest) where they are not;
    scalars leave (elements,). An unknown size is -1.
    """
    parameter = next((tuple(p.shape) for p in parameters if len(p.shape)), ())
    if not parameter:
        return (-1,), ()
    if len(parameter) == 1:
        return (-1, parameter[0]), parameter
    return (-1, parameter[0], _product(shape[-len(parameter) + 1 :])), (parameter[0], 1)


def _product(sizes) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
