"""Do pictures show the same thing in the same places? What is unlike cannot be blended without ghosts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from models.fusion.blending import blurred, same_size
from models.fusion.colour import Floats, Pixels

FLAT = 1.0  # squared CIE Lab units, on average: less variation than this is none, and flat pictures agree


def disagreement(pictures: Sequence[Pixels]) -> float:
    """How unlike the low frequencies of the two least alike pictures are: 0 alike, 1 unrelated, 2 opposite.

    One minus the normalised cross-correlation of their CIE Lab values, means removed, with the mean power of both as
    the norm, so that a difference in contrast counts as well. Low frequencies are those that `frequency` takes: a
    difference of a pixel hardly counts, an object at another place or of another colour does.
    """
    structures = [_structure(picture) for picture in same_size(pictures)]
    return max((_apart(one, other) for one, other in itertools.combinations(structures, 2)), default=0.0)


def _structure(picture: Pixels) -> Floats:
    lab = blurred(cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))
    return lab - lab.mean(axis=(0, 1))


def _apart(one: Floats, other: Floats) -> float:
    power = np.mean(np.square(one)) + np.mean(np.square(other))
    return float(np.mean(np.square(one - other)) / max(power, FLAT))
