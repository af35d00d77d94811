"""Two models that predict every step together."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from router.errors import PlanError
from router.planning.checks import check_share
from router.types import Generate, Recipe
from tests.router.cards import CATALOGUE, LATENTS, REQUEST, together


def test_two_models_of_one_space_denoise_on_one_worker() -> None:
    """One step on the worker that holds both, with the guest's own guidance and its share of the weights; who is named
    first does not matter, and the plan says what happens."""
    sdxl, small = Generate("sdxl", steps=20, guidance_scale=5.0), Generate("small")
    made = together(sdxl, small, shares=((3, 1), (1, 3)))
    (step,) = made.steps
    assert (step.kind, step.model, step.models, step.produces) == ("denoise", "sdxl", ("sdxl", "small"), "image")
    wanted = {"steps": 20, "guidance_scale": 5.0, "guest": "small", "guest_guidance_scale": 1.0, "seed": 7}
    wanted |= {"guest_weight": 0.25, "guest_weight_end": 0.75, "width": 1024, "height": 1024}
    assert wanted.items() <= dict(step.settings).items()
    swapped = together(replace(small, width=1024, height=1024), sdxl, shares=((1, 3), (3, 1)))
    assert swapped.steps == made.steps
    assert any("predict every step together, on the worker of sdxl" in note for note in made.notes)


@pytest.mark.parametrize(("steps", "share", "fits"), [(3, 0.3333333, True), (3, 0.33333, False), (1, 1.0, True)])
def test_a_share_leaves_a_whole_step(steps: int, share: float, fits: bool) -> None:
    """A third, written with seven digits, is one of three steps; with five it is less, and the share has a name."""
    if fits:
        check_share(CATALOGUE["sdxl"], steps, share, "strength")
        return
    with pytest.raises(PlanError, match=f"strength leaves 'sdxl' less than one of {steps} steps") as refused:
        check_share(CATALOGUE["sdxl"], steps, share, "strength")
    assert refused.value.param == "steps"


def test_a_request_sets_the_steps_and_guidance_of_both() -> None:
    """What a client asks for goes to both models, and what one of them does not take refuses the recipe."""
    asked = replace(REQUEST, steps=10, guidance_scale=1.5)
    (step,) = together(Generate("sdxl", steps=20), Generate("small"), request=asked).steps
    assert (step.settings["steps"], step.settings["guidance_scale"], step.settings["guest_guidance_scale"]) == (
        10, 1.5, 1.5,
    )  # fmt: skip
    with pytest.raises(PlanError, match=r"guidance_scale of 3 is outside 0\.\.2, which 'small' takes"):
        together(Generate("sdxl", steps=20), Generate("small"), request=replace(asked, guidance_scale=3.0))


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        ((Generate("sdxl", steps=20),), "a fusion needs at least two"),
        ((Generate("sdxl"), Generate("small"), Generate("alone")), "takes two branches, not 3"),
        ((Generate("sdxl"), Generate("small")), "30 steps are outside 1..20, which 'small' takes"),
        ((Generate("sdxl", steps=9), Generate("alone")), r"give the model 'sdxl' guests: \[alone\]"),
        ((Generate("sdxl", steps=9), Generate("sd15")), "share no latents"),
        ((Generate("sdxl", steps=9), Generate("flux")), "shifts its schedule"),
        ((Generate("sdxl"), Generate("sdxl")), "with itself"),
        ((Generate("sdxl", steps=9), LATENTS), "two generates, not a chain"),
        ((Generate("sdxl", steps=9, until=0.5), Generate("small")), "drop until"),
        ((Generate("sdxl", steps=9), Generate("small", steps=8)), "differ in steps"),
        ((Generate("sdxl", steps=9, scheduler="euler"), Generate("small", scheduler="ddim")), "differ in scheduler"),
        ((Generate("sdxl", steps=9), Generate("sdxl-refiner")), "is a refiner"),
    ],
)
def test_models_that_cannot_denoise_together_are_refused(branches: tuple[Recipe, ...], message: str) -> None:
    """Each refusal names the models and what to do."""
    with pytest.raises(PlanError, match=message):
        together(*branches)


@pytest.mark.parametrize("shares", [((1, 1),), ((0, 0), (0, 1)), ((-1, 1), (1, 1)), ((math.nan, 1), (1, 1))])
def test_weights_that_are_none_are_refused(shares: tuple[tuple[float, float], ...]) -> None:
    """Weights are numbers from 0 on, one for each branch, and not all 0 at either end."""
    with pytest.raises(PlanError, match="weights"):
        together(Generate("sdxl", steps=9), Generate("small"), shares=shares)


def test_a_wide_picture_is_denoised_together_in_the_hosts_windows() -> None:
    """Windows are those of the host's native size, if the guest takes them."""
    asked = replace(REQUEST, width=2048, height=1024)
    (step,) = together(Generate("sdxl", steps=20, tile="native"), Generate("small"), request=asked).steps
    assert (step.settings["tiles"], step.settings["tile_width"]) == (3, 1024)
