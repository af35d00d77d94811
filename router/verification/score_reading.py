"""What a scorer's score is worth: the probability that a picture is right, from its score and the recipe's chance.

    log-odds of "right" = slope * logit(score) + trust * logit(chance) + level

Fitted by logistic regression on labelled pictures (score_calibration.py, `triptych router calibrate-scorer`) and kept
beside the router artefact whose chances it weighs. A scorer without one is read by `UNCALIBRATED`, and every answer
says so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Floats = float | Array

CLIP = 0.001  # probabilities nearer to 0 or 1 than this count as this near
STEEP = 30.0  # log-odds beyond this are certain enough


def logit(probability: Floats) -> Floats:
    """Log-odds; 0 and 1 are taken as 0.001 and 0.999."""
    if isinstance(probability, float):  # numpy takes ten times as long over a single number
        single = min(1 - CLIP, max(CLIP, probability))
        return math.log(single / (1 - single))
    inside = np.clip(probability, CLIP, 1 - CLIP)
    odds = np.log(inside / (1 - inside))
    return float(odds) if np.ndim(odds) == 0 else odds


def expit(odds: Floats) -> Floats:
    """The probability of log-odds."""
    found = 1 / (1 + np.exp(-np.clip(odds, -STEEP, STEEP)))
    return float(found) if np.ndim(found) == 0 else found


@dataclass(frozen=True, slots=True)
class ScoreModel:
    """The law above. on_right, on_wrong: equally likely values of logit(score) of right and of wrong pictures, for what
    a look may be expected to bring."""

    slope: float
    trust: float
    level: float
    on_right: tuple[float, ...]
    on_wrong: tuple[float, ...]

    def verdict(self, chance: float, score: float) -> float:
        """The probability that a picture is right, from the recipe's chance before and the picture's score (0..1)."""
        return float(expit(self.slope * logit(score) + self.offset(chance)))

    def offset(self, chance: Floats) -> Floats:
        """What a chance adds to the log-odds of a score."""
        return self.trust * logit(chance) + self.level

    def outlook(self, chance: Floats) -> tuple[Array, Array]:
        """What verdicts to expect of a picture: (values, weights), each (..., points), the highest value first."""
        evidence, of_right, of_wrong = _points(self)
        chances = np.asarray(chance, np.float64)[..., None]
        odds = evidence + np.asarray(self.offset(chances))
        return 1 / (1 + np.exp(-odds.clip(-STEEP, STEEP))), chances * of_right + (1 - chances) * of_wrong

    def reservation(self, chance: Floats, price: Floats) -> Floats:
        """The z at which opening a box gains nothing: E[(verdict - z)+] = price. price: in quality (0..1)."""
        values, weights = self.outlook(chance)
        sums, shares = np.cumsum(weights * values, axis=-1), np.cumsum(weights, axis=-1)
        # E[(V - z)+] is the largest of sums - z * shares over the beginnings of the sorted values.
        found = ((sums - np.asarray(price, np.float64)[..., None]) / np.maximum(shares, 1e-12)).max(axis=-1)
        return float(found) if np.ndim(found) == 0 else found

    def gain(self, chance: Floats, best: Floats) -> Floats:
        """E[(verdict - best)+]: how much a picture may be expected to be better than the best so far."""
        values, weights = self.outlook(chance)
        found = (weights * np.maximum(0.0, values - np.asarray(best, np.float64)[..., None])).sum(axis=-1)
        return float(found) if np.ndim(found) == 0 else found


@functools.lru_cache(maxsize=64)
def _points(score_model: ScoreModel) -> tuple[Array, Array, Array]:
    """What its evidence adds to the log-odds, the most first, and the shares of right and of wrong pictures there."""
    right, wrong = len(score_model.on_right), len(score_model.on_wrong)
    added = score_model.slope * np.array((*score_model.on_right, *score_model.on_wrong))
    order = np.argsort(-added, kind="stable")
    of_right = np.array([1 / right] * right + [0.0] * wrong)
    return added[order], of_right[order], np.array([0.0] * right + [1 / wrong] * wrong)[order]


_HINT = float(logit(0.75))
UNCALIBRATED = ScoreModel(1.0, 1.0, 0.0, (_HINT, _HINT, _HINT, -_HINT), (_HINT, -_HINT, -_HINT, -_HINT))
"""The default for a scorer that was not calibrated: a score above one half is evidence for the picture by its own odds,
one below is evidence against it, and three looks of four are taken to point the right way."""
STRENGTH = 2.0  # pictures that a predicted chance is worth where that was not measured


@dataclass(frozen=True, slots=True)
class ScoreReading:
    """How the scores of one scorer are read.

    strength:   how many pictures a predicted chance is worth; small when pictures of one prompt fail together
    calibrated: whether labelled pictures stand behind it;   note: in words, what stands behind it or why nothing does
    """

    score_model: ScoreModel = UNCALIBRATED
    strength: float = STRENGTH
    calibrated: bool = False
    note: str = "its scores are not calibrated: taken as odds, beside the expected quality"


def read_score(values: tuple[float, ...], settings: Mapping[str, object]) -> tuple[float, ...]:
    """Scores as a `score` step wants them: with `slope` and `offset` in its settings, as probabilities."""
    slope, offset = settings.get("slope"), settings.get("offset")
    if not isinstance(slope, float) or not isinstance(offset, float):
        return values
    return tuple(float(expit(slope * logit(value) + offset)) for value in values)
