"""A predictor for the tests, trained by router.training: its table says that small models fail on complex prompts."""

from itertools import pairwise
from pathlib import Path

from router.learning.ratings import Rating
from router.learning.training import train
from router.prompts.lexical import lexical_features, skill_signals

COLOURS = ("red", "green", "blue", "yellow", "white")
SHAPES = ("circle", "square", "ring", "star")
RECIPES = {  # key -> (quality of an easy prompt, what full complexity takes from it)
    "sd15@12:scheduler=dpmsolver++": (1.12, 1.2),
    "sdxl": (0.85, 0.3),
    "sdxl>sdxl-refiner:from=0.8": (0.86, 0.25),
    "flux>sdxl-refiner:strength=0.25": (0.88, 0.1),
    "best_of(alignment;flux>sdxl-refiner:strength=0.25|sdxl>sdxl-refiner:from=0.8)": (0.88, 0.1),
}


def train_tiny(path: Path) -> Path:
    """The artefact, in folder `path`."""
    easy = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    hard = [
        f"three small {one} {shape}s above a large {two} {other} on a black background"
        for one, two in pairwise(COLOURS)
        for shape, other in pairwise(SHAPES)
    ]
    ratings = [
        Rating(prompt, recipe, max(0.0, base - loss * skill_signals(lexical_features(prompt))["complexity"]))
        for prompt in (*easy, *hard)
        for recipe, (base, loss) in RECIPES.items()
    ]
    train(ratings, path, "tiny", "made up for the tests", "CC0-1.0", folds=3)
    return path
