"""Plans for all prompts, and what a router remembers between requests."""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import pytest

from router.cost.model import CostModel
from router.cost.queues import Queues
from router.errors import PlanError
from router.learning.report import ColumnReport
from router.planning.plan import make_plan
from router.planning.planner import Planner
from router.prompts.embedding import MiniLMEmbedder
from router.quality.predictor import QualityPredictor
from router.registry.artifact import Artifact
from router.route import Route
from router.routing import Router
from router.types import (
    Chain,
    Edit,
    Fuse,
    Generate,
    GenerationRequest,
    GivenPicture,
    Recipe,
    Refine,
    Search,
    Turn,
    Upscale,
)
from tests.router.cards import CATALOGUE, BestQuality

RECIPES: dict[str, Recipe] = {
    "draft": Generate("sd15", steps=12),
    "standard": Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8))),
    "premium": Chain((Generate("flux"), Refine("sdxl-refiner", strength=0.25))),
    "large": Chain((Generate("sd15"), Upscale(2.0))),
    "duel": Fuse("best_of", ("standard", "premium", "premium"), "alignment"),
    "patient": Fuse("best_of", ("draft", "standard"), "alignment", accept_above=0.9),
    "collage": Fuse("regions", ("standard", "premium"), "alignment"),
    "framed": Chain((Fuse("regions", ("draft", "draft"), "alignment"), Refine("sdxl", strength=0.2))),
    "lost": Fuse("average", ("draft", "no such recipe")),
}
PROMPTS = ("a red circle", "a dog and a cat", "three small yellow stars above a blue ring", "word " * 300)


@pytest.mark.parametrize(
    "shape", [{}, {"width": 512, "height": 512}, {"steps": 7, "negative_prompt": "blurry"}, {"width": 2048}]
)
def test_a_plan_for_any_prompt_is_the_plan_of_this_prompt(shape: dict[str, int]) -> None:
    """Planned once for all and filled in, every plan and every refusal is what `make_plan` says of the request."""
    planner, made = Planner(CATALOGUE), 0
    for k, prompt in enumerate(PROMPTS * 2):
        request = GenerationRequest(prompt, seed=2**32 - 1 - 3 * k, **shape)
        planned = planner.plan(request, RECIPES)
        refused = {rejection.recipe: rejection.reason for rejection in planned.refused}
        assert set(refused) | set(planned.plans) == set(RECIPES)
        for name, recipe in RECIPES.items():
            if name in refused:
                with pytest.raises(PlanError) as caught:
                    make_plan(name, recipe, request, CATALOGUE, RECIPES)
                assert refused[name] == caught.value.message
            else:
                made += 1
                assert planned.plan(name) == make_plan(name, recipe, request, CATALOGUE, RECIPES)
    assert made > 20


def test_a_search_that_came_to_the_same_is_planned_once_and_filled_in() -> None:
    """What a search came to is a plan like any other: kept for the next prompt, and then with its prompt and seeds."""
    branches = Generate("sd15"), Generate("sdxl", width=512, height=512)
    turns = Turn("sd15", 1.0, 1.5, -0.25, 0.5), Turn("sdxl", 0.75, 1.5, -0.25, 0.5)
    asked = Fuse("best_of", branches, "alignment", search=Search(4))
    recipes, came_to = {"draft": Generate("sd15"), "sure": asked}, replace(asked, turns=turns)
    planner = Planner(CATALOGUE)
    for k, prompt in enumerate(PROMPTS):
        request = GenerationRequest(prompt, seed=2**32 - 2 + k)
        planned = planner.plan(request, recipes, {"sure": came_to})
        assert planned.plan("sure") == make_plan("sure", came_to, request, CATALOGUE, recipes)
        kept = planner.plan(request, recipes, {"sure": came_to})
        assert kept.plans["sure"] is planned.plans["sure"]


def test_a_changed_recipe_of_the_same_name_is_planned_anew() -> None:
    """After a policy's recipe was edited, its plan has the new settings, also inside a fusion that names it."""
    planner, request = Planner(CATALOGUE), GenerationRequest("a red circle")
    planner.plan(request, RECIPES)
    edited = {**RECIPES, "draft": Generate("sd15", steps=30)}
    planned = planner.plan(request, edited)
    for name in ("draft", "patient"):
        assert planned.plan(name).steps[0].settings["steps"] == 30


def test_what_is_remembered_never_changes_a_decision(
    trained: tuple[Artifact, tuple[ColumnReport, ...]], embedder: MiniLMEmbedder
) -> None:
    """Under a random life of requests, reservations, releases and measurements, a router that has seen everything
    decides, estimates and plans as one that has seen nothing, to the last bit."""
    rng, costs = random.Random(0), CostModel(CATALOGUE)
    queues = Queues(costs)
    old = Router(CATALOGUE, embedder, QualityPredictor(trained[0], CATALOGUE), queues)
    searching = {k: RECIPES[k] for k in ("draft", "premium")} | {
        "sure": Fuse("best_of", ("draft", "premium"), "alignment", search=Search(3))
    }
    policies = [BestQuality({k: v for k, v in RECIPES.items() if k != "lost"}), BestQuality(searching)]
    tickets: list[int] = []

    def content(route: Route) -> Route:
        return replace(route, decided_in_s=0.0)

    for k in range(120):
        policy = rng.choice(policies)
        request = GenerationRequest(rng.choice(PROMPTS), seed=rng.randrange(2**32), n=rng.choice((1, 1, 3)))
        fresh = Router(CATALOGUE, embedder, QualityPredictor(trained[0], CATALOGUE), _copy(queues, costs))
        route = old.route(request, policy)
        assert content(route) == content(fresh.route(request, policy)), k
        if rng.random() < 0.3:
            tickets.append(queues.reserve(route.plan, request.n))
        if tickets and rng.random() < 0.2:
            queues.release(tickets.pop(rng.randrange(len(tickets))))
        if rng.random() < 0.2:
            costs.observe(rng.choice(route.plan.steps), rng.uniform(0.5, 5.0), route.plan.width * route.plan.height)
        if rng.random() < 0.05:
            queues.set_replicas("flux", rng.choice((1, 2, 3)))


@pytest.mark.parametrize("prompt", PROMPTS[:3])
def test_a_search_among_recipes_that_look_for_objects_looks_for_those_of_the_prompt(
    trained: tuple[Artifact, tuple[ColumnReport, ...]], embedder: MiniLMEmbedder, prompt: str
) -> None:
    """With room for one picture, a search takes what that picture takes for this prompt, whatever was asked before."""
    queues = Queues(CostModel(CATALOGUE))
    router = Router(CATALOGUE, embedder, QualityPredictor(trained[0], CATALOGUE), queues)
    recipes = {**RECIPES, "sure": Fuse("best_of", ("collage",), "alignment", search=Search(3))}
    del recipes["lost"]
    for asked in (*PROMPTS, prompt):
        request = GenerationRequest(asked, latency_budget_s=1e-6)
        found = router.route(request, BestQuality(recipes)).estimates["sure"]
    alone = queues.estimate(make_plan("sure", recipes["collage"], request, CATALOGUE, recipes))
    assert found.work_s == pytest.approx(alone.work_s)


def test_a_search_among_edits_is_resolved_anew_for_a_picture_that_is_to_stay(
    trained: tuple[Artifact, tuple[ColumnReport, ...]], embedder: MiniLMEmbedder
) -> None:
    """A faithful edit paints over less: what a search takes does not stay what it took before somebody asked so."""
    recipes: dict[str, Recipe] = {"sure": Fuse("best_of", (Edit("sd15"),), "alignment", search=Search(3))}
    brought = GenerationRequest("a red circle", given=(GivenPicture("image", "a" * 64, 512, 512),))

    def router() -> Router:
        return Router(CATALOGUE, embedder, QualityPredictor(trained[0], CATALOGUE), Queues(CostModel(CATALOGUE)))

    old, faithful = router(), replace(brought, faithful=True)
    before = old.route(brought, BestQuality(recipes)).estimates["sure"]
    after = old.route(faithful, BestQuality(recipes)).estimates["sure"]
    assert after == router().route(faithful, BestQuality(recipes)).estimates["sure"] != before


def _copy(queues: Queues, costs: CostModel) -> Queues:
    """Queues in the same state that remember no estimate."""
    other = Queues(costs, queues._replicas)
    other._tickets = {ticket: dict(work) for ticket, work in queues._tickets.items()}
    for model, load in queues._loads.items():  # sums as they were rounded on the way
        other._loads[model] = copy.copy(load)
    return other
