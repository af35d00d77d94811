"""Prompts that come with Triptych, for whoever has none of their own yet: written here, so free to use like the rest.

Everyday subjects in every kind of difficulty that sets models apart. Any beginning of the list holds every kind.
"""

from __future__ import annotations

from router.learning.new_model import PLAIN, SKILLS

SUBJECTS = (
    *PLAIN,
    "a baker pulling bread from an oven", "a harbour in the morning fog", "a tram in the rain", "a chess board",
    "a goat on a stone wall", "an empty classroom", "a cup of coffee and a newspaper", "a boy flying a kite",
    "a beehive in an orchard", "a night train crossing a bridge", "a potter at the wheel", "a desk with a typewriter",
    "a snowman in a garden", "two dancers on a stage", "a greenhouse full of ferns", "a dog in a rowing boat",
    "a bookshop window", "a windmill in a wheat field", "a cyclist climbing a pass", "a plate of pancakes",
    "an astronaut in a laundrette", "a grandmother playing cards", "a fountain in a square", "an owl on a fence post",
    "a tent under the stars", "a market stall with oranges", "a cat on a piano", "a waterfall in a forest",
    "a mechanic under a car", "a paper boat in a puddle", "a castle on a hill", "a runner on a beach",
)  # fmt: skip


def everyday_prompts() -> list[str]:
    """Always the same, 480 of them."""
    patterns = ["{}", *(pattern for some in SKILLS.values() for pattern in some)]
    return [
        patterns[(row + column) % len(patterns)].format(SUBJECTS[column])
        for row in range(len(patterns))
        for column in range(len(SUBJECTS))
    ]
