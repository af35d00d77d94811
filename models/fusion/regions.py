"""Each object from the picture that shows it best: segments of pictures, held against phrases, laid onto one canvas.

Segments are what stands out from a plain background: connected pixels that are far from the colour of the border. That
holds for drawings, products and portraits on a backdrop, not for landscapes or crowds; there, a picture has one segment
or none, and the best whole picture is kept. Every segment is scored alone: the others are painted over with background.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.fusion.blending import NEAR, distance_from_background, same_size
from models.fusion.colour import Pixels, clip
from router.errors import StepError

Mask = NDArray[np.bool_]

LEAST = 1 / 256  # of the picture; smaller segments are specks
GAIN = 0.15  # by which the weakest phrase of a mixture must beat that of the best single picture


@dataclass(frozen=True)
class Segment:
    """An object of a picture: which picture, and its pixels (height, width), at the size of all pictures."""

    picture: int
    mask: Mask


def segments(picture: Pixels, most: int) -> list[Mask]:
    """The largest `most` objects, from left to right."""
    far = distance_from_background(picture)
    level, _ = cv2.threshold(np.clip(far, 0, 255).astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    # Otsu parts bright objects from pale ones; half of it keeps the pale ones, and the floor keeps noise out.
    from scipy import ndimage  # not in every process that only decides

    labels, _ = ndimage.label(far > max(NEAR, 0.5 * level), np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    large = [index for index in np.argsort(-sizes)[:most] if sizes[index] >= LEAST * far.size]
    masks = [np.asarray(labels == index + 1) for index in large]
    return sorted(masks, key=lambda mask: float(np.flatnonzero(mask.any(axis=0)).mean()))


def isolated(picture: Pixels, mask: Mask, others: Sequence[Mask]) -> Pixels:
    """The picture with only one of its segments, so that a scorer sees a phrase's object and nothing else."""
    return without(picture, [other for other in others if other is not mask], keep=mask)


def without(picture: Pixels, masks: Sequence[Mask], keep: Mask | None = None) -> Pixels:
    """The picture with segments painted over from what surrounds them (Telea 2004)."""
    if not masks:
        return picture
    hole = _grown(np.any(masks, axis=0), _margin(picture))
    hole &= np.ones_like(hole) if keep is None else ~_grown(keep, 1)
    return np.asarray(cv2.inpaint(picture, hole.astype(np.uint8), _margin(picture), cv2.INPAINT_TELEA))


def looks(pictures: Sequence[Pixels], most: int) -> Iterator[tuple[Segment, Pixels]]:
    """Every segment of every picture with the picture in which it stands alone, in the order that scores come in."""
    for index, picture in enumerate(same_size(pictures)):
        found = segments(picture, most)
        for mask in found:
            yield Segment(index, mask), isolated(picture, mask, found)


def compose(pictures: Sequence[Pixels], scores: Sequence[Sequence[float]], most: int) -> tuple[Pixels, tuple[int, ...]]:
    """The picture of the best segments, and from which picture the object of each phrase comes.

    scores: for every phrase, one score for each segment of `looks`. `StepError` if their numbers do not agree. One of
    the pictures is returned as it is where mixing would not make the weakest phrase better by `GAIN`.
    """
    same = same_size(pictures)
    found = [segment for segment, _ in looks(same, most)]
    if any(len(row) != len(found) for row in scores):
        raise StepError(f"regions: {len(found)} segments need as many scores for each phrase")
    picks = list(_arrangements(found, scores))
    if not picks:
        return same[0], (0,) * len(scores)
    quality = [_quality(pick, scores) for pick in picks]
    sources = [tuple(found[index].picture for index in pick) for pick in picks]
    best = max(range(len(picks)), key=lambda k: quality[k])
    single = max((k for k in range(len(picks)) if len(set(sources[k])) == 1), key=lambda k: quality[k], default=None)
    if single is not None and quality[single][0] + GAIN > quality[best][0]:
        return same[sources[single][0]], sources[single]
    return _lay(same, [found[index] for index in picks[best]], found), sources[best]


def _arrangements(found: Sequence[Segment], scores: Sequence[Sequence[float]]) -> Iterator[tuple[int, ...]]:
    """One segment for each phrase, none twice, none in the place of another."""
    if not scores:
        return
    # The four best of each phrase: what is worse never wins, and three phrases are 64 arrangements.
    best = [np.argsort(-np.asarray(row), kind="stable")[:4].tolist() for row in scores]
    grown = {index: _grown(found[index].mask, 2) for row in best for index in row}
    clash = {
        (a, b) for a, b in itertools.combinations(sorted(grown), 2)
        if found[a].picture != found[b].picture and (grown[a] & grown[b]).any()
    }  # fmt: skip
    for pick in itertools.product(*best):
        pairs = itertools.combinations(sorted(pick), 2)
        if len(set(pick)) == len(pick) and not any(pair in clash for pair in pairs):
            yield pick


def _quality(pick: Sequence[int], scores: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The weakest phrase, then the mean: a picture is as right as its worst object."""
    values = [row[index] for row, index in zip(scores, pick, strict=True)]
    return min(values), float(np.mean(values))


def _lay(pictures: Sequence[Pixels], chosen: Sequence[Segment], found: Sequence[Segment]) -> Pixels:
    """The picture that gives most objects, cleared of what was not chosen, with the objects of the others laid on."""
    givers = [segment.picture for segment in chosen]
    ground = max(sorted(set(givers)), key=givers.count)
    kept = {id(segment.mask) for segment in chosen}
    spare = [segment.mask for segment in found if segment.picture == ground and id(segment.mask) not in kept]
    canvas = without(pictures[ground], spare)
    for segment in chosen:
        if segment.picture != ground:
            others = [other.mask for other in found if other.picture == segment.picture]
            canvas = paste(canvas, isolated(pictures[segment.picture], segment.mask, others), segment.mask)
    return canvas


def paste(ground: Pixels, picture: Pixels, mask: Mask) -> Pixels:
    """An object with a rim of its surroundings, laid onto another picture of the same size without a seam.

    The rim is shifted to the ground's colour first, so that unlike backgrounds meet unseen and the object keeps its own
    colour; Poisson cloning would shift the object as well.
    """
    rim = _grown(mask, _margin(picture)) & ~_grown(mask, 1)
    shifted = picture.astype(np.float32)
    if rim.any():
        shift = (ground[rim].astype(np.float32) - picture[rim]).mean(axis=0)
        # Half of an edge pixel is background, so it takes half of the shift.
        shifted += shift * cv2.GaussianBlur((~mask).astype(np.float32), (0, 0), 0.7)[..., None]
    weight = cv2.GaussianBlur(_grown(mask, _margin(picture) // 2 + 1).astype(np.float32), (0, 0), 0.8)[..., None]
    return clip(ground * (1 - weight) + shifted * weight)


def _margin(picture: Pixels) -> int:
    return max(3, round(min(picture.shape[:2]) / 24))


def _grown(mask: Mask, by: int) -> Mask:
    from scipy import ndimage  # not in every process that only decides

    return np.asarray(ndimage.binary_dilation(mask, iterations=by))
