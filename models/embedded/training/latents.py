"""The autoencoders and the shared cache of latents.

Both are `AutoencoderKL` with 16x16 latents of a 64x64 picture: 4 channels for SD and SDXL, 16 for FLUX. Their first
three channels are tied to the picture averaged over 4x4 pixels: latents that look like a small picture are easier to
learn than an arbitrary code, and pale grey reconstructions, the failure of a plain loss, cannot happen. Errors on the
coloured foreground weigh more, for the same reason.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.embedded.world import BACKGROUNDS, RADII, TIERS, Scene, render, sample_scene

TIER_SHARES = {"one": 0.10, "attributes": 0.17, "two": 0.18, "relation": 0.25, "counts": 0.30}
"""How the cached scenes are spread over the tiers."""


@dataclass(frozen=True)
class VaeCard:
    """What differs between the two autoencoders; `noise` is the deviation added to unit latents in training, so that
    the decoder forgives what diffusion gets slightly wrong."""

    channels: int
    widths: tuple[int, ...]
    has_shift: bool
    noise: float = 0.12


VAES = {"vae4": VaeCard(4, (8, 16, 32), has_shift=False), "vae16": VaeCard(16, (8, 16, 32), has_shift=True)}


def build_vae(name: str) -> AutoencoderKL:
    """A fresh autoencoder of the table; scaling and shift factor are set after training."""
    card = VAES[name]
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(card.widths),
        up_block_types=("UpDecoderBlock2D",) * len(card.widths),
        block_out_channels=card.widths,
        layers_per_block=1,
        latent_channels=card.channels,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=1.0,
        shift_factor=0.0 if card.has_shift else None,
        use_quant_conv=not card.has_shift,
        use_post_quant_conv=not card.has_shift,
        mid_block_add_attention=False,
        force_upcast=False,
    )


class VaeLoss(nn.Module):
    """Reconstruction weighted to the foreground, the colour tie of three channels, and a light pull to zero."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """`pixels` (B, 3, 64, 64) in -1..1; returns the loss and the plain mean squared error."""
        mean = vae.encode(pixels).latent_dist.mean
        decoded = vae.decode(mean + self.noise * torch.randn_like(mean)).sample
        corner = pixels[:, :, :1, :1]
        weight = 1 + 3 * ((pixels - corner).abs().amax(1, keepdim=True) > 0.1)
        error = decoded - pixels
        fit = (weight * (error.abs() + error.square())).mean()
        tie = (mean[:, :3] - nn.functional.avg_pool2d(pixels, 4)).square().mean()
        free = mean[:, 3:].square().mean(dim=(0, 2, 3))
        # Free channels may carry what they need, at about unit size.
        size = (free - 0.5).clamp(min=0).mean()
        return fit + 0.5 * tie + 0.05 * size, error.square().mean()


def to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (N, 64, 64, 3) to float32 (N, 3, 64, 64) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_images(pixels: Tensor) -> NDArray[np.uint8]:
    """float (N, 3, 64, 64) in -1..1 to uint8 (N, 64, 64, 3)."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def scenes(n: int, seed: int) -> list[Scene]:
    """`n` training scenes in the cache's tier shares; scene i depends on `seed` and i only."""
    drawn = []
    for i in range(n):
        rng = random.Random(f"scene {seed} {i}")
        drawn.append(sample_scene(rng, rng.choices(TIERS, [TIER_SHARES[tier] for tier in TIERS])[0]))
    return drawn


def batches(rng: random.Random, size: int) -> Iterator[NDArray[np.uint8]]:
    """Endless fresh renders (size, 64, 64, 3) for the autoencoders, rich in small and crowded objects."""
    while True:
        drawn = [sample_scene(rng, tier) for tier in rng.choices(TIERS, (1, 2, 2, 2, 3), k=size)]
        # Captions seldom speak of a background; the decoder has to know all three equally well.
        drawn = [replace(one, background=rng.choice((None, *BACKGROUNDS))) for one in drawn]
        # Small stars and rings are what a decoder blurs first, and captions speak of few.
        drawn = [_shrunk(one, rng) if rng.random() < 0.4 else one for one in drawn]
        yield np.stack([render(one) for one in drawn])


def _shrunk(scene: Scene, rng: random.Random) -> Scene:
    """The same scene with every object as small as the world has them."""
    radii = [rng.uniform(*RADII["small"]) for _ in scene.placements]
    spots = [replace(spot, radius=radius) for spot, radius in zip(scene.placements, radii, strict=True)]
    return replace(scene, placements=tuple(spots))


@torch.no_grad()
def encode(vae: AutoencoderKL, images: NDArray[np.uint8]) -> Tensor:
    """Raw latents (N, C, 16, 16), the posterior's mean, without scaling or shift."""
    return vae.encode(to_pixels(images)).latent_dist.mean


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> NDArray[np.uint8]:
    """Raw latents (N, C, 16, 16) to uint8 (N, 64, 64, 3)."""
    return to_images(vae.decode(latents).sample)


def set_statistics(vae: AutoencoderKL, latents: Tensor) -> None:
    """Write scaling (and shift) into the config so that scaled latents have unit deviation over `latents`."""
    shift = float(latents.mean()) if vae.config.shift_factor is not None else None
    vae.register_to_config(
        scaling_factor=float(1 / (latents - (shift or 0.0)).square().mean().sqrt()), shift_factor=shift
    )


@torch.no_grad()
def fix_variance(vae: AutoencoderKL) -> None:
    """Make the posterior a point: training uses its mean only, so its variance is whatever the start left there.

    Pipelines that encode a picture (img2img) draw from the posterior, and would add noise of that variance.
    """
    last = vae.quant_conv if vae.quant_conv is not None else vae.encoder.conv_out
    half = last.weight.shape[0] // 2
    last.weight[half:] = 0.0
    last.bias[half:] = -20.0


def scaled(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Raw latents to those the pipelines diffuse."""
    return (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def raw(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Those the pipelines diffuse to raw latents."""
    return latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)


def write_cache(vae: AutoencoderKL, drawn: list[Scene], path: Path, keep_statistics: bool = False) -> None:
    """Encode every scene and keep the scaled latents, fp16 (N, C, 16, 16), in one safetensors file.

    `keep_statistics` is for an autoencoder that models were trained on already.
    """
    parts = []
    for start in range(0, len(drawn), 256):
        parts.append(encode(vae, np.stack([render(scene) for scene in drawn[start : start + 256]])))
    encoded = torch.cat(parts)
    if not keep_statistics:
        set_statistics(vae, encoded)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"scaling_factor": repr(vae.config.scaling_factor), "shift_factor": repr(vae.config.shift_factor)}
    save_file({"latents": scaled(vae, encoded).half().contiguous()}, str(path), metadata)


def read_statistics(vae: AutoencoderKL, path: Path) -> None:
    """Give an autoencoder the scaling and shift that the cache was written with."""
    with safe_open(str(path), "pt") as stored:
        found = stored.metadata()
    shift = None if found["shift_factor"] == "None" else float(found["shift_factor"])
    vae.register_to_config(scaling_factor=float(found["scaling_factor"]), shift_factor=shift)


def read_cache(path: Path) -> Tensor:
    """The cached latents, float16 (N, C, 16, 16). Raises FileNotFoundError naming the command that writes them."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no latents yet; run `python -m models.embedded.train vae` first")
    return load_file(str(path))["latents"]
