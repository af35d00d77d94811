"""Which models of a process stay in memory when the next one would not fit.

Given up is the model whose loss costs least: seconds of loading it again, times how likely it is to be used, which is a
count of its steps that decays with time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Protocol

from router.errors import LoadError

GIB = 2**30
HALF_LIFE_S = 600.0
"""After which a step counts half of what it did."""


class Occupied(Protocol):
    """What a model occupies, in bytes (`models.weights.needs.footprints.Footprint`)."""

    @property
    def weights(self) -> Mapping[Hashable, float]: ...

    @property
    def working(self) -> float: ...


class MemoryPlan:
    """Knows what models occupy, what they cost to load, how much they are used, and what there is.

    occupied:    asked once for each model
    limit_bytes: what weights and work may take together; None: no limit
    free_bytes:  what the device has at the moment; None: not to be counted
    """

    def __init__(
        self,
        occupied: Callable[[str], Occupied],
        limit_bytes: float | None = None,
        free_bytes: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._occupied = occupied
        self._known: dict[str, Occupied] = {}
        self._limit = limit_bytes
        self._free = free_bytes
        self._clock = clock
        self._uses: dict[str, tuple[float, float]] = {}
        self._load_s: dict[str, float] = {}

    def used(self, model: str) -> None:
        """A step of a model has arrived."""
        self._uses[model] = (self._likelihood(model) + 1.0, self._clock())

    def loaded(self, model: str, seconds: float) -> None:
        """A model was loaded, which took so long."""
        self._load_s[model] = seconds

    def check(self, model: str) -> None:
        """Raise `LoadError` if a model is too large even when it is alone."""
        alone = self._together([model])
        if self._limit is not None and alone > self._limit:
            raise LoadError(
                f"model {model!r} takes about {alone / GIB:.2f} GiB, but its worker may take {self._limit / GIB:.2f} "
                "GiB (memory_gib); raise that, or give it a smaller dtype"
            )

    def fits(self, model: str, held: Collection[str]) -> bool:
        """Whether a model can be loaded beside those that are held."""
        if self._limit is not None and self._together([model, *held]) > self._limit:
            return False
        if self._free is None:
            return True
        have = {key for other in held for key in self._of(other).weights}
        more = sum(size for key, size in self._of(model).weights.items() if key not in have)
        return more + self._of(model).working <= self._free()

    def victim(self, held: Collection[str]) -> str | None:
        """The model of those that are held whose loss costs least; None if there is none."""
        return min(held, key=self._worth, default=None)

    def _worth(self, model: str) -> tuple[float, float]:
        load_s = self._load_s.get(model, 0.0)
        return load_s * self._likelihood(model), load_s

    def _likelihood(self, model: str) -> float:
        count, at = self._uses.get(model, (0.0, 0.0))
        return float(count * 0.5 ** ((self._clock() - at) / HALF_LIFE_S))

    def _together(self, models: Collection[str]) -> float:
        """Bytes of models in one process: each network once, and room for the one that works with most."""
        weights = {key: size for model in models for key, size in self._of(model).weights.items()}
        return sum(weights.values()) + max(self._of(model).working for model in models)

    def _of(self, model: str) -> Occupied:
        if model not in self._known:
            self._known[model] = self._occupied(model)
        return self._known[model]
