"""What a policy file is checked against: the catalogue's models, and how its recipes would run on them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from deployments.safety import nsfw
from models.schedulers import SCHEDULERS
from policies import Known, PlannedRecipe
from router.cost.model import CostModel
from router.cost.queues import Queues
from router.errors import PlanError
from router.planning.edits import PROBE, probes
from router.planning.plan import make_plan
from router.planning.recipes import resolve
from router.planning.sizes import enlargement, first_stage
from router.prompts.lexical import SIGNALS
from router.types import Catalogue, Generate, GenerationRequest, GivenPicture, Plan, Recipe


def known_of(catalogue: Catalogue, moderators: Collection[str] | None = None) -> Known:
    """The names that a policy may use, and the planner on these model cards.

    moderators: endpoints that the config has; None: a policy may name any
    """
    scorers = tuple(model for model in catalogue.ids() if catalogue[model].role == "scorer")
    idle = Queues(CostModel(catalogue))

    def arrange(name: str, recipe: Recipe, recipes: Mapping[str, Recipe]) -> PlannedRecipe:
        try:
            plan, least = _plan(name, recipe, recipes, catalogue)
        except PlanError as error:
            if error.param != "reference":
                raise
            plan, least = _plan(name, recipe, recipes, catalogue, (REFERENCE,))
        timing = idle.estimate(plan)
        return PlannedRecipe(plan, least * least, timing.latency_s, timing.work_s, timing.cost_usd)

    missing = {} if nsfw.installed() else {"nsfw": nsfw.REMEDY}
    return Known(catalogue.ids(), tuple(SIGNALS), tuple(SCHEDULERS), scorers, moderators, missing, arrange)


REFERENCE = GivenPicture("reference", "0" * 64, PROBE, PROBE)
"""What a recipe that draws after a picture is tried with."""


def _plan(
    name: str,
    recipe: Recipe,
    recipes: Mapping[str, Recipe],
    catalogue: Catalogue,
    brought: tuple[GivenPicture, ...] = (),
) -> tuple[Plan, int]:
    """A plan at native size, or else at the smallest side, which is returned, too. Raises `PlanError`."""
    resolved = resolve(recipe, recipes, (name,))
    request, first = GenerationRequest("-", given=brought), first_stage(resolved)
    if not isinstance(first, Generate) or first.control is not None:
        return _edited(name, recipe, recipes, catalogue, probes(resolved, catalogue), brought)
    if first.model not in catalogue:
        return make_plan(name, recipe, request, catalogue, recipes), 0  # raises, with the nearest name
    least = round(catalogue[first.model].min_side * enlargement(resolved))
    try:
        return make_plan(name, recipe, request, catalogue, recipes), least
    except PlanError as error:
        if error.param != "size" or first.width or first.height:
            raise
        try:
            return make_plan(name, recipe, replace(request, width=least, height=least), catalogue, recipes), least
        except PlanError:
            raise error from None


def _edited(
    name: str,
    recipe: Recipe,
    recipes: Mapping[str, Recipe],
    catalogue: Catalogue,
    pictures: Sequence[tuple[GivenPicture, ...]],
    brought: tuple[GivenPicture, ...],
) -> tuple[Plan, int]:
    """The plan for the first of `pictures`, each with its mask if it has one, that it fits, and the side of its
    answer. Raises the first `PlanError`."""
    failure: PlanError | None = None
    for given in pictures:
        try:
            plan = make_plan(name, recipe, GenerationRequest("-", given=(*given, *brought)), catalogue, recipes)
        except PlanError as error:
            failure = failure or error
        else:
            return plan, math.isqrt(plan.width * plan.height)
    assert failure is not None
    raise failure
