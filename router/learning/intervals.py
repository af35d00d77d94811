"""Intervals of 95 %: of one look, by resampling (`resampled`), and valid at every look (`at_every_look`).

An interval by resampling (percentiles of `scipy.stats.bootstrap`, over whole groups of rows) is wrong more often than
it says if somebody looks again whenever more has come in, and stops when he likes what he sees. Of a confidence
sequence the intervals of *all* looks hold the truth together, with the same probability.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 400
TAIL = 0.025  # on either side
STAKES = np.geomspace(0.06, 0.95, 5)  # of what may be staked without ever losing all

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A value with its interval of 95 %."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, drawn: Floats) -> Figure:
        """The first is of all prompts, the others of resamples; those without a value are left out."""
        if not np.isfinite(drawn).any():
            return cls(*[float("nan")] * 3)
        low, high = np.nanpercentile(drawn[1:], [2.5, 97.5])
        return cls(float(drawn[0]), float(low), float(high))

    @property
    def rounded(self) -> list[float]:
        """For JSON."""
        return [round(float(x), 4) for x in (self.value, self.low, self.high)]


def log_capital(x: Floats, bound: float, mean: float = 0.0, times: Floats | None = None) -> Floats:
    """The logarithm of what 1 has become for someone who bets that the summands x (n,) have a mean above `mean`.

    Where each summand lies above -bound and, given those before it, is expected to be at most `mean` (> -bound), the
    capital

        mean over the stakes s of prod (1 + s (x - mean) / (bound + mean))

    is a supermartingale that begins at 1, so it ever exceeds 1 / a with at most the probability a (Ville). Betting by
    Waudby-Smith and Ramdas 2023 (https://arxiv.org/abs/2010.09686), on importance-weighted rewards as in Waudby-Smith,
    Wu, Ramdas, Karampatziakis and Mineiro 2022 (https://arxiv.org/abs/2210.10768); a mixture of fixed stakes does not
    depend on the order of the summands.

    times (..., n): how often each summand occurs; by default once. Returns the shape (...).
    """
    won = np.log1p(STAKES * (x[:, None] - mean) / (bound + mean))  # (n, stakes)
    won = won.sum(axis=0) if times is None else times @ won
    most = won.max(axis=-1, keepdims=True)
    return np.asarray(most[..., 0] + np.log(np.exp(won - most).mean(axis=-1)))


def at_every_look(x: Floats, bound: float, tail: float = TAIL) -> tuple[float, float]:
    """Both ends of an interval for the mean of summands x (n,), |x| < bound, that is valid at every look.

    With probability 1 - tail the lower end never exceeds the mean, however often and whenever one looks; likewise the
    upper end. If what is expected of a summand changes on the way, the lower end never exceeds the greatest of it.
    """
    return _lower_end(x, bound, tail), -_lower_end(-x, bound, tail)


def _lower_end(x: Floats, bound: float, tail: float) -> float:
    """The greatest mean that the capital says is too low, by bisection: capital falls with the mean."""
    low, high = -bound, float(x.mean()) if len(x) else -bound
    for _ in range(60):
        middle = (low + high) / 2
        if middle <= -bound:
            break
        enough = float(log_capital(x, bound, middle)) >= -np.log(tail)
        low, high = (middle, high) if enough else (low, middle)
    return low


class EveryLook:
    """The interval of `at_every_look` for summands that come one by one and are not kept, |x| <= bound.

    Its ends lie on a grid of means, so it is up to a hundredth of the bound wider than need be.
    """

    def __init__(self, bound: float) -> None:
        self.count, self.total = 0, 0.0
        self._bound = bound
        self._means = np.linspace(-bound, bound, 201)[1:-1, None]
        self._won = np.zeros((2, len(self._means), len(STAKES)))  # betting that the mean is higher, and lower

    def add(self, x: float) -> None:
        """One more summand."""
        self.count, self.total = self.count + 1, self.total + x
        self._won[0] += np.log1p(STAKES * (x - self._means) / (self._bound + self._means))
        self._won[1] += np.log1p(STAKES * (self._means - x) / (self._bound - self._means))

    @property
    def mean(self) -> float:
        return self.total / max(1, self.count)

    def interval(self) -> tuple[float, float]:
        """Both ends; the bounds where nothing is known."""
        most = self._won.max(axis=-1, keepdims=True)
        capital = most[..., 0] + np.log(np.exp(self._won - most).mean(axis=-1))
        too_low, too_high = capital >= -np.log(TAIL)
        means = self._means[:, 0]
        return (
            float(means[too_low].max(initial=-self._bound)),
            float(means[too_high].min(initial=self._bound)),
        )


def resampled_mean(values: Floats, seed: int = 0, resamples: int = RESAMPLES) -> list[float]:
    """`resampled` of the mean of values (n,), each a group: the same draws, all at once."""
    from scipy.stats import bootstrap

    if len(values) < 2:
        return [float(values.mean())] * 2
    found = bootstrap(
        (values,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed)
    ).bootstrap_distribution
    return [float(end) for end in np.percentile(found, [2.5, 97.5])]


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
