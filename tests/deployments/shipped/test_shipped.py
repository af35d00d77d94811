"""What a stranger gets: the shipped config, weights, predictor and policies, in one process."""

from __future__ import annotations

import asyncio
import io

import pytest
from PIL import Image

from deployments.api.wire import responses as explain
from deployments.api.wire.files import encoded
from deployments.api.wire.requests import parse_request, to_request
from deployments.in_process import build_local
from deployments.orchestration.orchestrator import Orchestrator
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from tests.deployments.conftest import forget

pytestmark = pytest.mark.shipped_weights

EASY = "a red circle"
HARD = "three small yellow stars above a large blue ring on a black background"


@pytest.fixture(scope="module")
def built() -> Orchestrator:
    """The orchestrator of the default config; weights load on demand."""
    return build_local(load_serve_config(DEFAULT_CONFIG).settings)


@pytest.fixture
def shipped(built: Orchestrator) -> Orchestrator:
    """The same, by the priors of the cards: what was measured while the machine was busy is not looked at."""
    forget(built)
    return built


@pytest.mark.parametrize("prompt", [EASY, HARD])
def test_a_prompt_becomes_a_picture_with_its_reasons(shipped: Orchestrator, prompt: str) -> None:
    """Under `balanced`, a prompt comes back as a valid 64x64 PNG with an estimate or a rejection for every recipe."""
    limits = load_serve_config(DEFAULT_CONFIG).settings.limits
    wire = parse_request({"prompt": prompt, "model": "balanced", "seed": 1}, limits)
    outcome = asyncio.run(shipped.generate(to_request(wire, limits)))
    picture = Image.open(io.BytesIO(encoded(outcome.made[0], outcome.route, wire)))
    assert (picture.format, picture.size) == ("PNG", (64, 64))
    decision = outcome.route.decision
    explained = {entry.recipe for entry in (*decision.ranking, *decision.rejected)}
    assert explained == set(shipped.policies.get("balanced").recipes)
    assert decision.reasons
    assert all(estimate.quality.basis == "learned" for estimate in outcome.route.estimates.values())


def test_a_hard_prompt_gets_another_recipe_than_an_easy_one(shipped: Orchestrator) -> None:
    """Under `balanced`, a lone circle and counted, related objects are drawn by different recipes, by the priors of the
    cards."""
    limits = load_serve_config(DEFAULT_CONFIG).settings.limits

    async def recipe(prompt: str) -> str:
        request = to_request(parse_request({"prompt": prompt, "model": "balanced", "seed": 1}, limits), limits)
        return (await shipped.route(request)).decision.recipe

    assert asyncio.run(recipe(EASY)) != asyncio.run(recipe(HARD))


def test_a_prompt_outside_the_world_is_recognised(shipped: Orchestrator) -> None:
    """A prompt unlike anything that the predictor was trained on is said to be so, and its uncertainty is wider."""
    limits = load_serve_config(DEFAULT_CONFIG).settings.limits
    views = {}
    for prompt in (EASY, "a photograph of a horse galloping along a beach at sunset"):
        request = to_request(parse_request({"prompt": prompt, "seed": 1}, limits), limits)
        views[prompt] = asyncio.run(shipped.route(request))
    inside, outside = views.values()
    assert inside.view.familiarity is not None
    assert outside.view.familiarity is not None
    assert outside.view.familiarity < 0.5 < inside.view.familiarity
    assert {estimate.quality.basis for estimate in outside.estimates.values()} == {"prior"}
    assert "out of range" in explain.route_report(outside)["warnings"][0]
    assert explain.route_report(inside)["warnings"] == []
