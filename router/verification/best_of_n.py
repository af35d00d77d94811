"""Best-of-n with n left open: how many pictures of which recipes are worth their price, planned before any is made.

The pictures are made one after the other, each is scored, and the search ends at the first that is good enough. Which
recipe comes when, and from which verdict on the rest is left out, is Weitzman's rule (value_of_information.py): a
picture is worth making if the best so far is below its reservation value. Both are fixed beforehand along the way on
which no picture was good enough, so that the search is an ordinary plan, and what it will come to can be summed up
(search_plan.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.types import UNBOUNDED, Prices, Resources, Turn
from router.verification.score_reading import ScoreModel
from router.verification.search_plan import follow
from router.verification.value_of_information import Option

Array = NDArray[np.float64]
SETTLING = 2  # a bar and the verdicts below it depend on one another; they settle in so many rounds
RARE = 0.01  # a picture that is made less often than this is not planned


@dataclass(frozen=True)
class Outlook:
    """What a search is expected to come to.

    turns:    the pictures in their order, with the verdicts that end the search before them
    reached:  probability that each is made, the first 1.0
    quality:  expected probability that the picture kept is right
    """

    turns: tuple[Turn, ...]
    reached: tuple[float, ...]
    quality: float

    @property
    def pictures(self) -> float:
        """Expected number of pictures."""
        return sum(self.reached)

    def expected(self, each: Mapping[str, float]) -> float:
        """What the search takes if one picture of a recipe takes `each` of it."""
        return sum(share * each[turn.recipe] for share, turn in zip(self.reached, self.turns, strict=True))


@dataclass
class _Path:
    """The search so far, on the way where nothing was good enough. best: (values, probabilities) of the best verdict,
    summing to the probability of being here; passed: mean verdicts of each recipe's pictures on this way."""

    values: Array = field(default_factory=lambda: np.zeros(1))
    weights: Array = field(default_factory=lambda: np.ones(1))
    passed: dict[str, list[float]] = field(default_factory=dict)

    def stop_from(self, bar: float) -> None:
        """End the search where the best verdict is at least `bar`."""
        below = self.values < bar
        self.values, self.weights = self.values[below], self.weights[below]

    def open(self, recipe: str, outlook: tuple[Array, Array]) -> None:
        """Make one more picture with these possible verdicts."""
        values, weights = outlook
        best = np.maximum(self.values[:, None], values).ravel()
        self.weights = (self.weights[:, None] * weights).ravel()
        self.values, place = np.unique(best.round(9), return_inverse=True)
        self.weights = np.asarray(np.bincount(place, self.weights), np.float64)
        self.passed.setdefault(recipe, []).append(float((values * weights).sum()))


def plan_search(
    options: Sequence[Option],
    score_model: ScoreModel,
    prices: Prices,
    most: int,
    room: Resources = UNBOUNDED,
) -> Outlook:
    """The best search over `options` with at most `most` pictures; there is always a first one. Pure.

    room: what all pictures of the search may take together in the worst case
    """
    by_name = {option.recipe: option for option in options}
    path = _Path()
    turns: list[Turn] = []
    used = Resources()
    while len(turns) < most:
        found = _next(options, path, score_model, prices, room, used)
        for _ in range(SETTLING if turns else 0):
            if found is not None:
                path.passed = _passed(turns, found[1], score_model)
                found = _next(options, path, score_model, prices, room, used)
        if found is None and turns:
            break
        name, bar = found or (
            min(by_name, key=lambda n: (by_name[n].takes.cost_usd, by_name[n].takes.latency_s, n)),
            0.0,
        )
        option = by_name[name]
        if turns:
            if float(path.weights[path.values < bar].sum()) < RARE:
                break
            path.stop_from(bar)
        chance = option.after(path.passed.get(name, []))
        turns.append(Turn(name, bar if turns else 1.0, score_model.slope, float(score_model.offset(chance)), chance))
        path.open(name, score_model.outlook(chance))
        used += option.takes
    return Outlook(tuple(turns), *follow(turns, options, score_model))


def _next(
    options: Sequence[Option],
    path: _Path,
    score_model: ScoreModel,
    prices: Prices,
    room: Resources,
    used: Resources,
) -> tuple[str, float] | None:
    """The recipe with the highest reservation value among those that there is room for, and that value."""
    fits = [option for option in options if (used + option.takes).fits(room)]
    values = {
        o.recipe: float(score_model.reservation(o.after(path.passed.get(o.recipe, [])), prices.of(o.takes)))
        for o in fits
    }
    name = max(values, key=lambda n: (values[n], n), default=None)
    return (name, values[name]) if name is not None else None


def _passed(turns: Sequence[Turn], bar: float, score_model: ScoreModel) -> dict[str, list[float]]:
    """Mean verdicts of the pictures of `turns`, by recipe, where all of them were below `bar`."""
    seen: dict[str, list[float]] = {}
    for turn in turns:
        values, weights = score_model.outlook(turn.chance)
        below = values < bar
        share = float(weights[below].sum())
        seen.setdefault(turn.recipe, []).append(float((values * weights)[below].sum()) / share if share else bar)
    return seen
