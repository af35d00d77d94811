"""A simulated life of an application: the real router and policies decide, and a law says how pictures are rated."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from deployments.assembly import catalogue_of
from deployments.orchestration.recorder import record_of
from deployments.orchestration.results import Made, Outcome
from deployments.settings import AppSettings
from deployments.store.decision_log import DecisionLog
from policies import Policy, load_policy_text
from router.cost.model import CostModel
from router.cost.queues import Queues
from router.quality.predictor import QualityPredictor
from router.registry.artifact import load_artifact
from router.routing import Router
from router.types import Context, GenerationRequest, Picture
from tests.deployments.support.scripted import EMBEDDER
from tests.router.conftest import synthetic_prompts

POLICY = """
version: 1
name: lived
recipes:
  draft:    {{generate: {{model: sd15, steps: 12, scheduler: dpmsolver++}}}}
  single:   {{generate: {{model: sdxl}}}}
  premium:  {{chain: [{{generate: {{model: flux}}}}, {{refine: {{model: sdxl-refiner, strength: 0.25}}}}]}}
objective: {{maximise: quality, weight: {{cost_usd: 1, latency_s: 0.001}}}}
explore: {{rate: {rate}}}
"""

Law = Callable[[str, str], float]


def lived_policy(rate: float) -> Policy:
    return load_policy_text(POLICY.format(rate=rate), "lived.yaml")


def live(
    settings: AppSettings,
    log: DecisionLog,
    law: Law,
    rate: float = 0.4,
    decisions: int = 300,
    pinned: str | None = None,
    seed: int = 0,
) -> DecisionLog:
    """The log with that many more rated decisions. law: (prompt, recipe) to the mean rating on 0..1; pinned: the recipe
    that every request asks for by name."""
    catalogue = catalogue_of(settings)
    predictor = QualityPredictor(load_artifact(settings.artifact_path), catalogue)
    router = Router(catalogue, EMBEDDER, predictor, Queues(CostModel(catalogue)))
    policy, rng = lived_policy(rate), random.Random(seed)
    prompts = synthetic_prompts(decisions // 2, seed=100)
    for k in range(decisions):
        request = GenerationRequest(prompts[k % len(prompts)], recipe=pinned, id=f"req_{pinned}_{seed}_{k}")
        route = router.route(request, policy, Context(draw=rng.random()))
        made = Made(Picture(np.zeros((1, 1, 3), np.uint8)), 0, "", (), route.decision.recipe)
        record = record_of(Outcome(route, (made,), 0.1, 1e-5), policy.recipes, predictor, catalogue)
        log.record(record)
        rating = law(request.prompt, route.decision.recipe) + rng.gauss(0, 0.15)
        log.attach(request.id, "rating", min(1.0, max(0.0, rating)))
    return log
