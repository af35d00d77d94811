"""Five hundred prompts and what is asked with each; twenty requests over every kind of recipe. All made from seeds."""

from __future__ import annotations

import random
from typing import Any

from models.embedded.captions import caption
from models.embedded.world import TIERS, sample_scene

PRESETS = ("balanced", "best", "fast", "frugal", "product-photo")

_SUBJECTS = (
    "a corgi", "three astronauts", "an old lighthouse", "a bowl of ramen", "two koi fish", "a red bicycle", "a street market",
    "a ceramic teapot", "a city skyline", "a violin", "eleven balloons", "a glass chess set", "a sign that says \"OPEN\"",
    "a pair of running shoes", "a mountain hut", "a wooden robot", "a portrait of a fisherman", "a storefront", "a black cat",
)  # fmt: skip
_PLACES = (
    "on a marble table", "in heavy rain", "under a stone bridge", "at sunset", "next to a blue door", "without any people",
    "behind a green fence", "in a library", "on the moon", "left of a yellow taxi", "in front of a mirror", "", "",
)  # fmt: skip
_STYLES = (
    "oil painting", "35mm photograph, shallow depth of field", "isometric pixel art", "watercolour", "studio lighting, 85mm",
    "in the style of ukiyo-e", "pencil sketch", "low poly render", "the words \"FRESH BREAD\" in gold letters", "", "", "",
)  # fmt: skip
_OTHERS = (
    "ein roter Kreis über einem blauen Quadrat", "un chat noir sur un mur", "赤い丸", "a", "???", "2 red circles and 3 blue squares",
    "A RED CIRCLE", "a red circle\n\na blue square", "red " * 120, "photo", "не кот", "a (red:1.3) ball", "🙂🙂", "no text, no people",
)  # fmt: skip
_ASKED: tuple[dict[str, Any], ...] = (
    {}, {}, {}, {}, {"n": 3}, {"size": "96x64"}, {"size": "128x128"}, {"tags": ["print"]}, {"tags": ["thumbnail"]},
    {"tags": ["campaign"]}, {"tags": ["checked"]}, {"negative_prompt": "blurry"}, {"steps": 6}, {"guidance_scale": 4.0},
    {"latency_budget_s": 20}, {"max_cost_usd": 0.002}, {"user": "acme"},
)  # fmt: skip


def prompts() -> list[str]:
    """Half from the embedded world, half ordinary and odd ones; 500 different texts."""
    rng = random.Random("golden")
    found: dict[str, None] = dict.fromkeys(_OTHERS)
    while len(found) < 250:
        parts = (rng.choice(_SUBJECTS), rng.choice(_PLACES), rng.choice(_STYLES))
        found[", ".join(part for part in (" ".join(parts[:2]).strip(), parts[2]) if part)] = None
    while len(found) < 500:
        found[caption(sample_scene(rng, rng.choice(list(TIERS))), rng)] = None
    return list(found)


def bodies() -> list[dict[str, Any]]:
    """A request body for each prompt."""
    return [{"prompt": text, "seed": k, **_ASKED[k % len(_ASKED)]} for k, text in enumerate(prompts())]


PICTURES = """
version: 1
name: golden
recipes:
  sd: {generate: {model: sd15}}
  draft: {generate: {model: sd15, steps: 6, scheduler: dpmsolver++}}
  unipc: {generate: {model: sdxl, steps: 4, scheduler: unipc, guidance_scale: 5}}
  turbo: {generate: {model: sdxl-turbo}}
  flux: {generate: {model: flux, steps: 4}}
  wide: {generate: {model: sdxl, tile: native}}
  relay: {chain: [{generate: {model: sdxl, until: 0.6}}, {refine: {model: sdxl-refiner, from: 0.6}}]}
  polished: {chain: [turbo, {refine: {model: sdxl-refiner, strength: 0.3}}]}
  premium: {chain: [{generate: {model: flux, steps: 4}}, {refine: {model: sdxl-refiner, strength: 0.25}}]}
  back: {chain: [{generate: {model: sdxl}}, {refine: {model: sd15, strength: 0.4, steps: 10}}]}
  enlarged: {chain: [turbo, {upscale: {factor: 1.5}}, {refine: {model: sdxl-refiner, strength: 0.3}}]}
  tiled: {chain: [turbo, {upscale: {factor: 2}}, {refine: {model: sdxl-refiner, strength: 0.3, tile: native}}]}
  duel: {fuse: {with: best_of, scorer: alignment, of: [turbo, draft]}}
  tries: {best_of: {n: 2, of: turbo, scorer: alignment, accept_above: 0.9}}
  average: {fuse: {with: average, of: [turbo, draft]}}
  pyramid: {fuse: {with: pyramid, of: [turbo, draft]}}
  frequency: {fuse: {with: frequency, low: turbo, high: draft}}
  regions: {fuse: {with: regions, scorer: alignment, of: [turbo, draft]}}
  together: {fuse: {with: denoise, of: [{generate: {model: sdxl, steps: 4}}, {generate: {model: sdxl-turbo, steps: 4}}]}}
  search: {best_of: {n: auto, of: [turbo, polished], scorer: alignment}}
objective: {maximise: quality}
"""


def pictures() -> list[dict[str, Any]]:
    """One request for every recipe of `PICTURES`; some ask for a size or have a negative prompt."""
    names = [line.split(":")[0].strip() for line in PICTURES.splitlines() if line.startswith("  ")]
    text = "a small red circle above a blue square"
    asked = {"wide": {"size": "96x64"}, "tiled": {"size": "128x128"}, "sd": {"negative_prompt": "green"}}
    return [{"prompt": text, "seed": 11 + k, "recipe": name, **asked.get(name, {})} for k, name in enumerate(names)]
