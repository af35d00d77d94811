"""A picture that ran out of memory is tried once more, decoded in tiles: decoding is where most of it is needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from models.tuning.tiles import as_it_was, tile
from router.errors import StepError
from router.types import ModelCard, Step, StepResult

logger = logging.getLogger("triptych.engine")

OUT_OF_MEMORY = "out_of_memory"
"""The code of a `StepError` for which a smaller size, or fewer pictures at once, may help."""

PARTS = 2
"""A side of a picture is that of so many tiles, overlaps not counted."""


class SmallerDecoding:
    """Remembers which sizes a model could not decode whole, so that the next picture of such a size is not tried so.

    vae: of its pipeline; one that decodes in tiles already is left to that
    """

    def __init__(self, card: ModelCard, vae: Any) -> None:
        self._card = card
        self._whole = not getattr(vae, "use_tiling", True)
        self._tiled: set[tuple[int, int]] = set()

    def tried(self, step: Step, draw: Callable[[int | None], StepResult]) -> StepResult:
        """What `draw` makes, whole if that is possible; it is told the side of the tiles to decode in, or None, and
        sees to that by `in_tiles` while it has the device for itself. Raises what `draw` raises."""
        size = self._size(step)
        if size in self._tiled:
            return self._by_tiles(size, draw)
        try:
            return draw(None)
        except StepError as error:
            if error.code != OUT_OF_MEMORY or not self._whole or "tiles" in step.settings:
                raise
            logger.warning("%s ran out of memory at %dx%d; once more, decoded in tiles", self._card.id, *size)
        made = self._by_tiles(size, draw)
        self._tiled.add(size)
        return made

    def _by_tiles(self, size: tuple[int, int], draw: Callable[[int | None], StepResult]) -> StepResult:
        side = min(size) // PARTS
        made = draw(side)
        return replace(made, facts={**made.facts, "decoded_in_tiles": side})

    def _size(self, step: Step) -> tuple[int, int]:
        width, height = (step.settings.get(name) for name in ("width", "height"))
        if isinstance(width, int) and isinstance(height, int):
            return width, height
        return self._card.native_size


@contextmanager
def in_tiles(vae: Any, side: int | None, scale: int) -> Iterator[None]:
    """While inside, a VAE decodes in tiles of `side` pixels, `scale` pixels to a latent cell; None: as it does."""
    if side is None:
        yield
        return
    with as_it_was(vae):
        tile(vae, side, scale)
        yield
