"""Control maps: what of a given picture says where things stand, as a picture itself (height, width, 3)."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from router.errors import StepError, did_you_mean

Pixels = NDArray[np.uint8]

CANNY = (100.0, 200.0)
"""Thresholds of the gradient, as ControlNets for edges are usually trained with."""


def canny(pixels: Pixels) -> Pixels:
    """Edges in any of the three colours, white on black, one pixel wide: https://doi.org/10.1109/TPAMI.1986.4767851."""
    found = cv2.Canny(np.ascontiguousarray(pixels), *CANNY)
    return np.repeat(found[..., None], 3, axis=2).astype(np.uint8)


def tile(pixels: Pixels) -> Pixels:
    """The picture itself: ControlNets of this kind keep what is there while detail is painted over it."""
    return pixels


MAPS: dict[str, Callable[[Pixels], Pixels]] = {"canny": canny, "tile": tile}
"""By their kinds, those that are made here; of other kinds a request has to bring the map itself."""


def mapped(kind: str, pixels: Pixels) -> Pixels:
    """The map of a kind; `StepError` for one that is not made here."""
    if kind not in MAPS:
        raise StepError(f"control: no map {kind!r} is made here{did_you_mean(kind, MAPS)}", "control")
    return MAPS[kind](pixels)
