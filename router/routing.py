"""`Router.route`: the whole decision on one page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from router.cost.queues import Queues
from router.errors import NotFoundError, RequestError, did_you_mean
from router.planning.planner import Arranger
from router.prompts.embedding import Embedder
from router.prompts.lexical import lexical_features
from router.quality.predictor import QualityPredictor
from router.recent import Recent
from router.requests import check_request
from router.route import Route
from router.types import (
    NO_CONTEXT,
    Bounds,
    Catalogue,
    Context,
    Decision,
    Estimate,
    Fuse,
    Generate,
    GenerationRequest,
    Plan,
    Policy,
    PromptView,
    Recipe,
)
from router.verification.n_auto import ResolvedSearch, resolve_search
from router.verification.options import next_options
from router.verification.score_reading import ScoreReading

VIEWS = 1024  # prompts whose analysis is remembered, and their estimates as long as queues and costs stay

_Moment = tuple[PromptView, QualityPredictor, int, tuple[int, int]]


class Router:
    """Estimates every recipe of a policy for a request and lets the policy choose one.

    `predictor` may be set to another one at any time; every route is decided by one predictor from start to end.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        embedder: Embedder,
        predictor: QualityPredictor,
        queues: Queues,
        score_readings: Mapping[str, ScoreReading] | None = None,
    ) -> None:
        """judgements: how the scores of each scorer are read, by catalogue id; what is missing is not calibrated."""
        self.score_readings = dict(score_readings or {})
        self.catalogue = catalogue
        self.embedder = embedder
        self.predictor = predictor
        self.queues = queues
        self._views = Recent[tuple[str, str], PromptView](VIEWS)
        self._estimates = Recent[str, tuple[_Moment, dict[str, Plan], dict[str, Estimate]]](VIEWS)
        self._arranger = Arranger(catalogue)

    def route(self, request: GenerationRequest, policy: Policy, context: Context = NO_CONTEXT) -> Route:
        """Decide. Raises `RequestError`, `NotFoundError` (no such recipe or model), and what `Policy.decide` raises."""
        began = time.perf_counter()
        check_request(request)
        predictor = self.predictor
        view = self.analyse(request.prompt, predictor)
        recipes = self.candidates(request, policy)
        searches = self.resolve_search(request, view, recipes, policy.bounds(request, view, context), predictor)
        recipes |= {name: found.recipe for name, found in searches.items()}
        arranged = self._arranger.arrange(request, recipes)
        plans = arranged.plans
        estimates = self.estimate(view, recipes, plans, request.n, predictor)
        for name, found in ((name, searches[name]) for name in plans if name in searches):
            plans[name] = replace(plans[name], notes=(*plans[name].notes, found.note))
            estimates[name] = found.estimate
        decision = policy.decide(request, view, plans, estimates, arranged.refused, context)
        further = {name: arranged.plan(name) for name in decision.verify.escalate_to} if decision.verify else {}
        score_reading = self.score_reading(decision.verify.scorer) if decision.verify else None
        if score_reading is not None:
            decision = self.foreseen(decision, plans, estimates, score_reading)
        plan, took_s = arranged.plan(decision.recipe), time.perf_counter() - began
        turns = searches[decision.recipe].recipe.turns if decision.recipe in searches else ()
        return Route(request, view, estimates, decision, plan, took_s, further, score_reading, predictor.digest, turns)

    def score_reading(self, scorer: str) -> ScoreReading:
        """How the scores of `scorer` are read; the default if it is not calibrated."""
        return self.score_readings.get(scorer) or ScoreReading()

    def resolve_search(
        self,
        request: GenerationRequest,
        view: PromptView,
        recipes: Mapping[str, Recipe],
        bounds: Bounds,
        predictor: QualityPredictor | None = None,
    ) -> dict[str, ResolvedSearch]:
        """Those of `recipes` whose number of pictures is left to the router, settled for this prompt and moment; with
        the request's turns, the one that it asks for as it was settled before. Raises `RequestError` for turns that do
        not belong to it."""
        found: dict[str, ResolvedSearch] = {}
        for name, recipe in recipes.items():
            if isinstance(recipe, Fuse) and recipe.search is not None and request.recipe in (None, name):
                score_reading = self.score_reading(str(recipe.scorer))
                asked = predictor or self.predictor
                settled = resolve_search(
                    name, recipe, request, view, recipes, score_reading, self.catalogue, asked, self.queues, bounds
                )
                found |= {name: settled} if settled is not None else {}
        asked_for = recipes.get(str(request.recipe))
        if request.turns and not (isinstance(asked_for, Fuse) and asked_for.search is not None):
            raise RequestError(
                "turns belong to a recipe that is asked for by name, of the kind best_of with n: auto", "turns"
            )
        return found

    def foreseen(
        self,
        decision: Decision,
        plans: Mapping[str, Plan],
        estimates: Mapping[str, Estimate],
        score_reading: ScoreReading,
    ) -> Decision:
        """The decision with a reason about its verification: how scores are read, whether a look is worth it now."""
        verify = decision.verify
        assert verify is not None
        reason = f"{verify.scorer}: {score_reading.note}"
        if verify.by == "expected_gain":
            ahead = next_options(decision, plans, estimates, score_reading, self.queues)
            gain = ahead.gain(score_reading.score_model, verify.prices)
            price = verify.prices.price(ahead.look.latency_s, ahead.look.cost_usd)
            verdict = "so it is taken" if gain > price else "so it is left out"
            reason += f"; a look is expected to gain {gain:.3f} for {price:.4f}, {verdict}"
        return replace(decision, reasons=(*decision.reasons, reason))

    def analyse(self, prompt: str, predictor: QualityPredictor | None = None) -> PromptView:
        """What the prompt asks for, its embedding, and how near it is to what the predictor knows."""
        predictor = predictor or self.predictor
        if (known := self._views.get((prompt, predictor.digest))) is not None:
            return known
        view = predictor.view(prompt, lexical_features(prompt), self.embedder.embed([prompt])[0])
        return self._views.put((prompt, predictor.digest), view)

    def candidates(self, request: GenerationRequest, policy: Policy) -> dict[str, Recipe]:
        """The policy's recipes, and, if the request names a model instead, that model with its card's settings."""
        recipes = dict(policy.recipes)
        asked = request.recipe
        if asked is None or asked in recipes:
            return recipes
        if asked not in self.catalogue:
            known = [*recipes, *self.catalogue.ids()]
            raise NotFoundError(
                f"policy {policy.name!r} has no recipe {asked!r}, nor is it a model{did_you_mean(asked, known)}",
                "recipe",
            )
        return recipes | {asked: Generate(asked)}

    def estimate(
        self,
        view: PromptView,
        recipes: Mapping[str, Recipe],
        plans: Mapping[str, Plan],
        n: int,
        predictor: QualityPredictor | None = None,
    ) -> dict[str, Estimate]:
        """Quality, seconds and dollars of each plan, if all `n` pictures were admitted now."""
        predictor = predictor or self.predictor
        moment = (view, predictor, n, self.queues.state)  # read first: what changes meanwhile makes it old at once
        kept = self._estimates.get(view.prompt)
        if kept is None or kept[0] != moment or kept[1] != plans:
            qualities = predictor.predict(view, recipes, only=plans)
            timings = {name: self.queues.estimate(plan, n) for name, plan in plans.items()}
            estimates = {
                name: Estimate(name, qualities[name], t.work_s, t.queue_s, t.latency_s, t.cost_usd)
                for name, t in timings.items()
            }
            kept = self._estimates.put(view.prompt, (moment, dict(plans), estimates))
        return dict(kept[2])
