"""A negative prompt is heeded, refused or told: never ignored in silence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies import load_policy_text
from router.errors import NoRecipeError
from router.planning.plan import make_plan
from router.planning.planner import Planner
from router.types import Chain, Fuse, Generate, GenerationRequest, ModelCard, Recipe, Refine
from tests.policies.values import decide, estimate
from tests.router.cards import CATALOGUE, PAIRED, plan

REQUEST = GenerationRequest("a red circle", negative_prompt="blurry")
GUIDED = Generate("sdxl")
UNGUIDED = Generate("flux")  # its card's guidance is 0


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        (UNGUIDED, ["flux"]),
        (Generate("sdxl", guidance_scale=1.0), ["sdxl"]),
        (Chain((UNGUIDED, Refine("sdxl", strength=0.3))), ["flux"]),
        (Chain((GUIDED, Refine("sdxl-refiner", strength=0.3, guidance_scale=1.0))), ["sdxl-refiner"]),
        (Fuse("best_of", (GUIDED, UNGUIDED), "alignment"), ["flux"]),
    ],
)
def test_a_recipe_with_a_model_that_ignores_it_says_so(recipe: Recipe, names: list[str]) -> None:
    """Every model without guidance is named, wherever it stands in the recipe, and the notes have the same words."""
    made = plan(recipe, REQUEST)
    assert list(made.ignores) == [f"{name} ignores negative prompts at guidance ≤ 1" for name in names]
    assert set(made.ignores) <= set(made.notes)
    assert plan(recipe).ignores == () == plan(recipe, replace(REQUEST, negative_prompt="  ")).ignores


def test_a_guest_without_guidance_ignores_it_as_well() -> None:
    """Of two models that predict together, the one without guidance is named."""
    made = make_plan("r", Fuse("denoise", (GUIDED, Generate("small", steps=20))), REQUEST, PAIRED, {})
    assert made.ignores == ("small ignores negative prompts at guidance ≤ 1",)


def test_guidance_that_was_asked_for_counts() -> None:
    """A request that brings its own guidance makes a model heed its negative prompt, or ignore it."""
    assert plan(UNGUIDED, replace(REQUEST, guidance_scale=4.0)).ignores == ()
    assert plan(GUIDED, replace(REQUEST, guidance_scale=1.0)).ignores != ()
    assert plan(GUIDED, REQUEST).ignores == ()


def test_a_distilled_model_ignores_it_at_any_guidance() -> None:
    """Guidance that is an input of the network runs no second pass; a pipeline may take no negative prompt at all."""
    card = ModelCard("dev", "flux", "base", {"local": "-"}, guidance="input", guidance_scale=3.5)
    assert (card.passes(3.5), card.heeds_negative(3.5)) == (1, False)
    klein = ModelCard("klein", "flux2-klein", "base", {"local": "-"}, guidance_scale=4.0, takes_negative=False)
    assert (klein.passes(4.0), klein.heeds_negative(4.0)) == (2, False)


def test_what_is_planned_for_all_prompts_keeps_it() -> None:
    """Plans that were made once and filled in ignore and note the same as those that are made anew."""
    recipes: dict[str, Recipe] = {"fast": UNGUIDED, "good": GUIDED}
    for prompt in ("a cat", "a dog"):
        planned = Planner(CATALOGUE).plan(replace(REQUEST, prompt=prompt), recipes)
        assert planned.plans["fast"].ignores == planned.plan("fast").ignores != ()
        assert planned.plan("good").ignores == ()


POLICY = """version: 1
name: test
recipes: {fast: {generate: {model: flux}}, good: {generate: {model: sdxl}}}
objective: {maximise: quality}
"""


def test_a_policy_rules_the_recipe_out_as_capability_unless_it_allows_it() -> None:
    """The better recipe is out, with the remedy, and a request that names it is refused; `allow` lets it in."""
    estimates = estimate("fast", 0.9), estimate("good", 0.5)
    plans = {
        name: replace(plan(recipe, REQUEST), recipe=name) for name, recipe in (("fast", UNGUIDED), ("good", GUIDED))
    }
    strict = load_policy_text(POLICY, "test.yaml", models=("flux", "sdxl"))
    lenient = load_policy_text(POLICY + "ignore_negative_prompt: allow\n", "test.yaml", models=("flux", "sdxl"))
    found = decide(strict, REQUEST, *estimates, plans=plans)
    assert found.recipe == "good"
    (out,) = found.rejected
    assert (out.recipe, out.gate) == ("fast", "capability")
    assert "flux ignores negative prompts at guidance ≤ 1" in out.reason
    assert "ignore_negative_prompt: allow" in out.reason
    with pytest.raises(NoRecipeError, match="ignores negative prompts"):
        decide(strict, replace(REQUEST, recipe="fast"), *estimates, plans=plans)
    assert decide(lenient, REQUEST, *estimates, plans=plans).recipe == "fast"
    assert strict.digest != lenient.digest


@pytest.mark.parametrize("which", ["prompt", "negative_prompt"])
def test_a_cut_tail_is_told_of_both_prompts(which: str) -> None:
    """A model that reads 77 tokens is named for a long negative prompt as for a long prompt."""
    long = " ".join(["word"] * 100)
    request = GenerationRequest(**{"prompt": "a cat", "negative_prompt": "blurry", which: long})
    told = [note for note in plan(GUIDED, request).notes if "its end is cut" in note]
    assert told == [f"sdxl reads at most 77 tokens; this {which.replace('_', ' ')} has at least 102, its end is cut"]
    planned = Planner(CATALOGUE).plan(request, {"r": GUIDED})
    assert planned.plan("r") == plan(GUIDED, request)


@pytest.mark.parametrize(("marks", "told"), [(73, False), (75, False), (76, True), (77, True), (79, True)])
def test_no_prompt_is_too_short_to_be_cut(marks: int, told: bool) -> None:
    """Of a prompt in which each character is a token, 75 fit a model that reads 77 with begin and end."""
    notes = plan(GUIDED, GenerationRequest("!" * marks)).notes
    assert any("its end is cut" in note for note in notes) is told


def test_only_models_that_heed_the_negative_prompt_cut_it() -> None:
    """Where it is ignored, it is not said to be cut; a note for each model that reads less than all of it."""
    request = GenerationRequest("a cat", negative_prompt=" ".join(["word"] * 600))
    notes = plan(Fuse("average", (GUIDED, UNGUIDED)), request).notes
    assert [note.split()[0] for note in notes if "its end is cut" in note] == ["sdxl"]
