"""Prices of a second: the dial of every decision, and what its settings come to in quality and seconds.

A policy weighs quality against seconds in one way or another; whichever it is, some price of a second stands for it. So
a study looks at a whole range of prices, and at the curve of quality over seconds that they draw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SETTINGS = 9
LOW, HIGH = 0.01, 3.0  # quality that the whole range of seconds is worth, at both ends of the dial
GRID = 33  # costs at which two curves are compared


def prices_of(seconds: Array, settings: int = SETTINGS) -> Array:
    """Prices (settings,) in quality per second, from "hardly anything" to "only the cheapest", for recipes that take
    these seconds (recipes,). Recipes that all take the same leave nothing to weigh: the price is 0."""
    spread = float(seconds.max() - seconds.min())
    return np.geomspace(LOW, HIGH, settings) / spread if spread > 1e-9 else np.zeros(1)


def picks(quality: Array, seconds: Array, price: float) -> NDArray[np.int64]:
    """For each prompt the recipe (prompts,) of the highest quality (prompts, recipes) less its seconds at a price; of
    equals the cheapest."""
    worth = quality - price * seconds
    order = np.argsort(seconds, kind="stable")
    return np.asarray(order[worth[:, order].argmax(axis=1)])


def hull(seconds: Array, quality: Array) -> tuple[Array, Array]:
    """The corners of the upper concave hull of points, from the cheapest on, never falling: what lies between two of
    them is had by mixing them at random."""
    corners: list[tuple[float, float]] = []
    for x, y in sorted(zip(seconds.tolist(), quality.tolist(), strict=True)):
        if corners and y <= corners[-1][1]:
            continue
        while corners and (x <= corners[-1][0] or _bends_up(corners, x, y)):
            corners.pop()
        corners.append((x, y))
    return np.array([x for x, _ in corners]), np.array([y for _, y in corners])


def _bends_up(corners: list[tuple[float, float]], x: float, y: float) -> bool:
    if len(corners) < 2:
        return False
    (x0, y0), (x1, y1) = corners[-2:]
    return (y1 - y0) * (x - x0) <= (y - y0) * (x1 - x0)


def height(seconds: Array, quality: Array, at: Array) -> Array:
    """The hull of points at some costs; below the cheapest point, that point's quality."""
    return np.interp(at, *hull(seconds, quality))


def costs_between(low: float, high: float) -> Array:
    """Costs at which curves are compared."""
    return np.linspace(low, max(low, high), GRID)
