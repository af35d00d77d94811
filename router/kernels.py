"""The regression under the predictor: kernel ridge with a linear and an RBF part, one set of coefficients per column.

    k(x, z) = linear x.z + (1 - linear) exp(-gamma |x - z|^2)        x = [embedding, scaled features]

At serve time the linear part collapses to one vector per column; the RBF part keeps the training prompts as support.
Everything is numpy, with a closed form: no solver state, no code in the artefact.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CLIP = 3.0  # standard deviations; a prompt of 4,000 characters must not leave the range that training saw


@dataclass(frozen=True)
class Scaler:
    """Features (log1p) to zero mean and unit variance, clipped, and weighted as a block against the embedding."""

    mean: Array
    std: Array
    weight: float

    @classmethod
    def fit(cls, features: Array, weight: float) -> Scaler:
        logs = np.log1p(features)
        return cls(logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-3), weight)

    def join(self, embeddings: Array, features: Array) -> Array:
        """(n, d) and (n, f) to inputs (n, d + f)."""
        scaled = np.clip((np.log1p(features) - self.mean) / self.std, -CLIP, CLIP)
        return np.concatenate([embeddings, scaled * (self.weight / np.sqrt(max(1, features.shape[1])))], axis=1)


def feature_rows(features: Sequence[Mapping[str, float]], names: Sequence[str]) -> Array:
    """Feature mappings as rows (n, len(names)), in the order of `names`."""
    return np.array([[row[name] for name in names] for row in features], dtype=np.float64).reshape(-1, len(names))


def rbf(left: Array, right: Array, gamma: float, right_lengths: Array | None = None) -> Array:
    """exp(-gamma |x - z|^2), shape (len(left), len(right)); `right_lengths` are the squared lengths, if known."""
    lengths = (right**2).sum(axis=1) if right_lengths is None else right_lengths
    square = (left**2).sum(axis=1)[:, None] + lengths[None] - 2 * left @ right.T
    return np.exp(-gamma * np.maximum(square, 0.0))


@dataclass(frozen=True)
class KernelRidge:
    """support (s, d), dual (s, c): the RBF part; slope (d, c), level (c,): the linear part."""

    support: Array
    dual: Array
    slope: Array
    level: Array
    gamma: float

    @functools.cached_property
    def _lengths(self) -> Array:
        return (self.support**2).sum(axis=1)

    def predict(self, inputs: Array) -> Array:
        """Raw predictions (n, c) of inputs (n, d)."""
        linear = self.level + inputs @ self.slope
        if not len(self.support):
            return linear
        return linear + rbf(inputs, self.support, self.gamma, self._lengths) @ self.dual


def fit_kernel_ridge(
    inputs: Array, scores: Array, weights: Array, linear: float, gamma: float, ridge: float
) -> KernelRidge:
    """Fit all columns of `scores` (n, c; NaN = not rated) with `weights` (n, c), a linear share and a ridge penalty."""
    gram = linear * inputs @ inputs.T + (1 - linear) * rbf(inputs, inputs, gamma)
    dual = np.zeros_like(scores)
    rated = ~np.isnan(scores)
    level = np.array([np.average(s[r], weights=w[r]) for s, r, w in zip(scores.T, rated.T, weights.T, strict=True)])
    # Columns that share their rated prompts and weights share one factorisation.
    patterns: dict[bytes, list[int]] = {}
    for column in range(scores.shape[1]):
        patterns.setdefault(rated[:, column].tobytes() + weights[:, column].tobytes(), []).append(column)
    for members in patterns.values():
        columns = np.array(members)
        rows = np.flatnonzero(rated[:, columns[0]])
        noise = ridge / np.maximum(weights[rows, columns[0]], 1e-9)
        left = gram[np.ix_(rows, rows)] + np.diag(noise)
        right = scores[np.ix_(rows, columns)] - level[columns]
        dual[np.ix_(rows, columns)] = np.linalg.solve(left, right)
    support, kept = (inputs, dual * (1 - linear)) if linear < 1 else (inputs[:0], dual[:0])
    return KernelRidge(support, kept, linear * inputs.T @ dual, level, gamma)
