"""Plans of all recipes of a policy, made once for all prompts: what depends on prompt and seed is filled in at the end.

Sizes, steps, hand-overs and refusals follow from recipe, cards and the rest of the request, and those are mostly the
same as in the request before. Estimating and choosing need no more; the words and the seed are for the workers, and are
filled into the plan that was chosen. What does look at the prompt while it is planned (`regions`, for its phrases; a
search that was resolved for it) is planned anew each time.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from cachetools import LRUCache

from router.errors import PlanError
from router.planning.plan import ANY_PROMPT, cut_prompts, make_plan
from router.planning.recipes import as_run, asks_otherwise, resolve
from router.planning.sizes import answer_size, apart
from router.planning.styles import unsaid
from router.types import Catalogue, Chain, Fuse, GenerationRequest, Plan, Recipe, Rejection, Step

SHAPES = 64  # of requests, times policies, whose plans are kept
RESOLVED = 512  # searches that were resolved, whose plans are kept
CHECKED = 1024  # plans with a look at their picture


@dataclass(frozen=True, slots=True)
class Planned:
    """plans: by recipe, as good as those of `make_plan` for estimating and choosing; `plan` gives one to be run.

    refused:  recipes that do not fit the request, with the reasons
    complete: recipes whose plans were made for this very request
    as_run:   the recipes with what the request asks of them, for estimating; may hold more than were planned
    apart:    how far (`sizes.apart`) the size that is asked is from that at which each is usually answered; 0 if absent
    """

    request: GenerationRequest
    catalogue: Catalogue
    plans: dict[str, Plan]
    refused: tuple[Rejection, ...]
    complete: Collection[str] = ()
    as_run: Mapping[str, Recipe] = field(default_factory=dict)
    apart: Mapping[str, float] = field(default_factory=dict)

    def plan(self, recipe: str) -> Plan:
        """The plan of `recipe` with the request's prompt and seed."""
        plan, request = self.plans[recipe], self.request
        if recipe in self.complete:
            return plan
        steps = []
        for step in plan.steps:
            settings = dict(step.settings)
            if "prompt" in settings:
                settings["prompt"] = request.prompt
            if isinstance(seed := settings.get("seed"), int):
                settings["seed"] = (seed + request.seed) % 2**32
            steps.append(
                Step(step.id, step.kind, step.model, step.inputs, step.produces, settings, step.unless, step.needs)
            )
        notes = (*plan.notes, *cut_prompts(request.prompt, steps, self.catalogue))
        notes = (*notes, *unsaid(request.prompt, steps, self.catalogue))
        return Plan(
            plan.recipe,
            tuple(steps),
            plan.output,
            plan.width,
            plan.height,
            notes,
            plan.handovers,
            plan.ignores,
            plan.overlooks,
        )


class Planner:
    """Plans all recipes of a policy for a request. Safe to use from several threads."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._kept: LRUCache[tuple[object, ...], _Kept] = LRUCache(SHAPES)
        # Known by identity: an entry keeps what its numbers stand for.
        self._resolved: LRUCache[tuple[int, int], tuple[_Kept, Recipe, Plan]] = LRUCache(RESOLVED)
        self._lock = threading.Lock()

    def searches(self, request: GenerationRequest, recipes: Mapping[str, Recipe]) -> tuple[str, ...]:
        """Those of `recipes` whose number of pictures is left to the router."""
        return self._kept_for(request, recipes).searches

    def plan(
        self, request: GenerationRequest, recipes: Mapping[str, Recipe], resolved: Mapping[str, Recipe] | None = None
    ) -> Planned:
        """A plan for each of `recipes` that fits the request, and a rejection for each that does not.

        resolved: what searches among them came to, which are planned instead
        """
        kept = self._kept_for(request, recipes)
        if not kept.apart:
            return Planned(
                request, self._catalogue, dict(kept.plans), kept.refused, (), kept.as_run or recipes, kept.distances
            )
        own, also_refused, complete = self._apart(request, kept, {**recipes, **(resolved or {})}, resolved or {})
        refusals = {rejection.recipe: rejection for rejection in (*kept.refused, *also_refused)}
        plans = {**kept.plans, **own}
        return Planned(
            request,
            self._catalogue,
            {name: plans[name] for name in recipes if name in plans},
            tuple(refusals[name] for name in recipes if name in refusals),
            complete,
            kept.as_run or recipes,
            {**kept.distances, **distances(request, own, recipes, self._catalogue)},
        )

    def _apart(
        self, request: GenerationRequest, kept: _Kept, whole: Mapping[str, Recipe], resolved: Mapping[str, Recipe]
    ) -> tuple[dict[str, Plan], tuple[Rejection, ...], set[str]]:
        """Plans and refusals of the recipes that look at the prompt, and which are complete. A search does so no longer
        once it is resolved, so its plan is kept as long as it comes to the same."""
        plans: dict[str, Plan] = {}
        complete: set[str] = set()
        refused: tuple[Rejection, ...] = ()
        for name in kept.apart:
            recipe, words = whole[name], request
            if name in resolved and not reads_prompt(name, whole, searches=False):
                key = id(kept), id(recipe)
                with self._lock:
                    known = self._resolved.get(key)
                if known is not None:
                    plans[name] = known[2]
                    continue
                words = replace(request, prompt=ANY_PROMPT, seed=0)
            made, also = _planned(words, (name,), whole, self._catalogue)
            plans, refused = {**plans, **made}, (*refused, *also)
            if words is request:
                complete |= made.keys()
            elif name in made:
                with self._lock:
                    self._resolved[key] = kept, recipe, made[name]
        return plans, refused, complete

    def _kept_for(self, request: GenerationRequest, recipes: Mapping[str, Recipe]) -> _Kept:
        asked = request.width, request.height, request.steps, request.guidance_scale, request.style
        key = (tuple(recipes), request.negative_prompt, *asked, request.given, request.strength, request.faithful)
        with self._lock:
            kept = self._kept.get(key)
        # A policy's recipes are the same objects each time, so comparing them is quick.
        if kept is None or kept.recipes != recipes:
            reading = tuple(name for name in recipes if reads_prompt(name, recipes))
            shared = [name for name in recipes if name not in reading]
            shape = replace(request, prompt=ANY_PROMPT, seed=0)
            plans, refused = _planned(shape, shared, recipes, self._catalogue)
            changed = asks_otherwise(request)
            run = {name: as_run(recipe, request) for name, recipe in recipes.items()} if changed else {}
            far = distances(request, plans, recipes, self._catalogue)
            kept = _Kept(dict(recipes), reading, plans, refused, run, far)
            with self._lock:
                self._kept[key] = kept
        return kept


@dataclass(frozen=True, slots=True)
class _Kept:
    """apart: recipes that are planned for each request; plans and refused: of the others, for `ANY_PROMPT`.

    as_run: all recipes as this shape of request asks for them; empty if they are as they stand
    distances: of the plans, as `Planned.apart`
    """

    recipes: dict[str, Recipe]
    apart: tuple[str, ...]
    plans: dict[str, Plan]
    refused: tuple[Rejection, ...]
    as_run: dict[str, Recipe]
    distances: dict[str, float]
    searches: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        searches = (n for n, r in self.recipes.items() if isinstance(r, Fuse) and r.search is not None)
        object.__setattr__(self, "searches", tuple(searches))


class Checked:
    """Plans with a look at their picture, for what that would take; made once for each plan and scorer.

    Plans are known by identity: an entry keeps its plan, so that its number is not given to another meanwhile.
    """

    def __init__(self) -> None:
        self._kept: LRUCache[tuple[int, str], tuple[Plan, Plan]] = LRUCache(CHECKED)
        self._lock = threading.Lock()

    def plan(self, plan: Plan, scorer: str) -> Plan:
        """`plan` with a look of `scorer` at its picture; the output is still the picture."""
        with self._lock:
            kept = self._kept.get((id(plan), scorer))
            if kept is None:
                step = Step(f"verify-{scorer}", "score", scorer, (plan.output,), "scores")
                kept = self._kept[id(plan), scorer] = (plan, replace(plan, steps=(*plan.steps, step)))
        return kept[1]


with_check = Checked().plan
"""Of this process: one memory for all who price a look."""


def distances(
    request: GenerationRequest, plans: Mapping[str, Plan], recipes: Mapping[str, Recipe], catalogue: Catalogue
) -> dict[str, float]:
    """How far the size of each plan's answer is from that at which its recipe is answered if none is asked for."""
    if request.width is None and request.height is None:
        return {}
    usual = replace(request, width=None, height=None)
    return {
        name: apart((plan.width, plan.height), answer_size(resolve(recipes[name], recipes, (name,)), usual, catalogue))
        for name, plan in plans.items()
    }


def _planned(
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


def reads_prompt(
    name: str, recipes: Mapping[str, Recipe], path: tuple[str, ...] = (), *, searches: bool = True
) -> bool:
    """Does planning this recipe look at the prompt? A search does (`searches`), since it is resolved for one."""
    pending: list[str | Recipe] = [recipes[name]]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            inner = part in recipes and part not in path
            if inner and reads_prompt(part, recipes, (*path, name), searches=searches):
                return True
        elif isinstance(part, Chain):
            pending += part.stages
        elif isinstance(part, Fuse):
            if part.method == "regions" or (searches and part.search is not None):
                return True
            pending += part.branches
    return False
