"""The shortest step that makes a model touch all its weights."""

from __future__ import annotations

import numpy as np

from router.types import ModelCard, Picture, Scalar, Step, Value


def warm_up_step(card: ModelCard, size: tuple[int, int] | None = None) -> tuple[Step, tuple[Value, ...]]:
    """A step for a card, with its inputs: the fewest steps it takes at a size, or one score of a grey picture.

    size: width and height in pixels; default: the card's native size
    """
    width, height = size or card.native_size
    grey = Picture(np.full((height, width, 3), 128, np.uint8))
    if card.role == "scorer":
        return Step("warm-up", "score", card.id, ("grey",), "scores", {"prompt": "a circle"}), (grey,)
    asked: dict[str, Scalar] = {"prompt": "", "width": width, "height": height}
    if card.role == "refiner":
        return Step("warm-up", "refine", card.id, ("grey",), "image", {**asked, "steps": 2, "strength": 0.5}), (grey,)
    return Step("warm-up", "generate", card.id, (), "image", {**asked, "steps": card.min_steps}), ()
