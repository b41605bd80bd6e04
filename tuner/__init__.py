"""Searches of activations with KerasTuner: `python -m tuner.search configs/search/quick.json`."""

import zoo as zoo  # it handles signals from here on


def __getattr__(name: str):
    if name == "ActivationHyperModel":  # lazily: it imports Keras, before which commands choose a backend
        from keras_adaptact.tuning import ActivationHyperModel

        return ActivationHyperModel
    raise AttributeError(f"module 'tuner' has no attribute {name!r}")
