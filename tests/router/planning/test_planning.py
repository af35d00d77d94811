"""Recipes made concrete, or refused with a remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.cost.model import CostModel
from router.errors import PlanError
from router.planning.recipes import recipe_key
from router.types import Chain, Fuse, Generate, Recipe, Refine, Tile, Upscale
from tests.router.cards import CATALOGUE, LATENTS, PIXELS, REQUEST, plan


def test_a_single_model_takes_its_settings_from_the_card() -> None:
    """Everything that the worker needs is concrete and made of builtins."""
    made = plan(Generate("sdxl"))
    (step,) = made.steps
    assert (step.id, step.kind, step.model, step.produces) == ("1-generate-sdxl", "generate", "sdxl", "image")
    assert dict(step.settings) == {
        "prompt": "a red circle", "negative_prompt": "", "width": 1024, "height": 1024, "steps": 30,
        "guidance_scale": 7.5, "scheduler": "default", "seed": 7,
    }  # fmt: skip
    assert (made.width, made.height, made.output, made.notes) == (1024, 1024, "1-generate-sdxl", ())


def test_the_same_latent_space_is_handed_over_as_latents() -> None:
    """SDXL base stops at 0.8 and gives latents; the refiner goes on from 0.8 on the same schedule."""
    base, refiner = plan(LATENTS, replace(REQUEST, steps=40)).steps
    assert (base.produces, base.settings["until"], base.settings["steps"]) == ("latents", 0.8, 40)
    assert (refiner.inputs, refiner.produces) == ((base.id,), "image")
    assert (refiner.settings["from"], refiner.settings["steps"]) == (0.8, 40)


def test_a_blend_that_may_choose_has_its_pictures_scored() -> None:
    """With a bound, the blend gets the scores of its pictures and says what it would do; a chooser is needed for it."""
    both = (Generate("sd15", width=512, height=512), Generate("flux", width=512, height=512))
    made = plan(Fuse("frequency", both, "alignment", blend_within=0.05), replace(REQUEST, width=512, height=512))
    score, blend = made.steps[-2:]
    assert (score.kind, blend.kind, blend.inputs[-1]) == ("score", "blend", score.id)
    assert dict(blend.settings) == {"method": "frequency", "blend_within": 0.05}
    assert any("disagree by more than 0.05" in note for note in made.notes)
    key = recipe_key(Fuse("frequency", both, "alignment", blend_within=0.05), {})
    assert key.startswith("frequency(alignment~0.05;")
    for wrong in (Fuse("frequency", both, blend_within=0.05), Fuse("best_of", both, "alignment", blend_within=0.05)):
        with pytest.raises(PlanError, match="blend_within belongs to average, pyramid, frequency"):
            plan(wrong)


def test_another_latent_space_goes_through_pixels_and_the_plan_says_so() -> None:
    """FLUX gives a picture; the refiner re-noises it by its strength; a note tells."""
    made = plan(PIXELS)
    flux, refiner = made.steps
    assert (flux.produces, refiner.settings["strength"]) == ("image", 0.25)
    assert "from" not in refiner.settings
    assert any("through pixels (another latent space)" in note for note in made.notes)


def test_models_of_one_latent_space_relay_to_and_fro() -> None:
    """SDXL to its refiner and back again on one schedule: three hand-overs of latents, the last a picture."""
    relay = Chain(
        (Generate("sdxl", until=0.3), Refine("sdxl-refiner", from_=0.3, until=0.6), Refine("sdxl", from_=0.6))
    )
    made = plan(relay)
    assert [step.produces for step in made.steps] == ["latents", "latents", "image"]
    assert [(taken.kind, taken.space, taken.share) for taken in made.handovers] == [
        ("latents", "sdxl", 0.3), ("latents", "sdxl", 0.4),
    ]  # fmt: skip
    assert recipe_key(relay, {}, CATALOGUE) == "sdxl>sdxl-refiner:from=0.3>sdxl:from=0.6"


def test_every_hand_over_says_what_goes_where() -> None:
    """Kind, space, sizes and share of the denoising stand in the plan, for pixels as for latents."""
    made = plan(Chain((Generate("sd15"), Upscale(2), Refine("sdxl", strength=0.3))))
    (taken,) = made.handovers
    assert (taken.giver, taken.taker) == (made.steps[1].id, made.steps[2].id)
    assert (taken.kind, taken.space, taken.share) == ("pixels", "srgb", 0.3)
    assert (taken.size_from, taken.size_to) == ((1024, 1024), (1024, 1024))
    mixed = plan(Chain((Fuse("average", (Generate("sdxl"), Generate("flux"))), Refine("sdxl", strength=0.2))))
    assert mixed.handovers[0].size_from == (1024, 1024)


def test_a_large_picture_is_refined_in_tiles_of_the_native_size() -> None:
    """1536 pixels are two tiles of 1024 across and down, and the cost is that of four native pictures."""
    chain = Chain((Generate("sdxl"), Upscale(1.5), Refine("sdxl", strength=0.5, tile="native")))
    made = plan(chain)
    last = made.steps[-1]
    tiles = {key: value for key, value in last.settings.items() if key.startswith("tile")}
    assert tiles == {"tile_width": 1024, "tile_height": 1024, "tile_overlap": 256, "tiles": 4}
    assert CostModel(CATALOGUE).work(last) == pytest.approx(4 * 15)
    assert any("4 tiles of 1024x1024" in note for note in made.notes)
    assert recipe_key(chain, {}, CATALOGUE) == "sdxl>upscale:1.5>sdxl:strength=0.5,tile=native"


def test_a_picture_that_fits_one_tile_is_planned_whole() -> None:
    """Asking for tiles changes nothing about a picture no larger than a tile, except that a note says so."""
    whole, asked = (
        plan(Chain((Generate("sdxl"), Refine("sdxl", strength=0.5, tile=tile)))) for tile in (None, "native")
    )
    assert asked.steps == whole.steps
    assert any("fits one tile" in note for note in asked.notes)


def test_tiles_may_exceed_what_the_model_takes_at_once() -> None:
    """SD1.5 refuses 2048 pixels whole and takes them in tiles."""

    def chain(tile: Tile | None) -> Recipe:
        return Chain((Generate("sd15"), Upscale(4), Refine("sd15", strength=0.3, tile=tile)))

    with pytest.raises(PlanError, match="too large"):
        plan(chain(None))
    assert plan(chain("native")).steps[-1].settings["tiles"] == 25


def test_best_of_scores_all_branches_and_selects() -> None:
    """The branches come first, then the score over them, then the selection with the scores as its last input."""
    made = plan(Fuse("best_of", ("a", Generate("flux")), "alignment"), a=LATENTS)
    score, select = made.steps[-2:]
    assert [step.id for step in made.steps] == [
        "1-generate-sdxl", "2-refine-sdxl-refiner", "3-generate-flux", "4-score-alignment", "5-select-best_of",
    ]  # fmt: skip
    assert score.inputs == ("2-refine-sdxl-refiner", "3-generate-flux")
    assert dict(score.settings) == {"prompt": "a red circle"}
    assert select.inputs == (*score.inputs, score.id)
    assert made.output == select.id


@pytest.mark.parametrize("method", ["average", "pyramid", "frequency"])
def test_blends_take_the_pictures_in_order(method: str) -> None:
    """A blend needs no model and no scorer."""
    made = plan(Fuse(method, (Generate("flux"), Generate("sdxl"))))
    blend = made.steps[-1]
    assert (blend.kind, blend.model, blend.inputs) == ("blend", None, ("1-generate-flux", "2-generate-sdxl"))
    assert blend.settings["method"] == method


def test_regions_look_for_every_object_of_the_prompt() -> None:
    """Each phrase is scored over the objects of all pictures; the mixture is scored beside the pictures themselves."""
    request = replace(REQUEST, prompt="a red circle and a blue square")
    made = plan(Fuse("regions", (Generate("flux"), Generate("sdxl")), "alignment"), request)
    assert [step.id for step in made.steps] == [
        "1-generate-flux", "2-generate-sdxl", "3-score-alignment", "4-score-alignment", "5-blend-regions",
        "6-score-alignment", "7-select-best_of",
    ]  # fmt: skip
    pictures = ("1-generate-flux", "2-generate-sdxl")
    first, second, blend, whole, select = made.steps[2:]
    assert [dict(step.settings) for step in (first, second, whole)] == [
        {"prompt": "a red circle", "segments": 4}, {"prompt": "a blue square", "segments": 4},
        {"prompt": request.prompt},
    ]  # fmt: skip
    assert first.inputs == second.inputs == pictures
    assert blend.inputs == (*pictures, first.id, second.id)
    assert whole.inputs == (*pictures, blend.id)
    assert select.inputs == (*whole.inputs, whole.id)
    assert CostModel(CATALOGUE).work(first) == 4


@pytest.mark.parametrize("prompt", ["a red circle", "two cats and a dog", "sunset", "a, b, " + "a cat, " * 5])
def test_regions_of_one_object_or_of_groups_choose_a_whole_picture(prompt: str) -> None:
    """Without two to four single objects regions is best_of, and the plan says so."""
    made = plan(Fuse("regions", (Generate("flux"), Generate("sdxl")), "alignment"), replace(REQUEST, prompt=prompt))
    assert [step.kind for step in made.steps] == ["generate", "generate", "score", "select"]
    assert any("keeps the best whole picture" in note for note in made.notes)


def test_repeated_branches_get_their_own_seeds() -> None:
    """Three times the same recipe under seed 7 is 7, 8 and 9; another recipe beside it starts at 7 again."""
    again = Generate("sd15")
    made = plan(Fuse("best_of", (again, again, Generate("sd15", steps=9), again), "alignment"))
    assert [step.settings["seed"] for step in made.steps[:4]] == [7, 8, 7, 9]
    assert [step.settings["seed"] for step in made.with_seed(20).steps[:4]] == [20, 21, 20, 22]


def test_the_request_overrides_generate_steps_only_and_it_is_noted() -> None:
    """Asking for 11 steps and guidance 3 changes FLUX, not the refiner that re-noises its picture."""
    made = plan(PIXELS, replace(REQUEST, steps=11, guidance_scale=3.0))
    flux, refiner = made.steps
    assert (flux.settings["steps"], flux.settings["guidance_scale"]) == (11, 3.0)
    assert (refiner.settings["steps"], refiner.settings["guidance_scale"]) == (30, 7.5)
    assert "steps of flux: 11 as requested instead of 4" in made.notes


def test_the_size_asked_for_is_the_size_of_the_answer() -> None:
    """With an upscale by 2, SD1.5 works at half the size."""
    made = plan(Chain((Generate("sd15"), Upscale(2))), replace(REQUEST, width=1024, height=768))
    assert (made.steps[0].settings["width"], made.steps[0].settings["height"]) == (512, 384)
    assert (made.width, made.height) == (1024, 768)
    native = plan(Chain((Generate("sd15"), Upscale(2))))
    assert (native.width, native.steps[0].settings["width"]) == (1024, 512)


def test_a_refine_after_an_upscale_works_at_the_larger_size() -> None:
    """SD1.5 at 512, enlarged to 1024, refined at 1024."""
    made = plan(Chain((Generate("sd15"), Upscale(2), Refine("sdxl", strength=0.3))))
    assert made.steps[-1].settings["width"] == 1024


def test_ids_and_digests_are_stable() -> None:
    """The same recipe and request give the same plan; another prompt another digest."""
    assert plan(LATENTS) == plan(LATENTS)
    assert plan(LATENTS).digest() != plan(LATENTS, replace(REQUEST, prompt="a blue circle")).digest()


def test_a_prompt_that_is_surely_cut_is_noted() -> None:
    """Beyond 77 words SD1.5 cuts and the note says so; FLUX reads on."""
    long = replace(REQUEST, prompt="word " * 100)
    assert any("its end is cut" in note for note in plan(Generate("sd15"), long).notes)
    assert not plan(Generate("flux"), long).notes


def test_branches_that_may_be_spared_wait_for_the_score_before() -> None:
    """With `accept_above` each branch has its own score, and hangs on that of the branch before, nested ones too."""
    twice = Fuse("best_of", (Generate("sd15"),) * 2, "alignment", 0.8)
    made = plan(Fuse("best_of", (LATENTS, twice), "alignment", 0.9))
    hangs = {step.id: (step.unless.score, step.unless.at_least) if step.unless else None for step in made.steps}
    assert hangs == {
        "1-generate-sdxl": None,
        "2-refine-sdxl-refiner": None,
        "3-score-alignment": None,
        "4-generate-sd15": ("3-score-alignment", 0.9),
        "5-score-alignment": ("3-score-alignment", 0.9),
        "6-generate-sd15": ("5-score-alignment", 0.8),
        "7-score-alignment": ("5-score-alignment", 0.8),
        "8-select-best_of": ("3-score-alignment", 0.9),
        "9-score-alignment": ("3-score-alignment", 0.9),
        "10-select-best_of": None,
    }
    assert "the branches run in turn until one scores at least 0.9" in made.notes
    assert [step.settings["seed"] for step in made.steps if step.model == "sd15"] == [7, 8]
