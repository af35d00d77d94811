"""Masks: what of a given picture may change, as uint8 (height, width): 0 stays as it is, 255 is drawn anew.

A file says it by transparency, as OpenAI's API has it. What is drawn is laid over the given picture by a mask that is
feathered to the inside only, so that where a mask is 0 every byte is the given one.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.uint8]
Pixels = NDArray[np.uint8]

FEATHER = 1 / 64
"""Of the shorter side of a picture: how far inside its edge a mask reaches its full weight; a pixel at least."""


def of_alpha(alpha: NDArray[np.uint8]) -> Mask:
    """The mask that transparency means: what is transparent may change."""
    return 255 - alpha


def share(mask: Mask) -> float:
    """How much of the picture may change, 0..1."""
    return float(np.count_nonzero(mask)) / mask.size


def resized(mask: Mask, width: int, height: int) -> Mask:
    """The mask at another size. What it covers a part of is covered, so that nothing is left out."""
    if mask.shape == (height, width):
        return mask
    image = Image.fromarray(mask)
    smooth = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    if width * height > mask.size:
        return smooth
    touched = np.asarray(Image.fromarray((mask > 0).astype(np.uint8) * 255).resize(
        (width, height), Image.Resampling.BOX))  # fmt: skip
    return np.where(touched > 0, np.maximum(smooth, 1), 0).astype(np.uint8)


def cells(mask: Mask, side: int) -> Mask:
    """The mask in whole latent cells of `side` pixels: a cell of which any pixel may change is drawn anew (255)."""
    height, width = mask.shape
    whole = np.zeros((-(-height // side) * side, -(-width // side) * side), bool)
    whole[:height, :width] = mask > 0
    any_of = whole.reshape(whole.shape[0] // side, side, whole.shape[1] // side, side).any(axis=(1, 3))
    return np.kron(any_of, np.ones((side, side), np.uint8))[:height, :width].astype(np.uint8) * 255


def weights(mask: Mask) -> NDArray[np.float32]:
    """What the drawn picture counts at each pixel, 0..1: exactly 0 where the mask is 0, and rising inside its edge."""
    reach = max(1.0, min(mask.shape) * FEATHER)
    # A picture's own border is no edge of the mask.
    framed = cv2.copyMakeBorder((mask > 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inside = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    if not np.isfinite(inside).all() or (mask > 0).all():
        inside = np.full(mask.shape, reach, np.float32)
    ramp = np.clip(inside / reach, 0.0, 1.0)
    return (ramp * (mask.astype(np.float32) / 255.0)).astype(np.float32)


def laid_over(drawn: Pixels, given: Pixels, mask: Mask) -> Pixels:
    """`drawn` where the mask has it, `given` elsewhere: byte for byte where the mask is 0. All of one size."""
    weight = weights(mask)[..., None]
    mixed = given.astype(np.float32) * (1 - weight) + drawn.astype(np.float32) * weight
    return np.where(mask[..., None] > 0, np.rint(mixed).astype(np.uint8), given).astype(np.uint8)
