"""How good an order of prompts is, with intervals, and whether one router is surely better than another.

    apgr   area under the curve of gain over the share of expensive calls, between always-cheap (0) and always-strong
           (1): .5 for random mixing at the same cost (https://arxiv.org/abs/2406.18665); it says little where the
           strong recipe is hardly better, since it divides by that
    lift   the same area over random mixing, in standard deviations of the gain: 0 for random mixing, whatever the gap

Prompts with equal scores are mixed, not put in some order. Intervals are 95 %, from resampling whole groups of
near-duplicates; the same draws for every router, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.bench.tasks import Task
from router.learning.intervals import Figure

Array = NDArray[np.float64]
RESAMPLES = 1000


@dataclass(frozen=True)
class Judged:
    """drawn: by figure, of all prompts and then of resamples, (1 + resamples,) each"""

    drawn: Mapping[str, Array] = field(repr=False)

    @property
    def apgr(self) -> Figure:
        return Figure.of(self.drawn["apgr"])

    @property
    def lift(self) -> Figure:
        return Figure.of(self.drawn["lift"])


def judge(
    task: Task, pair: tuple[str, str], scores: Array, split: NDArray[np.int64] | None = None,
    resamples: int = RESAMPLES, seed: int = 0,
) -> Judged:  # fmt: skip
    """An order of the prompts of a task by scores of the gain (n,), or of its columns (n, recipes), the higher the more
    expensive calls are worth it; ranked within folds `split` (n,). Rows without a score or a rating are left out."""
    gain = task.gain(pair)
    if scores.ndim == 2:
        cheap, strong = (scores[:, task.table.columns.index(name)] for name in pair)
        scores = strong - cheap
    rows = np.isfinite(gain) & np.isfinite(scores)
    gain, scores = gain[rows], scores[rows]
    folds = np.zeros(len(gain), np.int64) if split is None else split[rows]
    weights = drawn_groups(np.array(task.table.groups)[rows], resamples, seed)
    whole = weights.sum(axis=1)
    area, end = np.zeros(len(weights)), np.zeros(len(weights))
    for fold in np.unique(folds):
        here = folds == fold
        order = np.argsort(-scores[here], kind="stable")
        ranked = scores[here][order]
        last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each run of equals
        w = weights[:, here][:, order]
        mass = np.cumsum(w, axis=1)[:, last]
        gained = np.cumsum(w * gain[here][order], axis=1)[:, last]
        steps = np.diff(mass, axis=1, prepend=0.0)
        before = np.concatenate([np.zeros((len(w), 1)), gained[:, :-1]], axis=1)
        area += (steps * (before + gained) / 2).sum(axis=1) / np.maximum(mass[:, -1], 1e-12)
        end += gained[:, -1]
    area, end = area / whole, end / whole
    spread = float(gain.std())
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(end > 0, area / end, np.nan)
        lift = (area - end / 2) / spread if spread > 1e-12 else np.zeros_like(area)
    return Judged({"apgr": shares, "lift": lift})


def difference(one: Judged, other: Judged, figure: str = "lift") -> Figure:
    """By how much the one is better, paired."""
    return Figure.of(one.drawn[figure] - other.drawn[figure])


def mean_of(judged: Sequence[Judged]) -> Judged:
    """The mean over pairs, or over tasks: each counts as one."""
    return Judged({key: np.mean([one.drawn[key] for one in judged], axis=0) for key in judged[0].drawn})


def drawn_groups(groups: NDArray[np.str_], resamples: int, seed: int) -> Array:
    """How often each row counts, (1 + resamples, n): once, then as often as its group was drawn."""
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    return np.concatenate([np.ones((1, len(groups))), times[:, group.ravel()]])
