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
RECIPES: dict[str, Recipe] = SINGLES | CHAINS | RELAYS | FUSIONS


def prompts(per_tier: int) -> dict[str, list[Prompt]]:
    """Held-out prompts by what they ask for: two objects, two in a relation, three different ones, one object."""
    three = [prompt for prompt in held_out_prompts("counts", 10 * per_tier, SEED) if len(prompt.scene.things) == 3]
    return {
        "two": held_out_prompts("two", per_tier, SEED),
        "relation": held_out_prompts("relation", per_tier, SEED),
        "three": three[:per_tier],
        "one": held_out_prompts("attributes", per_tier, SEED),
    }
