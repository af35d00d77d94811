"""The columns of a ratings table as regression targets: those rated on (nearly) the same prompts are fitted together.

Within a block, scores are rotated to their principal directions: the first is what all recipes share (how hard the
prompt is), the others are what sets recipes apart, which is what routing lives on and what noise hides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ALIKE = 0.8  # of the prompts of either column are those of both, for the two to share a block


@dataclass(frozen=True)
class Block:
    """Columns (k,) and the `rows` (bool, n) on which any of them was rated: their scores, centred, along their
    `directions` (k, k) as targets (rows, k); weights (rows,), 1 on average. A cell that is missing within a block is
    taken to be as far from its column's mean as the row's other scores are from theirs."""

    columns: NDArray[np.int64]
    rows: NDArray[np.bool_]
    directions: Array
    targets: Array
    weights: Array


def blocks_of(scores: Array, weights: Array) -> tuple[Array, list[Block]]:
    """The mean (c,) of each column of scores (n, c; NaN = not rated), and all columns in blocks."""
    rated = ~np.isnan(scores)
    level = np.array([np.average(s[r], weights=w[r]) for s, r, w in zip(scores.T, rated.T, weights.T, strict=True)])
    members: list[list[int]] = []
    for column in range(scores.shape[1]):
        for block in members:
            here, there = rated[:, column], rated[:, block].any(axis=1)
            if (here & there).sum() >= ALIKE * (here | there).sum():
                block.append(column)
                break
        else:
            members.append([column])
    return level, [_block(scores, weights, level, np.array(block)) for block in members]


def _block(scores: Array, weights: Array, level: Array, columns: NDArray[np.int64]) -> Block:
    rows = np.asarray(np.isfinite(scores[:, columns]).any(axis=1), dtype=np.bool_)
    centred = scores[np.ix_(rows, columns)] - level[columns]
    missing = np.isnan(centred)
    centred = np.where(missing, np.nanmean(centred, axis=1)[:, None], centred)
    weight = weights[np.ix_(rows, columns)].sum(axis=1) / (~missing).sum(axis=1)
    weight = weight / weight.mean()
    _, directions = np.linalg.eigh((centred * weight[:, None]).T @ centred)
    return Block(columns, rows, directions, centred @ directions, weight)
