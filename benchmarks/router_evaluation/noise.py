"""How much of a gain no reader of prompts can foresee, from prompts that say nearly the same (for learners.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.learning.evaluation import apgr, curve
from router.learning.intervals import resampled
from router.quality.ratings_table import RatingsTable

Array = NDArray[np.float64]
ALIKE = (0.90, 0.92, 0.95)  # cosines of embeddings from which on two prompts ask for the same picture, about


def noise(
    table: RatingsTable, embeddings: NDArray[np.float32], split: NDArray[np.int64], usual: Array
) -> dict[str, Any]:
    """What is left of the gain's variance between prompts that ask for nearly the same picture, beside the squared
    error of `train`'s learner on the same prompts, on the scale of the ratings. usual (n,): the gains that it foresees;
    table: its two columns; embeddings (n, d): of its prompts, of length 1.

    PQPP publishes means over pictures and raters, so halves cannot be compared. Half the mean squared difference of two
    gains whose prompts say the same is their noise (raters, seeds), plus whatever in the text the cosine does not see.
    So it is too large, if anything, and the Pearson correlation of a perfect reader of prompts is at least
    sqrt(1 - noise / variance), as far as such prompts are like the others. APGR follows from it by the ratio of the
    oracle, whose correlation is 1. Intervals: prompts resampled, a pair counting as often as both were drawn.
    """
    span = table.scale.high - table.scale.low
    gain = np.asarray(table.scores[:, 1] - table.scores[:, 0], np.float64) * span
    usual = usual * span
    room = apgr(curve(gain, gain, split)) - 0.5
    cosines = np.triu(embeddings @ embeddings.T, 1)
    report: dict[str, Any] = {"variance": float(gain.var()), "oracle": 0.5 + room, "by cosine": {}}
    for least in ALIKE:
        one, other = np.nonzero(cosines >= least)
        apart = (gain[one] - gain[other]) ** 2 / 2
        missed = ((gain - usual)[one] ** 2 + (gain - usual)[other] ** 2) / 2

        def mean_of(values: NDArray[np.float64], one: Any = one, other: Any = other) -> list[float]:
            def statistic(drawn: NDArray[np.int64]) -> float:
                times = np.bincount(drawn, minlength=len(gain))
                often = times[one] * times[other]
                return float(often @ values / often.sum())

            return resampled(len(gain), statistic)

        spread, error, left = mean_of(apart), mean_of(missed), mean_of(missed - apart)
        best = [_ceiling(float(x), float(gain.var()), room) for x in (apart.mean(), *spread[::-1])]
        report["by cosine"][f"{least}"] = {
            "pairs": len(one),
            "noise": float(apart.mean()),
            "noise, 95 %": spread,
            "squared error of train's": float(missed.mean()),
            "squared error of train's, 95 %": error,
            "squared error over noise": float((missed - apart).mean()),
            "squared error over noise, 95 %": left,
            "pearson, perfect": best[0][0],
            "apgr, perfect": best[0][1],
            "apgr, perfect, 95 %": [best[1][1], best[2][1]],
        }
    return report


def _ceiling(noise: float, variance: float, room: float) -> tuple[float, float]:
    correlation = float(np.sqrt(max(0.0, 1 - noise / variance)))
    return correlation, 0.5 + room * correlation
