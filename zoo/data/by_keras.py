"""Keras's own data sets beside CIFAR-10: handwritten digits, clothes, and 100 classes of pictures."""

import textwrap

import numpy as np

from zoo.data.splits import Split
from zoo.errors import DataError

CLASSES = {
    "cifar100": tuple(map(str, range(100))),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "mnist": tuple("0123456789"),
}


def load(name: str) -> tuple[Split, Split, str]:
    """Keras's download, or its copy of an earlier one; images have a channel of grey, or three.

    Raises:
        DataError: for whatever fails in there.
    """
    import keras

    try:
        found = getattr(keras.datasets, name).load_data()
        train, test = (Split.of(_channels_last(images), labels.reshape(-1)) for images, labels in found)
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 240, placeholder=" ...")
        raise DataError(
            f"no {name} from Keras ({reason}); ways out: a network, for Keras to download it, or its file in "
            "~/.keras/datasets"
        ) from error
    return train, test, f"keras {keras.__version__} keras.datasets.{name}.load_data()"


def _channels_last(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[..., None]
    return images if images.shape[-1] == 3 else np.moveaxis(images, 1, -1)
