"""What one model's output must be to become another's input: latents in the same space, or pixels at a size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.given import masks
from router.errors import StepError
from router.types import Latents, Mask, ModelCard, Picture, Value


def resize(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Lanczos in sRGB, as image editors do; returned unchanged if the size already fits."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def upscale(pixels: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Enlarge by `factor` in 1..8 with Lanczos; `StepError` otherwise."""
    if not 1 <= factor <= 8:
        raise StepError(f"upscale: factor {factor} is outside 1..8", "factor")
    height, width = pixels.shape[:2]
    return resize(pixels, round(width * factor), round(height * factor))


def check_picture(value: Value, card: ModelCard) -> Picture:
    """The value, if it is a picture that can be used; `StepError` says what it is instead."""
    if not isinstance(value, Picture):
        raise StepError(f"model {card.id!r} takes a picture here, not {type(value).__name__.lower()}")
    pixels = value.pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise StepError(f"model {card.id!r}: a picture is uint8 (height, width, 3), not {pixels.dtype} {pixels.shape}")
    return value


def check_latents(value: Value, card: ModelCard, start: float) -> Latents:
    """The value, if it is latents of the card's own space, denoised exactly up to `start`; `StepError` otherwise."""
    if not isinstance(value, Latents):
        raise StepError(
            f"model {card.id!r}: 'from' continues latents, not a {type(value).__name__.lower()}; use 'strength'"
        )
    if value.space != card.latent_space:
        raise StepError(
            f"latents of space {value.space!r} cannot go to model {card.id!r} (space {card.latent_space!r}); "
            "hand over a picture and use 'strength'"
        )
    if value.data.ndim != 3 or value.data.shape[0] != card.latent_channels:
        raise StepError(
            f"model {card.id!r} takes latents with {card.latent_channels} channels, not shape {value.data.shape}"
        )
    if abs(value.denoised - start) > 1e-6:
        raise StepError(
            f"model {card.id!r} starts at {start:g} of the denoising, but the latents are at {value.denoised:g}"
        )
    return value


def to_image(picture: Picture, width: int | None = None, height: int | None = None) -> Image.Image:
    """A picture at the size that a pipeline works at (default: its own), as its image processor takes it."""
    tall, wide = picture.pixels.shape[:2]
    return Image.fromarray(resize(np.ascontiguousarray(picture.pixels), width or wide, height or tall))


def check_mask(value: Value, card: ModelCard) -> Mask:
    """The value, if it is a mask that can be used; `StepError` says what it is instead."""
    if not isinstance(value, Mask) or value.data.dtype != np.uint8 or value.data.ndim != 2:
        kind = type(value).__name__.lower()
        raise StepError(f"model {card.id!r} takes a mask here, uint8 (height, width), not {kind}")
    return value


def to_mask_image(mask: Mask, card: ModelCard, width: int, height: int) -> Image.Image:
    """A mask at the size that a pipeline works at, in whole latent cells: white where it draws anew."""
    return Image.fromarray(masks.cells(masks.resized(mask.data, width, height), card.vae_scale))


def to_latents(tensor: Any, card: ModelCard, factor: float, denoised: float) -> Latents:
    """A pipeline's latents (1, C, h, w), divided by the scheduler's `factor`, as a value that may travel."""
    data = (tensor[0].float() / factor).cpu().numpy()
    if not np.isfinite(data).all():
        raise StepError(f"model {card.id!r} gave latents that are not numbers; use float32 or bfloat16")
    return Latents(np.ascontiguousarray(data, dtype=np.float32), card.latent_space, denoised)


def to_tensor(latents: Latents, factor: float) -> Any:
    """The reverse: a float32 tensor (1, C, h, w) in the scheduler's own scale."""
    import torch

    return torch.from_numpy(np.array(latents.data, dtype=np.float32))[None] * factor


def to_picture(array: NDArray[np.floating], card: ModelCard) -> Picture:
    """A pipeline's float output (1, height, width, 3) in 0..1 as uint8; `StepError` if it is not numbers."""
    if not np.isfinite(array).all():
        # Left alone, NaN would become a black picture that looks like an answer.
        raise StepError(f"model {card.id!r} gave a picture that is not numbers; use float32 or bfloat16")
    return Picture(np.ascontiguousarray((array[0] * 255).round().astype(np.uint8)))
