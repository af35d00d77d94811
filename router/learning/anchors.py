"""The fixed set of prompts on which a new model is rated: 96, easy to hard, every skill in turn."""

from __future__ import annotations

PLAIN = (
    "a lighthouse on a cliff", "a bowl of ramen", "an old fisherman mending a net", "a fox asleep in the snow",
    "a red bicycle", "a street market at dusk", "a glass of water on a table", "a violinist on a rooftop",
)  # fmt: skip
SKILLS: dict[str, tuple[str, ...]] = {
    "text": ('{} beside a wooden sign that says "OPEN"', '{}, with the word "HOPE" painted across the sky'),
    "counting": ("{} and exactly four paper lanterns", "{} with seven birds overhead"),
    "attributes": (
        "{} next to a blue metal chair and a yellow velvet cushion",
        "{} between a tiny green door and a huge white one",
    ),
    "places": ("{} to the left of a tall clock", "{} below a hanging umbrella and in front of a stone wall"),
    "negation": ("{} without any people", "{}, but nothing red in the picture"),
    "everything": ('{}, three black cats on the right, no trees, and a banner reading "NORTH"',),
}  # fmt: skip


def anchor_prompts() -> list[str]:
    """The prompts, always the same, in an order in which any beginning holds every skill."""
    patterns = ["{}", *(pattern for patterns in SKILLS.values() for pattern in patterns)]
    return [
        patterns[(row + column) % len(patterns)].format(PLAIN[column])
        for row in range(len(patterns))
        for column in range(len(PLAIN))
    ]
