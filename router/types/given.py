"""Pictures that a request brings, as everybody but the engine knows them: by digest and size, without their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["image", "mask", "reference"]
"""What a given picture is for: to be painted over, to say where, or to be drawn after by a style."""


@dataclass(frozen=True, slots=True)
class GivenPicture:
    """role: what it is for;   digest: SHA-256 of its pixels, hexadecimal, by which it is found;   size in pixels

    share: of a mask, how much of the picture may change, 0..1
    """

    role: Role
    digest: str
    width: int
    height: int
    share: float = 1.0
