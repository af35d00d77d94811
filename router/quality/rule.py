"""What a person would write down of which prompts want the better model: the prior where ratings say nothing yet.

On sets of people's ratings that were left out, nothing that was learned from the others orders prompts surely better
than this rule (docs/router-evidence.md). So where there are no ratings, recipes are set apart by the rule, and where
there are few, by what is learned and by as much of the rule as what was learned leaves open:

    mean(k) += amount (place(k) - mean place) (rule(prompt) - centre)

place: from 0, the recipe with the lowest mean rating, to 1, the one with the highest;   amount: the posterior mean of a
normal prior (`RulePrior`), given what is left of held-out ratings after what was learned. With many ratings the
learned part holds what is true of the rule for these models, and the amount goes to what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.prompts.lexical import lexical_features

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RulePrior:
    """Mean and deviation of what one unit of the rule adds to the gain of the strongest model over the weakest, in
    standard deviations of that gain: as hand-written as the rule. benchmarks/router_real/priors.py has what sets of
    ratings say of it (-.17 to .20) and what the prior is worth."""

    amount: float = 0.12
    spread: float = 0.15


def rule_of(features: Mapping[str, float]) -> float:
    """The rule on a prompt's `lexical_features`: text, numbers, places and several colours want the better model,
    negation does not, since no model handles it. From -1.5 to 5."""
    f = features
    wanted = min(1.0, f["quoted_spans"] + f["writing_words"]) + min(2.0, f["numbers"])
    wanted += min(1.0, f["spatial_words"] + f["spatial_phrases"]) + float(f["distinct_colours"] >= 2)
    return wanted - 1.5 * min(1.0, f["negations"])


def hand_rule(prompt: str) -> float:
    """The rule on a prompt."""
    return rule_of(lexical_features(prompt))


def places(level: Array) -> Array:
    """From the mean rating (c,) of each recipe to 0 (the lowest) .. 1 (the highest); all 0 if they are equal."""
    span = float(level.max() - level.min())
    return (level - level.min()) / span if span > 1e-9 else np.zeros_like(level)


@dataclass(frozen=True)
class RulePart:
    """slope (c,): what a unit of the rule adds to each column;   centre: the rule's mean on the training prompts
    alone: nothing else sets the recipes apart

    A predictor may have more columns, which were added later: they stand behind these, and are left as they are.
    """

    slope: Array
    centre: float
    alone: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> RulePart | None:
        """That of an artefact; None if it has none. Raises `ValueError` if it is not for its columns."""
        if "rule" not in config:
            return None
        given = config["rule"]
        made = cls(np.asarray(given["slope"], np.float64), float(given["centre"]), bool(given["alone"]))
        if made.slope.ndim != 1 or len(made.slope) > len(config["columns"]):
            raise ValueError(f"the rule's part is not for {len(config['columns'])} columns")
        return made

    @property
    def config(self) -> dict[str, Any]:
        """The same for an artefact."""
        return {"slope": self.slope.round(6).tolist(), "centre": round(self.centre, 6), "alone": self.alone}

    def added(self, means: Array, rule: Array | float) -> Array:
        """Predicted means (..., c) on 0..1 with the rule's part, given what the rule says of their prompts (...)."""
        first, moved = len(self.slope), means.copy()
        moved[..., :first] += np.asarray(rule - self.centre)[..., None] * self.slope
        return np.minimum(np.maximum(moved, 0.0), 1.0)


def rule_alone(scores: Array, prompts: Sequence[str], prior: RulePrior) -> RulePart:
    """The rule for columns whose scores (n, c) say how strong they are and how much they vary, and nothing else."""
    rule = np.array([hand_rule(prompt) for prompt in prompts])
    level = np.nanmean(scores, axis=0)
    rated = ~np.isnan(scores)
    rated &= (rated.sum(axis=1) > 1)[:, None]
    amount = prior.amount * _gain_std(scores - level, rated)
    return RulePart(amount * (places(level) - places(level).mean()), float(rule.mean()), alone=True)


def fit_rule(held_out: Array, scores: Array, prompts: Sequence[str], prior: RulePrior) -> RulePart:
    """What of the rule to add to predictions, from those of held-out prompts and their scores, (n, c) with NaN where
    not rated."""
    level = np.nanmean(scores, axis=0)
    rated = ~np.isnan(scores) & ~np.isnan(held_out)
    rated &= (rated.sum(axis=1) > 1)[:, None]
    rule = np.array([hand_rule(prompt) for prompt in prompts])
    centre, columns = float(rule.mean()), scores.shape[1]
    apart = places(level) - places(level).mean()
    if not rated.any():
        return RulePart(np.zeros(columns), centre)
    gain_std = _gain_std(scores - level, rated)
    if gain_std < 1e-9:
        return RulePart(np.zeros(columns), centre)
    x, y = (apart * (rule - centre)[:, None])[rated], _own(scores - held_out, rated)[rated]
    # Own parts of c scores add up to nothing, so they say as much as c - 1 of them.
    told = (columns - 1) / columns / max(float(y.var()), 1e-9)
    firm = 1 / (prior.spread * gain_std) ** 2
    amount = (prior.amount * gain_std * firm + told * float(x @ y)) / (firm + told * float(x @ x))
    return RulePart(amount * apart, centre)


def _gain_std(above: Array, rated: NDArray[np.bool_]) -> float:
    """Of one column's score less another's, were the columns alike: scores above their levels (n, c)."""
    columns = above.shape[1]
    return float(np.sqrt(2 * _own(above, rated)[rated].var() * columns / (columns - 1))) if rated.any() else 0.0


def _own(values: Array, rated: NDArray[np.bool_]) -> Array:
    """What is left of each row after its mean over the rated cells."""
    kept = np.where(rated, values, np.nan)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(kept, axis=1) / np.maximum(rated.sum(axis=1), 1)
    return np.asarray(kept - mean[:, None])
