"""What feedback adds to a trained predictor: a residual on top of its columns, which themselves stay as they are.

    mean(x, c) = calibrated mean of column c + r(x, c)

r is the posterior mean of a Gaussian process over prompts and columns with the covariance

    (1 + k(x, z)) (1 + [c = d]) / 4           k: the kernel of the predictor's own regression

so that a rating moves first the level of all columns, then that of its own, then both for prompts like this one (an
intrinsic coregionalisation model, https://arxiv.org/abs/1106.6251). How far it moves them is chosen on left-out groups
of prompts. With no feedback r is 0, with much of it the ratings prevail. Closed form in numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.quality.kernels import JITTER, fit_ridge, rbf

Array = NDArray[np.float64]
MAX_RATED = 2_000  # the newest; time grows with their cube
WIDEN = (0.7, 2.0)  # bounds of the factor on deviations


@dataclass(frozen=True)
class Adapter:
    """support (s, d): inputs that were rated;   dual (s, c): their coefficients;   level (c,): shift of whole columns
    widen: factor on the columns' deviations, from the residuals of left-out ratings;   base: digest of what it is for
    """

    support: Array = field(repr=False)
    dual: Array = field(repr=False)
    level: Array
    gamma: float
    widen: float = 1.0
    base: str = ""

    def shift(self, inputs: Array) -> Array:
        """What is added to the calibrated means (n, c) of inputs (n, d)."""
        return self.level + rbf(inputs, self.support, self.gamma) @ self.dual

    @property
    def config(self) -> dict[str, Any]:
        """What goes into an artefact's configuration, under `feedback`."""
        return {"base": self.base, "widen": self.widen, "ratings": len(self.support)}

    @property
    def weights(self) -> dict[str, NDArray[Any]]:
        """The numbers for an artefact."""
        parts = {"feedback_support": self.support, "feedback_dual": self.dual, "feedback_level": self.level}
        return {name: np.asarray(array, np.float32) for name, array in parts.items()}

    @classmethod
    def of(cls, config: Mapping[str, Any], weights: Mapping[str, NDArray[Any]]) -> Adapter | None:
        """The adapter within an artefact, if there is one. Raises `KeyError` or `ValueError` if it is misshapen."""
        if "feedback" not in config:
            return None
        found, columns = config["feedback"], len(config["columns"])
        names = ("feedback_support", "feedback_dual", "feedback_level")
        support, dual, level = (np.asarray(weights[name], np.float64) for name in names)
        width = weights["support"].shape[1]
        if support.shape[1:] != (width,) or dual.shape != (len(support), columns) or level.shape != (columns,):
            raise ValueError(f"the feedback part is not for {columns} columns and inputs of {width}")
        return cls(support, dual, level, float(config["gamma"]), float(found["widen"]), str(found["base"]))


def fit_adapter(
    inputs: Array,
    columns: NDArray[np.int64],
    residuals: Array,
    deviations: Array,
    groups: Sequence[str],
    width: int,
    gamma: float,
    base: str = "",
) -> Adapter:
    """Fit to n ratings, oldest first: inputs (n, d), the column (n,) that each is about, what is left (n,) of the
    rating after the base's calibrated mean, and the base's deviation (n,).

    Columns from `width` on are recipes that the base has no column for: they inform what all columns share.
    """
    rows = slice(-MAX_RATED, None)
    inputs, columns, residuals, deviations = inputs[rows], columns[rows], residuals[rows], deviations[rows]
    alike = (1.0 + (columns[:, None] == columns[None])) / 2
    covariance = (1.0 + rbf(inputs, inputs, gamma)) / 2 * alike + JITTER * np.eye(len(inputs))
    root = np.linalg.cholesky(covariance)
    slope, penalty = fit_ridge(root, residuals[:, None], np.ones(len(inputs)), list(groups[rows]))
    alpha = np.linalg.solve(root.T, slope[:, 0])
    # alpha[i] / inverse[i, i] is the residual of rating i when it is left out.
    inverse = np.linalg.inv(covariance + float(penalty[0]) * np.eye(len(inputs)))
    left_out = (inverse @ residuals) / np.diag(inverse)
    widen = float(np.clip(np.sqrt((left_out**2).mean() / (deviations**2).mean()), *WIDEN))
    own = (1.0 + (columns[:, None] == np.arange(width)[None])) / 4  # (n, width)
    dual = alpha[:, None] * own
    return Adapter(inputs, dual, dual.sum(axis=0), gamma, widen, base)
