"""What is compared: single models, chains, relays and fusions, on prompts that no other measurement has drawn."""

from __future__ import annotations

from models.embedded.outcomes import Prompt, held_out_prompts
from router.types import Chain, Fuse, Generate, Recipe, Refine

SEED = 50
SCORER = "alignment"

# Steps are written out, so that a card's new default does not change what was measured.
STEPS = {"sd15": 6, "sdxl": 10, "flux": 24}
SINGLES: dict[str, Recipe] = {name: Generate(name, steps=steps) for name, steps in STEPS.items()}
CHAINS: dict[str, Recipe] = {
    "sdxl > refiner from 0.8": Chain((Generate("sdxl", steps=10, until=0.8), Refine("sdxl-refiner", from_=0.8))),
    "flux > refiner 0.25": Chain((SINGLES["flux"], Refine("sdxl-refiner", steps=10, strength=0.25))),
    "flux > sdxl 0.25": Chain((SINGLES["flux"], Refine("sdxl", steps=10, strength=0.25))),
}
RELAYS: dict[str, Recipe] = {
    "sdxl 0.5 > sd15": Chain((Generate("sdxl", steps=10, until=0.5), Refine("sd15", from_=0.5))),
    "sd15 0.5 > sdxl": Chain((Generate("sd15", steps=10, until=0.5), Refine("sdxl", steps=10, from_=0.5))),
    "sdxl 0.4 > sd15 0.7 > sdxl": Chain(
        (
            Generate("sdxl", steps=10, until=0.4),
            Refine("sd15", from_=0.4, until=0.7),
            Refine("sdxl", steps=10, from_=0.7),
        )
    ),
}
ALL = tuple(SINGLES.values())
FUSIONS: dict[str, Recipe] = {
    "best_of of three": Fuse("best_of", ALL, SCORER),
    "regions of three": Fuse("regions", ALL, SCORER),
    "regions of three, harmonised": Chain(
        (Fuse("regions", ALL, SCORER), Refine("sdxl-refiner", steps=10, strength=0.15))
    ),
}
# Turbo takes at most 4 steps. SDXL with guidance runs its network twice a step, so 4 steps of both are 12 runs,
# as many as 6 steps of SDXL alone.
MEMBERS: dict[str, Recipe] = {
    "sdxl in 4": Generate("sdxl", steps=4),
    "sdxl in 6": Generate("sdxl", steps=6),
    "turbo in 1": Generate("sdxl-turbo", steps=1),
    "turbo in 4": Generate("sdxl-turbo", steps=4),
}
GUESTS = ("sdxl-turbo", "sd15")
"""Models that SDXL's worker holds here, too; the shipped config has the first."""


def together(other: Generate, steps: int, start: float, end: float | None = None) -> Fuse:
    """SDXL and another model, which counts `start` to `end`, predicting every step together."""
    end = start if end is None else end
    shares = ((1 - start, 1 - end), (start, end))
    return Fuse("denoise", (Generate("sdxl", steps=steps, scheduler="euler-trailing"), other), shares=shares)


TURBO, SMALL = Generate("sdxl-turbo"), Generate("sd15")
ENSEMBLES: dict[str, Recipe] = {
    **{f"sdxl + {share:g} turbo": together(TURBO, 4, share) for share in (0.25, 0.5, 0.75)},
    "sdxl, then turbo": together(TURBO, 4, 0.0, 1.0),
    "turbo, then sdxl": together(TURBO, 4, 1.0, 0.0),
    "sdxl + 0.25 sd15": together(SMALL, 10, 0.25),
    "sdxl + 0.5 sd15": together(SMALL, 10, 0.5),
    "sd15, then sdxl": together(SMALL, 10, 1.0, 0.0),
}
RECIPES: dict[str, Recipe] = SINGLES | CHAINS | RELAYS | FUSIONS | MEMBERS | ENSEMBLES


def prompts(per_tier: int) -> dict[str, list[Prompt]]:
    """Held-out prompts by what they ask for: two objects, two in a relation, three different ones, one object."""
    three = [prompt for prompt in held_out_prompts("counts", 10 * per_tier, SEED) if len(prompt.scene.things) == 3]
    return {
        "two": held_out_prompts("two", per_tier, SEED),
        "relation": held_out_prompts("relation", per_tier, SEED),
        "three": three[:per_tier],
        "one": held_out_prompts("attributes", per_tier, SEED),
    }
