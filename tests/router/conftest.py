"""A table of ratings with a known law, and the artefact trained on it."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from router.learning.ratings import Rating
from router.learning.report import ColumnReport
from router.learning.training import train
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.lexical import lexical_features, skill_signals
from router.registry.artifact import Artifact

COLOURS = ("red", "green", "blue", "yellow", "purple")
SHAPES = ("circle", "square", "triangle", "star", "ring")
# key -> (score of the simplest prompt, loss at full complexity)
LAWS = {"sd15": (0.95, 1.1), "sdxl": (0.9, 0.6), "sdxl>sdxl-refiner:from=0.8": (0.95, 0.6), "flux": (0.85, 0.1)}
NOISE = 0.1


def synthetic_prompts(count: int, seed: int = 0) -> list[str]:
    """Different prompts of the captioned-world kind, from one to three things."""
    rng = random.Random(seed)
    things = [f"{colour} {shape}" for colour, shape in itertools.product(COLOURS, SHAPES)]
    found: dict[str, None] = {}
    while len(found) < count:
        picked = rng.sample(things, rng.choice((1, 2, 3)))
        text = f" {rng.choice(('and', 'above', 'next to'))} ".join(f"a {thing}" for thing in picked)
        if rng.random() < 0.3:
            text = text.replace("a ", f"{rng.choice(('two', 'three'))} small ", 1) + " on a black background"
        found[text] = None
    return list(found)


def synthetic_ratings(prompts: list[str], seed: int = 0) -> list[Rating]:
    """Scores that fall with complexity, differently for each recipe, under noise."""
    rng = random.Random(seed)
    rows = []
    for prompt in prompts:
        complexity = skill_signals(lexical_features(prompt))["complexity"]
        for key, (base, loss) in LAWS.items():
            score = min(1.0, max(0.0, base - loss * complexity + rng.gauss(0, NOISE)))
            rows.append(Rating(prompt, key, score))
    return rows


@pytest.fixture(scope="session")
def embedder() -> MiniLMEmbedder:
    return MiniLMEmbedder()


@pytest.fixture(scope="session")
def trained(
    embedder: MiniLMEmbedder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, tuple[ColumnReport, ...]]:
    """The artefact trained on 160 synthetic prompts, and its report."""
    folder: Path = tmp_path_factory.mktemp("artifact") / "synthetic"
    return train(synthetic_ratings(synthetic_prompts(160)), folder, "synthetic", "a formula", "CC0", embedder)
