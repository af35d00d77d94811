"""Resolves the searches among a policy's recipes: how many pictures of which branches are worth their price, for one
prompt and the queues of this moment. What comes out is an ordinary best_of, and an estimate beside all others."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cachetools import LRUCache

from router.cost.queues import Queues
from router.errors import PlanError, RequestError, did_you_mean
from router.planning.plan import make_plan
from router.planning.planner import ANY_PROMPT, distances, reads_prompt, with_check
from router.planning.recipes import as_run, recipe_key, resolve
from router.types import (
    Catalogue,
    Estimate,
    Fuse,
    GenerationRequest,
    Plan,
    Quality,
    Recipe,
    Resources,
    Search,
    Turn,
)
from router.verification.best_of_n import Outlook, plan_search
from router.verification.case import Case
from router.verification.score_reading import ScoreReading
from router.verification.search_plan import follow
from router.verification.value_of_information import Option

BRANCHES = 128  # searches, times shapes of requests, whose branches are kept
RESOLVED = 512  # searches, times prompts, that are kept until queues, prices or bounds change


@dataclass(frozen=True)
class ResolvedSearch:
    """What a search came to. recipe: its branches in the order of `turns`, which name each by its key; estimate:
    expected over where it may end; note: in words, for the plan."""

    recipe: Fuse
    estimate: Estimate
    note: str


@dataclass(frozen=True)
class _Branches:
    """The parts of a search that fit a request, by their place: recipes, canonical keys, plans of one picture, and
    those plans with a look at it; the recipes as the request asks for them, and how far its size is from theirs."""

    recipe: Fuse
    among: Mapping[str, Recipe]
    parts: dict[str, Recipe]
    keys: dict[str, str]
    plans: dict[str, Plan]
    checked: dict[str, Plan]
    as_run: dict[str, Recipe]
    apart: dict[str, float]


class Searches:
    """Resolves searches, and remembers what they came to as long as nothing changes that they depend on. Safe to use
    from several threads."""

    def __init__(self, catalogue: Catalogue, queues: Queues) -> None:
        self._catalogue = catalogue
        self._queues = queues
        self._branches: LRUCache[tuple[object, ...], _Branches] = LRUCache(BRANCHES)
        self._resolved: LRUCache[tuple[object, ...], tuple[_Branches, ResolvedSearch]] = LRUCache(RESOLVED)
        self._lock = threading.Lock()

    def resolve(self, name: str, case: Case, bounds: Resources) -> ResolvedSearch | None:
        """The search that the recipe `name` comes to; None if none of its branches can be planned for this request.

        bounds: what all its pictures may take, all of them made. With `turns` in the request nothing is searched: they
        are what it comes to, and `RequestError` says if they name other recipes than this one has.
        """
        branches = self._branches_of(name, case)
        if not branches.plans:
            return None
        request, view, predictor = case.request, case.view, case.knowledge.predictor
        reading = case.knowledge.reading(str(branches.recipe.scorer))
        moment = self._queues.state, bounds, reading
        key = (id(branches), view.prompt, view.familiarity, predictor.digest, request.n, request.turns, *moment)
        with self._lock:
            kept = self._resolved.get(key)
        if kept is None:
            kept = branches, self._resolve(name, branches, case, bounds, reading)
            with self._lock:
                self._resolved[key] = kept
        return kept[1]

    def _resolve(
        self, name: str, branches: _Branches, case: Case, bounds: Resources, reading: ScoreReading
    ) -> ResolvedSearch:
        recipe, request = branches.recipe, case.request
        assert recipe.search is not None
        qualities = case.knowledge.predictor.predict(case.view, branches.as_run, apart=branches.apart)
        takes = self._queues.estimates(branches.checked, request.n)
        options = [Option(place, qualities[place].mean, reading.strength, takes[place]) for place in branches.plans]
        if request.turns:
            places = {key: place for place, key in branches.keys.items()}
            given = tuple(replace(turn, recipe=_place(turn, places, name)) for turn in request.turns)
            outlook = Outlook(given, *follow(given, options, reading.score_model))
        else:
            outlook = plan_search(options, reading.score_model, recipe.search.prices, recipe.search.most, bounds)
        turns = tuple(_rounded(turn, branches.keys) for turn in outlook.turns)
        fused = replace(recipe, branches=tuple(branches.parts[turn.recipe] for turn in outlook.turns), turns=turns)
        if len(turns) == 1:  # nothing is scored then
            takes = self._queues.estimates(branches.plans, request.n)
        return ResolvedSearch(fused, _estimate(name, outlook, qualities, takes), _note(outlook, recipe.search, reading))

    def _branches_of(self, name: str, case: Case) -> _Branches:
        request, recipes = case.request, case.recipes
        prompt = request.prompt if reads_prompt(name, recipes, searches=False) else ANY_PROMPT
        shape = (
            request.width,
            request.height,
            request.steps,
            request.guidance_scale,
            request.negative_prompt,
            request.style,
            request.given,
            request.strength,
            request.faithful,
        )
        key = (name, id(recipes[name]), prompt, *shape)
        with self._lock:
            kept = self._branches.get(key)
        if kept is None or kept.among != recipes:
            kept = self._planned(name, replace(request, prompt=prompt, seed=0), recipes)
            with self._lock:
                self._branches[key] = kept
        return kept

    def _planned(self, name: str, request: GenerationRequest, recipes: Mapping[str, Recipe]) -> _Branches:
        resolved = resolve(recipes[name], recipes, (name,))
        assert isinstance(resolved, Fuse) and resolved.search is not None and resolved.scorer is not None
        plans: dict[str, Plan] = {}
        parts: dict[str, Recipe] = {}
        for place, branch in enumerate(resolved.branches):
            assert not isinstance(branch, str)
            try:
                plans[str(place)] = make_plan(name, branch, request, self._catalogue, recipes)
                parts[str(place)] = branch
            except PlanError:
                continue
        keys = {place: recipe_key(part, {}, self._catalogue) for place, part in parts.items()}
        checked = {place: with_check(plan, resolved.scorer) for place, plan in plans.items()}
        run = {place: as_run(part, request) for place, part in parts.items()}
        far = distances(request, plans, parts, self._catalogue)
        return _Branches(resolved, dict(recipes), parts, keys, plans, checked, run, far)


def _place(turn: Turn, places: Mapping[str, str], name: str) -> str:
    """The number of the branch that a turn of a request names by its key."""
    if turn.recipe not in places:
        raise RequestError(
            f"turns: {name!r} tries no {turn.recipe!r} here{did_you_mean(turn.recipe, places)}; the policy or its "
            "models are others than when it was settled",
            "turns",
        )
    return places[turn.recipe]


def _rounded(turn: Turn, keys: Mapping[str, str]) -> Turn:
    """As it stands in plans and answers: its branch by key, numbers that survive being written down."""
    numbers = {"bar": 4, "slope": 6, "offset": 6, "chance": 6}
    return replace(turn, recipe=keys[turn.recipe], **{key: round(getattr(turn, key), n) for key, n in numbers.items()})


def _estimate(
    name: str, outlook: Outlook, qualities: Mapping[str, Quality], takes: Mapping[str, Resources]
) -> Estimate:
    used = [qualities[turn.recipe] for turn in outlook.turns]
    std = sum(quality.std for quality in used) / len(used)
    basis: Literal["composed", "prior"] = "prior" if all(quality.basis == "prior" for quality in used) else "composed"
    work, queue, latency, cost = (
        outlook.expected({place: getattr(one, key) for place, one in takes.items()})
        for key in ("work_s", "queue_s", "latency_s", "cost_usd")
    )
    quality = qualities[outlook.turns[0].recipe].mean if len(outlook.turns) == 1 else outlook.quality
    return Estimate(name, Quality(min(1.0, max(0.0, quality)), std, basis), work, queue, latency, cost)


def _note(outlook: Outlook, search: Search, reading: ScoreReading) -> str:
    if len(outlook.turns) == 1:
        return f"search: one picture of at most {search.most} ({reading.note})"
    return f"search: {outlook.pictures:.2f} pictures expected of at most {len(outlook.turns)} ({reading.note})"
