"""Models onto GPUs: each where it fits with the cheapest change, together where that is possible, else in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.fitting.changes import CHANGES, Fit, fit_in, least, need_at
from models.fitting.gpus import Gpu
from models.weights.needs.memory import GB
from router.types import ModelCard


@dataclass(frozen=True)
class Wanted:
    """A model that is to be served. dtype: of its weights, None: the card's;   guests: cards whose weights its worker
    holds, too;   batch: pictures at once at most"""

    card: ModelCard
    dtype: str | None = None
    guests: tuple[ModelCard, ...] = ()
    batch: int = 8


@dataclass(frozen=True)
class Place:
    """A GPU with the models of the worker on it. together: all of them stay in its memory; else they leave it to one
    another"""

    gpu: Gpu
    fits: tuple[Fit, ...]
    together: bool

    @property
    def used_gb(self) -> float:
        """Weights that stay, and the work of the model that needs most for it; in turns, the largest model."""
        return (_together if self.together else _largest)(self.fits) / GB


@dataclass(frozen=True)
class Refused:
    """A model that fits nowhere. best: the way in which it needs least"""

    card: ModelCard
    best: Fit
    largest: Gpu

    @property
    def reason(self) -> str:
        """In words, with the remedy."""
        how = "" if not self.best.change.keys else f" even with `tuning: {{{self.best.change.words}}}`"
        return (
            f"model {self.card.id!r} fits on none of these GPUs: it needs {self.best.total_gb:.1f} GB{how}, and the "
            f"largest has {self.largest.room_gb:.1f} GB for models; give it one with more memory, a smaller size, or "
            "leave it out"
        )


@dataclass(frozen=True)
class Plan:
    """places: one for each GPU;   refused: models that fit on none"""

    places: tuple[Place, ...]
    refused: tuple[Refused, ...]


def plan(
    wanted: Sequence[Wanted],
    gpus: Sequence[Gpu],
    size: tuple[int, int] | None = None,
    batch: int = 1,
    same_pictures: bool = False,
) -> Plan:
    """Places every model that can be placed, the largest first.

    A model goes, unchanged, where there is room beside others, where most is left. If there is none, the cheapest
    change decides, and where it is the same, the GPU with most room: models that do not fit there together leave the
    memory to one another. size, batch: of the pictures that all of them have to be able to make (default: one of their
    native size).
    """
    largest = max(gpus, key=lambda gpu: gpu.memory_gb)
    loads: list[list[Fit]] = [[] for _ in gpus]
    refused: list[Refused] = []
    for one in sorted(wanted, key=lambda one: -_plain(one, size, batch)):
        found = [
            (fit, number)
            for number, gpu in enumerate(gpus)
            if (fit := fit_in(one.card, one.dtype, _room(gpu, one), size, batch, same_pictures, one.batch)) is not None
        ]
        beside = [
            (fit, number)
            for fit, number in found
            if not fit.change.keys and _together([*loads[number], fit]) <= gpus[number].room_gb * GB
        ]
        if choices := beside or found:
            fit, number = min(choices, key=lambda choice: _cost(choice[0], loads[choice[1]], gpus[choice[1]]))
            loads[number].append(fit)
        else:
            best = least(one.card, one.dtype, size, batch, same_pictures)
            refused.append(Refused(one.card, best, largest))
    places = tuple(
        Place(gpu, tuple(load), _together(load) <= gpu.room_gb * GB) for gpu, load in zip(gpus, loads, strict=True)
    )
    return Plan(places, tuple(refused))


def _plain(one: Wanted, size: tuple[int, int] | None, batch: int) -> float:
    return need_at(one.card, one.dtype, size, batch).total


def _room(gpu: Gpu, one: Wanted) -> float:
    """What is left beside the weights of guests, which stay there."""
    return gpu.room_gb - sum(sum(need_at(guest, one.dtype).held.values()) for guest in one.guests) / GB


def _cost(fit: Fit, load: Sequence[Fit], gpu: Gpu) -> tuple[int, bool, float]:
    together = _together([*load, fit])
    return CHANGES.index(fit.change), together > gpu.room_gb * GB, together - gpu.room_gb * GB


def _together(fits: Sequence[Fit]) -> float:
    """Bytes of models that all stay: their weights, and room for the one that needs most beside those."""
    held = sum(sum(fit.need.held.values()) for fit in fits)
    return held + max((fit.need.total - sum(fit.need.held.values()) for fit in fits), default=0.0)


def _largest(fits: Sequence[Fit]) -> float:
    return max((fit.need.total for fit in fits), default=0.0)
