"""Settles the searches among a policy's recipes: how many pictures of which branches are worth their price, for one
prompt and the queues of this moment. What comes out is an ordinary best_of, and an estimate beside all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from router.cost.queues import Queues, Timing
from router.errors import PlanError, RequestError, did_you_mean
from router.planning.plan import make_plan
from router.planning.planner import with_check
from router.planning.recipes import recipe_key, resolve
from router.quality.predictor import QualityPredictor
from router.types import (
    Bounds,
    Catalogue,
    Estimate,
    Fuse,
    GenerationRequest,
    PromptView,
    Quality,
    Recipe,
    Search,
    Turn,
)
from router.verification.best_of_n import Outlook, Room, plan_search
from router.verification.score_reading import ScoreReading
from router.verification.search_plan import follow
from router.verification.value_of_information import Option


@dataclass(frozen=True)
class ResolvedSearch:
    """A search that was settled. recipe: its branches in the order of `turns`, which name each by its key; estimate:
    expected over where it may end; note: in words, for the plan."""

    recipe: Fuse
    estimate: Estimate
    note: str


def resolve_search(
    name: str,
    recipe: Fuse,
    request: GenerationRequest,
    view: PromptView,
    recipes: Mapping[str, Recipe],
    score_reading: ScoreReading,
    catalogue: Catalogue,
    predictor: QualityPredictor,
    queues: Queues,
    bounds: Bounds,
) -> ResolvedSearch | None:
    """The search that `recipe` comes to; None if none of its branches can be arranged for this request.

    bounds: what all its pictures may take, all of them made. With `turns` in the request nothing is planned: they are
    what it comes to, and `RequestError` says if they name other recipes than this one has.
    """
    resolved = resolve(recipe, recipes, (name,))
    assert isinstance(resolved, Fuse) and resolved.search is not None and resolved.scorer is not None
    plans = {}
    for place, branch in enumerate(resolved.branches):
        try:
            assert not isinstance(branch, str)
            plans[str(place)] = make_plan(name, branch, request, catalogue, recipes)
        except PlanError:
            continue
    if not plans:
        return None
    parts = {place: resolved.branches[int(place)] for place in plans}
    qualities = predictor.predict(view, {place: part for place, part in parts.items() if not isinstance(part, str)})
    checked = {place: queues.estimate(with_check(plan, resolved.scorer), request.n) for place, plan in plans.items()}
    options = [
        Option(place, qualities[place].mean, score_reading.strength, checked[place].latency_s, checked[place].cost_usd)
        for place in plans
    ]
    work = {place: timing.work_s for place, timing in checked.items()}
    search = resolved.search
    keys = {place: recipe_key(part, {}, catalogue) for place, part in parts.items() if not isinstance(part, str)}
    if request.turns:
        places = {key: place for place, key in keys.items()}
        given = tuple(replace(turn, recipe=_place(turn, places, name)) for turn in request.turns)
        outlook = Outlook(given, *follow(given, options, score_reading.score_model))
    else:
        room = Room(bounds.latency_s, bounds.cost_usd, bounds.work_s)
        outlook = plan_search(options, work, score_reading.score_model, search.prices, search.most, room)
    branches = tuple(parts[turn.recipe] for turn in outlook.turns)
    turns = tuple(_rounded(turn, keys) for turn in outlook.turns)
    fused = replace(resolved, branches=branches, turns=turns)
    if len(turns) == 1:  # nothing is scored then
        checked = {place: queues.estimate(plan, request.n) for place, plan in plans.items()}
    return ResolvedSearch(fused, _estimate(name, outlook, qualities, checked), _note(outlook, search, score_reading))


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


def _estimate(name: str, outlook: Outlook, qualities: Mapping[str, Quality], timings: Mapping[str, Timing]) -> Estimate:
    used = [qualities[turn.recipe] for turn in outlook.turns]
    std = sum(quality.std for quality in used) / len(used)
    basis: Literal["composed", "prior"] = "prior" if all(quality.basis == "prior" for quality in used) else "composed"
    work, queue, latency, cost = (
        outlook.expected({place: getattr(timing, key) for place, timing in timings.items()})
        for key in ("work_s", "queue_s", "latency_s", "cost_usd")
    )
    quality = qualities[outlook.turns[0].recipe].mean if len(outlook.turns) == 1 else outlook.quality
    return Estimate(name, Quality(min(1.0, max(0.0, quality)), std, basis), work, queue, latency, cost)


def _note(outlook: Outlook, search: Search, score_reading: ScoreReading) -> str:
    if len(outlook.turns) == 1:
        return f"search: one picture of at most {search.most} ({score_reading.note})"
    return f"search: {outlook.pictures:.2f} pictures expected of at most {len(outlook.turns)} ({score_reading.note})"
