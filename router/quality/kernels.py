"""The regression under the predictor: kernel ridge on landmarks, its columns fitted along their common directions.

    k(x, z) = exp(-gamma |x - z|^2)                                   x = [embedding, scaled features]

Columns that were rated on the same prompts are rotated to the principal directions of their scores, and each direction
gets the penalty with which it predicts left-out groups best: what all recipes find hard is learned with a light hand on
the penalty, what sets them apart with a heavy one (an intrinsic coregionalisation model, https://arxiv.org/abs/1106.6251).
With more prompts than `MAX_LANDMARKS`, a random subset spans the solution (Nyström). Closed forms in numpy throughout.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.quality.blocks import Block

Array = NDArray[np.float64]
MAX_LANDMARKS = 3_000  # time grows with their cube, memory with their square
JITTER = 1e-6
PENALTIES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def rbf(
    left: NDArray[np.floating],
    right: NDArray[np.floating],
    gamma: float,
    right_lengths: NDArray[np.floating] | None = None,
) -> NDArray[np.floating]:
    """exp(-gamma |x - z|^2), shape (len(left), len(right)); `right_lengths` are the squared lengths, if known."""
    lengths = (right**2).sum(axis=1) if right_lengths is None else right_lengths
    square = (left**2).sum(axis=1)[:, None] + lengths[None] - 2 * left @ right.T
    return np.exp(-gamma * np.maximum(square, 0.0))


@dataclass(frozen=True)
class KernelRidge:
    """support (s, d): the landmarks; dual (s, c): their coefficients; level (c,): the mean of each column.

    Distances are taken in the precision of `support`: fp32 when served, as an artefact holds it, fp64 when fitted.
    """

    support: NDArray[np.floating]
    dual: Array
    level: Array
    gamma: float

    @functools.cached_property
    def _lengths(self) -> NDArray[np.floating]:
        return np.asarray((self.support**2).sum(axis=1))

    def predict(self, inputs: Array) -> Array:
        """Raw predictions (n, c) of inputs (n, d)."""
        near = rbf(inputs.astype(self.support.dtype), self.support, self.gamma, self._lengths)
        return np.asarray(self.level + near @ self.dual, np.float64)


def fit_kernel_ridge(
    inputs: Array,
    blocks: Sequence[Block],
    level: Array,
    groups: Sequence[str],
    gamma: float,
    landmarks: NDArray[np.int64],
    firmness: float = 1.0,
) -> tuple[KernelRidge, list[Array]]:
    """Fit the columns of all `blocks` on inputs (n, d), spanned by the rows `landmarks`.

    Groups (n,) are left out as a whole to choose the penalties, which are returned for each block, one a direction;
    they are applied `firmness` times as heavy.
    """
    support = inputs[landmarks]
    # With K = L L' on the landmarks, ridge on phi = k(x, landmarks) L'^-1 is kernel ridge in their span.
    root = np.linalg.cholesky(rbf(support, support, gamma) + JITTER * np.eye(len(support)))
    whitening = np.linalg.inv(root).T
    phi = np.asarray(rbf(inputs, support, gamma) @ whitening, np.float64)
    dual = np.zeros((len(support), len(level)))
    penalties = []
    for block in blocks:
        kept = [group for group, rated in zip(groups, block.rows, strict=True) if rated]
        slope, penalty = fit_ridge(phi[block.rows], block.targets, block.weights, kept, firmness)
        dual[:, block.columns] = whitening @ slope @ block.directions.T
        penalties.append(penalty)
    return KernelRidge(support, dual, level, gamma), penalties


def fit_ridge(
    inputs: Array, targets: Array, weights: Array, groups: Sequence[str], firmness: float = 1.0
) -> tuple[Array, Array]:
    """Coefficients (d, k) of targets (n, k) on inputs (n, d), each target with `firmness` times the penalty (k,) of the
    least weighted error on left-out groups (n,). The left-out error is exact: one eigendecomposition, no refitting."""
    root = np.sqrt(weights)[:, None]
    values, vectors = np.linalg.eigh((inputs * weights[:, None]).T @ inputs)
    values = np.maximum(values, 0.0)
    scores, aims = root * (inputs @ vectors), root * targets
    pulled = scores.T @ aims
    several = _members(groups)
    leverages = scores**2 @ (1.0 / (values[:, None] + np.array(PENALTIES)))
    errors = np.empty((len(PENALTIES), targets.shape[1]))
    for row, penalty in enumerate(PENALTIES):
        shrunk = 1.0 / (values + penalty)
        residuals = aims - scores @ (shrunk[:, None] * pulled)
        left_out = residuals / (1.0 - np.minimum(leverages[:, row], 1 - 1e-9))[:, None]
        for rows in several:
            hat = (scores[rows] * shrunk) @ scores[rows].T
            left_out[rows] = np.linalg.solve(np.eye(len(rows)) * (1 + 1e-9) - hat, residuals[rows])
        errors[row] = (left_out**2).mean(axis=0)
    chosen = firmness * np.array(PENALTIES)[errors.argmin(axis=0)]
    return vectors @ (pulled / (values[:, None] + chosen)), chosen


def _members(groups: Sequence[str]) -> list[NDArray[np.int64]]:
    """Row numbers of each group that has more than one."""
    rows: dict[str, list[int]] = {}
    for k, group in enumerate(groups):
        rows.setdefault(group, []).append(k)
    return [np.array(members) for members in rows.values() if len(members) > 1]


def choose_landmarks(groups: Sequence[str], seed: int, most: int = MAX_LANDMARKS) -> NDArray[np.int64]:
    """Rows that span the solution: all, or a random `most` of them, one of each group before any second."""
    if len(groups) <= most:
        return np.arange(len(groups))
    order = np.random.default_rng(seed).permutation(len(groups))
    first = {groups[k]: k for k in order[::-1]}  # the last one written is the first in the order
    leading = np.isin(order, list(first.values()))
    return np.sort(np.concatenate([order[leading], order[~leading]])[:most])
