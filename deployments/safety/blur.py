"""Pictures made unrecognisable for good: nothing finer than a twelfth of the shorter side is left."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CELLS = 12
"""Squares along the shorter side that are told apart before they are smoothed."""


def blurred(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (height, width, 3) of the same shape: averaged over cells, and these interpolated."""
    height, width = pixels.shape[:2]
    cell = max(1, min(height, width) // CELLS)
    small = (max(1, width // cell), max(1, height // cell))
    coarse = Image.fromarray(np.ascontiguousarray(pixels)).resize(small, Image.Resampling.BOX)
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)
