"""Intervals of 95 % by resampling: percentiles of `scipy.stats.bootstrap`, over whole groups of rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 400


def resampled(
    groups: NDArray[Any] | int,
    statistic: Callable[[NDArray[np.int64]], float],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[float]:
    """Both ends of the interval of a statistic of row numbers, rows of one group being drawn together.

    groups: (n,), or the number of rows if each is a group. Resamples without a value (NaN) are left out.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    if isinstance(groups, int):
        count, rows_of = groups, lambda drawn: drawn
    else:
        members: dict[Any, list[int]] = {}
        for row, group in enumerate(groups):
            members.setdefault(group, []).append(row)
        clusters = [np.array(rows) for rows in members.values()]
        count, rows_of = len(clusters), lambda drawn: np.concatenate([clusters[k] for k in drawn])
    if count < 2:  # nothing varies, and scipy wants two
        value = float(statistic(rows_of(np.arange(count))))
        return [value, value]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # of resamples without a value
        found = bootstrap(
            (np.arange(count),),
            lambda drawn: statistic(rows_of(drawn)),
            n_resamples=resamples,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    if not np.isfinite(found).any():
        return [float("nan"), float("nan")]
    return [float(end) for end in np.nanpercentile(found, [2.5, 97.5])]
