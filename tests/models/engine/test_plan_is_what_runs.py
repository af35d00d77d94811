"""What a plan says of a step is what the pipelines are asked, whatever a card adds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models import Engine, load_card
from models.engine.settings import arguments, ignores_negative, read_call
from models.families import PLANNED
from models.fusion.kinds import run_step
from router.errors import CatalogueError
from router.planning.execution import execute
from router.planning.plan import make_plan
from router.types import (
    Chain,
    Fuse,
    Generate,
    GenerationRequest,
    ModelCard,
    Picture,
    Recipe,
    Refine,
    Scores,
    Step,
    StepResult,
    Upscale,
    Value,
)
from tests.models.engine.test_tiles import scene
from tests.router.cards import Cards

Engines = Callable[[str], Engine]
FAMILIES = ("sd15", "sdxl", "flux", "flux-dev", "sd3", "qwen-image", "z-image", "flux2-klein", "flux2-base")


def asked(kind: str, model: str, **settings: Any) -> Step:
    inputs = () if kind == "generate" else ("before",)
    return Step(
        "it", kind, model, inputs, "image", {"prompt": "red dot", "seed": 1, "width": 32, "height": 32, **settings}
    )  # type: ignore[arg-type]


def pipe(engine: Engine) -> Any:
    return engine._pipe  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", ["sd15", "sdxl", "flux", "sd3", "qwen-image", "z-image"])
def test_a_cards_settings_never_take_the_place_of_what_was_planned(engine: Engines, model: str) -> None:
    """Of all arguments that a plan says, none is that of the card; what the card adds beside them is there."""
    card = replace(engine(model).card, settings={**dict.fromkeys(PLANNED, 9), "clip_skip": 1})
    call = read_call(asked("generate", model, steps=4, guidance_scale=1.0), card)
    plain = replace(card, settings={})
    assert arguments(call, card, pipe(engine(model))) == arguments(call, plain, pipe(engine(model))) | {"clip_skip": 1}
    assert arguments(call, card, pipe(engine(model)))["num_inference_steps"] == 4


@pytest.mark.parametrize("key", ["num_inference_steps", "guidance_scale", "width", "negative_prompt", "strength"])
def test_a_card_whose_settings_say_what_a_plan_says_is_refused(tmp_path: Path, key: str) -> None:
    """The error names the line, the argument and where to write it instead."""
    text = (
        "id: mine\nfamily: sd15\nrole: base\nsource: {local: weights}\nlatent_space: sd\n"
        f"settings: {{clip_skip: 1, {key}: 9}}\n"
    )
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(
        CatalogueError, match=rf"mine\.yaml:6: 'settings' has '{key}', which a plan says for every step; "
    ):
        load_card(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_planning_knows_which_models_heed_a_negative_prompt(engine: Engines, model: str, guidance: float) -> None:
    """What the card says at a guidance is what the pipeline's arguments show."""
    card = engine(model).card
    call = read_call(asked("generate", model, guidance_scale=guidance, negative_prompt="green"), card)
    assert card.heeds_negative(guidance) == (not ignores_negative(call, card, pipe(engine(model))))


@pytest.mark.parametrize("model", ["sd15", "sdxl", "flux", "sd3", "z-image"])
@pytest.mark.parametrize(("steps", "strength"), [(4, 0.3), (4, 0.5), (10, 0.25), (6, 1.0), (7, 0.9), (10, 0.3)])
def test_the_strength_in_effect_is_the_share_of_the_steps_that_run(
    engine: Engines, model: str, steps: int, strength: float
) -> None:
    """Flow matching rounds the share up to whole steps, diffusion down; planning, facts and pipeline count alike."""
    scheduler = "ddim" if model == "sd15" else "default"
    card = engine(model).card
    step = asked("refine", model, steps=steps, strength=strength, scheduler=scheduler)
    facts = engine(model).run(step, (Picture(scene(32, 32)),)).facts
    assert facts["steps"] == round(card.effective_strength(steps, strength) * steps)
    assert facts["effective_strength"] == pytest.approx(card.effective_strength(steps, strength), abs=1e-3)


def test_schnell_at_four_steps_and_a_strength_of_a_third_starts_half_way(cards: dict[str, ModelCard]) -> None:
    """Four steps at strength .3 run two of them, and the plan's notes say that this is a strength of .5."""
    catalogue = Cards(cards)
    recipe = Chain((Generate("sd15"), Refine("flux", strength=0.3, steps=4)))
    notes = make_plan("r", recipe, GenerationRequest("red dot"), catalogue, {}).notes
    assert any("flux runs 2 of 4 steps, so its strength is 0.5 in effect, not 0.3" in note for note in notes)
    fine = Chain((Generate("sd15"), Refine("flux", strength=0.3, steps=40)))
    assert not any(
        "in effect" in note for note in make_plan("r", fine, GenerationRequest("red dot"), catalogue, {}).notes
    )


def test_tiles_are_refined_with_the_cards_guidance(cards: dict[str, ModelCard]) -> None:
    """The card's guidance, or what it says for tiles; what the recipe says goes before both."""
    recipe = Chain((Generate("sd15"), Upscale(2.0), Refine("sdxl", strength=0.5, tile="native")))
    request = GenerationRequest("red dot")

    def guidance(chain: Chain, **changed: Any) -> object:
        catalogue = Cards({**cards, "sdxl": replace(cards["sdxl"], **changed)})
        return make_plan("r", chain, request, catalogue, {}).steps[-1].settings["guidance_scale"]

    assert guidance(recipe) == 3.0
    assert guidance(recipe, tile_guidance_scale=1.0) == 1.0
    own = Chain((*recipe.stages[:2], Refine("sdxl", strength=0.5, tile="native", guidance_scale=2.0)))
    assert guidance(own, tile_guidance_scale=1.0) == 2.0
    distilled = {"guidance_scale": 0.0, "max_guidance_scale": 0.0}
    assert guidance(recipe, **distilled) == 0.0


RECIPES: dict[str, Recipe] = {
    "resized": Generate("sd15"),
    "shrunk and refined": Chain((Generate("sdxl", until=0.5), Refine("sdxl-refiner", from_=0.5))),
    "harmonised": Chain(
        (Fuse("average", (Chain((Generate("sd15"), Upscale(2.0))),) * 2), Refine("sdxl", strength=0.5))
    ),
    "tiles": Chain((Generate("flux"), Upscale(2.0), Refine("sdxl", strength=0.5, tile="native"))),
    "best": Fuse(
        "best_of", (Chain((Generate("sd15"), Upscale(2.0))), Chain((Generate("flux"), Upscale(2.0)))), "judge"
    ),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("side", [64, 128])
def test_the_picture_has_the_size_that_was_asked(
    engine: Engines, cards: dict[str, ModelCard], name: str, side: int
) -> None:
    """Drawn on tiny models that are good at 32x32 alone, every recipe delivers the size of its plan."""
    only = {"area_tolerance": (1.0, 1.0), "aspect_tolerance": 1.0}
    strict = {key: replace(card, **only) for key, card in cards.items() if card.role != "scorer"}  # type: ignore[arg-type]
    catalogue = Cards({**strict, "judge": ModelCard("judge", "clip", "scorer", {"local": "-"})})
    plan = make_plan("r", RECIPES[name], GenerationRequest("red dot", width=side, height=side), catalogue, {})

    async def perform(step: Step, inputs: Sequence[Value]) -> StepResult:
        if step.kind == "score":
            return StepResult(Scores((0.5,) * len(inputs)), 0.0, {})
        return run_step(step, inputs) if step.model is None else engine(step.model).run(step, inputs)

    made = asyncio.run(execute(plan, perform)).output
    assert isinstance(made, Picture)
    assert made.pixels.shape == (plan.height, plan.width, 3) == (side, side, 3)
