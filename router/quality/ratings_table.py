"""Ratings as a matrix: prompts by recipes, and the scale that they were given on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Scale:
    """The range of the scores. Inside Triptych, quality runs from 0 to 1; people see the scale that they rated on."""

    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, scores: Sequence[float]) -> Scale:
        """0..1 if all scores are in it, otherwise from the least to the greatest."""
        low, high = min(scores), max(scores)
        return cls() if low >= 0 and high <= 1 else cls(low, high if high > low else low + 1.0)

    def unit(self, score: float) -> float:
        """A score as quality."""
        return (score - self.low) / (self.high - self.low)

    def score(self, unit: float) -> float:
        """A quality as score."""
        return self.low + unit * (self.high - self.low)


@dataclass(frozen=True)
class RatingsTable:
    """prompts (n,), groups (n,) and columns (c,); scores and weights (n, c), NaN and 0 where not rated. The scores are
    on 0..1; `scale` leads back to those that were given."""

    prompts: tuple[str, ...]
    groups: tuple[str, ...]
    columns: tuple[str, ...]
    scores: NDArray[np.float64] = field(repr=False)
    weights: NDArray[np.float64] = field(repr=False)
    scale: Scale = Scale()

    def only(self, rows: NDArray[np.bool_]) -> RatingsTable:
        """The table of some of its prompts."""
        kept = np.flatnonzero(rows)
        prompts, groups = tuple(self.prompts[k] for k in kept), tuple(self.groups[k] for k in kept)
        return RatingsTable(prompts, groups, self.columns, self.scores[kept], self.weights[kept], self.scale)

    def mixed(self, names: Sequence[str], shares: NDArray[np.float64]) -> RatingsTable:
        """Other columns, the means of these with `shares` (c, len(names)). A cell is rated where all of its parts are,
        and weighs what they weigh on average."""
        missing = np.isnan(self.scores).astype(float) @ (shares != 0) > 0
        scores = np.where(missing, np.nan, np.nan_to_num(self.scores) @ shares)
        weights = np.where(missing, 0.0, self.weights @ shares)
        return RatingsTable(self.prompts, self.groups, tuple(names), scores, weights, self.scale)
