"""How good routing between two models is, from held-out predictions: curves, baselines, intervals.

A curve is the mean score when the prompts with the greatest predicted gain, a growing share of them, go to the
expensive model. Prompts are ranked within their fold, since only there were they predicted by one and the same model.

    APGR       area under the curve between always-cheap (0) and always-expensive (1): random mixing has 0.5
               (https://arxiv.org/abs/2406.18665)
    calls_at   share of expensive calls that reaches 50, 80 and 95 % of the gap between the two; random needs as much
    AIQ        area under the non-decreasing convex hull of quality over cost (https://arxiv.org/abs/2403.12031), on the
               scale of the scores and for a cost that runs from always-cheap to always-expensive
    of_oracle  (APGR - 0.5) / (the oracle's - 0.5)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.learning.intervals import resampled
from router.learning.ratings import common_prompts
from router.learning.training import HeldOutScores
from router.quality.calibration import Z
from router.quality.ratings_table import RatingsTable
from router.quality.rule import hand_rule

Array = NDArray[np.float64]
GRID = np.linspace(0.0, 1.0, 101)
GAPS = (0.5, 0.8, 0.95)
BINS = 10
NOT_BETTER = (
    "the expensive one is not better here: on these prompts it is rated no higher on average, so there is no gap that "
    "routing could close a share of"
)


@dataclass(frozen=True)
class Pair:
    """Two columns of a table on the prompts that rate both: what was measured, what was predicted (n,) each."""

    cheap: Array
    strong: Array
    gain: Array
    gain_std: Array
    split: NDArray[np.int64]
    groups: NDArray[Any]
    prompts: tuple[str, ...]


def pair_of(table: RatingsTable, held_out: HeldOutScores, cheap: str, strong: str) -> Pair:
    """Scores on the scale of the ratings; the predicted gain on 0..1, with its deviation were both independent."""
    one, other = table.columns.index(cheap), table.columns.index(strong)
    known = table.scores + held_out.mean
    rows = np.flatnonzero(np.isfinite(known[:, one] + known[:, other]))
    span = table.scale.high - table.scale.low
    given = [table.scale.low + span * table.scores[rows, k] for k in (one, other)]
    return Pair(
        given[0],
        given[1],
        held_out.mean[rows, other] - held_out.mean[rows, one],
        np.hypot(held_out.std[rows, other], held_out.std[rows, one]),
        held_out.split[rows],
        np.array(table.groups)[rows],
        tuple(table.prompts[k] for k in rows),
    )


RANKINGS: dict[str, Callable[[Pair], Array]] = {
    "learned": lambda pair: pair.gain,
    "hand rule": lambda pair: np.array([hand_rule(prompt) for prompt in pair.prompts]),
    "prompt length": lambda pair: np.array([float(len(prompt)) for prompt in pair.prompts]),
    "oracle": lambda pair: pair.strong - pair.cheap,
}


def curve(ranking: Array, gains: Array, split: NDArray[np.int64]) -> Array:
    """Gain over always-cheap (101,) when the first 0, 1, ..., 100 % of the ranking go to the expensive model."""
    total = np.zeros_like(GRID)
    order = np.random.default_rng(0).permutation(len(gains))  # equals are in no order of their own
    for fold in np.unique(split):
        rows = order[split[order] == fold]
        ranked = rows[np.argsort(-ranking[rows], kind="stable")]
        sums = np.concatenate([[0.0], np.cumsum(gains[ranked])])
        total += np.interp(GRID * len(ranked), np.arange(len(sums)), sums)
    return total / len(gains)


def apgr(points: Array) -> float:
    """Of a curve; NaN if the expensive model is no better."""
    return float(np.trapezoid(points, GRID) / points[-1]) if points[-1] > 0 else float("nan")


def calls_at(points: Array, gap: float) -> float:
    """The least share of expensive calls that reaches `gap` of what always-expensive gains; NaN if it gains nothing."""
    if points[-1] <= 0:
        return float("nan")
    reached = np.flatnonzero(points >= gap * points[-1] - 1e-12)
    return float(GRID[reached[0]]) if len(reached) else 1.0


def hull_area(points: Array) -> float:
    """Area under the non-decreasing convex hull of a curve."""
    hull: list[int] = []
    best = np.maximum.accumulate(points)
    for k in range(len(best)):
        while len(hull) > 1 and (best[hull[-1]] - best[hull[-2]]) * (k - hull[-2]) <= (best[k] - best[hull[-2]]) * (
            hull[-1] - hull[-2]
        ):
            hull.pop()
        hull.append(k)
    return float(np.trapezoid(np.interp(GRID, GRID[hull], best[hull]), GRID))


def evaluate_pair(pair: Pair) -> dict[str, Any]:
    """All figures of one pair of models, a dict for each way of ranking; `ends`: always cheap, always expensive;
    `note`: what is to be known first. Where the expensive one is no better there is no gap, and what counts in shares
    of it is NaN."""
    gains = pair.strong - pair.cheap
    curves = {name: curve(rank(pair), gains, pair.split) for name, rank in RANKINGS.items()}
    room = apgr(curves["oracle"]) - 0.5
    report: dict[str, Any] = {
        "prompts": len(gains),
        "ends": [float(pair.cheap.mean()), float(pair.strong.mean())],
        "random": {"apgr": 0.5, "calls_at": list(GAPS), "aiq": float((pair.cheap.mean() + pair.strong.mean()) / 2)},
        "rankings": {},
        "note": NOT_BETTER if curves["oracle"][-1] <= 0 else "",
        **win_probability(pair),
    }
    for name, rank in RANKINGS.items():
        ranking = rank(pair)
        report["rankings"][name] = {
            "apgr": apgr(curves[name]),
            "apgr_95": resampled(
                pair.groups,
                lambda rows, r=ranking: apgr(curve(r[rows], gains[rows], pair.split[rows])),  # type: ignore[misc]
            ),
            "calls_at": [calls_at(curves[name], gap) for gap in GAPS],
            "aiq": float(pair.cheap.mean()) + hull_area(curves[name]),
            "of_oracle": (apgr(curves[name]) - 0.5) / room if room > 0 else float("nan"),
            "curve": [round(float(x), 5) for x in pair.cheap.mean() + curves[name]],
        }
    return report


def win_probability(pair: Pair) -> dict[str, Any]:
    """Brier score and expected calibration error of "the expensive picture is rated higher" (a tie is half a win),
    beside the Brier score of always saying the mean. The deviation of the gain is scaled on the other folds."""
    from scipy.stats import norm

    gains = pair.strong - pair.cheap
    won = (gains > 0) + 0.5 * (gains == 0)
    chance = np.empty_like(gains)
    for fold in np.unique(pair.split):
        out, others = pair.split == fold, pair.split != fold
        others = others if others.any() else out
        # Scores of one prompt vary together, so the gain varies less than two independent scores would; the offset
        # takes up ties and a skewed gain.
        grid = [(a, b) for a in (0.5, 0.75, 1.0, 1.5, 2.0) for b in (-0.4, -0.2, 0.0, 0.2, 0.4)]
        z = pair.gain / pair.gain_std
        a, b = min(grid, key=lambda ab: float(((norm.cdf(ab[0] * z[others] + ab[1]) - won[others]) ** 2).mean()))
        chance[out] = norm.cdf(a * z[out] + b)
    bins = np.minimum((chance * BINS).astype(int), BINS - 1)
    error = sum(abs(float((chance - won)[bins == k].sum())) for k in range(BINS)) / len(won)
    return {
        "brier": float(((chance - won) ** 2).mean()),
        "brier_constant": float(((won.mean() - won) ** 2).mean()),
        "ece": error,
    }


def evaluate_columns(table: RatingsTable, held_out: HeldOutScores) -> dict[str, dict[str, Any]]:
    """Pearson (with interval), Spearman and interval coverage of each column, and of the mean over columns."""
    report: dict[str, dict[str, Any]] = {}
    groups = np.array(table.groups)
    whole = np.isfinite(table.scores).all(axis=1)
    means = [(name, table.scores[:, k], held_out.mean[:, k]) for k, name in enumerate(table.columns)]
    if whole.sum() > 2:
        score, mean = (np.where(whole, a.mean(axis=1), np.nan) for a in (table.scores, held_out.mean))
        means.append(("(mean of all)", score, mean))
    for k, (name, score, mean) in enumerate(means):
        rows = np.flatnonzero(np.isfinite(score + mean))
        if len(rows) < 3:  # an artefact need not know every model of a table
            continue
        report[name] = {
            "prompts": len(rows),
            "pearson": pearson(score[rows], mean[rows]),
            "pearson_95": resampled(
                groups[rows],
                lambda at, s=score[rows], m=mean[rows]: pearson(s[at], m[at]),  # type: ignore[misc]
            ),
            "spearman": _spearman(score[rows], mean[rows]),
        }
        if k < len(table.columns):
            inside = np.abs(score[rows] - mean[rows]) <= Z * held_out.std[rows, k] + 1e-9
            report[name]["coverage"] = float(inside.mean())
    return report


def pearson(left: Array, right: Array) -> float:
    """NaN when either side is constant."""
    if left.std() < 1e-12 or right.std() < 1e-12:
        return float("nan")
    return float(np.corrcoef(left, right)[0, 1])


def _spearman(left: Array, right: Array) -> float:
    """NaN when either side is constant."""
    from scipy.stats import spearmanr

    if left.std() < 1e-12 or right.std() < 1e-12:
        return float("nan")
    return float(spearmanr(left, right).statistic)


def evaluate(table: RatingsTable, held_out: HeldOutScores, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Everything above: {"columns": {name: figures}, "pairs": {"cheap -> expensive": figures}}. Raises `ArtifactError`
    for a pair that is rated together on too few prompts."""
    for cheap, strong in pairs:
        common_prompts(table, cheap, strong)
    return {
        "columns": evaluate_columns(table, held_out),
        "pairs": {f"{a} -> {b}": evaluate_pair(pair_of(table, held_out, a, b)) for a, b in pairs},
    }


def shuffled(table: RatingsTable, seed: int = 0) -> RatingsTable:
    """The same table with its rows of scores dealt out to other prompts: what is left to learn is nothing."""
    order = np.random.default_rng(seed).permutation(len(table.prompts))
    return RatingsTable(
        table.prompts, table.groups, table.columns, table.scores[order], table.weights[order], table.scale
    )
