"""Chooses the Keras backend of a command, without importing one."""

import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from zoo import signals
from zoo.errors import UserError

BANNER = (  # of abseil and TensorFlow, in the order of their imports
    rb"WARNING: All log messages before absl|[IWE][0-9]{4} [0-9:.]+ |[0-9-]{10} [0-9:.]+: [IWE] |"
    rb"To enable the following instructions|[0-9-]{10} [0-9:.]+: .*cpu_feature_guard"
)
BACKENDS = ("jax", "torch", "tensorflow")
SELF_WRITTEN = {
    "floatx": "float32",
    "epsilon": 1e-07,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
}


def choose(preferred: str | None = None) -> str:
    """Returns the backend's name and sets `KERAS_BACKEND` to it, before anything imports Keras.

    In order of precedence: `KERAS_BACKEND`; `preferred`; the user's `keras.json`; the first of `BACKENDS` that is
    installed. The default `keras.json`, which Keras writes itself and which says tensorflow, doesn't count.

    Raises:
        UserError: if the chosen backend isn't installed, or none is.
    """
    installed = [name for name in BACKENDS if find_spec(name)]
    asked, source = os.environ.get("KERAS_BACKEND"), "KERAS_BACKEND"
    if not asked and preferred:
        asked, source = preferred, "the run"
    if not asked:
        asked, source = _of_keras_json()
    if asked and asked not in BACKENDS:
        raise UserError(f"{source} names {asked!r}; expected one of {', '.join(BACKENDS)}")
    if asked and asked not in installed:
        have = f"installed: {', '.join(installed)}" if installed else "none is installed"
        raise UserError(f"{source} names {asked}, which is not installed ({have}); pip install '.[{asked}]'")
    if not installed:
        raise UserError(f"no backend is installed; pip install '.[jax]' (or {', '.join(BACKENDS[1:])})")
    chosen = asked or installed[0]
    os.environ["KERAS_BACKEND"] = chosen
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up chatter
    return chosen


def load() -> None:
    """Imports Keras on the chosen backend, without the banners that its libraries print."""
    with _without_banners():
        import keras

        import keras_adaptact as keras_adaptact

        keras.config.backend()


@contextlib.contextmanager
def _without_banners() -> Iterator[None]:
    """Buffers stderr; drops banners and prints the rest at the end."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with tempfile.TemporaryFile() as said:
        signals.stderr.number = kept
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            if sys.stderr:
                sys.stderr.flush()
            os.dup2(kept, 2)
            signals.stderr.number = 2
            os.close(kept)
            said.seek(0)
            for line in said:
                if not re.match(BANNER, line):
                    os.write(2, line)


def _of_keras_json() -> tuple[str | None, str]:
    path = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None, ""
    if not isinstance(content, dict) or content == SELF_WRITTEN:
        return None, ""
    return content.get("backend"), str(path)
