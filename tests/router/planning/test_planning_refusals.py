"""What a recipe and a request cannot have together, and what to do instead."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from router.errors import PlanError
from router.types import Chain, Fuse, Generate, GenerationRequest, Recipe, Refine, Upscale
from tests.router.cards import PIXELS, REQUEST, plan


def wish(**changes: Any) -> GenerationRequest:
    return replace(REQUEST, **changes)


REFUSALS: dict[str, tuple[Recipe, GenerationRequest, str]] = {
    "unknown model": (Generate("sd51"), REQUEST, "did you mean 'sd15'"),
    "refiner as base": (Generate("sdxl-refiner"), REQUEST, "is a refiner and cannot generate; put it after a base"),
    "scorer as base": (Generate("alignment"), REQUEST, "is a scorer and cannot generate"),
    "scorer as refiner": (Chain((Generate("sd15"), Refine("alignment", strength=0.3))), REQUEST, "cannot refine"),
    "base as scorer": (Fuse("best_of", (Generate("sd15"), Generate("flux")), "sdxl"), REQUEST, "name a scorer"),
    "latents of another space": (
        Chain((Generate("flux", until=0.8), Refine("sdxl-refiner", from_=0.8))), REQUEST,
        r"use strength \(such as 0.2\)",
    ),
    "latents of a finished picture": (
        Chain((Generate("sdxl"), Refine("sdxl-refiner", from_=0.8))), REQUEST, "give 'sdxl' until: 0.8",
    ),
    "latents of a fusion": (
        Chain((Fuse("average", (Generate("sdxl"), Generate("flux"))), Refine("sdxl-refiner", from_=0.8))), REQUEST,
        "cannot take latents over from a finished picture",
    ),
    "shares that do not meet": (
        Chain((Generate("sdxl", until=0.7), Refine("sdxl-refiner", from_=0.8))), REQUEST, "ends at until=0.7",
    ),
    "a relay that goes backwards": (
        Chain((Generate("sdxl", until=0.5), Refine("sdxl-refiner", from_=0.5, until=0.4), Refine("sdxl", from_=0.4))),
        REQUEST, "must lie between 0.5 and 1",
    ),
    "a relay that nobody finishes": (
        Chain((Generate("sdxl", until=0.5), Refine("sdxl-refiner", from_=0.5, until=0.8))), REQUEST,
        "nothing finishes it",
    ),
    "a relay of FLUX": (
        Chain((Generate("flux", until=0.5), Refine("flux", from_=0.5))), REQUEST, "depends on checkpoint and size",
    ),
    "until with strength": (
        Chain((Generate("sdxl"), Refine("sdxl", strength=0.5, until=0.8))), REQUEST, "belongs to `from`",
    ),
    "tiles of latents": (
        Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8, tile="native"))), REQUEST,
        "tiles need `strength`",
    ),
    "a tile above the native size": (
        Chain((Generate("sd15"), Upscale(2), Refine("sd15", strength=0.3, tile=768))), REQUEST, "use tile: native",
    ),
    "a tile of no multiple": (
        Chain((Generate("sd15"), Upscale(2), Refine("sd15", strength=0.3, tile=500))), REQUEST, "not a multiple of 8",
    ),
    "an overlap of all": (
        Chain((Generate("sd15"), Refine("sd15", strength=0.3, tile=512, overlap=0.9))), REQUEST, "outside 0..0.75",
    ),
    "unfinished": (Generate("sdxl", until=0.8), REQUEST, "nothing finishes it"),
    "until beyond": (
        Chain((Generate("sdxl", until=1.2), Refine("sdxl-refiner", from_=1.2))), REQUEST, "between 0 and 1",
    ),
    "from and strength": (
        Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8, strength=0.2))), REQUEST, "exactly one",
    ),
    "strength of zero": (Chain((Generate("sd15"), Refine("sd15", strength=0.0))), REQUEST, "above 0"),
    "nothing left to refine": (
        Chain((Generate("sd15"), Refine("sd15", strength=0.1, steps=5))), REQUEST, "less than one of 5 steps",
    ),
    "refine first": (Chain((Refine("sdxl", strength=0.3),)), REQUEST, "put a generate before it"),
    "upscale alone": (Upscale(2), REQUEST, "put a generate before it"),
    "two generates": (Chain((Generate("sd15"), Generate("flux"))), REQUEST, "only the first stage"),
    "empty chain": (Chain(()), REQUEST, "put a generate before it"),
    "upscale by one": (Chain((Generate("sd15"), Upscale(1.0))), REQUEST, "outside 1..8"),
    "unknown fusion": (Fuse("best-of", (Generate("sd15"),) * 2, "alignment"), REQUEST, "did you mean 'best_of'"),
    "fusion of one": (Fuse("average", (Generate("sd15"),)), REQUEST, "at least two"),
    "frequency of three": (Fuse("frequency", (Generate("sd15"),) * 3), REQUEST, "takes two branches"),
    "best_of without scorer": (Fuse("best_of", (Generate("sd15"),) * 2), REQUEST, "needs a scorer"),
    "regions without scorer": (Fuse("regions", (Generate("sd15"),) * 2), REQUEST, "regions needs a scorer"),
    "average with weights": (
        Fuse("average", (Generate("sd15"),) * 2, weights="mask"), REQUEST, "weights belong to pyramid",
    ),
    "average that accepts": (
        Fuse("average", (Generate("sd15"),) * 2, accept_above=0.5), REQUEST, "accept_above belongs to best_of",
    ),
    "average with scorer": (Fuse("average", (Generate("sd15"),) * 2, "alignment"), REQUEST, "uses no scorer"),
    "branches of different sizes": (
        Fuse("average", (Generate("sd15"), Chain((Generate("sd15"), Upscale(2))))), REQUEST, "enlarged differently",
    ),
    "no multiple": (Generate("sd15"), wish(width=510, height=512), "not a multiple of 8, as 'sd15' needs; try 512x512"),
    "too large": (Generate("sd15"), wish(width=2048, height=2048), "too large for 'sd15'; it takes at most 1,048,576"),
    "too small": (Generate("sdxl"), wish(width=64, height=512), "too small for 'sdxl'; its sides must be at least 512"),
    "second model too small": (PIXELS, wish(width=256, height=256), "too small for 'sdxl-refiner'"),
    "uneven before upscaling": (Chain((Generate("sd15"), Upscale(2))), wish(width=1025), "try 1024"),
    "too many steps": (Generate("flux"), wish(steps=51), "outside 1..50"),
    "no steps": (Generate("flux", steps=0), REQUEST, "outside 1..50"),
    "too much guidance": (Generate("flux"), wish(guidance_scale=11.0), "outside 0..10"),
    "no number": (Generate("flux"), wish(guidance_scale=math.nan), "outside 0..10"),
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "request_", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_arranged_is_refused_with_a_remedy(
    recipe: Recipe, request_: GenerationRequest, message: str
) -> None:
    """The error names the recipe, says what does not fit, and what to do."""
    with pytest.raises(PlanError, match=message) as caught:
        plan(recipe, request_)
    assert str(caught.value).startswith("recipe 'r': ")
