"""The language of the choice itself: limits, objectives, chance."""

from __future__ import annotations

import functools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from policies.language.spec import Name, Positive, Spec, Text, Unit, at_least_one, exactly_one
from router.types import Licence

AIMS = ("maximise", "cheapest_within", "fastest_above", "best_under", "lexicographic", "minimise")
Measure = Literal["quality", "cost_usd", "latency_s", "work_s"]


class Limits(Spec):
    """What no chosen recipe may exceed. Expected values for the whole request, all its pictures together."""

    latency_s: Positive | None = Field(default=None, description="seconds until the last picture, waiting included")
    work_s: Positive | None = Field(default=None, description="seconds of work, summed over accelerators")
    cost_usd: Positive | None = Field(default=None, description="US dollars")
    max_pixels: Annotated[int, Field(gt=0)] | None = Field(default=None, description="pixels of one picture")


class LicenceSpec(Spec):
    """Which models may draw, by what their cards say of their terms; a recipe with another one is ruled out, also when
    it is asked for by name."""

    commercial: Literal[True] | None = Field(
        default=None, description="true: only models whose licence allows commercial use; default: any"
    )
    gated: Literal["refuse"] | None = Field(
        default=None,
        description="refuse: no models whose download asks for an account that accepted their terms; default: any",
    )
    only: Annotated[list[Text], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="licences by the names that cards give them; default: any"
    )

    @model_validator(mode="after")
    def _says_something(self) -> LicenceSpec:
        at_least_one(self, ("commercial", "gated", "only"), "licence")
        return self

    def excludes(self, model: str, licence: Licence) -> str:
        """Why a model may not draw, in words; empty if it may."""
        if self.commercial and not licence.commercial_use:
            return f"the licence of {model!r} ({licence.name}) does not allow commercial use"
        if self.gated and licence.gated:
            return f"{model!r} can only be had by an account that accepted its terms ({licence.name})"
        if self.only is not None and licence.name not in self.only:
            return f"the licence of {model!r} is {licence.name}, and the policy allows {', '.join(self.only)}"
        return ""


class Weight(Spec):
    """How much expected quality (0..1) one dollar, one second and one unit of uncertainty are worth."""

    cost_usd: Annotated[float, Field(ge=0)] = Field(default=0.0, description="quality per US dollar")
    latency_s: Annotated[float, Field(ge=0)] = Field(default=0.0, description="quality per second")
    uncertainty: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="quality per standard deviation of the expected quality; above 0 avoids risk"
    )


class Bounds(Spec):
    """Bounds of `best_under`."""

    cost_usd: Positive | None = Field(default=None, description="US dollars")
    latency_s: Positive | None = Field(default=None, description="seconds")

    @model_validator(mode="after")
    def _one_or_both(self) -> Bounds:
        at_least_one(self, ("cost_usd", "latency_s"), "best_under")
        return self


class Criterion(Spec):
    """One step of a lexicographic objective: keep what is within a tolerance of the best, let the next one decide."""

    by: Measure = Field(description="quality: the higher the better; the others: the lower the better")
    within: Annotated[float, Field(ge=0)] = Field(default=0.0, description="tolerance, in the unit of `by`")


class Objective(Spec):
    """What the best recipe is, among those that may run: exactly one aim."""

    maximise: Literal["quality"] | None = Field(default=None, description="expected quality, less what weight says")
    weight: Weight | None = Field(default=None, description="with maximise; default: nothing is subtracted")
    cheapest_within: Unit | None = Field(default=None, description="cheapest within this of the best expected quality")
    fastest_above: Unit | None = Field(default=None, description="fastest with this expected quality or more")
    best_under: Bounds | None = Field(default=None, description="best expected quality under these soft bounds")
    lexicographic: Annotated[list[Criterion], Field(min_length=1, max_length=4)] | None = Field(
        default=None, description="one criterion after the other"
    )
    minimise: Literal["cost_usd", "latency_s", "work_s"] | None = Field(default=None, description="lowest")

    @functools.cached_property
    def aim(self) -> str:
        """The key that is given."""
        return next(key for key in AIMS if getattr(self, key) is not None)

    @model_validator(mode="after")
    def _one_aim(self) -> Objective:
        exactly_one(self, AIMS, "objective")
        if self.weight is not None and self.maximise is None:
            raise ValueError("weight belongs to 'maximise: quality'")
        measures = [criterion.by for criterion in self.lexicographic or ()]
        if twice := next((m for k, m in enumerate(measures) if m in measures[:k]), None):
            raise ValueError(f"lexicographic compares by {twice} twice; the second time decides nothing")
        return self


class ExploreSpec(Spec):
    """Now and then a recipe is drawn at random, so that something is learned about those that never win."""

    rate: Unit = Field(description="share of the requests that are drawn")
    among: Annotated[list[Name], Field(min_length=1)] | None = Field(
        default=None, description="recipes to draw from; default: all that may run"
    )
