"""Searches of activations with KerasTuner: `python -m tuner.search configs/search/quick.json`."""

import zoo as zoo  # which answers signals from here on


def __getattr__(name: str):
    if name == "ActivationHyperModel":  # it imports Keras, which the commands do only once they chose a backend
        from keras_adaptact.tuning import ActivationHyperModel

        return ActivationHyperModel
    raise AttributeError(f"module 'tuner' has no attribute {name!r}")
