"""What another policy would have earned on logged decisions, from the rewards of what was chosen and its propensity.

    w = target(chosen) / propensity(chosen), clipped

    ips     mean of w r                                       unbiased where nothing is clipped, noisy
    snips   sum of w r / sum of w                             (Swaminathan and Joachims 2015, NeurIPS 28, "The
            Self-Normalized Estimator for Counterfactual Learning"): a little bias for much less noise
    dr      mean of sum_a target(a) m(a) + w (r - m(chosen))  (Dudik, Langford and Li 2011,
            https://arxiv.org/abs/1103.4601): right if either the propensities or the model m of the rewards is

The intervals of the estimates are percentiles of a bootstrap over groups of prompts; two policies are compared on the
same resamples. They hold for one look. Whether a candidate wins is asked again and again, so it also takes an interval
that is valid at every look, of the mean of what each decision says of the difference,

    x = sum_a (after(a) - before(a)) m(a) + w (r - m(chosen)),   w = (after - before)(chosen) / propensity(chosen)

whose expectation is the difference, as long as `after` and m were made before r was seen, and which lies within plus
and minus (1 + the greatest |after - before| / propensity that chance allows) times the span of the rewards.

All of it is about the decisions that have a reward: if people rate what is good more readily than what is bad, so does
this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.learning.intervals import at_every_look

Array = NDArray[np.float64]
CLIP = 250.0  # what a recipe weighs that is one of five in an exploration of 2 %: nothing is lost down to that
RESAMPLES = 2_000
LEVEL = 0.95
MIN_EVIDENCE = 20  # effective decisions; below, the difference rests on the model, which believes in the candidate
SAME = 1e-9  # probabilities that differ by less are equal


@dataclass(frozen=True)
class LoggedChoices:
    """n decisions with a reward, each among at most m options; rows are padded to m.

    chosen (n,): index of the option that was taken;   propensity (n,): with which probability;   reward (n,)
    modelled (n, m): expected reward of each option, by a model that saw neither the decision nor its group
    groups (n,): decisions that are resampled together
    least (n, m): no option was taken with a smaller probability than that; 0: it could not be taken, or nobody knows
    span: the greatest difference of two rewards, or of a reward and a modelled one
    """

    chosen: NDArray[np.int64]
    propensity: Array
    reward: Array
    modelled: Array = field(repr=False)
    groups: Sequence[str] = field(repr=False)
    least: Array = field(repr=False)
    span: float = 1.0

    def of_chosen(self, values: Array) -> Array:
        """Of values (n, m), those of the options that were taken (n,)."""
        return values[np.arange(len(self.chosen)), self.chosen]

    def rows(self, part: slice) -> LoggedChoices:
        """Some of the decisions."""
        return LoggedChoices(
            self.chosen[part], self.propensity[part], self.reward[part], self.modelled[part], self.groups[part],
            self.least[part], self.span,
        )  # fmt: skip


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
class Increments:
    """What each of n decisions says of the difference of two policies.

    x (n,): see above, 0 where the two differ on what could not be taken;   bound: |x| is below it, whatever is chosen
    and however it is rewarded;   unsupported: decisions that say nothing because they differ on what could not be taken
    """

    x: Array
    bound: float
    unsupported: int

    def interval(self) -> tuple[float, float]:
        """Of the mean difference; 95 %, valid at every look."""
        return at_every_look(self.x, self.bound)


def increments(logged: LoggedChoices, before: Array, after: Array, modelled: Array | None = None) -> Increments:
    """`before`, `after` (n, m): probabilities with which the two take each option, and `modelled` (n, m) (default: that
    of `logged`) what rewards were expected, all from before the rewards of these decisions were seen."""
    modelled = logged.modelled if modelled is None else modelled
    gap = np.where(np.abs(after - before) > SAME, after - before, 0.0)
    unsupported = ((gap != 0) & (logged.least <= 0)).any(axis=1)
    gap = np.where(unsupported[:, None], 0.0, gap)
    guess = (gap * modelled).sum(axis=1)
    w = logged.of_chosen(gap) / logged.propensity
    largest = np.max(np.abs(gap) / np.where(gap != 0, logged.least, 1.0), initial=0.0)
    bound = (1.0 + max(float(largest), float(np.abs(w).max(initial=0.0)))) * logged.span
    x = guess + w * (logged.reward - logged.of_chosen(modelled))
    return Increments(x, bound, int(unsupported.sum()))


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
    effective_evidence: effective number of decisions behind `evidence`
    always:     95 % interval of the difference that is valid at every look, from candidates that had only seen what
                came before each decision
    unsupported: decisions on which the two differ about what chance could not have taken; they count as no difference
    """

    decisions: int
    groups: int
    by_chance: int
    otherwise: int
    evidence: int
    effective: tuple[float, float]
    clipped: int
    estimates: dict[str, Estimated]
    effective_evidence: float
    always: tuple[float, float]
    unsupported: int = 0

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
        if self.effective_evidence < MIN_EVIDENCE:
            return False, (
                f"the candidate would decide {self.otherwise} of {self.decisions} decisions otherwise, but what it "
                f"would take was taken and rated only {self.evidence} times (effectively "
                f"{self.effective_evidence:.1f}), and {MIN_EVIDENCE} are needed; gather more ratings, or explore more "
                "(`explore: {rate: ...}`)"
            )
        if low <= 0:
            return False, f"{found}, which does not rule out that it is no better"
        always = f"{self.always[0]:+.4f} to {self.always[1]:+.4f}"
        if self.always[0] <= 0:
            return False, (
                f"{found}; that is the interval of a single look, and the one that is valid at every look, {always}, "
                "does not rule out that it is no better"
            )
        return True, f"{found}, and the interval that is valid at every look is {always}"


def compare(
    logged: LoggedChoices,
    before: Array,
    after: Array,
    clip: float = CLIP,
    resamples: int = RESAMPLES,
    seed: int = 0,
    said: Increments | None = None,
) -> Comparison:
    """`before` and `after` (n, m) are the probabilities with which the two take each option. said: what the decisions
    say at every look, if `after` and the model of `logged` are not from before all of their rewards."""
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
    said = increments(logged, before, after) if said is None else said
    differ = np.abs(after - before).sum(axis=1) > SAME
    favoured = differ & (logged.of_chosen(after) > logged.of_chosen(before))
    ratios = logged.of_chosen(after) / logged.propensity
    return Comparison(
        len(logged.reward),
        len(names),
        int((logged.propensity < 1 - SAME).sum()),
        int(differ.sum()),
        int(favoured.sum()),
        (effective_size(weights(logged, before, clip)), effective_size(weights(logged, after, clip))),
        int((ratios > clip).sum()),
        estimates,
        effective_size(weights(logged, after, clip)[favoured]),
        said.interval(),
        said.unsupported,
    )


def _interval(values: Array) -> tuple[float, float]:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
