"""The networks of a model, counted from configurations without a weight: which there are, their parameters, and what
these take in the bits that a tuning gives them.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.families import FAMILIES
from models.tuning.applying import quantized
from models.weights.needs.activations import INPUTS
from models.weights.needs.architectures import Network, published
from models.weights.revisions import components, read_json, remedy
from router.errors import LoadError
from router.types import ModelCard

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
QUANTIZED = {"int8": 1.0, "fp8": 1.0, "nf4": 0.5625}
"""Bytes of a parameter in fewer bits; with a factor for every 64 of them in nf4 (https://arxiv.org/abs/2305.14314)."""

WHOLE = re.compile(r"embed|shared|norm|\bwo\.weight$")

Named = tuple[tuple[str, tuple[int, ...]], ...]
"""(name, shape) of parameters"""


def networks_of(card: ModelCard) -> dict[str, Network]:
    """The networks of a card's pipeline by component: of its folder, of the one in the hub's cache, or as they were
    published. Empty if none of these is known."""
    folder = config_folder(card)
    if folder is None:
        return published(card)
    # A component from elsewhere has the architecture of the one whose place it takes.
    listed = components(replace(card, components={}), folder)
    return {
        name: (library, class_name, read_json(folder / name / "config.json", card))
        for name, (library, class_name) in listed.items()
        if (folder / name / "config.json").is_file()
    }


def countable(card: ModelCard) -> bool:
    """Whether the memory of a card's model can be counted: it draws here, and its networks are known."""
    if card.family not in FAMILIES:
        return False
    networks, denoiser = networks_of(card), FAMILIES[card.family].denoiser
    return "vae" in networks and denoiser in networks and networks[denoiser][1] in INPUTS


def count_parameters(card: ModelCard) -> dict[str, int]:
    """Parameters of each component of a pipeline. `LoadError` if its networks are not known."""
    return {name: sum(math.prod(shape) for _, shape in named) for name, named in _shapes(card).items()}


def weight_bytes(card: ModelCard, width: int) -> dict[str, tuple[float, ...]]:
    """What each parameter of each component takes, wherever it waits. width: bytes of a number that is not quantised.

    In 8-bit integers and in 4 bits are only matrices.
    """
    if card.source.get("onnx"):
        return {name: (float(size),) for name, size in exported_bytes(card).items()}
    kinds = quantized(card)
    made = {}
    for name, named in _shapes(card).items():
        own = card.components.get(name, {}).get("dtype")
        whole = BYTES[str(own)] if own and width < BYTES["float32"] else width
        kind = kinds.get(name, "")
        fewer = min(float(whole), QUANTIZED.get(kind, float(whole)))
        text = name.startswith("text_")
        sizes = [math.prod(shape) * (fewer if _in_fewer(kind, part, shape, text) else whole) for part, shape in named]
        made[name] = tuple(_as_in_file(card, name, sizes))
    return made


def _in_fewer(kind: str, name: str, shape: Sequence[int], text: bool) -> bool:
    """Whether a parameter is kept in fewer bits. Of text encoders neither embeddings are, nor norms, nor what T5 wants
    whole (`models.tuning.applying.KEPT_WHOLE`)."""
    if text and WHOLE.search(name):
        return False
    return kind == "fp8" or len(shape) == 2


def _as_in_file(card: ModelCard, name: str, sizes: list[float]) -> list[float]:
    """A GGUF stays in memory as it is in its file."""
    place = Path(str(card.components.get(name, {}).get("file") or ""))
    if place.suffix != ".gguf" or not place.is_file():
        return sizes
    return [size * place.stat().st_size / sum(sizes) for size in sizes]


def _shapes(card: ModelCard) -> dict[str, Named]:
    """Name and shape of each parameter of each component."""
    if not (networks := networks_of(card)):
        raise LoadError(f"model {card.id!r}: no configuration at hand to count parameters from")
    try:
        return {name: shapes_of(library, kind, as_text(config)) for name, (library, kind, config) in networks.items()}
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LoadError(
            f"model {card.id!r}: its configuration describes no {card.family} model: {first}; {remedy(card)}"
        ) from error


def as_text(config: Mapping[str, Any]) -> str:
    """A configuration as something that can be remembered."""
    return json.dumps(config, sort_keys=True)


@functools.lru_cache(maxsize=64)
def shapes_of(library: str, class_name: str, config: str) -> Named:
    """Name and shape of each parameter of a network, from its configuration `as_text`."""
    return tuple(_parameters(library, class_name, json.loads(config)).items())


def parameter_names(library: str, class_name: str, config: Mapping[str, Any]) -> list[str]:
    """What a network calls its parameters."""
    return list(_parameters(library, class_name, config))


def _parameters(library: str, class_name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    network = build_empty(library, class_name, config)
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}


def build_empty(library: str, class_name: str, config: Mapping[str, Any]) -> Any:
    """A network of diffusers or transformers from its configuration, on the `meta` device: shapes, and no weights."""
    import torch

    cls = getattr(importlib.import_module("transformers" if library == "transformers" else "diffusers"), class_name)
    with torch.device("meta"):
        return cls(cls.config_class.from_dict(config)) if library == "transformers" else cls.from_config(config)


def exported_bytes(card: ModelCard) -> dict[str, int]:
    """Bytes of the graphs of each component of an exported folder."""
    folder = Path(str(card.source["onnx"]))
    return {
        name: sum(file.stat().st_size for file in (folder / name).rglob("model.onnx*"))
        for name in components(card, folder)
    }


def has_configuration(card: ModelCard) -> bool:
    """Is there a configuration in a folder or in the hub's cache?"""
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
