"""`Router.route`: the whole decision on one page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from router.embedding import Embedder
from router.errors import NotFoundError, PlanError, did_you_mean
from router.features import lexical_features
from router.planning import make_plan
from router.predictors import QualityPredictor
from router.queues import Queues
from router.recent import Recent
from router.requests import check_request
from router.types import (
    NO_CONTEXT,
    Catalogue,
    Context,
    Estimate,
    Generate,
    GenerationRequest,
    Plan,
    Policy,
    PromptView,
    Recipe,
    Rejection,
    Route,
)

VIEWS = 1024  # prompts whose analysis is remembered


class Router:
    """Estimates every recipe of a policy for a request and lets the policy choose one.

    `predictor` may be set to another one at any time; every route is decided by one predictor from start to end.
    """

    def __init__(self, catalogue: Catalogue, embedder: Embedder, predictor: QualityPredictor, queues: Queues) -> None:
        self.catalogue = catalogue
        self.embedder = embedder
        self.predictor = predictor
        self.queues = queues
        self._views = Recent[tuple[str, str], PromptView](VIEWS)

    def route(self, request: GenerationRequest, policy: Policy, context: Context = NO_CONTEXT) -> Route:
        """Decide. Raises `RequestError`, `NotFoundError` (no such recipe or model), and what `Policy.decide` raises."""
        began = time.perf_counter()
        check_request(request)
        predictor = self.predictor
        view = self.analyse(request.prompt, predictor)
        recipes = self.candidates(request, policy)
        plans, refused = self.arrange(request, recipes)
        estimates = self.estimate(view, recipes, plans, request.n, predictor)
        decision = policy.decide(request, view, plans, estimates, refused, context)
        further = {name: plans[name] for name in decision.verify.escalate_to} if decision.verify else {}
        plan, took_s = plans[decision.recipe], time.perf_counter() - began
        return Route(request, view, estimates, decision, plan, took_s, further, predictor.digest)

    def analyse(self, prompt: str, predictor: QualityPredictor | None = None) -> PromptView:
        """What the prompt asks for, its embedding, and how near it is to what the predictor knows."""
        predictor = predictor or self.predictor
        if (known := self._views.get((prompt, predictor.digest))) is not None:
            return known
        features = lexical_features(prompt)
        embedding = self.embedder.embed([prompt])[0]
        signals = predictor.signals(features, embedding)
        view = PromptView(prompt, features, signals, embedding, predictor.familiarity(embedding))
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

    def arrange(
        self, request: GenerationRequest, recipes: Mapping[str, Recipe]
    ) -> tuple[dict[str, Plan], Sequence[Rejection]]:
        """A plan for each recipe that fits the request, and a rejection for each that does not."""
        plans: dict[str, Plan] = {}
        refused: list[Rejection] = []
        for name, recipe in recipes.items():
            try:
                plans[name] = make_plan(name, recipe, request, self.catalogue, recipes)
            except PlanError as error:
                refused.append(Rejection(name, "capability", error.message))
        return plans, refused

    def estimate(
        self,
        view: PromptView,
        recipes: Mapping[str, Recipe],
        plans: Mapping[str, Plan],
        n: int,
        predictor: QualityPredictor | None = None,
    ) -> dict[str, Estimate]:
        """Quality, seconds and dollars of each plan, if all `n` pictures were admitted now."""
        qualities = (predictor or self.predictor).predict(view, recipes, only=plans)
        estimates = {}
        for name, plan in plans.items():
            t = self.queues.estimate(plan, n)
            estimates[name] = Estimate(name, qualities[name], t.work_s, t.queue_s, t.latency_s, t.cost_usd)
        return estimates
