"""Decoding a picture in tiles, which takes less memory and changes it a little where tiles meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KEPT = (
    "use_tiling", "use_slicing", "tile_sample_min_size", "tile_latent_min_size", "tile_sample_min_height",
    "tile_sample_min_width", "tile_sample_stride_height", "tile_sample_stride_width",
)  # fmt: skip


def tile(vae: Any, side: int | None, scale: int) -> None:
    """Let a VAE decode in square tiles of `side` pixels (None: its own), `scale` pixels to a latent cell."""
    vae.enable_tiling()
    if side is None:
        return
    side = max(4 * scale, side // scale * scale)
    if hasattr(vae, "tile_sample_min_size"):
        vae.tile_sample_min_size, vae.tile_latent_min_size = side, side // scale
    else:  # VAEs for films count heights, widths and strides
        vae.tile_sample_min_height = vae.tile_sample_min_width = side
        vae.tile_sample_stride_height = vae.tile_sample_stride_width = side * 3 // 4 // scale * scale


@contextmanager
def as_it_was(vae: Any) -> Iterator[None]:
    """On leaving, tiles and slices of a VAE are again what they were."""
    former = {name: getattr(vae, name) for name in KEPT if hasattr(vae, name)}
    try:
        yield
    finally:
        for name, value in former.items():
            setattr(vae, name, value)
