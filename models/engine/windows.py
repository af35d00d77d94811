"""Large pictures: each denoising step in overlapping windows of the native size, averaged in latent space.

MultiDiffusion, https://arxiv.org/abs/2302.08113. All windows move one common latent, so they cannot drift apart as
tiles that are finished one by one can (tiles.py, for networks of packed tokens). Memory is that of the native size;
beyond what the card takes at once, the VAE works in tiles too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from models.call import Call, Tiling
from models.engine.tiles import boxes, windows
from models.families import FAMILIES
from router.types import ModelCard


@contextmanager
def windowed(pipe: Any, card: ModelCard, call: Call) -> Iterator[None]:
    """While inside, the pipeline's network is applied window by window; nothing happens to calls without tiles."""
    if call.tiling is None:
        yield
        return
    import torch

    network = getattr(pipe, FAMILIES[card.family].denoiser)
    scale = card.vae_scale
    tiling = Tiling(
        call.tiling.width // scale, call.tiling.height // scale, call.tiling.overlap // scale, call.tiling.count
    )
    width, height = call.width // scale, call.height // scale
    places = boxes(width, height, tiling, 1)
    weights = [torch.from_numpy(weight) for weight in windows(places, width, height)]
    whole = network.forward

    def forward(sample: Any, *args: Any, **kwargs: Any) -> Any:
        made = torch.zeros_like(sample)
        for box, weight in zip(places, weights, strict=True):
            rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
            part = whole(sample[:, :, rows, columns], *args, **{**kwargs, "return_dict": False})[0]
            made[:, :, rows, columns] += part * weight.to(part)
        return (made,)

    network.forward = forward
    large = call.width * call.height > card.max_pixels
    if large:
        pipe.vae.enable_tiling()
    try:
        yield
    finally:
        if large:
            pipe.vae.disable_tiling()
        del network.forward  # the class's own again
