"""What a model may be asked to load beside its pipeline, once a recipe first wants it: ControlNets, and encoders and
layers of styles that draw after a reference picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.families import FAMILIES
from models.weights.files import header
from models.weights.needs.networks import as_text, shapes_of
from models.weights.revisions import read_json
from models.weights.style_files import ENCODERS, file_of, folder_of
from router.errors import LoadError, StepError
from router.types import ModelCard


def addition_bytes(card: ModelCard, width: int) -> dict[str, float]:
    """What each of them takes, of those whose configuration is at hand: in their folder or in the hub's cache.

    width: bytes of a number.   Raises `LoadError` if a configuration cannot be read.
    """
    return {**_control_bytes(card, width), **_reference_bytes(card, width)}


def _control_bytes(card: ModelCard, width: int) -> dict[str, float]:
    family = FAMILIES.get(card.family)
    if family is None or family.control is None:
        return {}
    made = {}
    for kind, source in card.controlnets.items():
        if (file := _control_config(source)) is not None:
            made[f"control {kind}"] = width * _parameters("diffusers", family.control.network, file, card)
    return made


def _control_config(source: Mapping[str, Any]) -> Path | None:
    if source.get("path"):
        file = Path(str(source["path"])) / "config.json"
        return file if file.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    revision = source.get("revision")
    found = try_to_load_from_cache(str(source["hub"]), "config.json", revision=str(revision) if revision else None)
    return Path(found) if isinstance(found, str) else None


def _reference_bytes(card: ModelCard, width: int) -> dict[str, float]:
    """The largest encoders, of which `ENCODERS` are kept, and the largest adapter, of which one is worn at a time.

    Nothing if parts of the model are offloaded: then no adapter can be worn (`router.planning.styles`).
    """
    if card.tuning.get("offload"):
        return {}
    encoders: dict[Path, float] = {}
    adapters: dict[str, float] = {}
    for style in card.styles.values():
        if style.kind != "ip_adapter" or style.family != card.family:
            continue
        try:
            folder, file = folder_of(style), file_of(style)
        except StepError:
            continue
        if (config := folder / "config.json").is_file() and file.is_file():
            encoders[folder.resolve()] = width * _parameters(
                "transformers", "CLIPVisionModelWithProjection", config, card
            )
            adapters[f"style {style.id}"] = float(width * _numbers(card, file))
    kept = sorted(encoders.items(), key=lambda item: -item[1])[:ENCODERS]
    worn = sorted(adapters.items(), key=lambda item: -item[1])[:1]
    return {f"encoder {folder}": size for folder, size in kept} | dict(worn)


def _numbers(card: ModelCard, file: Path) -> int:
    """How many a file of safetensors holds; none if it cannot be read, as whoever wears the style is told then."""
    try:
        return sum(math.prod(entry["shape"]) for entry in header(card, file, "").values())
    except (OSError, LoadError):
        return 0


def _parameters(library: str, class_name: str, file: Path, card: ModelCard) -> float:
    config = {key: value for key, value in read_json(file, card).items() if not key.startswith("_")}
    return float(sum(math.prod(shape) for _, shape in shapes_of(library, class_name, as_text(config))))
