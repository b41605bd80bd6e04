"""Comparisons: one network with several activations, as two sweeps, their answer, and its page."""
