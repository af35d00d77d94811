"""Held-out prompts of the world, and marks for the pictures that any recipe makes of them."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.embedded.captions import caption
from models.embedded.checker import Mark, check
from models.embedded.world import HELD_OUT_PAIRS, TRAIN_PAIRS, Scene, sample_scene

Picture = NDArray[np.uint8] | Image.Image
Generate = Callable[[str, int], Picture]
"""A recipe: (prompt, seed) to one picture."""


@dataclass(frozen=True)
class Prompt:
    """A held-out prompt with the scene that its pictures are marked against."""

    text: str
    scene: Scene


def held_out_prompts(tier: str, n: int, seed: int, new_pairs: bool = False) -> list[Prompt]:
    """`n` prompts of a tier in phrasings that no model trains on.

    With `new_pairs`, every object is of a colour-shape pair that no model trains on either (tiers of at most two
    different things; ValueError from `random.sample` beyond that). Seeds of training and of these prompts never meet.
    """
    pairs = HELD_OUT_PAIRS if new_pairs else TRAIN_PAIRS
    drawn = []
    for i in range(n):
        rng = random.Random(f"held out {tier} {seed} {i}")
        scene = sample_scene(rng, tier, pairs)
        drawn.append(Prompt(caption(scene, rng, "held out"), scene))
    return drawn


def mark_images(images: Sequence[Picture], scenes: Sequence[Scene]) -> list[Mark]:
    """Mark each picture against its scene. Raises ValueError when their numbers differ."""
    return [check(image, scene) for image, scene in zip(images, scenes, strict=True)]


def outcomes(
    recipes: dict[str, Generate], prompts: Sequence[Prompt], seeds: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Marks of every recipe: float64 (prompts, seeds, 2), exact and partial."""
    return {
        name: np.array(
            [
                [(mark.exact, mark.partial) for mark in (check(generate(p.text, seed), p.scene) for seed in seeds)]
                for p in prompts
            ],
            np.float64,
        )
        for name, generate in recipes.items()
    }


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share (https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval)."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.96, successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
