"""Searches of activations with KerasTuner: `python -m tuner.search configs/search/quick.json`."""
