"""What another policy would have earned on logged decisions, from the rewards of what was chosen and its propensity.

    w = target(chosen) / propensity(chosen), clipped

    ips     mean of w r                                       unbiased where nothing is clipped, noisy
    snips   sum of w r / sum of w                             (Swaminathan and Joachims 2015, NeurIPS 28, "The
            Self-Normalized Estimator for Counterfactual Learning"): a little bias for much less noise
    dr      mean of sum_a target(a) m(a) + w (r - m(chosen))  (Dudik, Langford and Li 2011,
            https://arxiv.org/abs/1103.4601): right if either the propensities or the model m of the rewards is

Intervals are percentiles of a bootstrap over groups of prompts; two policies are compared on the same resamples. All of
it is about the decisions that have a reward: if people rate what is good more readily than what is bad, so does this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CLIP = 250.0  # what a recipe weighs that is one of five in an exploration of 2 %: nothing is lost down to that
RESAMPLES = 2_000
LEVEL = 0.95
MIN_EVIDENCE = 20  # below that, the difference rests on the model of the rewards, which believes in the candidate


@dataclass(frozen=True)
class LoggedChoices:
    """n decisions with a reward, each among at most m options; rows are padded to m.

    chosen (n,): index of the option that was taken;   propensity (n,): with which probability;   reward (n,)
    modelled (n, m): expected reward of each option, by a model that saw neither the decision nor its group
    groups (n,): decisions that are resampled together
    """

    chosen: NDArray[np.int64]
    propensity: Array
    reward: Array
    modelled: Array = field(repr=False)
    groups: Sequence[str] = field(repr=False)

    def of_chosen(self, values: Array) -> Array:
        """Of values (n, m), those of the options that were taken (n,)."""
        return values[np.arange(len(self.chosen)), self.chosen]


@dataclass(frozen=True)
class Value:
    """Of a policy: numerators and denominators (n,) whose sums' ratio is the estimate."""

    above: Array
    below: Array

    def mean(self) -> float:
        return float(self.above.sum() / max(self.below.sum(), 1e-12))


def weights(logged: LoggedChoices, target: Array, clip: float = CLIP) -> Array:
    """Importance weights (n,) of a policy that takes the options with the probabilities `target` (n, m)."""
    return np.minimum(logged.of_chosen(target) / logged.propensity, clip)


def ips(logged: LoggedChoices, target: Array, clip: float = CLIP) -> Value:
    return Value(weights(logged, target, clip) * logged.reward, np.ones_like(logged.reward))


def snips(logged: LoggedChoices, target: Array, clip: float = CLIP) -> Value:
    w = weights(logged, target, clip)
    return Value(w * logged.reward, w)


def doubly_robust(logged: LoggedChoices, target: Array, clip: float = CLIP) -> Value:
    error = logged.reward - logged.of_chosen(logged.modelled)
    expected = (target * logged.modelled).sum(axis=1)
    return Value(expected + weights(logged, target, clip) * error, np.ones_like(error))


ESTIMATORS: dict[str, Callable[[LoggedChoices, Array, float], Value]] = {
    "ips": ips,
    "snips": snips,
    "dr": doubly_robust,
}


def effective_size(w: Array) -> float:
    """Kish's effective number of decisions behind weights (n,)."""
    return float(w.sum() ** 2 / max((w**2).sum(), 1e-12))


@dataclass(frozen=True)
class Estimated:
    """One estimator's word on two policies, with the interval of their difference (paired)."""

    before: float
    after: float
    before_interval: tuple[float, float]
    after_interval: tuple[float, float]
    difference: float
    difference_interval: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same logged decisions.

    by_chance:  decisions whose choice had a propensity below 1
    otherwise:  decisions on which the two differ;   evidence: of them, those where `after` favours what was taken
    effective:  effective number of decisions under before and after;   clipped: weights that were cut, under after
    """

    decisions: int
    groups: int
    by_chance: int
    otherwise: int
    evidence: int
    effective: tuple[float, float]
    clipped: int
    estimates: dict[str, Estimated]

    @property
    def verdict(self) -> tuple[bool, str]:
        """Whether `after` is to replace `before`, and why (not), in words."""
        dr = self.estimates["dr"]
        low, high = dr.difference_interval
        found = f"the doubly robust difference is {dr.difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
        if not self.by_chance:
            return False, (
                f"none of the {self.decisions} rated decisions was left to chance, so nothing is known of what was not "
                "chosen; let the policy draw now and then (`explore: {rate: 0.02}`) and come back with more ratings"
            )
        if not self.otherwise:
            return False, "the candidate would have decided every one of the logged decisions as the incumbent does"
        if self.evidence < MIN_EVIDENCE:
            return False, (
                f"the candidate would decide {self.otherwise} of {self.decisions} decisions otherwise, but what it "
                f"would take was taken and rated only {self.evidence} times, and {MIN_EVIDENCE} are needed; gather "
                "more ratings, or explore more (`explore: {rate: ...}`)"
            )
        if low <= 0:
            return False, f"{found}, which does not rule out that it is no better"
        return True, found


def compare(
    logged: LoggedChoices, before: Array, after: Array, clip: float = CLIP, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """`before` and `after` (n, m) are the probabilities with which the two take each option."""
    names, groups = np.unique(np.asarray(logged.groups), return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)

    def resampled(value: Value) -> Array:
        above, below = (np.bincount(groups, part, len(names)) for part in (value.above, value.below))
        return (draws @ above) / np.maximum(draws @ below, 1e-12)

    estimates = {}
    for name, estimator in ESTIMATORS.items():
        one, other = estimator(logged, before, clip), estimator(logged, after, clip)
        spread, other_spread = resampled(one), resampled(other)
        estimates[name] = Estimated(
            one.mean(),
            other.mean(),
            _interval(spread),
            _interval(other_spread),
            other.mean() - one.mean(),
            _interval(other_spread - spread),
        )
    differ = np.abs(after - before).sum(axis=1) > 1e-9
    favoured = differ & (logged.of_chosen(after) > logged.of_chosen(before))
    ratios = logged.of_chosen(after) / logged.propensity
    return Comparison(
        len(logged.reward),
        len(names),
        int((logged.propensity < 1 - 1e-9).sum()),
        int(differ.sum()),
        int(favoured.sum()),
        (effective_size(weights(logged, before, clip)), effective_size(weights(logged, after, clip))),
        int((ratios > clip).sum()),
        estimates,
    )


def _interval(values: Array) -> tuple[float, float]:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
