"""Plans with given pictures as they are written down in `tests/golden/given_plans.json`: edits, controls, references,
models of other servers, and styles; with what each recipe takes, becomes for a picture, and is called as it is run, and
with the law, the work and the seconds of each step.

`python -m tests.router.given.test_given_plans` renews them.

A change there is a change of what is run, or of what is told: read it, and renew the file only if it is meant.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from router.cost.model import CostModel
from router.errors import PlanError
from router.planning.edits import for_pictures, probes, takes
from router.planning.plan import make_plan
from router.planning.recipes import as_run, recipe_key, resolve
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
    ModelCard,
    Recipe,
    Refine,
    Remote,
    Search,
    Style,
    Upscale,
    wearing,
)
from tests.router.cards import ANY_SIZE, PAIRED, Cards
from tests.router.written import write

WRITTEN = Path(__file__).parents[2] / "golden/given_plans.json"
STYLES = {
    "film": Style("film", "sd15", "lora", {"file": "-"}, least=-2, most=2),
    "flat": Style("flat", "sd15", "guidance_rescale", steps=("generate",), many=False, blends=False),
    "look": Style("look", "sd15", "ip_adapter", {"file": "-", "encoder": "-"}, many=False),
    "glance": Style("glance", "sd15", "ip_adapter", {"file": "-", "encoder": "-"}),
    "bold": Style("bold", "sd15", "attention", settings={"words": {"circle": 2.0}}),
    "grey": Style("grey", "sd15", "attention", settings={"words": {"cat": 2.0, "dog": 1.5}}),
}
NETS = {kind: {"path": "-"} for kind in ("canny", "tile", "depth")}
BARE: dict[str, Any] = {"latent_space": "own", "native_size": (512, 512), "steps": 8, **ANY_SIZE}
SERVER = Remote("https://example.org/v1", "stranger", takes={"steps": "steps", "seed": "seed"})
CARDS = {
    **{name: replace(card, styles=STYLES) for name, card in PAIRED.cards.items()},
    "sd15": replace(PAIRED.cards["sd15"], styles=STYLES, controlnets=NETS),
    "flux": replace(PAIRED.cards["flux"], controlnets=NETS, guidance_scale=1.0, inpaints=True),
    "refiner": replace(PAIRED.cards["sdxl-refiner"], id="refiner", controlnets=NETS),
    # Good at one shape only, so that most pictures are brought to it and back.
    "fussy": ModelCard("fussy", "sd15", "base", {"local": "-"}, latent_space="sd", inpaints=True, size_multiple=64,
                       min_side=192, max_pixels=640 * 640, steps=10, guidance_scale=3.0),
    "teller": ModelCard("teller", "kontext", "editor", {"local": "-"}, inpaints=True, edits="instruct", max_pictures=3,
                        size_multiple=16, **BARE),
    "beside": ModelCard("beside", "kontext", "base", {"local": "-"}, edits="instruct", max_pictures=2,
                        side_by_side=True, size_multiple=16, **BARE),
    "filler": ModelCard("filler", "fill", "editor", {"local": "-"}, inpaints=True, edits="fill", **BARE),
    "noise": ModelCard("noise", "pixart", "base", {"local": "-"}, edits="", refines=False, **BARE),
    "stranger": ModelCard("stranger", "remote", "base", {"local": "-"}, remote=SERVER, **BARE),
}  # fmt: skip
CATALOGUE = Cards(CARDS)
FINE = Refine("sd15", strength=0.4)
NAMED: dict[str, Recipe] = {
    "draft": Generate("sd15", steps=12, style=wearing({"film": 0.5})),
    "polished": Chain((Generate("sdxl", guidance_scale=4.0, scheduler="euler"), Refine("sdxl-refiner", strength=0.3))),
}
RECIPES: dict[str, Recipe] = {
    **NAMED,
    "edit": Edit("sd15"),
    "edit by .5": Edit("sd15", 0.5, 10, 3.0, "ddim"),
    "edit by 0": Edit("sd15", 0.0),
    "edit by 1.5": Edit("sd15", 1.5),
    "edit by one step": Edit("sd15", 0.04),
    "edit by less than a step": Edit("sd15", 0.03),
    "edit in few steps": Edit("sd15", 0.55, 3),
    "edit of SDXL": Edit("sdxl"),
    "edit of a fussy model": Edit("fussy"),
    "edit of a pair": Edit("small"),
    "edit of a flow": Edit("flux", 0.5),
    "edit by a refiner": Edit("sdxl-refiner", 0.3),
    "edit by a scorer": Edit("alignment"),
    "edit elsewhere": Edit("stranger"),
    "edit by noise alone": Edit("noise"),
    "unknown": Edit("sd16"),
    "told": Edit("teller"),
    "told by .5": Edit("teller", 0.5),
    "told along edges": Edit("teller", control=Control("canny")),
    "told side by side": Edit("beside"),
    "filled": Edit("filler"),
    "filled, then finer": Chain((Edit("filler"), FINE)),
    "larger": Chain((Edit("sd15"), Upscale(2.0), Refine("sdxl", strength=0.3))),
    "fussy, then larger": Chain((Edit("fussy"), Upscale(1.5), FINE)),
    "twice": Chain((Edit("sd15"), Refine("fussy", strength=0.5))),
    "two edits": Chain((Edit("sd15"), Edit("sd15"))),
    "latents of an edit": Chain((Edit("sd15"), Refine("sd15", from_=0.5))),
    "nothing": Given(),
    "enlarged": Chain((Given(), Upscale(2.0))),
    "enlarged and finer": Chain((Given(), Upscale(2.0), replace(FINE, tile=256))),
    "finer": Chain((Given(), FINE)),
    "finer by another": Chain((Given(), Refine("flux", strength=0.25))),
    "finer by a fussy model": Chain((Given(), Refine("fussy", strength=0.4, tile="native"))),
    "finer elsewhere": Chain((Given(), Refine("stranger", strength=0.4))),
    "finer by an editor": Chain((Given(), Refine("noise", strength=0.4))),
    "map": Chain((Given(), Map("canny"))),
    "map of an edit": Chain((Edit("sd15"), Map("canny"))),
    "map that nobody makes": Chain((Given(), Map("depth"))),
    "map, enlarged": Chain((Given(), Map("tile"), Upscale(2.0))),
    "along edges": Generate("sd15", control=Control("canny")),
    "along edges by .8": Generate("sd15", control=Control("canny", scale=0.8)),
    "along edges by 2": Generate("sd15", control=Control("canny", scale=2.0)),
    "along edges by 2.1": Generate("sd15", control=Control("canny", scale=2.1)),
    "along edges by 0": Generate("sd15", control=Control("canny", scale=0.0)),
    "along edges in tiles": Generate("sd15", tile="native", control=Control("canny")),
    "along edges until": Chain((Generate("sd15", until=0.5, control=Control("canny")), Refine("sd15", from_=0.5))),
    "along depth": Generate("sd15", control=Control("depth")),
    "along a map": Generate("sd15", control=Control("depth", "map", 1.5)),
    "along no net": Generate("sdxl", control=Control("canny")),
    "along edges of a fussy size": Chain((Generate("flux", control=Control("tile")), Upscale(2.0))),
    "edit along edges": Edit("sd15", 0.7, control=Control("canny", scale=0.5)),
    "edit along a map": Edit("sd15", control=Control("canny", "map")),
    "edit of a flow along edges": Edit("flux", control=Control("canny")),
    "edit of a guided flow along edges": Edit("flux", guidance_scale=4.0, control=Control("canny")),
    "finer along itself": Chain((Generate("sd15"), Upscale(2.0), replace(FINE, tile=512,
                                                                        control=Control("tile", "picture", 0.6)))),
    "finer along its depth": Chain((Generate("sd15"), replace(FINE, control=Control("depth", "picture")))),
    "refiner along edges": Chain((Generate("sdxl"), Refine("refiner", strength=0.3,
                                                           control=Control("canny", "picture")))),
    "guided flow, finer along edges": Chain((Generate("flux"), Refine("flux", strength=0.5, guidance_scale=4.0,
                                                                      control=Control("canny", "picture")))),
    "best of edits": Fuse("best_of", (Edit("sd15"), Edit("sdxl")), "alignment"),
    "best of drafts": Fuse("best_of", ("draft", "polished"), "alignment"),
    "edit or draw": Fuse("average", (Edit("sd15"), Generate("sd15"))),
    "search of an edit": Fuse("best_of", (Edit("sd15"),), "alignment", search=Search(3)),
    "search of a draft": Fuse("best_of", ("draft",), "alignment", search=Search(3)),
    "together": Fuse("denoise", (Generate("sdxl"), Generate("small"))),
    "relay": Chain((Generate("sd15", until=0.8), Refine("sd15", from_=0.8), FINE)),
    "elsewhere": Generate("stranger"),
    "elsewhere, told": Generate("stranger", steps=5),
    "elsewhere, guided": Generate("stranger", guidance_scale=3.0),
    "elsewhere, in tiles": Generate("stranger", tile=256),
    "elsewhere, scheduled": Generate("stranger", scheduler="euler"),
    "an editor begins": Generate("teller"),
    "looked": Generate("sd15", style=wearing({"look": 0.7})),
    "looked twice": Generate("sd15", style=wearing({"look": 0.7, "glance": 1.0})),
    "looked, then finer": Chain((Generate("sd15", style=wearing({"look": 1.0})), Upscale(2.0),
                                 replace(FINE, style=wearing({"film": 0.3})))),
    "edit with a look": Edit("sd15", style=wearing({"look": 1.0})),
    "weighted": Generate("sd15", style=wearing({"bold": 1.0, "grey": 1.0})),
    "flat, then finer": Chain((Generate("sd15", style=wearing({"flat": 1.0})), FINE)),
    "half flat": Generate("sd15", style=wearing({"flat": 0.5})),
    "film of SDXL": Generate("sdxl", style=wearing({"film": 1.0})),
}  # fmt: skip

IMAGE = GivenPicture("image", "a" * 4, 512, 512)
SECOND, THIRD = replace(IMAGE, digest="c" * 4, width=300, height=600), replace(IMAGE, digest="d" * 4, width=64)
MASK = GivenPicture("mask", "b" * 4, 512, 512, 0.25)
REFERENCE = GivenPicture("reference", "e" * 4, 300, 200)
ASK = GenerationRequest("a red circle", seed=7)
REQUESTS = {
    "no picture": ASK,
    "a picture": replace(ASK, given=(IMAGE,)),
    "a mask": replace(ASK, given=(IMAGE, MASK)),
    "a photograph": replace(ASK, given=(replace(IMAGE, width=640, height=480),)),
    "a small strip": replace(ASK, given=(replace(IMAGE, width=90, height=500),)),
    "one that is too narrow": replace(ASK, given=(replace(IMAGE, width=1000, height=100), SECOND)),
    "a masked photograph": replace(ASK, given=tuple(replace(one, width=1000, height=750) for one in (IMAGE, MASK))),
    "another size": replace(ASK, given=(IMAGE,), width=768, height=768),
    "nearly its shape": replace(ASK, given=(IMAGE,), width=512, height=488),
    "another shape": replace(ASK, given=(IMAGE,), width=512, height=256),
    "two pictures": replace(ASK, given=(IMAGE, SECOND)),
    "four pictures": replace(ASK, given=(IMAGE, SECOND, THIRD, replace(IMAGE, digest="f" * 4))),
    "four pictures, one masked": replace(ASK, given=(IMAGE, SECOND, THIRD, replace(IMAGE, digest="f" * 4), MASK)),
    "told": replace(ASK, given=(IMAGE,), steps=6, guidance_scale=2.0, strength=0.7),
    "told, masked": replace(ASK, given=(IMAGE, MASK), steps=6, strength=0.4, style=wearing({"film": 1.0})),
    "faithful": replace(ASK, given=(IMAGE,), faithful=True),
    "faithful, masked": replace(ASK, given=(IMAGE, MASK), faithful=True),
    "a reference": replace(ASK, given=(REFERENCE,)),
    "a picture and a reference": replace(ASK, given=(IMAGE, REFERENCE)),
    "a look at a reference": replace(ASK, given=(REFERENCE,), style=wearing({"look": 1.0})),
    "flat": replace(ASK, style=wearing({"flat": 1.0, "film": 0.0})),
}


def written(recipe: Recipe, request: GenerationRequest) -> Any:
    """A plan as JSON holds it, with the key of what is run, or why there is none."""
    try:
        plan = make_plan("r", recipe, request, CATALOGUE, NAMED)
    except PlanError as error:
        return [error.message, error.param]
    key = recipe_key(as_run(resolve(recipe, NAMED), request), {}, CATALOGUE)
    costs, pixels = CostModel(CATALOGUE), plan.width * plan.height
    work = [
        [costs.law(step), round(costs.work(step, pixels), 6), round(costs.seconds(step, pixels), 6)]
        for step in plan.steps
    ]
    return {"key": key, "work": work, **json.loads(json.dumps(asdict(plan, dict_factory=_said), default=repr))}


@cache
def _written() -> dict[str, dict[str, Any]]:
    return json.loads(WRITTEN.read_text("utf-8"))


def _said(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in fields if value not in (None, (), {})}


def taken(recipe: Recipe) -> Any:
    """What a recipe is with no request: what it takes, what it is tried with, and what it becomes for a picture."""
    recipes = {**NAMED, "r": recipe}
    try:
        tried = [[asdict(one) for one in given] for given in probes(resolve(recipe, recipes), CATALOGUE)]
        return [takes(recipes, CATALOGUE)["r"], tried, recipe_key(for_pictures(recipes)["r"], for_pictures(recipes))]
    except PlanError as error:
        return [error.message, error.param]


def everything() -> dict[str, dict[str, Any]]:
    """Of each recipe what it takes, and each request; what a request changes nothing of stands there only once."""
    found: dict[str, dict[str, Any]] = {}
    for name, recipe in RECIPES.items():
        found[name] = {"takes": json.loads(json.dumps(taken(recipe)))}
        for title, request in REQUESTS.items():
            if (plan := written(recipe, request)) not in found[name].values():
                found[name][title] = plan
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_on_from_pictures_as_it_is_written_down(name: str) -> None:
    """Steps, work, hand-overs, notes and key beside every kind of given picture, or the words of a refusal."""
    before = _written()[name]
    assert json.loads(json.dumps(taken(RECIPES[name]))) == before["takes"]
    for title, request in REQUESTS.items():
        now = written(RECIPES[name], request)
        assert now == before.get(title, now) and now in before.values(), title


if __name__ == "__main__":
    write(WRITTEN, everything())
