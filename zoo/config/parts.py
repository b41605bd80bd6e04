"""What the parts of a config's schema are made of."""

import difflib
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Field

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**6)]  # more than any machine gets through
Width = Annotated[int, Field(ge=1, le=16384)]
Few = Annotated[int, Field(ge=1, le=256)]
Positive = Annotated[float, Field(gt=0, le=3e38)]  # float32's largest
NotNegative = Annotated[float, Field(ge=0, le=3e38)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def named(default: str):
    """Chooses a class by the name in what is read, or of the object that is written."""

    return Discriminator(lambda value: name_of(default, value))


def name_of(default: str, value) -> str:
    return str(value.get("name", default)) if isinstance(value, dict) else getattr(value, "name", default)


def unknown_field(name: str, known: Iterable[str]) -> str:
    """A message for a field that doesn't exist, with the closest one that does."""
    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"unknown field {name!r}; {hint}"
