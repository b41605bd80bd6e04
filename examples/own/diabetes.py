"""A small network and scikit-learn's diabetes data, for `python -m zoo.train examples/own/diabetes.json`."""

import keras
from keras import layers
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split


def load():
    """Ten measurements of 442 people, and how their disease went on, in standard deviations from the mean."""
    x, y = load_diabetes(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=0)
    mean, deviation = y_train.mean(), y_train.std()
    y_train, y_test = (y_train - mean) / deviation, (y_test - mean) / deviation
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def mlp(activation, width=32):
    """Two hidden layers; `activation(name)` is a fresh layer for the site of that name."""
    x = inputs = keras.Input((10,))
    for name in ("hidden1", "hidden2"):
        x = activation(name)(layers.Dense(width, name=name)(x))
    return keras.Model(inputs, layers.Dense(1)(x))
