"""Plans and refusals as they are written down in `tests/golden/plans.json`.

`python -m tests.router.planning.test_plans` renews them.

A change there is a change of what is run, or of what is told: read it, and renew the file only if it is meant.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from router.errors import PlanError
from router.planning.plan import make_plan
from router.planning.recipes import models_of, recipe_key, resolve
from router.types import Chain, Fuse, Generate, GenerationRequest, ModelCard, Recipe, Refine, Search, Turn, Upscale
from tests.router.cards import ANY_SIZE, PAIRED, Cards
from tests.router.written import write

WRITTEN = Path(__file__).parents[2] / "golden/plans.json"
TIGHT: dict[str, Any] = {"native_size": (64, 64), "area_tolerance": (0.5, 2.0), "aspect_tolerance": 1.5}
CARDS = {
    **PAIRED.cards,
    "small": replace(PAIRED.cards["small"], guests=()),
    # Good at few sizes, with bounds of everything.
    "fussy": ModelCard("fussy", "sdxl", "base", {"local": "-"}, latent_space="sdxl", relays=True, steps=10, min_steps=2,
                       max_steps=20, max_guidance_scale=8.0, min_side=32, max_pixels=256 * 256, max_prompt_tokens=12,
                       tile_guidance_scale=3.0, **TIGHT),
    "shut": ModelCard("shut", "flux", "base", {"local": "-"}, latent_space="flux", steps=8, refines=False, **ANY_SIZE),
    "oblong": ModelCard("oblong", "sd15", "base", {"local": "-"}, latent_space="sd", relays=True, steps=10,
                        native_size=(96, 64), min_side=16, **ANY_SIZE),
    "wide vae": replace(PAIRED.cards["small"], id="wide vae", vae_scale=16),
}  # fmt: skip
CATALOGUE = Cards(CARDS)
BASE = Generate("sdxl", until=0.8)
GO_ON = Refine("sdxl-refiner", from_=0.8)
TWO = (Generate("sd15", width=512, height=512), Generate("sdxl", width=512, height=512))
PAIR = Generate("sdxl", steps=12), Generate("small")
TURNS = tuple(Turn(model, bar, 1.5, -0.25, 0.5) for model, bar in (("sd15", 1.0), ("sdxl", 0.75), ("flux", 0.5)))
NAMED: dict[str, Recipe] = {
    "draft": Generate("sd15", steps=12),
    "handed": Chain((BASE, GO_ON)),
    "duel": Fuse("best_of", ("draft", "handed"), "alignment"),
    "circle": Fuse("average", ("draft", "round")),
    "round": Fuse("average", ("draft", "circle")),
}

RECIPES: dict[str, Recipe] = {
    **NAMED,
    "plain": Generate("sdxl"),
    "set": Generate("sdxl", steps=5, guidance_scale=3.5, scheduler="euler", width=512, height=768),
    "card's own": Generate("sdxl", steps=30, guidance_scale=7.5, scheduler="default"),
    "oblong": Generate("oblong"),
    "oblong, enlarged": Chain((Generate("oblong"), Upscale(1.5))),
    "half a size": Generate("oblong", height=32),
    "relay of three": Chain((Generate("sdxl", until=0.5), Refine("sdxl", from_=0.5, until=0.75),
                             Refine("sdxl-refiner", from_=0.75))),
    "nested chain": Chain((Chain((Generate("sd15"), Upscale(2.0))), Refine("sdxl", strength=0.3))),
    "two enlargements": Chain((Generate("sd15"), Upscale(2.0), Refine("sd15", strength=0.5), Upscale(2.0))),
    "through pixels": Chain((Generate("flux"), Refine("sdxl-refiner", strength=0.25))),
    "same space": Chain((Generate("sdxl"), Refine("sdxl-refiner", strength=1.0))),
    "flow rounds up": Chain((Generate("sd15"), Refine("flux", strength=0.3))),
    "refine's settings": Chain((Generate("sdxl"), Refine("sdxl", strength=0.5, steps=8, guidance_scale=2.0,
                                                         scheduler="ddim"))),
    "tiles": Chain((Generate("sd15"), Upscale(3.0), Refine("sd15", strength=0.4, tile="native"))),
    "tiles of 256": Chain((Generate("sd15"), Upscale(2.0), Refine("sd15", strength=0.4, tile=256, overlap=0.5))),
    "tiles with guidance": Chain((Generate("fussy"), Upscale(2.0), Refine("fussy", strength=0.5, tile="native"))),
    "tiles with own guidance": Chain((Generate("fussy"), Upscale(2.0),
                                      Refine("fussy", strength=0.5, tile="native", guidance_scale=1.5))),
    "one tile": Chain((Generate("sd15"), Refine("sd15", strength=0.4, tile="native"))),
    "generated in tiles": Generate("sdxl", tile="native", width=2048, height=1024),
    "overlap 0": Chain((Generate("sd15"), Refine("sd15", strength=0.4, tile="native", overlap=0.0))),
    "overlap 0.75": Chain((Generate("sd15"), Upscale(2.0), Refine("sd15", strength=0.4, tile=256, overlap=0.75))),
    "overlap 0.76": Chain((Generate("sd15"), Refine("sd15", strength=0.4, tile="native", overlap=0.76))),
    "tile of 100": Chain((Generate("sd15"), Refine("sd15", strength=0.4, tile=100))),
    "tile too small": Chain((Generate("fussy"), Refine("fussy", strength=0.4, tile=24))),
    "tile just large enough": Chain((Generate("fussy"), Refine("fussy", strength=0.4, tile=32))),
    "tile too large": Chain((Generate("fussy"), Refine("fussy", strength=0.4, tile=72))),
    "fussy": Generate("fussy"),
    "fussy then refined": Chain((Generate("fussy"), Refine("fussy", strength=0.5))),
    "fussy then large": Chain((Generate("fussy"), Refine("sdxl", strength=0.5))),
    "fussy, 2 steps": Generate("fussy", steps=2),
    "fussy, 1 step": Generate("fussy", steps=1),
    "fussy, 20 steps": Generate("fussy", steps=20),
    "fussy, 21 steps": Generate("fussy", steps=21),
    "guidance 8": Generate("fussy", guidance_scale=8.0),
    "guidance 8.1": Generate("fussy", guidance_scale=8.1),
    "guidance 0": Generate("fussy", guidance_scale=0.0),
    "guidance below 0": Generate("fussy", guidance_scale=-0.1),
    "no guidance at all": Generate("fussy", guidance_scale=float("nan")),
    "strength 0": Chain((Generate("sdxl"), Refine("sdxl", strength=0.0))),
    "strength 1.1": Chain((Generate("sdxl"), Refine("sdxl", strength=1.1))),
    "strength of less than a step": Chain((Generate("sdxl"), Refine("sdxl", strength=0.03))),
    "strength of a step": Chain((Generate("sdxl"), Refine("sdxl", strength=1 / 30))),
    "both": Chain((BASE, Refine("sdxl", from_=0.8, strength=0.5))),
    "neither": Chain((Generate("sdxl"), Refine("sdxl"))),
    "tiles of latents": Chain((BASE, Refine("sdxl", from_=0.8, tile="native"))),
    "until of strength": Chain((Generate("sdxl"), Refine("sdxl", strength=0.5, until=0.9))),
    "unfinished": BASE,
    "unfinished, then pixels": Chain((BASE, Refine("sdxl", strength=0.5))),
    "until 0": Chain((Generate("sdxl", until=0.0), Refine("sdxl", from_=0.0))),
    "until 1": Chain((Generate("sdxl", until=1.0), Refine("sdxl", from_=1.0))),
    "until of less than a step": Chain((Generate("sdxl", until=0.02), Refine("sdxl", from_=0.02))),
    "from of less than a step": Chain((Generate("sdxl", until=0.98), Refine("sdxl", from_=0.98))),
    "until before its from": Chain((Generate("sdxl", until=0.5), Refine("sdxl", from_=0.5, until=0.5),
                                    Refine("sdxl", from_=0.5))),
    "takes over too early": Chain((Generate("sdxl", until=0.5), Refine("sdxl", from_=0.8))),
    "takes over what is done": Chain((Generate("sdxl"), Refine("sdxl", from_=0.8))),
    "takes over almost all": Chain((Generate("sdxl"), Refine("sdxl", from_=0.95))),
    "takes over a finished picture": Chain((Generate("sdxl"), Upscale(2.0), Refine("sdxl", from_=0.8))),
    "another space": Chain((Generate("sd15", until=0.8), Refine("sdxl", from_=0.8))),
    "flux does not relay": Chain((Generate("flux", until=0.5), Refine("shut", from_=0.5))),
    "draws from noise only": Chain((Generate("sdxl"), Refine("shut", strength=0.5))),
    "a refiner begins": Generate("sdxl-refiner"),
    "a scorer begins": Generate("alignment"),
    "a scorer refines": Chain((Generate("sdxl"), Refine("alignment", strength=0.5))),
    "unknown": Generate("sdxxl"),
    "empty": Chain(()),
    "begins with a refine": Chain((Refine("sdxl", strength=0.5),)),
    "only enlarges": Upscale(2.0),
    "two beginnings": Chain((Generate("sdxl"), Generate("sdxl"))),
    "enlarged by 1": Chain((Generate("sd15"), Upscale(1.0))),
    "enlarged by 8": Chain((Generate("oblong"), Upscale(8.0))),
    "enlarged by 8.5": Chain((Generate("oblong"), Upscale(8.5))),
    "sizes that differ": Fuse("average", (Generate("sd15", width=256), Generate("sd15", width=512))),
    "enlarged differently": Fuse("average", (Generate("sd15"), Chain((Generate("sd15"), Upscale(2.0))))),
    "enlarged alike": Fuse("average", (Chain((Generate("sd15"), Upscale(2.0))),) * 2),
    "best of two": Fuse("best_of", TWO, "alignment"),
    "best of three alike": Fuse("best_of", (TWO[0],) * 3, "alignment"),
    "in turn": Fuse("best_of", (*TWO, TWO[0]), "alignment", 0.7),
    "chains in turn": Fuse("best_of", (Chain((BASE, GO_ON)), Chain((BASE, GO_ON)), Generate("sdxl")), "alignment", 0.7),
    "in turn, inside": Fuse("best_of", (Fuse("best_of", TWO, "alignment", 0.6), TWO[0]), "alignment", 0.9),
    "one of two is enough": Fuse("best_of", TWO, "alignment", min_successful=1),
    "two of two": Fuse("average", TWO, min_successful=2),
    "none of two": Fuse("average", TWO, min_successful=0),
    "three of two": Fuse("average", TWO, min_successful=3),
    "average": Fuse("average", TWO),
    "pyramid": Fuse("pyramid", TWO, weights="saliency"),
    "frequency": Fuse("frequency", TWO),
    "frequency of three": Fuse("frequency", (*TWO, TWO[0])),
    "frequency of one": Fuse("frequency", TWO[:1]),
    "blend within": Fuse("average", TWO, "alignment", blend_within=0.05),
    "blend within, no scorer": Fuse("average", TWO, blend_within=0.05),
    "best of within": Fuse("best_of", TWO, "alignment", blend_within=0.05),
    "scorer of an average": Fuse("average", TWO, "alignment"),
    "no scorer": Fuse("best_of", TWO),
    "a base model scores": Fuse("best_of", TWO, "sdxl"),
    "weights of an average": Fuse("average", TWO, weights="saliency"),
    "unknown weights": Fuse("pyramid", TWO, weights="beauty"),
    "a bar for an average": Fuse("average", TWO, accept_above=0.5),
    "shares of an average": Fuse("average", TWO, shares=((1.0, 1.0), (2.0, 2.0))),
    "unknown fusion": Fuse("avarage", TWO),
    "of one": Fuse("average", TWO[:1]),
    "regions": Fuse("regions", TWO, "alignment"),
    "regions, harmonised": Chain((Fuse("regions", TWO, "alignment"), Refine("sdxl", strength=0.2))),
    "enlarged fusion": Chain((Fuse("average", TWO), Upscale(2.0), Refine("sdxl", strength=0.2))),
    "a name that is not there": Fuse("average", ("draft", "drafft")),
    "unresolved search": Fuse("best_of", TWO[:1], "alignment", search=Search(3)),
    "search of two": Fuse("best_of", TWO, "alignment", search=Search(4)),
    "resolved search": Fuse("best_of", (Generate("sd15"), Generate("sdxl", width=512, height=512), TWO[0]), "alignment",
                            search=Search(4), turns=TURNS),
    "search of one turn": Fuse("best_of", TWO[:1], "alignment", search=Search(4), turns=TURNS[:1]),
    "together": Fuse("denoise", PAIR),
    "together, guest first": Fuse("denoise", (Generate("small"), Generate("sdxl", steps=12))),
    "together by shares": Fuse("denoise", PAIR, shares=((3.0, 1.0), (1.0, 1.0))),
    "together alike": Fuse("denoise", PAIR, shares=((1.0, 1.0), (3.0, 3.0))),
    "together with settings": Fuse("denoise", (Generate("sdxl", steps=12, guidance_scale=4.0),
                                               Generate("small", steps=12, guidance_scale=1.5, scheduler="ddim"))),
    "together in tiles": Fuse("denoise", (replace(PAIR[0], tile="native", width=2048, height=1024), PAIR[1])),
    "together, unlike steps": Fuse("denoise", (Generate("sdxl", steps=12), Generate("small", steps=13))),
    "together, no weight": Fuse("denoise", PAIR, shares=((0.0, 1.0), (0.0, 1.0))),
    "together, below 0": Fuse("denoise", PAIR, shares=((-1.0, 1.0), (2.0, 1.0))),
    "together, one alone": Fuse("denoise", PAIR, shares=((1.0, 1.0), (0.0, 0.0))),
    "three together": Fuse("denoise", (Generate("sdxl"), Generate("small"), Generate("alone"))),
    "no worker for both": Fuse("denoise", (Generate("sdxl"), Generate("alone"))),
    "with itself": Fuse("denoise", (Generate("sdxl"), Generate("sdxl"))),
    "with a refiner": Fuse("denoise", (Generate("sdxl"), Generate("sdxl-refiner"))),
    "with flux": Fuse("denoise", (Generate("sdxl"), Generate("flux"))),
    "other spaces together": Fuse("denoise", (Generate("sdxl"), Generate("sd15"))),
    "other scale together": Fuse("denoise", (Generate("sdxl"), Generate("wide vae"))),
    "unfinished together": Fuse("denoise", (Generate("sdxl", until=0.5), Generate("small"))),
    "a chain together": Fuse("denoise", (Generate("sdxl"), Chain((BASE, GO_ON)))),
}  # fmt: skip

ASK = GenerationRequest("a red circle", seed=7)
REQUESTS = {
    "as it is": ASK,
    "large": replace(ASK, width=1024, height=1024),
    "odd": replace(ASK, width=100, height=64),
    "two objects, last seed": GenerationRequest("a red circle above a blue square", seed=2**32 - 1),
    "changed": replace(ASK, steps=7, guidance_scale=2.0),
    "negative": replace(ASK, negative_prompt="blurry"),
    "long": replace(ASK, prompt="word " * 11, negative_prompt="word " * 10),
    "low": replace(ASK, width=64, height=32),
}


def written(recipe: Recipe, request: GenerationRequest) -> Any:
    """A plan as JSON holds it, or why there is none; with its key where it has one."""
    try:
        plan = make_plan("r", recipe, request, CATALOGUE, NAMED)
    except PlanError as error:
        return [error.message, error.param]
    whole = resolve(recipe, NAMED)
    told = {"key": recipe_key(whole, {}, CATALOGUE), "bare": recipe_key(whole, {}), "models": list(models_of(whole))}
    return {**told, **json.loads(json.dumps(asdict(plan), default=repr))}


def everything() -> dict[str, dict[str, Any]]:
    """Of each recipe each request; what a request changes nothing of stands there only once."""
    found: dict[str, dict[str, Any]] = {}
    for name, recipe in RECIPES.items():
        found[name] = {}
        for title, request in REQUESTS.items():
            if (plan := written(recipe, request)) not in found[name].values():
                found[name][title] = plan
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_planned_or_refused_as_it_is_written_down(name: str) -> None:
    """Steps, settings, hand-overs, notes and canonical key, or the words and the remedy of a refusal."""
    before = json.loads(WRITTEN.read_text("utf-8"))[name]
    for title, request in REQUESTS.items():
        now = written(RECIPES[name], request)
        assert now == before.get(title, now) and now in before.values(), title


if __name__ == "__main__":
    write(WRITTEN, everything())
