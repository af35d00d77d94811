"""What a judge's score is worth, from a few labels by a person: fitted, and asked for where they teach most.

    log-odds of "right" = slope * logit(score) + level + level of the recipe          label = right, but for slips

A judge errs otherwise on one recipe than on another, so each has a level of its own, drawn towards 0 as far as its
labels do not say otherwise. A person errs, too: how often (`slip`) is told by pairs that were shown twice. The fit is
the posterior mode with normal priors, and its covariance the usual one at the mode (Laplace's approximation). The next
pictures to label are those that are expected to lower the variance of all pictures' probabilities most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.verification.score_reading import ScoreModel, expit, logit

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
PRIOR = (1.0, 0.0), (1.0, 1.5)  # means and deviations of slope and level
OWN = 0.7  # deviation of the recipes' own levels
SLIPS = (1.0, 24.0)  # of answers: so many slips in so many are believed before any pair was shown twice
QUANTILES = 16
BINS = 10


@dataclass(frozen=True)
class Calibrated:
    """slip: how often a label is wrong;   weights (2 + recipes,): slope, level, the recipes' own;   covariance: theirs;
    recipes: keys, in the order of the weights"""

    recipes: tuple[str, ...]
    slip: float
    weights: Array
    covariance: Array = field(repr=False)

    def probability(self, scores: Array, recipes: Sequence[str]) -> Array:
        """That each picture is right, (n,); of a recipe without a label, by the level of all."""
        return np.asarray(expit(self._inputs(scores, recipes) @ self.weights), np.float64)

    def deviation(self, scores: Array, recipes: Sequence[str]) -> Array:
        """How far these probabilities are known, (n,)."""
        inputs = self._inputs(scores, recipes)
        odds = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", inputs, self.covariance, inputs), 0.0))
        p = np.asarray(expit(inputs @ self.weights))
        return p * (1 - p) * odds

    def score_model(self, scores: Array, recipes: Sequence[str]) -> ScoreModel:
        """The same for verification, which weighs a score before it knows the recipe's level: the scores' distribution
        among right and wrong pictures is that of all pictures, each counting as its probability says."""
        p, evidence = self.probability(scores, recipes), np.asarray(logit(scores))
        level = float(self.weights[1] + np.average(self._inputs(scores, recipes)[:, 2:] @ self.weights[2:]))
        slope = float(self.weights[0])
        return ScoreModel(slope, 0.0, level, _quantiles(evidence, p), _quantiles(evidence, 1 - p))

    def worth(self, scores: Array, recipes: Sequence[str]) -> Array:
        """By how much a label of each picture (n,) is expected to lower the mean variance of all probabilities."""
        inputs = self._inputs(scores, recipes)
        p = np.asarray(expit(inputs @ self.weights))
        seen = self.slip + (1 - 2 * self.slip) * p
        told = ((1 - 2 * self.slip) * p * (1 - p)) ** 2 / (
            seen * (1 - seen)
        )  # Fisher information of a label's log-odds
        spread = inputs @ self.covariance
        weigh = (p * (1 - p)) ** 2
        middle = (inputs * weigh[:, None]).T @ inputs / len(p)
        lowered = np.einsum("ij,jk,ik->i", spread, middle, spread)
        own = np.einsum("ij,ij->i", spread, inputs)
        return np.asarray(told * lowered / (1 + told * own))

    def _inputs(self, scores: Array, recipes: Sequence[str]) -> Array:
        return inputs_of(scores, recipes, self.recipes)


def inputs_of(scores: Array, recipes: Sequence[str], known: Sequence[str]) -> Array:
    """(n, 2 + len(known)): log-odds of the score, 1, and which recipe it is."""
    place = {key: k for k, key in enumerate(known)}
    rows = np.zeros((len(scores), 2 + len(known)))
    rows[:, 0], rows[:, 1] = np.asarray(logit(np.asarray(scores, np.float64))), 1.0
    for row, key in enumerate(recipes):
        if key in place:
            rows[row, 2 + place[key]] = 1.0
    return rows


def slip_of(twice: Sequence[tuple[bool, bool]]) -> float:
    """How often a single answer is wrong, from answers that were given twice: two differ 2 s (1 - s) of the time."""
    differ = sum(first != again for first, again in twice)
    share = (2 * SLIPS[0] + differ) / (SLIPS[1] + len(twice))
    return float((1 - np.sqrt(max(0.0, 1 - 2 * min(0.5, share)))) / 2)


def calibrate(
    scores: Array, recipes: Sequence[str], right: NDArray[np.bool_], every: Sequence[str], slip: float
) -> Calibrated:
    """From labelled pictures (n,), of which there may be none. every: keys of all recipes;   slip: see `slip_of`"""
    from scipy.optimize import minimize

    known = tuple(every)
    inputs = inputs_of(scores, recipes, known)
    centre = np.concatenate([PRIOR[0], np.zeros(len(known))])
    firm = 1 / np.concatenate([np.square(PRIOR[1]), np.full(len(known), OWN**2)])
    sign = np.where(right, 1.0, -1.0)

    def loss(w: Array) -> tuple[float, Array]:
        p = np.asarray(expit(inputs @ w))
        seen = np.clip(np.where(right, slip + (1 - 2 * slip) * p, 1 - slip - (1 - 2 * slip) * p), 1e-9, 1.0)
        slope = sign * (1 - 2 * slip) * p * (1 - p) / seen
        away = w - centre
        return float(-np.log(seen).sum() + 0.5 * (firm * away**2).sum()), -inputs.T @ slope + firm * away

    weights = minimize(loss, centre, jac=True, method="L-BFGS-B").x
    p = np.asarray(expit(inputs @ weights))
    seen = slip + (1 - 2 * slip) * p
    told = ((1 - 2 * slip) * p * (1 - p)) ** 2 / np.maximum(seen * (1 - seen), 1e-12)
    precision = (inputs * told[:, None]).T @ inputs + np.diag(firm)
    return Calibrated(known, slip, weights, np.linalg.inv(precision))


def calibration_error(probability: Array, right: Array, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of probability and frequency over bins of equal count."""
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    return float(
        sum(len(b) * abs(probability[b].mean() - right[b].mean()) for b in parts if len(b)) / max(1, len(right))
    )


def _quantiles(evidence: Array, weights: Array) -> tuple[float, ...]:
    order = np.argsort(evidence, kind="stable")
    shares = np.cumsum(weights[order]) / max(float(weights.sum()), 1e-12)
    at = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return tuple(np.interp(at, shares, evidence[order]).tolist())
