"""Pipelines of the published architectures with random weights, saved as folders that the loader reads: what they take
of time and memory does not depend on the numbers, so nothing is downloaded.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models import load_card
from models.families import FAMILIES
from models.weights.loading import pipeline_class, quieten
from models.weights.needs.architectures import NOISE, Network, published
from router.types import ModelCard

STD = 0.02
CLIP_TOKENS, T5_TOKENS = 77, 512
LETTERS = string.ascii_lowercase + string.digits

MODELS = ("sd15", "sdxl", "sdxl-refiner", "sdxl-turbo", "flux-schnell", "flux-dev")

_TEXT = {"num_hidden_layers": 2, "num_attention_heads": 4}
_VAE = {"block_out_channels": (32, 64, 128, 128)}
_SDXL = {"addition_time_embed_dim": 32, "attention_head_dim": (2, 4, 8)}
SMALL: dict[str, dict[str, Any]] = {
    "CLIPTextModel": {**_TEXT, "hidden_size": 64, "intermediate_size": 128, "projection_dim": 64},
    "CLIPTextModelWithProjection": {**_TEXT, "hidden_size": 128, "intermediate_size": 256, "projection_dim": 128},
    "T5EncoderModel": {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_heads": 4, "num_layers": 2},
    "AutoencoderKL": _VAE,
    "sd15": {"block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 64},
    "sdxl": {
        **_SDXL,
        "block_out_channels": (32, 64, 128),
        "transformer_layers_per_block": (1, 1, 2),
        "cross_attention_dim": 64 + 128,
        "projection_class_embeddings_input_dim": 128 + 6 * 32,
    },
    "sdxl-refiner": {
        **_SDXL,
        "block_out_channels": (32, 64, 128, 128),
        "attention_head_dim": (2, 4, 8, 8),
        "transformer_layers_per_block": 1,
        "cross_attention_dim": 128,
        "projection_class_embeddings_input_dim": 128 + 5 * 32,
    },
    "FluxTransformer2DModel": {
        "num_layers": 2,
        "num_single_layers": 4,
        "num_attention_heads": 4,
        "attention_head_dim": 32,
        "axes_dims_rope": (8, 12, 12),
        "joint_attention_dim": 64,
        "pooled_projection_dim": 64,
    },
}
"""What differs in the scaled-down form, by class, and by model where networks of one class differ."""
SMALL["sdxl-turbo"] = SMALL["sdxl"]


def networks(
    model: str, small: bool = False, more: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Network]:
    """The networks of a model at full size, or scaled down. more: what else differs, by component"""
    found = {}
    for part, (library, kind, config) in published(load_card(f"real/{model}")).items():
        less = SMALL.get(kind, SMALL.get(model, {})) if small else {}
        found[part] = (library, kind, {**config, **less, **(more or {}).get(part, {})})
    return found


def write(
    model: str,
    folder: Path,
    small: bool = False,
    dtype: str = "float32",
    device: str = "cpu",
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> ModelCard:
    """A card over a folder with random weights of a model, which is written. device: where numbers are drawn"""
    quieten()
    card = load_card(f"real/{model}")
    parts: dict[str, Any] = {}
    for name, network in networks(model, small, more).items():
        # One after the other: the largest alone takes 24 GB.
        _drawn(network, getattr(torch, dtype), device).save_pretrained(folder / name, safe_serialization=True)
        parts[name] = [network[0], network[1]]
    parts |= _others(card, folder, tuple(parts))
    cls = pipeline_class(card)
    known = {"requires_aesthetics_score": True} if card.role == "refiner" else {}
    index = {"_class_name": cls.__name__, **known, **{name: [None, None] for name in _absent(card)}, **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return replace(card, id=model, source={"local": str(folder), "revision": "random"})


def _drawn(network: Network, dtype: torch.dtype, device: str) -> Any:
    import importlib

    library, kind, config = network
    cls = getattr(importlib.import_module(library), kind)
    with torch.device("meta"):
        made = cls(cls.config_class(**config)) if library == "transformers" else cls(**config)
    torch.nn.Module.to(made, dtype)
    made.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in made.parameters():
        parameter.data.normal_(std=STD, generator=generator)
    return made


def _others(card: ModelCard, folder: Path, parts: tuple[str, ...]) -> dict[str, list[str]]:
    """Scheduler and tokenizers, which read letters: what a prompt says makes no difference here, and its length is
    always filled up."""
    import diffusers

    row = FAMILIES[card.family]
    shifting = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    scheduler = shifting if row.flow else diffusers.EulerDiscreteScheduler(**NOISE)
    scheduler.save_pretrained(folder / "scheduler")
    made = {"scheduler": ["diffusers", type(scheduler).__name__]}
    for encoder in parts:
        if encoder.startswith("text_encoder"):
            tokenizer = _t5() if row.flow and encoder == "text_encoder_2" else _clip()
            name = encoder.replace("text_encoder", "tokenizer")
            tokenizer.save_pretrained(folder / name)
            made[name] = ["transformers", type(tokenizer).__name__]
    return made


def _absent(card: ModelCard) -> tuple[str, ...]:
    """Components that the pipeline's class takes and this checkpoint has none of."""
    if card.family == "sd15":
        return ("safety_checker", "feature_extractor", "image_encoder")
    return ("text_encoder", "tokenizer") if card.role == "refiner" else ("image_encoder", "feature_extractor")


def _clip() -> Any:
    from transformers import CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(letter + "</w>" for letter in LETTERS)]
    return CLIPTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[], model_max_length=CLIP_TOKENS)


def _t5() -> Any:
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=T5_TOKENS)
