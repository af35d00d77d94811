"""Prompts as rows of numbers: features in a fixed order, brought to a common scale, beside the embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

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

    def join(self, embeddings: NDArray[np.floating], features: Array) -> Array:
        """(n, d) and (n, f) to inputs (n, d + f)."""
        scaled = np.minimum(np.maximum((np.log1p(features) - self.mean) / self.std, -CLIP), CLIP)
        return np.concatenate([embeddings, scaled * (self.weight / np.sqrt(max(1, features.shape[1])))], axis=1)


def feature_rows(features: Sequence[Mapping[str, float]], names: Sequence[str]) -> Array:
    """Feature mappings as rows (n, len(names)), in the order of `names`."""
    return np.array(list(map(itemgetter(*names), features)), dtype=np.float64).reshape(-1, len(names))
