"""Whole pictures into one: the mean, Laplacian pyramids, and frequency bands, on uint8 arrays (height, width, 3).

Smaller pictures are brought to the size of the largest. Means are taken in linear light, where light adds up; pyramids
and frequencies are mixed in sRGB, where equal steps look equal, so that detail of dark and bright places counts alike.

The pictures should agree in composition (such as refinements of one picture): where they do not, every blend but
`mask` shows both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from models.fusion.colour import Floats, Pixels, clip, to_linear, to_srgb
from models.handover import resize
from router.errors import StepError, did_you_mean

NEAR = 14.0  # CIE Lab units from the background that certainly still are background: shadows, noise of the decoder


def average(pictures: Sequence[Pixels]) -> Pixels:
    """The mean in linear light, as if the pictures were shown one after the other too fast to tell apart."""
    return to_srgb(np.mean([to_linear(picture) for picture in same_size(pictures)], axis=0))


def pyramid(pictures: Sequence[Pixels], weights: str = "contrast") -> Pixels:
    """Where a picture weighs more by `WEIGHTS` it counts more, blended scale by scale without seams.

    Laplacian pyramids weighted by Gaussian pyramids: Burt and Adelson 1983, https://doi.org/10.1145/245.247;
    Mertens et al. 2007, https://doi.org/10.1109/PG.2007.17.
    """
    same = same_size(pictures)
    # A mask parts objects: spread over all scales, it would let their colours bleed into what lies beside them.
    levels = max(1, int(np.log2(min(same[0].shape[:2]))) - 4) if weights == "mask" else None
    return blend_pyramids(same, pyramid_weights(same, weights), levels)


def frequency(pictures: Sequence[Pixels]) -> Pixels:
    """Composition and colour of the first picture (low frequencies), detail of the second (high frequencies).

    They part at a Gaussian of 1/32 of the shorter side.
    """
    if len(pictures) != 2:
        raise StepError(f"frequency: takes two pictures, low and high, not {len(pictures)}")
    low, high = (picture.astype(np.float32) for picture in same_size(pictures))
    return clip(blurred(low) + high - blurred(high))


def pyramid_weights(pictures: Sequence[Pixels], weights: str) -> Floats:
    """What every picture counts at every pixel: float32 (pictures, height, width), adding up to 1."""
    if weights not in WEIGHTS:
        raise StepError(f"pyramid: unknown weights {weights!r}{did_you_mean(weights, WEIGHTS)}", "weights")
    raw = WEIGHTS[weights](pictures)
    return np.asarray(raw / raw.sum(axis=0), np.float32)


def blend_pyramids(pictures: Sequence[Pixels], weights: Floats, levels: int | None = None) -> Pixels:
    """Pictures of one size mixed by weights (pictures, height, width) that add up to 1.

    levels: how many times the pyramid is halved, 0 for a mix pixel by pixel; a seam is spread over 2**levels pixels
    """
    most = max(1, int(np.log2(min(pictures[0].shape[:2]))) - 2)
    levels = most if levels is None else min(levels, most)
    blended: list[Floats] = []
    for picture, weight in zip(pictures, weights, strict=True):
        details, shares = _laplacian(picture.astype(np.float32), levels), _gaussian(weight, levels)
        parts = [detail * share[..., None] for detail, share in zip(details, shares, strict=True)]
        blended = [a + b for a, b in zip(blended, parts, strict=True)] if blended else parts
    made = blended[-1]
    for detail in reversed(blended[:-1]):
        made = cv2.pyrUp(made, dstsize=detail.shape[1::-1]) + detail
    return clip(made)


def same_size(pictures: Sequence[Pixels]) -> list[Pixels]:
    """All at the size of the largest."""
    height, width = max((picture.shape[:2] for picture in pictures), key=lambda side: side[0] * side[1])
    return [resize(picture, width, height) for picture in pictures]


def distance_from_background(picture: Pixels) -> Floats:
    """How far every pixel is from the picture's background, the median of its border, in CIE Lab: (height, width)."""
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    border = np.concatenate((lab[0], lab[-1], lab[:, 0], lab[:, -1]))
    return np.linalg.norm(lab - np.median(border, axis=0), axis=2).astype(np.float32)


def _contrast(pictures: Sequence[Pixels]) -> Floats:
    """Local contrast: the blurred Laplacian of luma. A little everywhere, so that flat places are shared equally."""
    luma = [picture.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], np.float32) for picture in pictures]
    detail = [cv2.GaussianBlur(np.abs(cv2.Laplacian(plane, cv2.CV_32F)), (0, 0), 1.0) for plane in luma]
    return np.stack(detail).astype(np.float32) + 1e-3


def _saliency(pictures: Sequence[Pixels]) -> Floats:
    """Distance from the picture's own background, blurred."""
    far = [cv2.GaussianBlur(distance_from_background(picture), (0, 0), 1.0) for picture in pictures]
    return np.stack(far).astype(np.float32) + 1.0


def _mask(pictures: Sequence[Pixels]) -> Floats:
    """Whole objects: where any picture has something, all of it comes from the one in which most stands out there.

    An object and what lies in its place in the other pictures are one patch, so no seam goes through an object. The
    first picture is the ground, and the first among equals.
    """
    far = np.stack([distance_from_background(picture) for picture in pictures])
    rim = max(2, round(min(far.shape[1:]) / 32))
    from scipy import ndimage  # not in every process that only decides

    patches, _ = ndimage.label(ndimage.binary_dilation((far > NEAR).any(axis=0), iterations=rim), np.ones((3, 3)))
    best = np.zeros(patches.shape, np.intp)
    for number in range(1, int(patches.max()) + 1):
        inside = patches == number
        best[inside] = int(np.argmax([plane[inside].sum() for plane in far]))
    return np.stack([(best == index) for index in range(len(pictures))]).astype(np.float32)


WEIGHTS: dict[str, Callable[[Sequence[Pixels]], Floats]] = {
    "contrast": _contrast,
    "saliency": _saliency,
    "mask": _mask,
}


def blurred(picture: Floats) -> Floats:
    """The low frequencies of a picture: a Gaussian of 1/32 of the shorter side."""
    return cv2.GaussianBlur(picture, (0, 0), max(1.0, min(picture.shape[:2]) / 32)).astype(np.float32)


def _gaussian(picture: Floats, levels: int) -> list[Floats]:
    stack = [picture]
    for _ in range(levels):
        stack.append(cv2.pyrDown(stack[-1]).astype(np.float32))
    return stack


def _laplacian(picture: Floats, levels: int) -> list[Floats]:
    stack = _gaussian(picture, levels)
    details = [
        (fine - cv2.pyrUp(coarse, dstsize=fine.shape[1::-1])).astype(np.float32)
        for fine, coarse in itertools.pairwise(stack)
    ]
    return [*details, stack[-1]]
