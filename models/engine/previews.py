"""Small previews of a running denoising, without decoding: what is the picture going to be, cell by cell.

Latents look like a small picture in other colours, so a linear map to RGB, fitted once per VAE, is a good preview.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.layouts import Layout
from router.types import Picture

GRID = 12  # colour patches along one side of the picture that the map is fitted on
CELLS = 4  # latent cells along one side of a patch


def fit_colours(vae: Any, layout: Layout, vae_scale: int) -> NDArray[np.float32]:
    """Least squares from the cells of `layout` to RGB in 0..1, over random flat patches; shape (channels + 1, 3).

    vae_scale: pixels per cell along one side
    """
    import torch

    colours = np.random.default_rng(0).random((GRID, GRID, 3), dtype=np.float32)
    colours[::2] = colours[::2].round()  # every other row from the corners of the cube: black, white, pure colours
    patches = colours.repeat(CELLS * vae_scale, axis=0).repeat(CELLS * vae_scale, axis=1)
    half = vae.dtype if vae.dtype != torch.float32 else None
    if half is not None:
        vae.to(torch.float32)  # half precision overflows in the SDXL encoder
    with torch.no_grad():
        pixels = torch.from_numpy(patches).permute(2, 0, 1)[None].to(vae.device) * 2 - 1
        encoded = layout.encode(vae, pixels)
    if half is not None:
        vae.to(half)
    cells = encoded[0].permute(1, 2, 0).cpu().numpy()
    known = np.concatenate([cells.reshape(-1, cells.shape[-1]), np.ones((cells.shape[0] * cells.shape[1], 1))], axis=1)
    wanted = colours.repeat(CELLS, axis=0).repeat(CELLS, axis=1).reshape(-1, 3)
    return np.linalg.lstsq(known, wanted, rcond=None)[0].astype(np.float32)


def paint(latents: Any, colours: NDArray[np.float32]) -> Picture:
    """Clean scaled latents (1, C, h, w) to a picture of (h, w)."""
    cells = latents[0].float().permute(1, 2, 0).cpu().numpy()
    rgb = cells @ colours[:-1] + colours[-1]
    return Picture(np.clip(np.rint(np.nan_to_num(rgb) * 255), 0, 255).astype(np.uint8))


def clean(before: Any, after: Any, scheduler: Any, explodes: bool) -> Any:
    """Where a straight line through the last two latents ends without noise: the picture that the model expects now.

    Exact for first-order solvers, near enough for the others. Returns `after` when the scheduler keeps no sigmas.
    """
    sigmas, index = getattr(scheduler, "sigmas", None), getattr(scheduler, "step_index", None)
    if before is None or sigmas is None or not index or index >= len(sigmas):
        return after
    last, now = float(sigmas[index - 1]), float(sigmas[index])
    flow = type(scheduler).__name__.startswith("FlowMatch")
    grow = (lambda sigma: 1.0) if flow or explodes else (lambda sigma: (1 + sigma**2) ** 0.5)
    start, end = before * grow(last), after * grow(now)
    return end - now * (end - start) / (now - last)
