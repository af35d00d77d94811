"""How much memory a model needs, counted from its configuration without loading a weight, and whether it fits."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from models.families import FAMILIES
from models.weights.revisions import components, read_json
from router.errors import LoadError
from router.types import ModelCard

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
QUANTIZED = {"int8": 1.0, "fp8": 1.0, "nf4": 0.5625}
"""Bytes of a parameter in fewer bits; with a factor for every 64 of them in nf4 (https://arxiv.org/abs/2305.14314)."""
GB = 1e9
RESERVE_GB = 0.5
"""Context and allocator of the device, which no parameter count shows."""


def count_parameters(card: ModelCard) -> dict[str, int]:
    """Parameters of each component of a pipeline folder, built from its config on the `meta` device.

    The folder is the card's `local` (or `config`) path, or the hub's cache; `LoadError` if neither is there.
    """
    return {name: sum(map(math.prod, shapes)) for name, shapes in _shapes(card).items()}


def _shapes(card: ModelCard) -> dict[str, list[tuple[int, ...]]]:
    """The shape of each parameter of each component."""
    folder = config_folder(card)
    if folder is None:
        raise LoadError(f"model {card.id!r}: no configuration at hand to count parameters from")
    found = {}
    for name, (library, class_name) in components(card, folder).items():
        if (folder / name / "config.json").is_file():
            model = build_empty(library, class_name, read_json(folder / name / "config.json", card))
            found[name] = [tuple(parameter.shape) for parameter in model.parameters()]
    return found


def held_bytes(card: ModelCard, width: int) -> dict[str, float]:
    """What each component of a card occupies of its device between steps, in the bits that its tuning gives it; nothing
    if they wait in the memory of the CPU. width: bytes of a parameter"""
    return {} if card.tuning.get("offload") else {name: sum(parts) for name, parts in _sizes(card, width).items()}


def working_bytes(card: ModelCard, width: int) -> float:
    """What a card's model needs beside that, at most, while it runs at native size.

    Of what is offloaded, that is what is on the device at once: the largest network, or the VAE while it decodes; of
    layers, the largest and the one that follows it.
    """
    activations = activation_bytes(card, width)
    if (offload := card.tuning.get("offload")) is None:
        return activations
    sizes = _sizes(card, width)
    if offload == "group":
        return 2.0 * max(max(parts, default=0.0) for parts in sizes.values()) + activations
    return max(*(sum(parts) for parts in sizes.values()), sum(sizes.get("vae", ())) + activations)


def _sizes(card: ModelCard, width: int) -> dict[str, list[float]]:
    """Bytes of each parameter of each component. In 8-bit integers and in 4 bits are only matrices."""
    if card.source.get("onnx"):
        return {name: [float(size)] for name, size in exported_bytes(card).items()}
    quantize = str(card.tuning.get("quantize"))
    fewer = min(float(width), QUANTIZED.get(quantize, float(width)))
    network = FAMILIES[card.family].denoiser
    return {
        name: [
            math.prod(shape) * (fewer if name == network and (quantize == "fp8" or len(shape) == 2) else width)
            for shape in shapes
        ]
        for name, shapes in _shapes(card).items()
    }


def estimate_memory_gb(card: ModelCard, dtype: str | None = None, have: Collection[str] = ()) -> float:
    """Weights in `dtype` (default: the card's), plus the largest activations, at native size, in 10^9 bytes.

    have: components that are loaded already.   Falls back to the card's `memory_gb` when no configuration is at hand.
    """
    if card.role == "scorer" or config_folder(card) is None:
        return card.memory_gb
    width = BYTES[dtype or card.dtype]
    weights = sum(size for name, size in held_bytes(card, width).items() if name not in have)
    return (weights + working_bytes(card, width)) / GB


def guest_memory_gb(card: ModelCard, dtype: str | None = None) -> float:
    """What a guest adds to the model that it is loaded beside: its weights without the VAE, which both share."""
    if config_folder(card) is None:
        return card.memory_gb
    sizes = held_bytes(card, BYTES[dtype or card.dtype])
    return sum(size for name, size in sizes.items() if name != "vae") / GB


def activation_bytes(card: ModelCard, width: int) -> float:
    """The peak of activations: decoding the last block of the VAE, three full-size maps of its second width.

    VAEs marked `force_upcast` decode in float32 whatever the weights are.
    """
    folder = config_folder(card)
    config = read_json(folder / "vae" / "config.json", card) if folder else {}
    blocks = config.get("block_out_channels") or [config.get("base_dim", 128) * n for n in config.get("dim_mult", [1])]
    pixels = card.native_size[0] * card.native_size[1]
    if tiling := card.tuning.get("vae_tiling"):
        sample = config.get("sample_size") or card.native_size[0]
        side = int(sample) if tiling is True else int(str(tiling))
        pixels = min(pixels, side * side)
    # VAEs for films know no upcasting; of the others, old configurations leave out that they do.
    upcast = config.get("force_upcast", "base_dim" not in config)
    return 3.0 * pixels * blocks[:2][-1] * (4 if upcast else width)


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
            f"{free:.1f} GB; use a half-precision dtype, a smaller model, or a device of its own"
            + (", or no guests" if added else "")
        )


def free_memory_gb(device: str) -> float | None:
    """Free memory of a device in 10^9 bytes; None if it cannot be known."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device))[0] / GB
    try:
        # All of it, not what is free at this instant: the page cache gives way.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    except (AttributeError, ValueError, OSError):
        return None


def has_configuration(card: ModelCard) -> bool:
    """Is there a configuration to count from, in a folder or in the hub's cache?"""
    return config_folder(card) is not None


def config_folder(card: ModelCard) -> Path | None:
    """The folder with the configuration of a card's pipeline: its own, or the one in the hub's cache."""
    place = card.source.get("local") or card.source.get("onnx") or card.source.get("config")
    if place is None and card.source.get("hub"):
        from huggingface_hub import try_to_load_from_cache

        revision = card.source.get("revision")
        found = try_to_load_from_cache(
            str(card.source["hub"]), "model_index.json", revision=str(revision) if revision else None
        )
        place = str(Path(found).parent) if isinstance(found, str) else None
    folder = Path(str(place)) if place else None
    return folder if folder is not None and (folder / "model_index.json").is_file() else None


def exported_bytes(card: ModelCard) -> dict[str, int]:
    """Bytes of the graphs of each component of an exported folder."""
    folder = Path(str(card.source["onnx"]))
    return {
        name: sum(file.stat().st_size for file in (folder / name).rglob("model.onnx*"))
        for name in components(card, folder)
    }


def build_empty(library: str, class_name: str, config: dict[str, Any]) -> Any:
    """A network of diffusers or transformers from its configuration, on the `meta` device: shapes, and no weights."""
    import torch

    cls = getattr(importlib.import_module("transformers" if library == "transformers" else "diffusers"), class_name)
    with torch.device("meta"):
        if library == "transformers":
            return cls(cls.config_class.from_dict(config))
        return cls.from_config(config)
