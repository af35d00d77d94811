"""Ways to need less memory, from the cheapest to the most expensive, and the first that suffices."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from models.families import FAMILIES
from models.tuning.settings import Tuning
from models.weights.needs.memory import GB, Need, most_pictures, most_pixels, need_of
from models.weights.needs.networks import BYTES, countable
from router.types import ModelCard

TILE = 512


@dataclass(frozen=True)
class Change:
    """keys: of `tuning`;   same_pictures: whether pictures stay the same;   price: what else it costs, in words"""

    keys: Mapping[str, Any]
    same_pictures: bool
    price: str

    @property
    def words(self) -> str:
        """As it is written in the serve config."""
        return "as it comes" if not self.keys else ", ".join(f"{key}: {value}" for key, value in self.keys.items())


def _made(*changes: Change) -> Change:
    keys = {key: value for change in changes for key, value in change.keys.items()}
    prices = "; ".join(change.price for change in changes if change.price)
    return Change(keys, all(change.same_pictures for change in changes), prices)


NOTHING = Change({}, True, "")
TILES = Change({"vae_tiling": TILE}, False, "pictures above a tile change a little where tiles meet")
WHOLE = Change({"offload": "model"}, True, "every network crosses the bus once a picture")
LAYERS = Change({"offload": "group"}, True, "every layer crosses the bus in every step")
FP8 = Change({"quantize": "fp8"}, False, "weights at rest in 8 bits: other pictures, nearly as good")
NF4 = Change({"quantize": "nf4"}, False, "weights in 4 bits: other pictures; needs bitsandbytes")

CHANGES: tuple[Change, ...] = (
    NOTHING, TILES, FP8, _made(FP8, TILES), WHOLE, _made(WHOLE, TILES), _made(WHOLE, FP8), _made(WHOLE, FP8, TILES),
    _made(WHOLE, NF4), _made(WHOLE, NF4, TILES), LAYERS, _made(LAYERS, TILES),
)  # fmt: skip
"""In the order in which they are tried: what costs no seconds, what costs some in each picture, and in each step."""


@dataclass(frozen=True)
class Fit:
    """How a model fits: its card tuned by `change`, what it needs then (bytes), and the memory that there is.

    limit: more pictures at once are not asked for
    """

    card: ModelCard
    dtype: str | None
    change: Change
    need: Need
    room_gb: float
    limit: int

    @property
    def total_gb(self) -> float:
        return self.need.total / GB

    @functools.cached_property
    def pixels(self) -> int:
        """The largest area that it draws there."""
        return most_pixels(self.card, self.dtype, self.room_gb) if countable(self.card) else self.card.max_pixels

    @functools.cached_property
    def pictures(self) -> int:
        """How many pictures of its native size it makes at once."""
        return most_pictures(self.card, self.dtype, self.room_gb, self.limit) if countable(self.card) else self.limit


def tuned_by(card: ModelCard, change: Change) -> ModelCard:
    """The card as the catalogue would make it with these keys beside those that it has."""
    tuning = Tuning.model_validate({**card.tuning, **change.keys})
    return replace(card, tuning=tuning.said(), tuned=tuning.tuned, changes=tuning.changes)


def need_at(card: ModelCard, dtype: str | None, size: tuple[int, int] | None = None, batch: int = 1) -> Need:
    """What a model needs; of one whose networks are not known, the guess of its card."""
    if not countable(card):
        return Need({card.id: card.memory_gb * GB}, {"work": card.memory_gb * GB}, {"work": 0.0})
    return need_of(card, BYTES[dtype or card.dtype], size, batch)


def fit_in(
    card: ModelCard,
    dtype: str | None,
    room_gb: float,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    same_pictures: bool = False,
    limit: int = 8,
) -> Fit | None:
    """The cheapest change with which a model makes `batch` pictures of a size at once in so much memory; None if none
    suffices. same_pictures: only those that change none;   limit: more pictures at once are not asked for"""
    for change in CHANGES if countable(card) else (NOTHING,):
        if (same_pictures and not change.same_pictures) or not _applies(card, change):
            continue
        tuned = tuned_by(card, change)
        need = need_at(tuned, dtype, size, batch)
        if need.total <= room_gb * GB:
            return Fit(tuned, dtype, change, need, room_gb, limit)
    return None


def least(card: ModelCard, dtype: str | None, size: tuple[int, int] | None, batch: int, same_pictures: bool) -> Fit:
    """The change with which a model needs least, whatever it costs."""
    changes = [
        change
        for change in (CHANGES if countable(card) else (NOTHING,))
        if _applies(card, change) and (change.same_pictures or not same_pictures)
    ]
    fits = [(change, need_at(tuned_by(card, change), dtype, size, batch)) for change in changes]
    change, need = min(fits, key=lambda fit: fit[1].total)
    return Fit(tuned_by(card, change), dtype, change, need, need.total / GB, batch)


def _applies(card: ModelCard, change: Change) -> bool:
    """Whether a change is none of what the operator chose, and the loader follows it."""
    taken = any(card.tuning.get(key) not in (None, value) for key, value in change.keys.items())
    by_file = change.keys.get("quantize") == "nf4" and bool(card.source.get("file"))
    guests = "offload" in change.keys and bool(card.guests)
    return (card.family in FAMILIES and not (taken or by_file or guests)) or change is NOTHING
