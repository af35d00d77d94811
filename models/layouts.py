"""How latents lie: as a pipeline holds them while it denoises, and as cells in the order of the picture.

The cells of `encode` and those of `cells` are the same numbers, so a map fitted on the first paints the second
(models/engine/previews.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """The latents of a family.

    cells:  (pipeline, its latents while it runs, width, height) to (N, C, h, w); width and height in pixels
    encode: (VAE, pixels (N, 3, H, W) in -1..1) to (N, C, h, w), without sampling
    """

    cells: Callable[[Any, Any, int, int], Any]
    encode: Callable[[Any, Any], Any]


def _as_they_are(pipe: Any, latents: Any, width: int, height: int) -> Any:
    return latents


def _unpacked(pipe: Any, latents: Any, width: int, height: int) -> Any:
    """Tokens (N, h w / 4, 4 C) of two by two cells, laid out again by the pipeline's own function."""
    return pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)


def _first_frame(pipe: Any, latents: Any, width: int, height: int) -> Any:
    """As `_unpacked`, from a VAE for films: (N, C, 1, h, w)."""
    return _unpacked(pipe, latents, width, height)[:, :, 0]


def _patches(pipe: Any, latents: Any, width: int, height: int) -> Any:
    """Tokens that were normalised as patches of two by two cells, row by row, to the VAE's own cells."""
    side = 2 * pipe.vae_scale_factor
    rows = latents.permute(0, 2, 1).unflatten(2, (height // side, width // side))
    norm = pipe.vae.bn
    spread = (norm.running_var + pipe.vae.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
    return pipe._unpatchify_latents(rows * spread.to(rows) + norm.running_mean.view(1, -1, 1, 1).to(rows))


def _mean(vae: Any, pixels: Any) -> Any:
    return vae.encode(pixels).latent_dist.mean


def _scaled(vae: Any, pixels: Any) -> Any:
    return (_mean(vae, pixels) - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def _by_channel(vae: Any, pixels: Any) -> Any:
    """One frame, each channel less its mean and divided by its spread."""
    raw = _mean(vae, pixels[:, :, None])[:, :, 0]
    mean, spread = (
        raw.new_tensor(values).view(1, -1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (raw - mean) / spread


PLANAR = Layout(_as_they_are, _scaled)
PACKED = Layout(_unpacked, _scaled)
PACKED_FRAME = Layout(_first_frame, _by_channel)
PATCHES = Layout(_patches, _mean)
