"""How much memory a model needs at a size, counted from its configuration without loading a weight, and whether there
is so much.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from models.families import FAMILIES
from models.weights.needs.activations import Shape, decoder_bytes, denoiser_bytes, encoder_bytes
from models.weights.needs.additions import addition_bytes
from models.weights.needs.architectures import Network
from models.weights.needs.networks import (
    BYTES,
    as_text,
    count_parameters,
    countable,
    networks_of,
    weight_bytes,
)
from router.errors import LoadError
from router.types import ModelCard

GB = 1e9
RESERVE_GB = 0.5
"""Context and allocator of the device, which no parameter count shows."""

FULL = 4
"""Bytes of a number in float32."""


@dataclass(frozen=True)
class Need:
    """What a model needs of its device, in bytes, by phase: `read` (the prompt), `denoise` (a step), `decode`.

    weights: what is there in each phase;   work: what is made beside them;   held: weights that stay between pictures,
    by component
    """

    held: Mapping[str, float]
    weights: Mapping[str, float]
    work: Mapping[str, float]

    @property
    def total(self) -> float:
        """At most, while a picture is made."""
        return max(self.weights[phase] + self.work[phase] for phase in self.work)

    @property
    def phase(self) -> str:
        """In which the most is needed."""
        return max(self.work, key=lambda phase: self.weights[phase] + self.work[phase])


def need_of(card: ModelCard, width: int, size: tuple[int, int] | None = None, batch: int = 1) -> Need:
    """What a card's model needs, tuned as it is, for `batch` pictures of a size (default: the native one) at once.

    Of what is offloaded, that is what is on the device at once: of whole networks, the one that is at work; of layers,
    the largest and the one that follows it. width: bytes of a number.   Raises `LoadError` if its networks are not
    known.
    """
    sizes = weight_bytes(card, width)
    sums = {name: sum(parts) for name, parts in sizes.items()}
    work, additions = phase_bytes(card, width, size, batch), addition_bytes(card, width)
    if (offload := card.tuning.get("offload")) is None:
        held = {**sums, **additions}
        return Need(held, dict.fromkeys(work, sum(held.values())), work)
    extra = sum(additions.values())  # no part of the pipeline that is offloaded: once there, they stay
    if offload == "group":
        layers = extra + 2.0 * max(max(parts, default=0.0) for parts in sizes.values())
        return Need({}, dict.fromkeys(work, layers), work)
    alone = {"denoise": FAMILIES[card.family].denoiser, "decode": "vae"}
    texts = [total for name, total in sums.items() if name not in alone.values()]
    weights = {phase: sums.get(name, 0.0) for phase, name in alone.items()}
    weights["read"] = max(texts, default=0.0)
    return Need({}, {phase: extra + size for phase, size in weights.items()}, work)


def phase_bytes(card: ModelCard, width: int, size: tuple[int, int] | None = None, batch: int = 1) -> dict[str, float]:
    """What is needed beside weights while prompts are read, in a step of denoising, and while pictures are decoded."""
    networks = networks_of(card)
    across, down = size or card.native_size
    passes = card.passes(card.guidance_scale)
    shape = Shape(across, down, card.vae_scale, batch, passes, card.max_prompt_tokens, width)
    texts = [config for library, _, config in networks.values() if library == "transformers"]
    _, denoiser, config = networks[FAMILIES[card.family].denoiser]
    return {
        "read": float(max((encoder_bytes(text, shape) for text in texts), default=0)),
        "denoise": float(denoiser_bytes(denoiser, as_text(config), shape)),
        "decode": _decoding(card, networks["vae"], shape),
    }


def _decoding(card: ModelCard, vae: Network, shape: Shape) -> float:
    """VAEs marked `force_upcast` decode in float32 whatever the weights are."""
    _, class_name, config = vae
    # VAEs for films know no upcasting; of the others, old configurations leave out that they do.
    upcast = config.get("force_upcast", "base_dim" not in config)
    inside = replace(shape, bytes=FULL if upcast else shape.bytes)
    if card.tuning.get("vae_slicing"):
        inside = replace(inside, batch=1)
    if tiling := card.tuning.get("vae_tiling"):
        side = int(config.get("sample_size") or card.native_size[0]) if tiling is True else int(str(tiling))
        inside = replace(inside, width=min(side, inside.width), height=min(side, inside.height))
    whole = (inside.width, inside.height, inside.batch) == (shape.width, shape.height, shape.batch)
    # What is decoded part by part is kept until it is put together: three colours, twice.
    parts = 0.0 if whole else 6.0 * inside.bytes * shape.batch * shape.width * shape.height
    upcasting = count_parameters(card)["vae"] * (inside.bytes - shape.bytes)
    return decoder_bytes(class_name, as_text(config), inside) + parts + upcasting


def held_bytes(card: ModelCard, width: int) -> dict[str, float]:
    """What each component of a card occupies of its device between steps, in the bits that its tuning gives it; nothing
    if they wait in the memory of the CPU; with them what comes only when a recipe first asks for it (`additions`).
    width: bytes of a parameter"""
    if card.tuning.get("offload"):
        return {}
    networks = {name: sum(parts) for name, parts in weight_bytes(card, width).items()}
    return {**networks, **addition_bytes(card, width)}


def working_bytes(card: ModelCard, width: int, size: tuple[int, int] | None = None, batch: int = 1) -> float:
    """What a card's model needs beside that, at most, while it runs."""
    need = need_of(card, width, size, batch)
    return need.total - sum(need.held.values())


def estimate_memory_gb(
    card: ModelCard,
    dtype: str | None = None,
    have: Collection[str] = (),
    size: tuple[int, int] | None = None,
    batch: int = 1,
) -> float:
    """Weights in `dtype` (default: the card's), plus the largest activations of `batch` pictures of a size (default:
    the native one), in 10^9 bytes.

    have: components that are loaded already.   Falls back to the card's `memory_gb` when its networks are not known.
    """
    if not countable(card):
        return card.memory_gb
    need = need_of(card, BYTES[dtype or card.dtype], size, batch)
    return (need.total - sum(size for name, size in need.held.items() if name in have)) / GB


def guest_memory_gb(card: ModelCard, dtype: str | None = None) -> float:
    """What a guest adds to the model that it is loaded beside: its weights without the VAE, which both share."""
    if not countable(card):
        return card.memory_gb
    sizes = held_bytes(card, BYTES[dtype or card.dtype])
    return sum(size for name, size in sizes.items() if name != "vae") / GB


def check_fits(
    card: ModelCard,
    device: str,
    dtype: str | None = None,
    guests: Sequence[ModelCard] = (),
    have: Collection[str] = (),
) -> None:
    """Raise `LoadError` if the device has too little free memory for the card and those that are loaded beside it.

    have: components of the card that are loaded already
    """
    added = {guest.id: guest_memory_gb(guest, dtype) for guest in guests}
    needed = estimate_memory_gb(card, dtype, have) + sum(added.values())
    free = free_memory_gb(device)
    if free is not None and needed > free - (0 if device == "cpu" else RESERVE_GB):
        beside = "".join(f", {gb:.1f} GB of them for its guest {guest!r}" for guest, gb in added.items())
        raise LoadError(
            f"model {card.id!r} needs about {needed:.1f} GB in {dtype or card.dtype}{beside}, but {device} has "
            f"{free:.1f} GB; `triptych models plan` says what would make it fit, such as tuning it, a half-precision "
            "dtype or a device of its own" + (", or no guests" if added else "")
        )


def free_memory_gb(device: str) -> float | None:
    """Free memory of a device in 10^9 bytes; None if it cannot be known."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device))[0] / GB
    return main_memory_gb()


def device_memory_gb(device: str) -> float | None:
    """All memory of a device in 10^9 bytes; None if it cannot be known."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device))[1] / GB
    return main_memory_gb()


def main_memory_gb() -> float | None:
    """All memory of the machine, not what is free at this instant: the page cache gives way."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    except (AttributeError, ValueError, OSError):
        return None


def most_pixels(card: ModelCard, dtype: str | None, room_gb: float) -> int:
    """The largest area, in pixels and at most the card's own, that a model draws in so much memory.

    What cannot be decoded whole is decoded in tiles of half its sides (`models.tuning.smaller`), and counts as so. What
    a phase needs grows with the area, so two areas tell of all others.
    """
    width, (across, down) = BYTES[dtype or card.dtype], card.native_size
    small, large = need_of(card, width), need_of(card, width, (2 * across, 2 * down))
    areas = [float(card.max_pixels)]
    for phase, one in small.work.items():
        growth = (large.work[phase] - one) / (3 * across * down)
        left = room_gb * GB - small.weights[phase] - one
        pixels = across * down + left / growth if growth > 0 else math.inf if left >= 0 else 0.0
        if phase == "decode" and not card.tuning.get("vae_tiling"):
            pixels *= TILES
        areas.append(pixels)
    return max(0, int(min(areas)))


TILES = 4
"""Of a picture that was too large to be decoded whole."""


def most_pictures(card: ModelCard, dtype: str | None, room_gb: float, limit: int) -> int:
    """How many pictures of the native size a model makes at once in so much memory, at most `limit`."""
    width = BYTES[dtype or card.dtype]
    one, two = need_of(card, width), need_of(card, width, batch=2)
    counts = [float(limit)]
    for phase, first in one.work.items():
        left, growth = room_gb * GB - one.weights[phase] - first, two.work[phase] - first
        counts.append(1 + left / growth if growth > 0 else math.inf if left >= 0 else 0.0)
    return max(0, int(min(counts)))
