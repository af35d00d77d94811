"""Sharpness and edge error of a picture of the world, against the same scene drawn exactly."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.embedded.checker import find_objects
from models.embedded.world import BACKGROUNDS, SIZE, Placement, Scene, render

LIFT = {"triangle": 0.11, "star": 0.1}
"""Box centre to nominal centre, in radii downwards, as in the checker."""


def ideal(picture: NDArray[np.uint8], size: int = SIZE) -> NDArray[np.uint8] | None:
    """The objects of a picture, drawn exactly where they stand, `size` pixels wide and high; None if one has no clear
    shape."""
    background, found = find_objects(picture)
    if background not in BACKGROUNDS or not found or any(one.shape is None for one in found):
        return None
    spots = tuple(
        Placement(one.x, one.y + LIFT.get(one.shape or "", 0.0) * one.radius, one.radius, one.colour, one.shape or "")
        for one in found
    )
    return render(Scene("two", (), background=background, placements=spots), size)


def edge_marks(picture: NDArray[np.uint8]) -> tuple[float, float] | None:
    """(sharpness, edge error), or None where there is nothing to compare with.

    Sharpness: the strongest gradients (95th percentile around outlines) as a share of the ideal picture's; 1 is right.
    Edge error: mean absolute difference to the ideal picture within two pixels of an outline, in levels of 0..255.
    """
    right = ideal(picture, picture.shape[0])
    if right is None:
        return None
    want, have = _gradient(right), _gradient(picture)
    around = ndimage.binary_dilation(want > 0.25 * want.max(), iterations=2)
    sharpness = float(np.percentile(have[around], 95) / np.percentile(want[around], 95))
    return sharpness, float(np.abs(picture.astype(float) - right).mean(axis=2)[around].mean())


def _gradient(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The steepest change of any channel, (height, width)."""
    plane = picture.astype(np.float64)
    along = [cv2.Sobel(plane, cv2.CV_64F, *axis, ksize=3) for axis in ((1, 0), (0, 1))]
    return np.asarray(np.hypot(*along).max(axis=2))
