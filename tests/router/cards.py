"""Model cards and a policy for the tests of the router: real values through the public protocols."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from router.errors import CatalogueError, NoRecipeError, did_you_mean
from router.planning.plan import make_plan
from router.types import (
    NO_CONTEXT,
    UNBOUNDED,
    Chain,
    Context,
    Decision,
    Fuse,
    Generate,
    GenerationRequest,
    ModelCard,
    Offers,
    Plan,
    PromptView,
    Ranked,
    Recipe,
    Refine,
    Resources,
)

ANY_SIZE: dict[str, Any] = {"area_tolerance": (0.001, 1000.0), "aspect_tolerance": 100.0}  # good at all that it takes
CARDS = {
    "sd15": ModelCard(
        "sd15", "sd15", "base", {"local": "-"}, inpaints=True, latent_space="sd", relays=True,
        seconds_per_step=0.1, **ANY_SIZE,
    ),
    "sdxl": ModelCard(
        "sdxl", "sdxl", "base", {"local": "-"}, inpaints=True, latent_space="sdxl", relays=True,
        native_size=(1024, 1024), min_side=512, max_pixels=2048 * 1024, steps=30, seconds_per_step=0.2,
        overhead_s=0.5, usd_per_hour=2.0, **ANY_SIZE,
    ),
    "sdxl-refiner": ModelCard(
        "sdxl-refiner", "sdxl", "refiner", {"local": "-"}, latent_space="sdxl", relays=True,
        native_size=(1024, 1024), min_side=512, max_pixels=2048 * 1024, steps=30, seconds_per_step=0.2, **ANY_SIZE,
    ),
    "flux": ModelCard(
        "flux", "flux", "base", {"local": "-"}, inpaints=True, latent_space="flux", latent_channels=16,
        native_size=(1024, 1024), size_multiple=16, max_pixels=2048 * 1024, steps=4, max_steps=50,
        guidance_scale=0.0, max_guidance_scale=10.0,
        max_prompt_tokens=512, seconds_per_step=1.0, usd_per_hour=4.0, flow=True, **ANY_SIZE,
    ),
    "alignment": ModelCard("alignment", "verifier", "scorer", {"local": "-"}, seconds_per_step=0.05),
}  # fmt: skip


@dataclass(frozen=True)
class Cards:
    """A catalogue of cards in memory."""

    cards: Mapping[str, ModelCard]

    def __getitem__(self, model: str) -> ModelCard:
        if model not in self.cards:
            raise CatalogueError(f"there is no model {model!r}{did_you_mean(model, self.cards)}")
        return self.cards[model]

    def __contains__(self, model: object) -> bool:
        return model in self.cards

    def ids(self) -> Sequence[str]:
        return tuple(self.cards)


CATALOGUE = Cards(CARDS)
# A smaller model in the space of SDXL, beside it on its worker; and one that no worker holds beside another.
SMALL = ModelCard(
    "small", "sdxl", "base", {"local": "-"}, latent_space="sdxl", relays=True, native_size=(512, 512), min_side=256,
    max_pixels=2048 * 1024, max_steps=20, max_guidance_scale=2.0, guidance_scale=1.0, seconds_per_step=0.1,
    overhead_s=0.25, **ANY_SIZE,
)  # fmt: skip
PAIRED = Cards(
    {
        **CARDS,
        "sdxl": replace(CARDS["sdxl"], guests=("small",)),
        "small": SMALL,
        "alone": replace(SMALL, id="alone"),
    }
)


REQUEST = GenerationRequest("a red circle", seed=7)
LATENTS = Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8)))
PIXELS = Chain((Generate("flux"), Refine("sdxl-refiner", strength=0.25)))


def plan(recipe: Recipe, request: GenerationRequest = REQUEST, **recipes: Recipe) -> Plan:
    """The plan of a recipe, called r."""
    return make_plan("r", recipe, request, CATALOGUE, recipes)


def together(*branches: Recipe, request: GenerationRequest | None = None, **settings: Any) -> Plan:
    """The plan of a denoise of these branches."""
    return make_plan("r", Fuse("denoise", branches, **settings), request or REQUEST, PAIRED, {})


@dataclass(frozen=True)
class BestQuality:
    """The smallest policy that keeps the contract: the highest expected quality among what could be planned."""

    recipes: Mapping[str, Recipe]
    name: str = "best-quality"
    digest: str = "0"

    def evaluate(
        self,
        request: GenerationRequest,
        view: PromptView,
        offer: Callable[[Resources], Offers],
        context: Context = NO_CONTEXT,
    ) -> Decision:
        offers = offer(replace(UNBOUNDED, latency_s=request.latency_budget_s or math.inf))
        estimates, refused = offers.estimates, offers.refused
        open_ = {name: e for name, e in estimates.items() if request.recipe in (None, name)}
        if not open_:
            raise NoRecipeError("nothing is left", refused)
        ranked = sorted((Ranked(name, e.quality.mean) for name, e in open_.items()), key=lambda r: -r.utility)
        reasons = (f"{ranked[0].recipe} is expected to be best",)
        return Decision(ranked[0].recipe, self.name, self.digest, tuple(ranked), tuple(refused), reasons)
