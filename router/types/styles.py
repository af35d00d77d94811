"""Styles: what a pipeline wears for one picture, as data. `models/styles` reads, trains and wears them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Wearing = tuple[tuple[str, float], ...]
"""(id, weight) of each style that is worn, by id; a weight of 0 is not worn, and not in it."""


MAX_STYLES = 4
"""Styles of one picture."""


@dataclass(frozen=True, slots=True)
class Style:
    """One style of an installation.

    family:   of the models that may wear it;   latent_space: of those, the ones with this space; "": all of them
    kind:     what of a pipeline it changes; `models/styles/kinds.py` has the table
    source:   `file` (.safetensors), or `text`, or nothing, as its kind needs;   settings: further numbers of its kind
    weight:   what a request's weight of 1 stands for
    trigger:  what it adds to the prompt, where its kind does;   licence: of the file
    steps:    kinds of steps that may wear it;   least, most: weights that may be asked for
    many:     whether several of its kind may be worn together;   blends: weights between 0 and 1 mean something
    passes:   how often more the network is run in a step, at whatever weight
    """

    id: str
    family: str
    kind: str
    source: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0
    trigger: str = ""
    licence: str = "unknown"
    settings: Mapping[str, str | int | float | bool | Mapping[str, float] | Mapping[str, str] | None] = field(
        default_factory=dict
    )
    latent_space: str = ""
    description: str = ""
    steps: tuple[str, ...] = ("generate", "refine")
    least: float = 0.0
    most: float = 1.0
    many: bool = True
    blends: bool = True
    passes: int = 0
    card_path: str = ""


def wearing(weights: Mapping[str, float] | Iterable[tuple[str, float]]) -> Wearing:
    """Weights by id in their one order, without those of 0; a later weight of an id counts."""
    found = {style: round(float(weight), 4) for style, weight in dict(weights).items()}
    return tuple(sorted((style, weight) for style, weight in found.items() if weight))


def spelled(worn: Wearing) -> str:
    """As keys of recipes and settings of steps say it: `film*0.7+outlined*1`."""
    return "+".join(f"{style}*{weight:g}" for style, weight in worn)


def worn_by(text: str) -> Wearing:
    """What `spelled` wrote. Raises ValueError for anything else."""
    parts = [part.rpartition("*") for part in text.split("+") if part]
    if any(not style for style, _, _ in parts):
        raise ValueError(f"{text!r} is not NAME*WEIGHT, joined by +")
    return wearing((style, float(weight)) for style, _, weight in parts)
