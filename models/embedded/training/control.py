"""A ControlNet for SD1.5 (https://arxiv.org/abs/2302.05543): the edges of a picture say where shapes stand.

It begins as a copy of the UNet's first half and learns from renders and their edges, while the UNet stays as it is.
Edges are Canny's at thresholds that vary from picture to picture, in colour or in gray, so that a preprocessor may
choose its own.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor

from models.embedded.captions import caption
from models.embedded.training.diffusion import Denoising, noised
from models.embedded.training.latents import encode, scaled
from models.embedded.world import TIERS, render, sample_scene

THRESHOLDS = (100, 200)
"""Of Canny, as it is usually asked for."""
MIX = (0.15, 0.2, 0.3, 0.2, 0.15)
"""Of the tiers it learns from."""
CHANNELS = (8, 16, 32)
"""Of the layers that bring edges of 64x64 pixels to the 16x16 cells of the latents."""
WITHOUT_CAPTION = 0.5
"""As in the paper: whoever has no words must read the map."""
NOISY = (250, 1000)
"""Timesteps it learns from: below them the latents themselves show where everything stands."""


def edges(picture: NDArray[np.uint8], low: float = THRESHOLDS[0], high: float = THRESHOLDS[1]) -> NDArray[np.uint8]:
    """Canny's edges of a picture (H, W, 3) or (H, W), white on black: uint8 (H, W, 3)."""
    found = cv2.Canny(np.ascontiguousarray(picture), low, high)
    return np.repeat(found[..., None], 3, axis=2).astype(np.uint8)


def new_control(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet for a UNet, which says nothing yet.

    Only what leaves it begins at zero. diffusers begins the map's own last layer at zero, too: then nothing of the map
    reaches the network until its outputs have opened, and they open for what the UNet knew already.
    """
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=CHANNELS)
    torch.nn.init.kaiming_uniform_(control.controlnet_cond_embedding.conv_out.weight, a=5**0.5)
    return control


@dataclass(frozen=True)
class Seen:
    """What one update sees: scaled latents (N, 4, 16, 16), captions, and edges float (N, 3, 64, 64) in 0..1."""

    latents: Tensor
    captions: list[str]
    maps: Tensor


@torch.no_grad()
def fresh(vae: AutoencoderKL, mix: Sequence[float], size: int, rng: random.Random) -> Seen:
    """New scenes, tiers weighted by `mix`; some without a caption. Edges are of the true renders, by thresholds and in
    colour or gray at random."""
    scenes = [sample_scene(rng, tier) for tier in rng.choices(TIERS, mix, k=size)]
    pictures = [render(scene) for scene in scenes]
    maps = []
    for picture in pictures:
        low = rng.uniform(50, 150)
        given = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if rng.random() < 0.5 else picture
        maps.append(edges(np.asarray(given, np.uint8), low, 2 * low))
    return Seen(
        scaled(vae, encode(vae, np.stack(pictures))),
        ["" if rng.random() < WITHOUT_CAPTION else caption(scene, rng) for scene in scenes],
        as_input(maps),
    )


def as_input(maps: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Maps uint8 (64, 64, 3) as the network reads them, float (N, 3, 64, 64) in 0..1."""
    return torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2).float() / 255


def control_loss(model: Denoising, control: ControlNetModel, seen: Seen) -> Tensor:
    """The denoising loss of the frozen model with what the ControlNet adds."""
    with torch.no_grad():
        hidden = model.read(seen.captions).hidden
    noisy, noise, t, weight = noised(model.alphas, seen.latents, NOISY)
    down, middle = control(noisy, t, hidden, controlnet_cond=seen.maps, return_dict=False)
    guess = model.denoiser(
        noisy, t, hidden, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample
    return (weight * (guess - noise).square().mean((1, 2, 3))).mean() / 4
