"""A picture that ran out of memory is tried once more, decoded in tiles: decoding is where most of it is needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from models.tuning.tiles import as_it_was, tile
from router.errors import StepError
from router.types import ModelCard, Scalar, Step, StepResult

logger = logging.getLogger("triptych.engine")

OUT_OF_MEMORY = "out_of_memory"
"""The code of a `StepError` for which a smaller size, or fewer pictures at once, may help."""

PARTS = 2
"""A side of a picture is that of so many tiles, overlaps not counted."""


class SmallerDecoding:
    """Remembers which sizes a model could not decode whole, so that the next picture of such a size is not tried so."""

    def __init__(self, card: ModelCard) -> None:
        self._card = card
        self._tiled: set[tuple[int, int]] = set()

    def tried(self, step: Step, vae: Any, draw: Callable[[Mapping[str, Scalar]], StepResult]) -> StepResult:
        """What `draw` makes, whole if that is possible; it is told the facts of how. Raises what `draw` raises."""
        size = self._size(step)
        if size in self._tiled:
            return self._in_tiles(size, vae, draw)
        try:
            return draw({})
        except StepError as error:
            if error.code != OUT_OF_MEMORY or getattr(vae, "use_tiling", True) or "tiles" in step.settings:
                raise
            logger.warning("%s ran out of memory at %dx%d; once more, decoded in tiles", self._card.id, *size)
        made = self._in_tiles(size, vae, draw)
        self._tiled.add(size)
        return made

    def _in_tiles(
        self, size: tuple[int, int], vae: Any, draw: Callable[[Mapping[str, Scalar]], StepResult]
    ) -> StepResult:
        side = min(size) // PARTS
        with as_it_was(vae):
            tile(vae, side, self._card.vae_scale)
            return draw({"decoded_in_tiles": side})

    def _size(self, step: Step) -> tuple[int, int]:
        width, height = (step.settings.get(name) for name in ("width", "height"))
        if isinstance(width, int) and isinstance(height, int):
            return width, height
        return self._card.native_size
