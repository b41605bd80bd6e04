"""The experiment: networks with pluggable activations, trained from JSON configs. Runs from the checkout."""
