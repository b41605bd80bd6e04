"""What a run is, as JSON; `python -m zoo.config` writes its JSON Schema, which editors complete and check with."""

from zoo.config.loading import load as load
from zoo.config.loading import read_object as read_object
from zoo.config.own import digest as digest
from zoo.config.schema import Config as Config
