"""After a picture was made and judged: keep it, try again with another seed, or take a dearer recipe?

Each recipe is a box that may hold a right picture and costs seconds to open. Weitzman's rule says which to open next
and when to stop: the box with the highest reservation value, until the best picture so far is worth more than any of
them (Optimal Search for the Best Alternative, Econometrica 47(3), 1979, https://doi.org/10.2307/1910412). Boxes of one
recipe are not independent: what failed on a prompt before fails more easily again, so its chance is updated.
"""

from __future__ import annotations

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
    """What a scorer's verdict is worth: its mean probability of "right" on right and on wrong pictures."""

    on_right: float
    on_wrong: float

    def reservation(self, chance: float, price: float) -> float:
        """The z at which opening a box gains nothing: E[(verdict - z)+] = price, for a verdict of two values.

        price: what opening it costs, in quality (0..1).
        """
        inside = self.on_right - price / chance if chance > 0 else float("-inf")
        if inside >= self.on_wrong:
            return inside
        return chance * self.on_right + (1 - chance) * self.on_wrong - price


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
