"""The experiment: networks with pluggable activations, trained from JSON configs. Run it from the checkout.

From the top: the commands; `reports`; `sweeps`; `runs`, a finished run read back; `training`; `models`; `data`;
`config`; and small tools (files, folders, errors...), which know nothing of the rest. Imports go down only.
"""

import sys

from zoo import signals

if sys.argv[:1] == ["-m"]:  # `python -m zoo.train` imports this package first
    signals.at_start()
