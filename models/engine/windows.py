"""Large pictures: each denoising step in overlapping windows of the native size, averaged in latent space.

MultiDiffusion, https://arxiv.org/abs/2302.08113. All windows move one common latent, so they cannot drift apart as
tiles that are finished one by one can (tiles.py, for networks of packed tokens). Memory is that of the native size;
beyond what the card takes at once, the VAE works in tiles too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from models.call import Call, Tiling
from models.engine.tiles import Box, boxes, windows
from models.families import FAMILIES
from models.tuning.tiles import as_it_was
from router.types import ModelCard

NAME = "triptych_windows"


@contextmanager
def windowed(pipe: Any, card: ModelCard, call: Call) -> Iterator[None]:
    """While inside, the pipeline's network is applied window by window; nothing happens to calls without tiles."""
    if call.tiling is None:
        yield
        return
    import torch
    from diffusers.hooks import HookRegistry

    network = getattr(pipe, FAMILIES[card.family].denoiser)
    network = getattr(network, "_orig_mod", network)  # what torch.compile was given
    scale = card.vae_scale
    tiling = Tiling(
        call.tiling.width // scale, call.tiling.height // scale, call.tiling.overlap // scale, call.tiling.count
    )
    width, height = call.width // scale, call.height // scale
    places = boxes(width, height, tiling, 1)
    weights = [torch.from_numpy(weight) for weight in windows(places, width, height)]
    own = "forward" in vars(network)  # of an offloading hook, say
    registry = HookRegistry.check_if_exists_or_initialize(network)
    large = call.width * call.height > card.max_pixels
    registry.register_hook(_hook(places, weights), NAME)
    try:
        with as_it_was(pipe.vae):
            if large:
                pipe.vae.enable_tiling()
            yield
    finally:
        registry.remove_hook(NAME, recurse=False)
        if not own:
            vars(network).pop("forward", None)  # the class's own again, so that nothing refers to itself


def _hook(places: Sequence[Box], weights: Sequence[Any]) -> Any:
    """A hook of diffusers that applies a network, with whatever else hooks into it, to one window after the other."""
    import torch
    from diffusers.hooks import ModelHook

    class Windows(ModelHook):
        def new_forward(self, module: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
            made = torch.zeros_like(sample)
            for box, weight in zip(places, weights, strict=True):
                rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
                given = {**kwargs, "return_dict": False}
                part = self.fn_ref.original_forward(sample[:, :, rows, columns], *args, **given)[0]
                made[:, :, rows, columns] += part * weight.to(part)
            return (made,)

    return Windows()
