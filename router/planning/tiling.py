"""Pictures larger than a model's native size, in overlapping tiles: how many, and how large.

The engine finds the same tiles from the same four numbers (models/engine/tiles.py), so that what is estimated is what
is run.
"""

from __future__ import annotations

import math

from router.errors import PlanError
from router.types import ModelCard, Scalar, Tile

OVERLAP = 0.25  # of a tile, where a recipe does not say


def tiled(card: ModelCard, tile: Tile, overlap: float | None, width: int, height: int) -> dict[str, Scalar]:
    """The settings `tile_width`, `tile_height`, `tile_overlap` (pixels) and `tiles`; none if one tile holds it all.

    Raises `PlanError` for tiles that the model does not take, and for sides that it does not take.
    """
    share = OVERLAP if overlap is None else overlap
    if not 0 < share <= 0.75:
        raise PlanError(f"an overlap of {share:g} is outside 0..0.75 of a tile", "recipe")
    native = card.native_size
    asked = native if tile == "native" else (tile, tile)
    _check_tile(card, asked)
    _check_sides(card, width, height)
    across, down = min(asked[0], width), min(asked[1], height)
    common = max(1, round(share * min(across, down) / card.size_multiple)) * card.size_multiple
    count = along(width, across, common) * along(height, down, common)
    if count == 1:
        return {}
    return {"tile_width": across, "tile_height": down, "tile_overlap": common, "tiles": count}


def along(side: int, tile: int, overlap: int) -> int:
    """How many tiles, of which neighbours share at least `overlap`, cover `side`."""
    return 1 if side <= tile else math.ceil((side - overlap) / (tile - overlap))


def _check_tile(card: ModelCard, asked: tuple[int, int]) -> None:
    native, multiple = card.native_size, card.size_multiple
    size = f"a tile of {asked[0]}x{asked[1]}"
    if any(side % multiple for side in asked):
        raise PlanError(f"{size} is not a multiple of {multiple}, as {card.id!r} needs", "recipe")
    if min(asked) < max(card.min_side, 2 * multiple):
        raise PlanError(f"{size} is too small for {card.id!r}; its sides must be at least {card.min_side}", "recipe")
    if asked[0] > native[0] or asked[1] > native[1] or math.prod(asked) > card.max_pixels:
        raise PlanError(
            f"{size} is larger than the native {native[0]}x{native[1]} of {card.id!r}; use tile: native", "recipe"
        )


def _check_sides(card: ModelCard, width: int, height: int) -> None:
    multiple, low = card.size_multiple, card.min_side
    if width % multiple or height % multiple or min(width, height) < low:
        raise PlanError(
            f"{width}x{height} does not fit {card.id!r}: sides are multiples of {multiple} and at least {low}", "size"
        )
