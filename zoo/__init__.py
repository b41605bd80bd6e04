"""The experiment: networks with pluggable activations, trained from JSON configs. Runs from the checkout."""

import sys

from zoo import signals

if sys.argv[:1] == ["-m"]:  # Python looks for a command in here, such as that of `python -m zoo.train`
    signals.at_start()
