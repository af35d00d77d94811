"""From a raw prediction to a calibrated mean and standard deviation. Applying needs numpy only; fitting, scikit-learn.

Mean: a monotone, piecewise linear curve (isotonic or linear, whichever predicts held-out folds better) in 0..1.
Std: sigma^2 = spread * mean (1 - mean) + floor, scaled so that mean +- 1.645 std covered 90 % of held-out scores
(split conformal scaling of a heteroscedastic scale, as in https://arxiv.org/abs/1604.04173).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
COVERAGE = 0.90
Z = 1.6449  # standard normal quantile of a central 90 % interval
MIN_STD = 0.01
MAX_KNOTS = 48
TAIL = 10
"""Predictions at either end that the isotonic curve takes together, a tenth of all at most: else a single score of zero
at the end would be a certainty."""


@dataclass(frozen=True)
class Calibration:
    """knots: shape (k, 2), raw prediction -> mean, both ascending; spread, floor: of the variance, see above."""

    knots: Array
    spread: float
    floor: float

    def mean(self, raw: Array | np.float64) -> Array:
        """Calibrated mean in 0..1 of raw predictions of any shape."""
        return np.minimum(np.maximum(np.interp(raw, self.knots[:, 0], self.knots[:, 1]), 0.0), 1.0)

    def std(self, mean: Array | np.float64) -> Array:
        """Standard deviation of one score around its calibrated mean."""
        return np.sqrt(np.maximum(self.spread * mean * (1 - mean) + self.floor, MIN_STD**2))

    def widened(self, factor: float) -> Calibration:
        """The same means with deviations `factor` times as large."""
        return replace(self, spread=self.spread * factor**2, floor=self.floor * factor**2)


@dataclass(frozen=True)
class HeldOut:
    """Means and standard deviations (n,) from calibrations that were fitted without the own fold: for reports."""

    mean: Array
    std: Array


def fit_calibration(raw: Array, score: Array, weight: Array, folds: NDArray[np.int64]) -> tuple[Calibration, HeldOut]:
    """Calibrate held-out predictions `raw` (n,) against `score` (n,); equal `folds` (n,) were held out together."""
    crossed = {kind: np.empty_like(raw) for kind in CURVES}
    for fold in np.unique(folds):
        out = folds == fold
        for kind, curve in CURVES.items():
            knots = curve(raw[~out], score[~out], weight[~out])
            crossed[kind][out] = np.clip(np.interp(raw[out], knots[:, 0], knots[:, 1]), 0, 1)
    errors = {kind: float(np.average((score - means) ** 2, weights=weight)) for kind, means in crossed.items()}
    kind = min(errors, key=errors.__getitem__)
    mean, std = crossed[kind], np.empty_like(raw)
    knots = CURVES[kind](raw, score, weight)
    for fold in np.unique(folds):
        out = folds == fold
        others = Calibration(knots, *_fit_variance(mean[~out], score[~out], weight[~out]))
        std[out] = others.std(mean[out])
    return Calibration(knots, *_fit_variance(mean, score, weight)), HeldOut(mean, std)


def linear_curve(raw: Array, score: Array, weight: Array) -> Array:
    """Least squares, never falling; knots (2, 2) at the ends of the data."""
    low, high = float(raw.min()), float(raw.max())
    if high - low < 1e-9:
        mean = float(np.average(score, weights=weight))
        return np.array([[low, mean], [low + 1e-6, mean]])
    centre, level = np.average(raw, weights=weight), np.average(score, weights=weight)
    slope = np.average((raw - centre) * (score - level), weights=weight) / np.average(
        (raw - centre) ** 2, weights=weight
    )
    ends = np.array([low, high])
    return np.stack([ends, level + max(0.0, float(slope)) * (ends - centre)], axis=1)


def isotonic_curve(raw: Array, score: Array, weight: Array) -> Array:
    """Isotonic regression, thinned to at most `MAX_KNOTS` knots; each end is the mean of `TAIL` predictions or more."""
    from sklearn.isotonic import IsotonicRegression

    end = max(1, min(TAIL, len(raw) // TAIL))
    low, high = np.sort(raw)[[end - 1, -end]]
    fit = IsotonicRegression(out_of_bounds="clip").fit(np.clip(raw, low, high), score, sample_weight=weight)
    knots = np.stack([fit.X_thresholds_, fit.y_thresholds_], axis=1)
    if len(knots) > MAX_KNOTS:
        knots = knots[np.unique(np.linspace(0, len(knots) - 1, MAX_KNOTS).round().astype(int))]
    return knots.astype(np.float64)


CURVES = {"linear": linear_curve, "isotonic": isotonic_curve}


def with_deviation_of(calibration: Calibration, mean: Array, score: Array, weight: Array) -> Calibration:
    """The same curve of the mean, with the deviation of scores (n,) around these means (n,)."""
    spread, floor = _fit_variance(mean, score, weight)
    return replace(calibration, spread=spread, floor=floor)


def _fit_variance(mean: Array, score: Array, weight: Array) -> tuple[float, float]:
    """Non-negative least squares of squared residuals on [mean (1 - mean), 1], then the conformal scale."""
    from scipy.optimize import nnls

    shape = np.stack([mean * (1 - mean), np.ones_like(mean)], axis=1)
    root = np.sqrt(weight)[:, None]
    (spread, floor), _ = nnls(shape * root, (score - mean) ** 2 * root[:, 0])
    floor = max(float(floor), 0.05 * float(np.average((score - mean) ** 2, weights=weight)), MIN_STD**2)
    ratio = np.abs(score - mean) / np.sqrt(spread * shape[:, 0] + floor)
    rank = min(1.0, COVERAGE * (1 + 1 / len(ratio)))  # the finite-sample correction of split conformal
    scale = (float(np.quantile(ratio, rank)) / Z) ** 2
    return float(spread * scale), float(max(floor * scale, MIN_STD**2))
