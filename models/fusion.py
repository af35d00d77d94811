"""Several pictures into one, on uint8 arrays (height, width, 3) of possibly different sizes.

Smaller pictures are brought to the size of the largest. Every fuser leaves a flat colour as it is.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from models.handoff import resize, upscale
from router.errors import StepError, did_you_mean
from router.types import Picture, Scalar, Scores, Step, StepResult, Value

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def best_of(pictures: Sequence[Pixels], scores: Sequence[float] | None = None) -> Pixels:
    """The picture with the highest score, the first among equals, at its own size."""
    if scores is None or len(scores) != len(pictures):
        raise StepError(
            f"best_of: {len(pictures)} pictures need as many scores, not {0 if scores is None else len(scores)}"
        )
    if not np.isfinite(scores).all():
        raise StepError(f"best_of: scores {list(scores)} are not all numbers")
    return pictures[int(np.argmax(scores))]


def average(pictures: Sequence[Pixels], scores: Sequence[float] | None = None) -> Pixels:
    """The mean in linear light, as if the pictures were shown one after the other too fast to tell apart."""
    return _to_srgb(np.mean([_to_linear(picture) for picture in _same_size(pictures)], axis=0))


def pyramid(pictures: Sequence[Pixels], scores: Sequence[float] | None = None) -> Pixels:
    """Where a picture has more local contrast it counts more, blended scale by scale without seams.

    Laplacian pyramids weighted by Gaussian pyramids: Burt and Adelson 1983, https://doi.org/10.1145/245.247;
    Mertens et al. 2007, https://doi.org/10.1109/PG.2007.17.
    """
    floats = [picture.astype(np.float32) for picture in _same_size(pictures)]
    weights = np.stack([_contrast(picture) for picture in floats]) + 1e-3
    weights /= weights.sum(axis=0)
    levels = max(1, int(np.log2(min(floats[0].shape[:2]))) - 2)
    blended: list[Floats] | None = None
    for picture, weight in zip(floats, weights, strict=True):
        parts = [
            detail * share[..., None]
            for detail, share in zip(_laplacian(picture, levels), _gaussian(weight, levels), strict=True)
        ]
        blended = parts if blended is None else [a + b for a, b in zip(blended, parts, strict=True)]
    assert blended is not None
    return _clip(_collapse(blended))


def frequency(pictures: Sequence[Pixels], scores: Sequence[float] | None = None) -> Pixels:
    """Composition and colour of the first picture (low frequencies), detail of the second (high frequencies).

    They part at a Gaussian of 1/32 of the shorter side.
    """
    if len(pictures) != 2:
        raise StepError(f"frequency: takes two pictures, low and high, not {len(pictures)}")
    low, high = (picture.astype(np.float32) for picture in _same_size(pictures))
    return _clip(_blur(low) + high - _blur(high))


FUSERS: dict[str, Callable[[Sequence[Pixels], Sequence[float] | None], Pixels]] = {
    "best_of": best_of,
    "average": average,
    "pyramid": pyramid,
    "frequency": frequency,
}


def fuse(method: str, pictures: Sequence[Pixels], scores: Sequence[float] | None = None) -> Pixels:
    """One picture of many by a method of `FUSERS`; `StepError` for an unknown method or no picture."""
    if method not in FUSERS:
        raise StepError(f"fuse: unknown method {method!r}{did_you_mean(method, FUSERS)}", "method")
    if not pictures:
        raise StepError(f"{method}: there is no picture to fuse")
    return FUSERS[method](pictures, scores)


def run_step(step: Step, inputs: Sequence[Value]) -> StepResult:
    """Run a step that needs no model (`upscale`, `select`, `blend`); pictures in order, scores wherever they stand."""
    started = time.perf_counter()
    pictures = [value.pixels for value in inputs if isinstance(value, Picture)]
    scores = [score for value in inputs if isinstance(value, Scores) for score in value.values]
    if step.kind == "upscale":
        if len(pictures) != 1:
            raise StepError(f"step {step.id!r}: upscale takes one picture, not {len(pictures)}")
        made = upscale(pictures[0], float(step.settings.get("factor") or 2.0))
    elif step.kind in ("select", "blend"):
        default = "best_of" if step.kind == "select" else "average"
        made = fuse(str(step.settings.get("method") or default), pictures, scores or None)
    else:
        raise StepError(f"step {step.id!r} of kind {step.kind!r} needs a model")
    facts: dict[str, Scalar] = {"device": "cpu"}
    if step.kind == "select" and scores:
        facts["chosen"] = int(np.argmax(scores))
    return StepResult(Picture(made), time.perf_counter() - started, facts)


def _same_size(pictures: Sequence[Pixels]) -> list[Pixels]:
    height, width = max((picture.shape[:2] for picture in pictures), key=lambda side: side[0] * side[1])
    return [resize(picture, width, height) for picture in pictures]


def _to_linear(pixels: Pixels) -> Floats:
    share = pixels.astype(np.float32) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _to_srgb(linear: Floats) -> Pixels:
    share = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)
    return _clip(share * 255)


def _clip(pixels: Floats) -> Pixels:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _contrast(picture: Floats) -> Floats:
    luma = picture @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
    return cv2.GaussianBlur(np.abs(cv2.Laplacian(luma, cv2.CV_32F)), (0, 0), 1.0)


def _blur(picture: Floats) -> Floats:
    return cv2.GaussianBlur(picture, (0, 0), max(1.0, min(picture.shape[:2]) / 32))


def _gaussian(picture: Floats, levels: int) -> list[Floats]:
    stack = [picture]
    for _ in range(levels):
        stack.append(cv2.pyrDown(stack[-1]))
    return stack


def _laplacian(picture: Floats, levels: int) -> list[Floats]:
    stack = _gaussian(picture, levels)
    details = [fine - cv2.pyrUp(coarse, dstsize=fine.shape[1::-1]) for fine, coarse in itertools.pairwise(stack)]
    return [*details, stack[-1]]


def _collapse(stack: list[Floats]) -> Floats:
    made = stack[-1]
    for detail in reversed(stack[:-1]):
        made = cv2.pyrUp(made, dstsize=detail.shape[1::-1]) + detail
    return made
