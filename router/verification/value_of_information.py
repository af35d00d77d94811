"""After a picture was made and scored: keep it, try again with another seed, or take a more expensive recipe?

Each recipe is a box that may hold a right picture and costs seconds and money to open. Weitzman's rule says which to
open next and when to stop: the box with the highest reservation value, until the best picture so far is worth more than
any of them (Optimal Search for the Best Alternative, Econometrica 47(3), 1979, https://doi.org/10.2307/1910412). Boxes
of one recipe are not independent: what failed on a prompt before fails more easily again, so its chance is updated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from router.types import Prices, Resources
from router.verification.score_reading import ScoreModel


@dataclass(frozen=True, slots=True)
class Option:
    """A recipe that could be tried.

    chance:   probability that one picture of it is right on this prompt, before any was seen
    strength: how many pictures that estimate is worth; small when pictures of one prompt tend to fail together
    takes:    one picture and its check
    """

    recipe: str
    chance: float
    strength: float
    takes: Resources

    def after(self, verdicts: Sequence[float]) -> float:
        """The chance when pictures of it were judged right with these probabilities (a beta prior's mean)."""
        return (self.chance * self.strength + sum(verdicts)) / (self.strength + len(verdicts))


@dataclass(frozen=True, slots=True)
class Weighed:
    """The best option there is. gain: by how much its picture is expected to be better than the best so far;
    price: what it costs, in quality;   worth_it: whether its reservation value is above the best so far."""

    recipe: str
    gain: float
    price: float
    worth_it: bool


def weigh(
    options: Sequence[Option],
    verdicts: Mapping[str, Sequence[float]],
    score_model: ScoreModel,
    prices: Prices,
    most: int = 4,
) -> Weighed | None:
    """The option with the highest reservation value; None if every recipe was tried `most` times. Pure.

    verdicts: probabilities of "right" of the pictures made so far, by recipe; empty before the first picture
    """
    left = sorted((o for o in options if len(verdicts.get(o.recipe, ())) < most), key=lambda o: o.recipe)
    if not left:
        return None
    best = max((value for values in verdicts.values() for value in values), default=float("-inf"))
    chances = np.array([option.after(verdicts.get(option.recipe, ())) for option in left])
    costs = np.array([prices.of(option.takes) for option in left])
    values = np.asarray(score_model.reservation(chances, costs))
    k = len(left) - 1 - int(values[::-1].argmax())  # of equal ones the last by name
    gain = float(score_model.gain(float(chances[k]), max(best, 0.0)))
    return Weighed(left[k].recipe, gain, float(costs[k]), bool(values[k] > best))


def value_of_a_look(made: Option, options: Sequence[Option], score_model: ScoreModel, prices: Prices) -> float:
    """What checking a picture of `made` is expected to gain, in quality, before the price of the look itself.

    A look is worth what may be tried after it: for each verdict, the best single try less its price, if that is above
    zero. Further tries after that one are left out, so the value is a lower bound.
    """
    if not options:
        return 0.0
    verdicts, weights = score_model.outlook(made.chance)
    again = np.array([option.recipe == made.recipe for option in options], np.float64)[:, None]
    strengths = np.array([option.strength for option in options])[:, None]
    costs = np.array([prices.of(option.takes) for option in options])[:, None]
    # `after` of every option and every verdict at once: this stands in the way of each decision.
    chances = np.array([option.chance for option in options])[:, None] * strengths + verdicts * again
    gains = np.asarray(score_model.gain(chances / (strengths + again), verdicts)) - costs
    return float(weights @ np.maximum(0.0, gains.max(axis=0)))
