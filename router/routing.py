"""`Router.route`: the whole decision on one page.

request ─▶ view of the prompt ─▶ policy.evaluate( bounds ─▶ plans and estimates of every recipe ) ─▶ decision ─▶ route
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from cachetools import LRUCache

from router.cost.queues import Queues
from router.errors import NotFoundError, RequestError, did_you_mean
from router.planning.edits import for_pictures
from router.planning.planner import Planned, Planner
from router.planning.styles import check_known
from router.prompts.embedding import Embedder
from router.prompts.lexical import lexical_features
from router.quality.predictor import QualityPredictor
from router.requests import check_request
from router.route import Route
from router.types import (
    NO_CONTEXT,
    Catalogue,
    Context,
    Decision,
    Edit,
    Estimate,
    Fuse,
    Generate,
    GenerationRequest,
    Offers,
    Plan,
    Policy,
    PromptView,
    Recipe,
    Rejection,
    Resources,
    Step,
)
from router.verification.case import Case, Knowledge
from router.verification.n_auto import ResolvedSearch, Searches
from router.verification.options import next_options
from router.verification.score_reading import ScoreReading

POLICIES = 64  # whose recipes are kept as they are for given pictures
VIEWS = 1024  # prompts whose analysis is remembered, and their estimates as long as queues and costs stay

_Moment = tuple[PromptView, QualityPredictor, int, tuple[int, int]]


class Router:
    """Estimates every recipe of a policy for a request and lets the policy choose one.

    `knowledge` may be set to another one at any time; every route is decided by one from start to end.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        embedder: Embedder,
        predictor: QualityPredictor,
        queues: Queues,
        score_readings: Mapping[str, ScoreReading] | None = None,
    ) -> None:
        """score_readings: how the scores of each scorer are read, by catalogue id; the others are not calibrated."""
        self.knowledge = Knowledge(predictor, dict(score_readings or {}))
        self.catalogue = catalogue
        self.embedder = embedder
        self.queues = queues
        self._planner = Planner(catalogue)
        self._licences = {model: catalogue[model].terms for model in catalogue.ids()}
        self._searches = Searches(catalogue, queues)
        self._for_pictures: LRUCache[int, tuple[Mapping[str, Recipe], Mapping[str, Recipe]]] = LRUCache(POLICIES)
        self._views: LRUCache[tuple[str, str], PromptView] = LRUCache(VIEWS)
        self._estimates: LRUCache[str, tuple[_Moment, dict[str, Plan], dict[str, Estimate]]] = LRUCache(VIEWS)
        self._lock = threading.Lock()

    @property
    def predictor(self) -> QualityPredictor:
        """The predictor that decides now."""
        return self.knowledge.predictor

    def apart(self, queues: Queues) -> Router:
        """One that decides with the same knowledge over other queues, for decisions that are not carried out."""
        other = Router(self.catalogue, self.embedder, self.predictor, queues)
        other.knowledge = self.knowledge
        other._views, other._lock = self._views, self._lock  # what was understood of a prompt holds for both
        return other

    def route(self, request: GenerationRequest, policy: Policy, context: Context = NO_CONTEXT) -> Route:
        """Decide. Raises `RequestError`, `NotFoundError` (no such recipe or model), and what `evaluate` raises."""
        began = time.perf_counter()
        check_request(request)
        check_known(request, self.catalogue)
        knowledge = self.knowledge
        view = self.view(request.prompt, knowledge.predictor)
        case = Case(request, view, self.candidates(request, policy), knowledge)
        offered = _Offered()
        decision = policy.evaluate(request, view, partial(self._offer, case, context, offered), context)
        return self._answer(case, offered, decision, began)

    def behind(self, ticket: int) -> Router:
        """This router as if it decided in the place of a ticket of its queues: only what was reserved before is in the
        way. Reserves nothing itself."""
        other = copy.copy(self)
        other.queues = self.queues.before(ticket)
        other._searches = Searches(self.catalogue, other.queues)
        other._estimates = LRUCache(1)  # those of other queues
        return other

    def understand(self, request: GenerationRequest) -> None:
        """What of `route` depends on the prompt alone, ahead of it. Raises `RequestError`."""
        check_request(request)
        self.view(request.prompt, self.knowledge.predictor)

    def view(self, prompt: str, predictor: QualityPredictor) -> PromptView:
        """What the prompt asks for, its embedding, and how familiar it is to the predictor."""
        with self._lock:
            known = self._views.get((prompt, predictor.digest))
        if known is None:
            known = predictor.view(prompt, lexical_features(prompt), self.embedder.embed([prompt])[0])
            with self._lock:
                self._views[prompt, predictor.digest] = known
        return known

    def candidates(self, request: GenerationRequest, policy: Policy) -> Mapping[str, Recipe]:
        """The policy's recipes, and, if the request names a model instead, that model with its card's settings; of a
        given picture, where it brings one."""
        recipes, asked = self._recipes(policy.recipes, request), request.recipe
        named = recipes.get(asked) if asked is not None else None
        if request.turns and not (isinstance(named, Fuse) and named.search is not None):
            raise RequestError(
                "turns belong to a recipe that is asked for by name, of the kind best_of with n: auto", "turns"
            )
        if asked is None or asked in recipes:
            return recipes
        if asked not in self.catalogue:
            known = [
                *recipes,
                *(model for model in self.catalogue.ids() if self.catalogue[model].role in ("base", "editor")),
            ]
            raise NotFoundError(
                f"policy {policy.name!r} has no recipe {asked!r}, nor is it a model{did_you_mean(asked, known)}",
                "recipe",
            )
        return {**recipes, asked: Edit(asked) if request.brings("image") else Generate(asked)}

    def _recipes(self, recipes: Mapping[str, Recipe], request: GenerationRequest) -> Mapping[str, Recipe]:
        """A policy's recipes for what the request brings; the same objects each time."""
        if request.brings("image") is None:
            return recipes
        with self._lock:
            kept = self._for_pictures.get(id(recipes))
        if kept is None or kept[0] is not recipes:
            kept = recipes, for_pictures(recipes)
            with self._lock:
                self._for_pictures[id(recipes)] = kept
        return kept[1]

    def _offer(self, case: Case, context: Context, offered: _Offered, bounds: Resources) -> Offers:
        """Plans and estimates of every recipe that can be planned; searches are resolved within `bounds`."""
        request, recipes = case.request, case.recipes
        for name in self._planner.searches(request, recipes):
            if request.recipe in (None, name) and (found := self._searches.resolve(name, case, bounds)) is not None:
                offered.searches[name] = found
        if not offered.searches:
            planned = self._planner.plan(request, recipes)
            estimates = self._estimated(case, planned, planned.plans)
        else:
            resolved = {name: found.recipe for name, found in offered.searches.items()}
            planned = self._planner.plan(request, recipes, resolved)
            left = {name: plan for name, plan in planned.plans.items() if name not in resolved}
            estimates = self._estimated(case, planned, left)
            estimates |= {n: found.estimate for n, found in offered.searches.items() if n in planned.plans}
            estimates = {name: estimates[name] for name in planned.plans}
        offered.planned = planned
        offered.estimates = estimates
        refused = planned.refused
        if context.unavailable:
            refused = (*refused, *unavailable(planned.plans, context.unavailable))
        if context.most_pixels:
            refused = (*refused, *too_large(planned.plans, context.most_pixels))
        return Offers(planned.plans, estimates, refused, self._licences)

    def _estimated(self, case: Case, planned: Planned, plans: dict[str, Plan]) -> dict[str, Estimate]:
        """Quality, seconds and dollars of each of `plans`, which are among those `planned`, if all pictures were
        admitted now."""
        view, predictor, n = case.view, case.knowledge.predictor, case.request.n
        moment = (view, predictor, n, self.queues.state)  # read first: what changes meanwhile makes it old at once
        with self._lock:
            kept = self._estimates.get(view.prompt)
        if kept is None or kept[0] != moment or kept[1] != plans:
            qualities = predictor.predict(view, planned.as_run, only=plans, apart=planned.apart)
            takes = self.queues.estimates(plans, n)
            estimates = {}
            for name, t in takes.items():
                estimates[name] = Estimate(name, qualities[name], t.work_s, t.queue_s, t.latency_s, t.cost_usd)
            kept = moment, plans, estimates
            with self._lock:
                self._estimates[view.prompt] = kept
        return dict(kept[2])

    def _answer(self, case: Case, offered: _Offered, decision: Decision, began: float) -> Route:
        """The decision with the plans that it needs: of the recipe that was chosen, and of those that may follow it."""
        further: dict[str, Plan] = {}
        reading = None
        if (verify := decision.verify) is not None:
            reading = case.knowledge.reading(verify.scorer)
            decision = replace(decision, reasons=(*decision.reasons, self._foreseen(decision, offered, reading)))
            further = {name: offered.plan(name) for name in verify.escalate_to}
        search = offered.searches.get(decision.recipe)
        return Route(
            request=case.request,
            view=case.view,
            estimates=offered.estimates,
            decision=decision,
            plan=offered.plan(decision.recipe),
            decided_in_s=time.perf_counter() - began,
            alternatives=further,
            score_reading=reading,
            artifact=case.knowledge.predictor.digest,
            turns=search.recipe.turns if search is not None else (),
            alternative_turns={
                name: offered.searches[name].recipe.turns for name in further if name in offered.searches
            },
        )

    def _foreseen(self, decision: Decision, offered: _Offered, reading: ScoreReading) -> str:
        """A reason about the verification: how scores are read, and whether a look is worth its price now."""
        verify = decision.verify
        assert verify is not None and offered.planned is not None
        reason = f"{verify.scorer}: {reading.note}"
        if verify.by != "expected_gain":
            return reason
        ahead = next_options(decision, offered.planned.plans, offered.estimates, reading, self.queues)
        gain, price = ahead.gain(reading.score_model, verify.prices), verify.prices.of(ahead.look)
        verdict = "so it is taken" if gain > price else "so it is left out"
        return f"{reason}; a look is expected to gain {gain:.3f} quality and costs as much as {price:.4f}, {verdict}"


@dataclass(slots=True)
class _Offered:
    """What one decision was offered, for the plans that it needs afterwards."""

    planned: Planned | None = None
    searches: dict[str, ResolvedSearch] = field(default_factory=dict)
    estimates: Mapping[str, Estimate] = field(default_factory=dict)

    def plan(self, recipe: str) -> Plan:
        """The plan of a recipe, to be run."""
        assert self.planned is not None
        plan = self.planned.plan(recipe)
        if (search := self.searches.get(recipe)) is not None:
            plan = replace(plan, notes=(*plan.notes, search.note))
        return plan


def unavailable(plans: Mapping[str, Plan], reasons: Mapping[str, str]) -> list[Rejection]:
    """Rejections of the plans that need one of the models in `reasons` (id -> why it cannot run)."""
    found = []
    for name, plan in plans.items():
        gone = next((model for step in plan.steps for model in step.models if model in reasons), None)
        if gone is not None:
            found.append(Rejection(name, "capability", f"model {gone!r} is not available: {reasons[gone]}"))
    return found


def too_large(plans: Mapping[str, Plan], most: Mapping[str, int]) -> list[Rejection]:
    """Rejections of the plans in which a model draws a larger area, in pixels, than its device has memory for."""
    found = []
    for name, plan in plans.items():
        for step in plan.steps:
            area, here = area_of(step), min((most[model] for model in step.models if model in most), default=None)
            if here is not None and area > here:
                reason = (
                    f"{step.model!r} would draw {area:,} pixels, and its device has memory for {here:,}; ask for a "
                    "smaller size, or tune it (`triptych models plan`)"
                )
                found.append(Rejection(name, "capability", reason))
                break
    return found


def area_of(step: Step) -> int:
    """Pixels that a step draws at once: of its picture, or of one of its tiles."""
    width, height = (step.settings.get(f"tile_{side}") or step.settings.get(side) or 0 for side in ("width", "height"))
    return int(width) * int(height)
