"""Plans that are arranged once for all prompts: what of them depends on prompt and seed is filled in when they are run.

Sizes, steps, hand-overs and refusals follow from recipe, cards and the rest of the request, and those are mostly the
same as in the request before. Estimating and choosing need no more; the words and the seed are for the workers. What
does look at the prompt while it is arranged (`regions`, for its phrases; a search that was settled for it) is arranged
anew each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from router.errors import PlanError
from router.planning.plan import cut_prompts, make_plan
from router.recent import Recent
from router.types import Catalogue, Chain, Fuse, GenerationRequest, Plan, Recipe, Rejection, Scalar, Step

SHAPES = 64  # of requests, times policies, whose plans are kept
ANY_PROMPT = "-"  # stands for every prompt; a single token, so none is too long


@dataclass(frozen=True)
class Arranged:
    """plans: by recipe, as good as those of `make_plan` for estimating and choosing; `plan` gives one to be run.

    refused:  recipes that do not fit the request, with the reasons
    complete: recipes whose plans were made for this very request
    """

    request: GenerationRequest
    catalogue: Catalogue
    plans: dict[str, Plan]
    refused: tuple[Rejection, ...]
    complete: frozenset[str] = frozenset()

    def plan(self, recipe: str) -> Plan:
        """The plan of `recipe` with the request's prompt and seed."""
        plan = self.plans[recipe]
        return plan if recipe in self.complete else _filled(plan, self.request, self.catalogue)


class Arranger:
    """Arranges all recipes of a policy for a request. Safe to use from several threads."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._kept = Recent[tuple[object, ...], _Kept](SHAPES)

    def arrange(self, request: GenerationRequest, recipes: Mapping[str, Recipe]) -> Arranged:
        """A plan for each of `recipes` that fits the request, and a rejection for each that does not."""
        kept = self._kept_for(request, recipes)
        if not kept.apart:
            return Arranged(request, self._catalogue, dict(kept.plans), kept.refused)
        own, also_refused = _arranged(request, kept.apart, recipes, self._catalogue)
        refusals = {rejection.recipe: rejection for rejection in (*kept.refused, *also_refused)}
        plans = {**kept.plans, **own}
        return Arranged(
            request,
            self._catalogue,
            {name: plans[name] for name in recipes if name in plans},
            tuple(refusals[name] for name in recipes if name in refusals),
            frozenset(own),
        )

    def _kept_for(self, request: GenerationRequest, recipes: Mapping[str, Recipe]) -> _Kept:
        asked = request.width, request.height, request.steps, request.guidance_scale
        key = (tuple(recipes), request.negative_prompt, *asked)
        kept = self._kept.get(key)
        # A policy's recipes are the same objects each time, so comparing them is quick.
        if kept is None or kept.recipes != recipes:
            apart = tuple(name for name in recipes if _reads_prompt(name, recipes))
            shared = [name for name in recipes if name not in apart]
            shape = replace(request, prompt=ANY_PROMPT, seed=0)
            kept = _Kept(dict(recipes), apart, *_arranged(shape, shared, recipes, self._catalogue))
            self._kept.put(key, kept)
        return kept


@dataclass(frozen=True, slots=True)
class _Kept:
    """apart: recipes that are arranged for each request; plans and refused: of the others, for `ANY_PROMPT`."""

    recipes: dict[str, Recipe]
    apart: tuple[str, ...]
    plans: dict[str, Plan]
    refused: tuple[Rejection, ...]


def with_check(plan: Plan, scorer: str) -> Plan:
    """The plan with a look of `scorer` at its picture, for what that would take; the output is still the picture."""
    if scorer not in plan.checks:
        step = Step(f"verify-{scorer}", "score", scorer, (plan.output,), "scores")
        plan.checks[scorer] = replace(plan, steps=(*plan.steps, step))
    return plan.checks[scorer]


def _arranged(
    request: GenerationRequest, names: Iterable[str], recipes: Mapping[str, Recipe], catalogue: Catalogue
) -> tuple[dict[str, Plan], tuple[Rejection, ...]]:
    plans: dict[str, Plan] = {}
    refused: list[Rejection] = []
    for name in names:
        try:
            plans[name] = make_plan(name, recipes[name], request, catalogue, recipes)
        except PlanError as error:
            refused.append(Rejection(name, "capability", error.message))
    return plans, tuple(refused)


def _reads_prompt(name: str, recipes: Mapping[str, Recipe], path: tuple[str, ...] = ()) -> bool:
    """Does arranging this recipe look at the prompt, or is the recipe itself made for one?"""
    pending: list[str | Recipe] = [recipes[name]]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            if part in recipes and part not in path and _reads_prompt(part, recipes, (*path, name)):
                return True
        elif isinstance(part, Chain):
            pending += part.stages
        elif isinstance(part, Fuse):
            if part.method == "regions" or part.search is not None:
                return True
            pending += part.branches
    return False


def _filled(plan: Plan, request: GenerationRequest, catalogue: Catalogue) -> Plan:
    """A plan that was made for `ANY_PROMPT` and seed 0, for the prompt and the seed of `request`."""
    steps = tuple(
        Step(s.id, s.kind, s.model, s.inputs, s.produces, _worded(s.settings, request), s.unless, s.needs)
        for s in plan.steps
    )
    notes = (*plan.notes, *cut_prompts(request.prompt, steps, catalogue))
    return Plan(plan.recipe, steps, plan.output, plan.width, plan.height, notes, plan.handovers)


def _worded(settings: Mapping[str, Scalar], request: GenerationRequest) -> dict[str, Scalar]:
    filled = dict(settings)
    if "prompt" in filled:
        filled["prompt"] = request.prompt
    if isinstance(seed := filled.get("seed"), int):
        filled["seed"] = (seed + request.seed) % 2**32
    return filled
