"""Given pictures in plans: who takes them, what becomes of them, and how sure the router is of the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router.errors import PlanError, RequestError
from router.planning.edits import for_pictures, takes
from router.planning.plan import make_plan
from router.planning.recipes import as_run, recipe_key
from router.quality.composition import Composition, outline
from router.requests import check_request
from router.types import (
    Chain,
    Control,
    Edit,
    Fuse,
    Generate,
    GenerationRequest,
    Given,
    GivenPicture,
    Map,
    Plan,
    Quality,
    Recipe,
    Refine,
    Upscale,
)
from tests.router.cards import CARDS, CATALOGUE, REQUEST, Cards, plan

IMAGE = GivenPicture("image", "a" * 64, 512, 512)
MASK = GivenPicture("mask", "b" * 64, 512, 512, 0.25)
BROUGHT = replace(REQUEST, given=(IMAGE,))
MASKED = replace(REQUEST, given=(IMAGE, MASK))
LARGER = Chain((Edit("sd15"), Upscale(2.0), Refine("sdxl", strength=0.3)))


def kinds(made: Plan) -> list[str]:
    """The kinds of a plan's steps, in order."""
    return [step.kind for step in made.steps]


def test_an_edit_goes_on_from_the_given_picture() -> None:
    """The picture is the root of the plan, known by its digest, and its size is the answer's."""
    made = plan(Edit("sd15", 0.5), BROUGHT)
    assert kinds(made) == ["given", "refine"]
    assert made.steps[0].settings == {"role": "image", "digest": IMAGE.digest, "width": 512, "height": 512}
    assert made.steps[1].settings["strength"] == 0.5 and made.steps[1].inputs == (made.steps[0].id,)
    assert (made.width, made.height) == (512, 512)
    other = plan(Edit("sd15", 0.5), replace(BROUGHT, given=(replace(IMAGE, digest="c" * 64),)))
    assert made.digest() != other.digest()


def test_a_mask_is_drawn_in_and_laid_over() -> None:
    """With a mask the model draws what it leaves open, and the last step lays that over the given picture."""
    made = plan(Edit("sd15"), MASKED)
    assert kinds(made) == ["given", "given", "inpaint", "paste"]
    image, mask, drawn, paste = made.steps
    assert mask.produces == "mask" and drawn.inputs == (image.id, mask.id) and drawn.settings["strength"] == 1.0
    assert paste.inputs == (drawn.id, image.id, mask.id) and made.output == paste.id


def test_what_follows_an_edit_stays_outside_the_mask_as_well() -> None:
    """A chain of edit, upscale and refine ends with the given picture, enlarged, where the mask is closed."""
    made = plan(LARGER, MASKED)
    assert kinds(made) == ["given", "given", "inpaint", "paste", "upscale", "refine", "paste"]
    assert made.output == made.steps[-1].id and (made.width, made.height) == (1024, 1024)
    assert made.steps[-1].settings == {"width": 1024, "height": 1024}
    assert made.steps[-1].inputs[1:] == (made.steps[0].id, made.steps[1].id)
    assert kinds(plan(LARGER, BROUGHT)) == ["given", "refine", "upscale", "refine"]


def test_a_given_picture_is_enlarged_as_a_whole() -> None:
    """`given` begins a chain that goes on from the picture; alone, nothing would be done to it."""
    made = plan(Chain((Given(), Upscale(2.0), Refine("sdxl", strength=0.2))), BROUGHT)
    assert kinds(made) == ["given", "upscale", "refine"] and (made.width, made.height) == (1024, 1024)
    with pytest.raises(PlanError, match="nothing is done"):
        plan(Given(), BROUGHT)


@pytest.mark.parametrize("size", [(640, 480), (333, 250), (4000, 3000), (1000, 200)])
def test_any_size_is_worked_on_at_one_that_the_model_takes(size: tuple[int, int]) -> None:
    """The picture is brought to a size of its shape that suits the model, and back."""
    card = CATALOGUE["sd15"]
    given = (replace(IMAGE, width=size[0], height=size[1]), replace(MASK, width=size[0], height=size[1]))
    made = plan(Edit("sd15"), replace(REQUEST, given=given))
    (drawn,) = (step for step in made.steps if step.kind == "inpaint")
    width, height = int(drawn.settings["width"] or 0), int(drawn.settings["height"] or 0)
    assert width % card.size_multiple == 0 and height % card.size_multiple == 0 and width * height <= card.max_pixels
    assert abs(np.log(width / height) - np.log(size[0] / size[1])) < 0.2
    assert (made.width, made.height) == size and made.steps[-1].kind == "paste"


@pytest.mark.parametrize(
    ("recipe", "request_", "why"),
    [
        (Generate("sd15"), BROUGHT, "takes no picture"),
        (Chain((Generate("flux"), Refine("sdxl", strength=0.3))), BROUGHT, "takes no picture"),
        (Edit("sd15"), REQUEST, "the request brings none"),
        (Chain((Given(), Upscale())), MASKED, "takes no mask"),
        (Fuse("average", (Edit("sd15"), Generate("sd15"))), BROUGHT, "some branches"),
        (Edit("sd15"), replace(BROUGHT, width=512, height=256), "squeezed"),
        (Edit("sd15", 0.01), BROUGHT, "less than one of"),
        (Edit("alignment"), BROUGHT, "scorer"),
        (Edit("sdxl-refiner"), MASKED, "takes no mask"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(recipe: Recipe, request_: GenerationRequest, why: str) -> None:
    """Text recipes take no picture, edits need one, and everything else that is in the way is said."""
    with pytest.raises(PlanError, match=why):
        plan(recipe, request_)


@pytest.mark.parametrize(
    ("given", "strength", "param"),
    [
        ((MASK,), None, "mask"),
        ((IMAGE, replace(MASK, width=256)), None, "mask"),
        ((IMAGE, replace(MASK, share=0.0)), None, "mask"),
        ((IMAGE, MASK, MASK), None, "mask"),
        ((), 0.5, "strength"),
        ((IMAGE,), 1.5, "strength"),
    ],
)
def test_pictures_that_do_not_go_together_are_refused(
    given: tuple[GivenPicture, ...], strength: float | None, param: str
) -> None:
    """A request brings one mask at most, for its first picture and of its size."""
    with pytest.raises(RequestError) as refused:
        check_request(replace(REQUEST, given=given, strength=strength))
    assert refused.value.param == param


def test_the_prompt_may_be_empty_beside_a_picture() -> None:
    """A variation has no prompt; a picture from nothing needs one."""
    check_request(replace(BROUGHT, prompt=""))
    with pytest.raises(RequestError):
        check_request(replace(REQUEST, prompt=""))


def test_a_policy_of_text_recipes_does_the_same_with_a_picture() -> None:
    """Each recipe paints over where it would draw, under its own name; what cannot stays, and takes no picture."""
    recipes: dict[str, Recipe] = {
        "draft": Generate("sd15", steps=12),
        "polished": Chain((Generate("sdxl"), Refine("sdxl-refiner", strength=0.3))),
        "relay": Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8))),
        "best": Fuse("best_of", ("draft", "polished"), "alignment"),
        "both": Fuse("denoise", (Generate("sd15"), Generate("sdxl"))),
    }
    found = for_pictures(recipes)
    assert found["draft"] == Edit("sd15", steps=12)
    assert found["polished"] == Chain((Edit("sdxl"), Refine("sdxl-refiner", strength=0.3)))
    assert found["relay"] == Edit("sdxl")
    best = found["best"]
    assert isinstance(best, Fuse) and best.branches == (found["draft"], found["polished"])
    assert found["both"] is recipes["both"]
    own: dict[str, Recipe] = {**recipes, "edit": Edit("sd15")}
    assert for_pictures(own) is own
    able = takes(recipes, CATALOGUE)
    assert able["draft"] == ("text", "image", "mask") and able["both"] == ("text",)
    assert takes(own, CATALOGUE)["draft"] == ("text",) and takes(own, CATALOGUE)["edit"] == ("image", "mask")


def test_strength_and_mask_are_part_of_the_key() -> None:
    """What an edit is called says how far and how much it changes."""
    assert recipe_key(Edit("sd15", 0.6), {}) == "given>sd15:strength=0.6"
    assert recipe_key(as_run(Edit("sd15"), MASKED), {}) == "given>sd15:mask=0.25,strength=1"
    assert recipe_key(as_run(Edit("sd15"), replace(BROUGHT, strength=0.3)), {}) == "given>sd15:strength=0.3"
    assert recipe_key(LARGER, {}) == "given>sd15>upscale:2>sdxl:strength=0.3"


def test_the_less_is_painted_over_the_less_is_known() -> None:
    """Quality is the model's own on the prompt; its uncertainty grows as strength and mask shrink."""
    known, prior = {"sd15": Quality(0.7, 0.2)}, Quality(0.5, 0.3, "prior")
    stds = []
    for strength, mask in ((1.0, None), (0.6, None), (0.3, None), (0.3, 0.5)):
        found = outline(Edit("sd15", strength, mask=mask), ["sd15"]).quality(known, prior, Composition())
        assert found.mean == 0.7
        stds.append(found.std)
    assert stds == sorted(stds) and stds[0] == pytest.approx(0.2) and stds[1] < stds[2] < stds[3] < 0.4
    chained = outline(LARGER, ["sd15"]).quality(known, prior, Composition(refine_delta=0.05))
    assert chained.mean > 0.7 and chained.basis == "composed"


NETS = {kind: {"path": "-"} for kind in ("canny", "depth", "tile")}
CONTROLLED = Cards({**CARDS, **{name: replace(CARDS[name], controlnets=NETS) for name in ("sd15", "flux")}})


def controlled(recipe: Recipe, request: GenerationRequest = BROUGHT) -> Plan:
    """The plan of a recipe where sd15 has ControlNets for edges and for depth."""
    return make_plan("r", recipe, request, CONTROLLED, {})


def test_a_control_map_is_a_step_of_its_own() -> None:
    """Drawn from noise along the edges of the given picture, whose map is made by a step before."""
    made = controlled(Generate("sd15", control=Control("canny", scale=0.8)))
    assert kinds(made) == ["given", "control", "generate"]
    assert made.steps[1].settings == {"method": "canny"} and made.steps[2].inputs == (made.steps[1].id,)
    assert (made.steps[2].settings["control"], made.steps[2].settings["control_scale"]) == ("canny", 0.8)
    painted = controlled(Edit("sd15", control=Control("canny")), MASKED)
    assert kinds(painted) == ["given", "control", "given", "inpaint", "paste"]
    assert painted.steps[3].inputs == ("1-given-image", "3-given-mask", "2-control-canny")


def test_a_refine_follows_the_picture_before_it() -> None:
    """What was enlarged is painted over in tiles, along itself; the map is a step, and the control part of the key."""
    fine = Refine("sd15", strength=0.4, tile=512, control=Control("tile", "picture", 0.6))
    recipe = Chain((Generate("sdxl"), Upscale(2.0), fine))
    made = controlled(recipe, REQUEST)
    assert kinds(made) == ["generate", "upscale", "control", "refine"]
    assert made.steps[2].inputs == (made.steps[1].id,) and made.steps[3].inputs == (made.steps[1].id, made.steps[2].id)
    assert made.steps[3].settings["control_scale"] == 0.6 and int(made.steps[3].settings["tiles"] or 0) > 1
    assert recipe_key(recipe, {}).endswith("sd15:control=tile*0.6,strength=0.4,tile=512")
    with pytest.raises(PlanError, match="has no control 'tile'; its card names none"):
        controlled(Chain((Generate("sdxl"), replace(fine, model="sdxl-refiner"))), REQUEST)
    with pytest.raises(PlanError, match="no map 'depth' is made here"):
        controlled(Chain((Generate("sdxl"), replace(fine, control=Control("depth", "picture")))), REQUEST)


def test_a_map_may_be_given_or_looked_at() -> None:
    """`map` takes the given picture as the map; a chain of given and map has the map as its answer."""
    made = controlled(Generate("sd15", control=Control("depth", "map")))
    assert kinds(made) == ["given", "generate"] and made.steps[1].inputs == (made.steps[0].id,)
    seen = controlled(Chain((Given(), Map("canny"))))
    assert kinds(seen) == ["given", "control"] and seen.output == seen.steps[-1].id


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (Generate("sdxl", control=Control("canny")), "no control 'canny'; its card names none"),
        (Generate("sd15", control=Control("depth")), "no map 'depth' is made here"),
        (Generate("sd15", control=Control("canny", scale=3.0)), "outside 0..2"),
        (Generate("sd15", tile="native", control=Control("canny")), "drop tile and until"),
        (Chain((Edit("sd15"), Map("canny"))), "begin the chain with given"),
        (Edit("flux", guidance_scale=4.0, control=Control("canny")), "set its guidance_scale to 1"),
    ],
)
def test_a_control_that_cannot_be_followed_is_refused(recipe: Recipe, why: str) -> None:
    """What the card does not name, what is not made here, and what does not go together is said."""
    with pytest.raises(PlanError, match=why):
        controlled(recipe)


def test_a_control_is_part_of_the_key_and_takes_a_picture() -> None:
    """A guided recipe is another one than the same without, and needs a picture."""
    guided = Generate("sd15", control=Control("canny", scale=0.8))
    assert recipe_key(guided, {}) == "sd15:control=canny*0.8"
    assert (
        recipe_key(Edit("sd15", 0.5, control=Control("depth", "map")), {})
        == "given>sd15:control=depth.map,strength=0.5"
    )
    assert takes({"guided": guided}, CONTROLLED) == {"guided": ("image",)}
    with pytest.raises(PlanError, match="brings none"):
        controlled(guided, REQUEST)
