"""The shortest step that makes a model touch all its weights."""

from __future__ import annotations

import numpy as np

from router.types import Mask, ModelCard, Picture, Scalar, Step, Value


def warm_up_step(card: ModelCard, size: tuple[int, int] | None = None) -> tuple[Step, tuple[Value, ...]]:
    """A step for a card, with its inputs: the fewest steps it takes at a size, with a grey picture for an editor, or
    one score of it for a scorer.

    size: width and height in pixels; default: the card's native size
    """
    width, height = size or card.native_size
    grey = Picture(np.full((height, width, 3), 128, np.uint8))
    if card.role == "scorer":
        return Step("warm-up", "score", card.id, ("grey",), "scores", {"prompt": "a circle"}), (grey,)
    asked: dict[str, Scalar] = {"prompt": "", "width": width, "height": height}
    if card.role == "refiner":
        return Step("warm-up", "refine", card.id, ("grey",), "image", {**asked, "steps": 2, "strength": 0.5}), (grey,)
    if card.role == "editor":
        open_ = Mask(np.full((height, width), 255, np.uint8))
        asked |= {"steps": card.min_steps, "strength": 1.0}
        return Step("warm-up", "inpaint", card.id, ("grey", "open"), "image", asked), (grey, open_)
    return Step("warm-up", "generate", card.id, (), "image", {**asked, "steps": card.min_steps}), ()
