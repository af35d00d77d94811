"""The ways in which a model is run: eagerly, compiled, with other kernels, a cache, fewer bits, several pictures at
once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from models.families import FAMILIES
from models.tuning.settings import Tuning
from router.types import ModelCard


@dataclass(frozen=True)
class Way:
    """tuning: as in the serve config;   batch: pictures in one call"""

    name: str
    tuning: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1


EAGER = Way("eager")
ALWAYS = (
    EAGER,
    Way("compile: regional", {"compile": "regional"}),
    Way("compile: full", {"compile": "full"}),
    Way("quantize: int8", {"quantize": "int8"}),
    Way("quantize: fp8", {"quantize": "fp8"}),
    Way("quantize: nf4", {"quantize": "nf4"}),
    Way("vae_tiling: 512", {"vae_tiling": 512}),
    Way("offload: model", {"offload": "model"}),
    Way("offload: group", {"offload": "group"}),
    Way("batch 4", {}, 4),
    Way("batch 8", {}, 8),
)
OF_UNETS = (Way("channels_last", {"channels_last": True}), Way("attention: xformers", {"attention": "xformers"}))
OF_TRANSFORMERS = (
    Way("attention: _native_cudnn", {"attention": "_native_cudnn"}),
    Way("attention: _flash_3", {"attention": "_flash_3"}),
    Way("attention: sage", {"attention": "sage"}),
    Way("cache: first_block 0.1", {"cache": {"first_block": 0.1}}),
)
QUICK = (EAGER, Way("quantize: int8", {"quantize": "int8"}), Way("batch 2", {}, 2))


def ways_of(card: ModelCard, quick: bool) -> tuple[Way, ...]:
    """All ways for a model. What a machine lacks for one of them is found out by trying."""
    if quick:
        return QUICK
    return (*ALWAYS, *(OF_UNETS if FAMILIES[card.family].denoiser == "unet" else OF_TRANSFORMERS))


def run_by(card: ModelCard, way: Way) -> ModelCard:
    """The card as this way tunes it."""
    tuning = Tuning.model_validate(way.tuning)
    return replace(card, tuning=tuning.said(), tuned=tuning.tuned, changes=tuning.changes)
