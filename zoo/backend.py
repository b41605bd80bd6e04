"""Which Keras backend the commands use; chosen without importing one."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

from zoo.errors import UserError

BACKENDS = ("jax", "torch", "tensorflow")
SELF_WRITTEN = {
    "floatx": "float32",
    "epsilon": 1e-07,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
}


def choose(preferred: str | None = None) -> str:
    """Names the backend and sets `KERAS_BACKEND` to it, before anything imports Keras.

    `KERAS_BACKEND` decides where it is set; then what is preferred; then a `keras.json` of the user's; then what is
    installed, in the order of `BACKENDS`. The `keras.json` that Keras writes by itself says tensorflow and does not
    count.

    Raises:
        UserError: where the chosen backend isn't installed, or none is.
    """
    installed = [name for name in BACKENDS if find_spec(name)]
    asked, source = os.environ.get("KERAS_BACKEND"), "KERAS_BACKEND"
    if not asked and preferred:
        asked, source = preferred, "the run"
    if not asked:
        asked, source = _of_keras_json()
    if asked and asked not in BACKENDS:
        raise UserError(f"{source} names {asked!r}, which is none of {', '.join(BACKENDS)}")
    if asked and asked not in installed:
        have = f"installed: {', '.join(installed)}" if installed else "none is installed"
        raise UserError(f"{source} names {asked}, which is not installed ({have}); pip install '.[{asked}]'")
    if not installed:
        raise UserError(f"no backend is installed; pip install '.[jax]' (or {', '.join(BACKENDS[1:])})")
    chosen = asked or installed[0]
    os.environ["KERAS_BACKEND"] = chosen
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up chatter
    return chosen


def _of_keras_json() -> tuple[str | None, str]:
    path = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None, ""
    if not isinstance(content, dict) or content == SELF_WRITTEN:
        return None, ""
    return content.get("backend"), str(path)
