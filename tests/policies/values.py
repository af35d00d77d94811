"""Small values for the tests of policies: files, plans, estimates."""

from __future__ import annotations

from typing import Any

import numpy as np

from policies import Policy, load_policy_text
from router.types import Context, Decision, Estimate, Offers, Plan, PromptView, Quality, Rejection

MODELS = ("sd15", "sdxl", "sdxl-turbo", "sdxl-refiner", "flux", "alignment")

HEAD = "version: 1\nname: test\n"
RECIPES = """recipes:
  draft:    {generate: {model: sd15, steps: 12}}
  standard: {chain: [{generate: {model: sdxl, until: 0.8}}, {refine: {model: sdxl-refiner, from: 0.8}}]}
  premium:  {chain: [{generate: {model: flux}}, {refine: {model: sdxl-refiner, strength: 0.25}}]}
"""
QUALITY = "objective: {maximise: quality}\n"


def policy(rest: str = QUALITY, recipes: str = RECIPES) -> Policy:
    return load_policy_text(HEAD + recipes + rest, "test.yaml", models=MODELS)


def estimate(recipe: str, quality: float, latency_s: float = 1.0, cost_usd: float = 0.001, **rest: Any) -> Estimate:
    return Estimate(recipe, Quality(quality, 0.05), latency_s, rest.get("queue_s", 0.0), latency_s, cost_usd)


def plan(recipe: str, width: int = 512, height: int = 512) -> Plan:
    return Plan(recipe, (), "1", width, height)


def view(**signals: float) -> PromptView:
    return PromptView("a red circle", {}, signals, np.zeros(3, np.float32))


def decide(policy: Policy, request: Any, *estimates: Estimate, **rest: Any) -> Decision:
    """Decide with a plan for every estimate."""
    refused: tuple[Rejection, ...] = rest.get("refused", ())
    plans = {e.recipe: plan(e.recipe) for e in estimates} | rest.get("plans", {})
    context = rest.get("context", Context())
    offers = Offers(plans, {e.recipe: e for e in estimates}, refused)
    return policy.evaluate(request, rest.get("view", view()), lambda bounds: offers, context)
