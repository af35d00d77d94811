"""What can be chosen at all: recipes that no model can run, that no limit lets through, or that no rule ever allows.

Seconds and dollars at load are priors of the model cards and may be far from what will be measured, so a limit is only
called impossible if it is beyond them by `MARGIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from policies.checking.contradictions import unreachable
from policies.deciding.reasons import dollars, seconds
from policies.language.schema_choice import Limits
from policies.language.schema_rules import Rule
from policies.language.source import Path
from router.errors import PlanError
from router.types import Plan, Recipe

MARGIN = 20.0


@dataclass(frozen=True)
class PlannedRecipe:
    """A recipe on the model cards: its plan; pixels of its smallest picture; seconds and dollars of the plan, idle."""

    plan: Plan
    pixels: int
    latency_s: float
    work_s: float
    cost_usd: float


PlanRecipe = Callable[[str, Recipe, Mapping[str, Recipe]], PlannedRecipe]
"""(name, recipe, all recipes) -> how it would be run; raises `PlanError` with the remedy if it cannot be."""


def check_reach(
    recipes: Mapping[str, Recipe],
    parts: Collection[str],
    limits: Limits | None,
    rules: Sequence[tuple[int, Rule]],
    arrange: PlanRecipe | None,
) -> Iterator[tuple[Path, str]]:
    """Everything that cannot be run or chosen. parts: recipes that others are made of, which need not be chosen."""
    planned: dict[str, PlannedRecipe] = {}
    for name, recipe in recipes.items() if arrange else ():
        try:
            planned[name] = arrange(name, recipe, recipes)  # type: ignore[misc]
        except PlanError as error:
            yield ("recipes", name), error.message
    if limits is not None and planned and len(planned) == len(recipes):
        yield from _limits(planned, limits, any(rule.set_ and rule.set_.limits for _, rule in rules))
    for name in sorted(unreachable(rules, recipes) - set(parts)):
        yield ("recipes", name), f"recipe {name!r} can never be chosen: the rules always exclude it; loosen one of them"


def _limits(planned: Mapping[str, PlannedRecipe], limits: Limits, may_change: bool) -> Iterator[tuple[Path, str]]:
    """Limits that none of the recipes can meet, and recipes that cannot meet one of them (if no rule sets others)."""
    for key, bound in limits.model_dump(exclude_none=True).items():
        measure = "pixels" if key == "max_pixels" else key
        margin = 1.0 if measure == "pixels" else MARGIN
        least = {name: float(getattr(found, measure)) for name, found in planned.items()}
        over = [name for name, value in least.items() if value > bound * margin]
        if len(over) == len(least):
            name = min(least, key=lambda name: least[name])
            about = _words(measure, least[name])
            yield ("limits", key), f"no recipe can meet {key}: {bound:g}; the nearest is {name} with about {about}"
            return
        for name in () if may_change else over:
            about = f"about {_words(measure, least[name])} where limits.{key} allows {_words(measure, bound)}"
            yield ("recipes", name), f"recipe {name!r} can never be chosen: {about}; raise the limit or drop it"


def _words(measure: str, value: float) -> str:
    if measure == "pixels":
        return f"{value:.0f} pixels"
    return dollars(value) if measure == "cost_usd" else seconds(value)
