"""How often requests were refused lately, by reason: in memory, since whoever refuses much has no time to write."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

SLICE_S = 600.0


class Refusals:
    """Counts within a window that moves on by slices. clock: Unix seconds"""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.time) -> None:
        self._window_s = window_s
        self._clock = clock
        self._slices: deque[tuple[float, Counter[str]]] = deque()

    def count(self, reason: str) -> None:
        """One more. reason: the code of the failure"""
        self._forget()
        at = self._clock() // SLICE_S * SLICE_S
        if not self._slices or self._slices[-1][0] != at:
            self._slices.append((at, Counter()))
        self._slices[-1][1][reason] += 1

    def counts(self) -> Mapping[str, int]:
        """How many there were of each reason, the most frequent first."""
        self._forget()
        return dict(sum((counter for _, counter in self._slices), Counter[str]()).most_common())

    def _forget(self) -> None:
        """Drop what is past the window, whether or not anybody ever asks."""
        while self._slices and self._slices[0][0] <= self._clock() - self._window_s:
            self._slices.popleft()
