"""How formulas are run, for debugging: the fast way is the default, and the plain one computes the same."""

import os

IMPLEMENTATIONS = ("fast", "plain")


def implementation() -> str:
    """`"fast"`, or `"plain"`: the formula as it stands, differentiated by the backend."""
    return _implementation


def set_implementation(name: str) -> None:
    """Chooses `"fast"` or `"plain"` for what is traced from now on.

    The environment variable KERAS_ADAPTACT_IMPLEMENTATION chooses it before.

    Raises:
        ValueError: for any other name.
    """
    global _implementation
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"The implementation is one of {', '.join(map(repr, IMPLEMENTATIONS))}. Received: {name!r}")
    _implementation = name


_implementation = "fast"
set_implementation(os.environ.get("KERAS_ADAPTACT_IMPLEMENTATION") or "fast")
