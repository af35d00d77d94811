"""Overlapping tiles of a picture larger than a model's native size, worked on one by one and blended without seams.

Every tile starts from its part of one field of noise, so that neighbours paint the same thing where they overlap, and
a feathered window fades one into the other. The idea of common windows: https://arxiv.org/abs/2302.08113.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.call import Tiling
from models.fusion.colour import to_linear, to_srgb


@dataclass(frozen=True)
class Box:
    """A tile's place: left, top, width and height in pixels (or in cells, after `scaled`)."""

    left: int
    top: int
    width: int
    height: int

    def of(self, array: NDArray) -> NDArray:
        """This part of an array (height, width, ...)."""
        return array[self.top : self.top + self.height, self.left : self.left + self.width]

    def scaled(self, cell: int) -> Box:
        """The same place in cells of `cell` pixels; exact, since tiles begin at whole cells."""
        return Box(self.left // cell, self.top // cell, self.width // cell, self.height // cell)


def boxes(width: int, height: int, tiling: Tiling, multiple: int) -> list[Box]:
    """The tiles of a picture, row by row, evenly spread and beginning at multiples of `multiple` pixels."""
    across, down = min(tiling.width, width), min(tiling.height, height)
    columns = _starts(width, across, tiling.overlap, multiple)
    rows = _starts(height, down, tiling.overlap, multiple)
    return [Box(left, top, across, down) for top, left in itertools.product(rows, columns)]


def _starts(side: int, tile: int, overlap: int, multiple: int) -> list[int]:
    if side <= tile:
        return [0]
    count = math.ceil((side - overlap) / (tile - overlap))
    last = side - tile
    return [*(round(index * last / (count - 1) / multiple) * multiple for index in range(count - 1)), last]


def windows(places: Sequence[Box], width: int, height: int) -> list[NDArray[np.float32]]:
    """The weight of every tile, float32 (its height, its width); the weights of all tiles add up to 1 everywhere.

    A tile counts fully in its middle and fades along a cosine towards the neighbours with which it overlaps.
    """
    raw = [
        np.outer(
            _fade(box.top, box.height, {other.top for other in places}),
            _fade(box.left, box.width, {other.left for other in places}),
        )
        for box in places
    ]
    total = np.zeros((height, width), np.float32)
    for box, weight in zip(places, raw, strict=True):
        box.of(total)[...] += weight
    return [weight / box.of(total) for box, weight in zip(places, raw, strict=True)]


def _fade(start: int, length: int, starts: set[int]) -> NDArray[np.float32]:
    """Weights along one side of a tile, above 0: a cosine over what is shared with the tile before and after."""
    place: NDArray[np.float32] = (np.arange(length) + 0.5).astype(np.float32)
    weight = np.ones(length, np.float32)
    before = max((other for other in starts if other < start), default=None)
    after = min((other for other in starts if other > start), default=None)
    if before is not None and (shared := before + length - start) > 0:
        weight *= _cosine(place, shared)
    if after is not None and (shared := start + length - after) > 0:
        weight *= _cosine(length - place, shared)
    return weight


def _cosine(place: NDArray[np.float32], shared: int) -> NDArray[np.float32]:
    return (0.5 - 0.5 * np.cos(np.pi * np.clip(place / shared, 0, 1))).astype(np.float32) + np.float32(1e-6)


def blend(parts: Sequence[NDArray[np.uint8]], places: Sequence[Box], width: int, height: int) -> NDArray[np.uint8]:
    """The picture (height, width, 3) of its worked-on tiles, mixed in linear light."""
    made = np.zeros((height, width, 3), np.float32)
    for part, box, weight in zip(parts, places, windows(places, width, height), strict=True):
        box.of(made)[...] += weight[..., None] * to_linear(part)
    return to_srgb(made)
