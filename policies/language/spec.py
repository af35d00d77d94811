"""What all parts of the policy language share: the base of its pydantic models, and the types of names and numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=NAME)]
ModelId = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Side = Annotated[int, Field(ge=16, le=16384)]
Share = Annotated[float, Field(gt=0, lt=1)]
Unit = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Window = Annotated[float, Field(gt=0, le=366 * 86_400)]


class Spec(BaseModel):
    """A mapping of the language: only known keys, no conversion of types, no infinities, frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def given(self) -> list[str]:
        """The keys that the file has here, as it spells them."""
        fields = type(self).model_fields
        return [fields[name].alias or name for name in fields if getattr(self, name) is not None]


def exactly_one(spec: Spec, keys: tuple[str, ...], what: str) -> None:
    """Raise `ValueError` unless `spec` has one of `keys`, and no two of them."""
    given = [key for key in spec.given() if key in keys]
    if len(given) != 1:
        have = f"not {' and '.join(given)} together" if given else "none is given"
        raise ValueError(f"{what} has exactly one of {', '.join(keys)}; {have}")


def at_least_one(spec: Spec, keys: tuple[str, ...], what: str) -> None:
    """Raise `ValueError` unless `spec` has one or more of `keys`."""
    if not any(key in keys for key in spec.given()):
        raise ValueError(f"{what} has at least one of {', '.join(keys)}; none is given")
