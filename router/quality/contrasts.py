"""What sets recipes apart on a prompt, shrunk by how far it can be believed.

A predictor's errors on two recipes are not those on their difference: what a prompt does to all recipes alike is
learned well, what it does to one of them alone is to a good part noise. A choice looks at differences only, and takes
the largest, so it would chase that noise (the winner's curse). Therefore a prediction is taken apart,

    mean(k) = level(k) + common + own(k)            common: the mean over recipes of what is above or below their levels

and each recipe's own part is multiplied by its reliability: the slope, 0 to 1, of what held-out prompts really had on
what had been predicted for them, drawn towards the slopes of all recipes as far as its own is uncertain (empirical
Bayes, Efron and Morris 1975, https://doi.org/10.1080/01621459.1975.10479864).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FEWEST = 20  # prompts rated on a recipe and on another one, below which its slope says nothing


@dataclass(frozen=True)
class Contrasts:
    """level (c,): the mean of each recipe;   slope (c,): reliability of its own part, 0 to 1.

    A predictor may have more columns, which were added later: they stand behind these, and are left as they are.
    """

    level: Array
    slope: Array

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Contrasts | None:
        """Those of an artefact; None if it has none. Raises `ValueError` if they are not for its columns."""
        if "contrasts" not in config:
            return None
        made = cls(*(np.asarray(config["contrasts"][key], np.float64) for key in ("level", "slope")))
        if made.level.shape != made.slope.shape or made.level.ndim != 1 or len(made.level) > len(config["columns"]):
            raise ValueError(f"the contrasts are not for {len(config['columns'])} columns")
        return made

    @property
    def config(self) -> dict[str, list[float]]:
        """The same for an artefact."""
        return {"level": self.level.round(6).tolist(), "slope": self.slope.round(4).tolist()}

    def shrunk(self, means: Array) -> Array:
        """Predicted means (..., c), their own parts multiplied by their reliability."""
        first = len(self.level)
        above = means[..., :first] - self.level
        common = above.mean(axis=-1, keepdims=True)
        shrunk = means.copy()
        shrunk[..., :first] = self.level + common + self.slope * (above - common)
        return np.minimum(np.maximum(shrunk, 0.0), 1.0)


def fit_contrasts(held_out: Array, scores: Array, weights: Array) -> Contrasts:
    """Held-out predictions, scores and their weights, each (n, c) with NaN where not rated."""
    level = np.nansum(scores * weights, axis=0) / np.maximum(weights.sum(axis=0), 1e-12)
    rated = ~np.isnan(scores) & ~np.isnan(held_out)
    several = rated.sum(axis=1) > 1
    told, found = (np.where(rated, x - level, np.nan)[several] for x in (held_out, scores))
    told = told - np.nanmean(told, axis=1, keepdims=True) if several.any() else told
    found = found - np.nanmean(found, axis=1, keepdims=True) if several.any() else found
    slopes, errors = np.ones(len(level)), np.full(len(level), np.inf)
    for k in range(len(level)):
        here = ~np.isnan(told[:, k])
        x, y, w = told[here, k], found[here, k], weights[several][here, k]
        mass = float((w * x * x).sum())
        if here.sum() < FEWEST or mass < 1e-9:
            continue
        slopes[k] = float((w * x * y).sum()) / mass
        errors[k] = float(np.sqrt(((w * x * (y - slopes[k] * x)) ** 2).sum())) / mass
    return Contrasts(level, np.clip(_drawn_together(slopes, errors), 0.0, 1.0))


def _drawn_together(slopes: Array, errors: Array) -> Array:
    """Each estimate moved towards the mean of all by the share of its variance that is its own error."""
    known = np.isfinite(errors)
    if known.sum() < 3:
        return slopes
    precision = 1 / np.maximum(errors[known], 1e-6) ** 2
    mean = float((precision * slopes[known]).sum() / precision.sum())
    between = max(0.0, float(slopes[known].var(ddof=1) - (errors[known] ** 2).mean()))
    drawn = np.full_like(slopes, mean)
    share = between / (between + errors[known] ** 2) if between > 0 else np.zeros(int(known.sum()))
    drawn[known] = mean + share * (slopes[known] - mean)
    return drawn
