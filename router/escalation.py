"""After a picture was made and judged: keep it, try again with another seed, or take a dearer recipe?

Each recipe is a box that may hold a right picture and costs seconds to open. Weitzman's rule says which to open next
and when to stop: the box with the highest reservation value, until the best picture so far is worth more than any of
them (Optimal Search for the Best Alternative, Econometrica 47(3), 1979, https://doi.org/10.2307/1910412). Boxes of one
recipe are not independent: what failed on a prompt before fails more easily again, so its chance is updated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """A recipe that could be tried.

    chance:   probability that one picture of it is right on this prompt, before any was seen
    strength: how many pictures that estimate is worth; small when pictures of one prompt tend to fail together
    seconds:  accelerator seconds of one picture and its check
    """

    recipe: str
    chance: float
    strength: float
    seconds: float

    def after(self, verdicts: Sequence[float]) -> float:
        """The chance when pictures of it were judged right with these probabilities (a beta prior's mean)."""
        return (self.chance * self.strength + sum(verdicts)) / (self.strength + len(verdicts))


@dataclass(frozen=True, slots=True)
class Judge:
    """What a scorer's score is worth as evidence: fitted by logistic regression on judged pictures.

    log-odds of "right" = slope * logit(score) + trust * logit(chance) + level

    on_right, on_wrong: mean logit(score) of right and of wrong pictures, for what a look may be expected to bring
    """

    slope: float
    trust: float
    level: float
    on_right: float
    on_wrong: float

    def verdict(self, chance: float, score: float) -> float:
        """The probability that a picture is right, from the recipe's chance before and the picture's score (0..1)."""
        return self._probability(chance, logit(score))

    def reservation(self, chance: float, price: float) -> float:
        """The z at which opening a box gains nothing: E[(verdict - z)+] = price, for a verdict of two values.

        price: what opening it costs, in quality (0..1).
        """
        right, wrong = self._probability(chance, self.on_right), self._probability(chance, self.on_wrong)
        inside = right - price / chance if chance > 0 else float("-inf")
        if inside >= wrong:
            return inside
        return chance * right + (1 - chance) * wrong - price

    def _probability(self, chance: float, evidence: float) -> float:
        odds = self.slope * evidence + self.trust * logit(chance) + self.level
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))


def logit(probability: float) -> float:
    """Log-odds; 0 and 1 are taken as 0.001 and 0.999."""
    inside = min(0.999, max(0.001, probability))
    return math.log(inside / (1 - inside))


def next_attempt(
    options: Sequence[Option],
    verdicts: Mapping[str, Sequence[float]],
    judge: Judge,
    quality_per_s: float,
    most: int = 4,
) -> str | None:
    """The recipe to try next, or None to keep the best picture so far. Pure.

    verdicts: probabilities of "right" of the pictures made so far, by recipe; empty before the first picture
    quality_per_s: how much probability of a right picture one second is worth
    most: pictures of one recipe at most
    """
    best = max((value for values in verdicts.values() for value in values), default=float("-inf"))
    values = {
        option.recipe: judge.reservation(option.after(made), option.seconds * quality_per_s)
        for option in options
        if len(made := verdicts.get(option.recipe, ())) < most
    }
    if not values:
        return None
    recipe = max(values, key=lambda name: (values[name], name))
    return recipe if values[recipe] > best else None
