"""How much of a seam a fusion leaves where its mask changes sides."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FLOOR = 3.0
"""Levels of 0..255 between neighbouring pixels that no eye takes for an edge."""


def seam(
    made: NDArray[np.uint8], mask: NDArray[np.bool_] | NDArray[np.float32], inputs: Sequence[NDArray[np.uint8]]
) -> float:
    """Steepness of `made` along the boundary of `mask`, as a multiple of what the inputs themselves have there.

    About 1 or below: every edge along the boundary is an edge of a picture that was fused. A hard cut between unlike
    pictures is a multiple. Masks are (height, width), pictures of one size; 0.0 where the mask has no boundary.
    """
    side = np.asarray(mask, np.float32) > 0.5
    boundary = ndimage.binary_dilation(side) & ndimage.binary_dilation(~side)
    if not boundary.any():
        return 0.0
    usual = np.max([_steepness(picture) for picture in inputs], axis=0)
    # An edge of an input may stand a pixel beside the boundary.
    usual = ndimage.maximum_filter(usual, 3)
    return float(_steepness(made)[boundary].mean() / (usual[boundary].mean() + FLOOR))


def _steepness(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Levels per pixel, the steepest channel: (height, width)."""
    plane = picture.astype(np.float64)
    along = [cv2.Sobel(plane, cv2.CV_64F, *axis, ksize=3, scale=1 / 8) for axis in ((1, 0), (0, 1))]
    return np.asarray(np.hypot(*along).reshape(*picture.shape).max(axis=2)) * 2
