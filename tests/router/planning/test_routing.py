"""The whole decision."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

import router
from router.cost.model import CostModel
from router.cost.queues import Queues
from router.errors import NoRecipeError, NotFoundError, RequestError
from router.learning.report import ColumnReport
from router.prompts.embedding import MiniLMEmbedder
from router.quality.predictor import QualityPredictor
from router.registry.artifact import Artifact
from router.requests import check_request
from router.routing import Router
from router.types import Chain, Fuse, Generate, GenerationRequest, Recipe, Refine
from tests.router.cards import CATALOGUE, BestQuality
from tests.router.texts import PROMPTS

RECIPES: dict[str, Recipe] = {
    "draft": Generate("sd15", width=1024, height=1024),
    "standard": Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8))),
    "premium": Generate("flux"),
    "duel": Fuse("best_of", ("standard", "premium"), "alignment"),
}
POLICY = BestQuality(RECIPES)
EASY = GenerationRequest("a red circle")
HARD = GenerationRequest("three small yellow stars above a large blue ring on a black background")


@pytest.fixture
def decider(trained: tuple[Artifact, tuple[ColumnReport, ...]], embedder: MiniLMEmbedder) -> Router:
    return Router(CATALOGUE, embedder, QualityPredictor(trained[0], CATALOGUE), Queues(CostModel(CATALOGUE)))


def test_a_route_carries_everything_to_run_and_explain_it(decider: Router) -> None:
    """Every recipe is estimated, the chosen one is planned, and the time of deciding is told."""
    route = decider.route(HARD, POLICY)
    assert set(route.estimates) == set(RECIPES)
    assert route.plan.recipe == route.decision.recipe == route.decision.ranking[0].recipe
    assert route.view.familiarity == 1.0
    assert route.view.signals["counting"] > 0.5
    assert all(e.latency_s > 0 and e.cost_usd > 0 for e in route.estimates.values())
    assert route.decided_in_s > 0


def test_hard_prompts_leave_the_small_model(decider: Router) -> None:
    """Among single models, the hard prompt goes to FLUX by a wider margin than the easy one."""
    policy = BestQuality({"draft": Generate("sd15"), "premium": Generate("flux")})
    easy, hard = decider.route(EASY, policy), decider.route(HARD, policy)
    assert hard.decision.recipe == "premium"
    margin = [r.estimates["premium"].quality.mean - r.estimates["draft"].quality.mean for r in (easy, hard)]
    assert margin[1] > margin[0] + 0.2


def test_a_recipe_that_does_not_fit_is_rejected_and_the_others_stand(decider: Router) -> None:
    """At 2048 x 1024, SD1.5 is out for its size, with the reason, and the rest is ranked."""
    route = decider.route(replace(EASY, width=2048, height=1024), POLICY)
    (rejection,) = route.decision.rejected
    assert (rejection.recipe, rejection.gate) == ("draft", "capability")
    assert "too large for 'sd15'" in rejection.reason
    assert set(route.estimates) == {"standard", "premium", "duel"}


def test_when_nothing_fits_every_reason_is_carried(decider: Router) -> None:
    """No recipe makes 64 x 63: the error lists one rejection for each."""
    with pytest.raises(NoRecipeError) as caught:
        decider.route(replace(EASY, width=64, height=63), POLICY)
    assert {rejection.recipe for rejection in caught.value.rejections} == set(RECIPES)


def test_a_model_may_be_asked_for_by_name(decider: Router) -> None:
    """A catalogue id that is no recipe of the policy is a recipe of its own, with the card's settings."""
    route = decider.route(replace(EASY, recipe="sdxl"), POLICY)
    assert (route.plan.recipe, [step.model for step in route.plan.steps]) == ("sdxl", ["sdxl"])
    with pytest.raises(NotFoundError, match=r"no recipe 'premum'.*did you mean 'premium'"):
        decider.route(replace(EASY, recipe="premum"), POLICY)


def test_waiting_shows_in_the_estimates(decider: Router) -> None:
    """Work that is reserved on FLUX makes FLUX recipes slower, and no others."""
    before = decider.route(EASY, POLICY).estimates
    decider.queues.reserve(decider.route(replace(EASY, recipe="premium"), POLICY).plan, n=10)
    after = decider.route(EASY, POLICY).estimates
    assert after["premium"].queue_s > 10
    assert after["draft"] == before["draft"]


def test_the_same_request_gets_the_same_decision(decider: Router) -> None:
    """Apart from the time it took, a decision can be replayed."""
    first, second = (replace(decider.route(HARD, POLICY), decided_in_s=0.0) for _ in range(2))
    assert first == second


class Counting:
    """An embedder that counts the prompts that it is asked for."""

    def __init__(self, inner: MiniLMEmbedder) -> None:
        self.inner, self.asked = inner, 0

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += len(prompts)
        return self.inner.embed(prompts)


def own_calls(decider: Router, request: GenerationRequest) -> int:
    """How many functions of `router` one decision calls."""
    package, count = str(Path(router.__file__).parent), 0

    def seen(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(package)

    sys.setprofile(seen)
    try:
        decider.route(request, POLICY)
    finally:
        sys.setprofile(None)
    return count


def test_a_decision_is_quick(decider: Router) -> None:
    """A prompt is embedded once, however often it comes, and a decision made before is some dozens of calls."""
    decider.embedder = counting = Counting(decider.embedder)  # type: ignore[arg-type]
    first, again = own_calls(decider, HARD), own_calls(decider, HARD)
    assert counting.asked == 1
    assert again < first / 4
    assert again < 150


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": "x" * 40_000}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"negative_prompt": None}, "negative_prompt"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"n": True}, "n"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"width": 0}, "width"),
        ({"height": 1.5}, "height"),
        ({"steps": 0}, "steps"),
        ({"guidance_scale": math.nan}, "guidance_scale"),
        ({"guidance_scale": -1.0}, "guidance_scale"),
        ({"latency_budget_s": math.inf}, "latency_budget_s"),
        ({"max_cost_usd": "much"}, "max_cost_usd"),
    ],
)
def test_impossible_requests_name_their_field(changes: dict[str, Any], param: str) -> None:
    """What no recipe could answer is refused before any work."""
    with pytest.raises(RequestError) as caught:
        check_request(replace(EASY, **changes))
    assert caught.value.param == param


def test_emoji_and_long_prompts_are_routed(decider: Router) -> None:
    """Odd but allowed prompts get a decision like any other."""
    for prompt in ("🎨" * 100, "un círculo rojo", "红色的圆", "word " * 6_000):
        assert decider.route(replace(EASY, prompt=prompt), POLICY).decision.recipe in RECIPES


def test_deciding_needs_no_heavy_library() -> None:
    """A process that embeds and plans has loaded none of torch, ray, diffusers, transformers, sklearn or scipy."""
    code = (
        "import sys, router.routing, router.planning.execution\n"
        "from router.prompts.embedding import MiniLMEmbedder\nMiniLMEmbedder().embed(['a red circle'])\n"
        "heavy = {'torch', 'ray', 'diffusers', 'transformers', 'sentence_transformers', 'sklearn', 'scipy'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PROMPTS)
def test_every_prompt_is_routed(decider: Router, prompt: str) -> None:
    """Any text of Unicode has a route with finite numbers, or is refused as empty, with a regions recipe too."""
    policy = BestQuality({**RECIPES, "collage": Fuse("regions", ("standard", "premium"), "alignment")})
    try:
        route = decider.route(GenerationRequest(prompt), policy)
    except RequestError:
        assert not prompt.strip()
        return
    assert set(route.estimates) == set(policy.recipes)
    assert all(math.isfinite(value) for value in (*route.view.features.values(), *route.view.signals.values()))
    assert all(math.isfinite(e.quality.mean + e.cost_usd + e.latency_s) for e in route.estimates.values())
    assert np.isfinite(route.view.embedding).all()
