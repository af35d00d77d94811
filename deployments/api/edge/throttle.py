"""Whoever is refused for want of room is let in more slowly, until there is room again.

A refusal costs the application nearly what a decision does: the request crosses the proxy, an ingress and the
orchestrator. At ten times what the workers can draw, refusing would take the processor from drawing. So while the
application refuses somebody, the edge refuses most of what that client sends at once, in the application's own words.
What it lets in follows what is taken, as in adaptive throttling (Google, Site Reliability Engineering, chapter 21,
https://sre.google/sre-book/handling-overload/), by rates and not by shares: pictures may take longer than any window.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import LRUCache

HOLD_S = 2.0
"""So long after a refusal the application is taken to be full for whoever met it."""
HALF_LIFE_S = 5.0
"""Of what is counted as taken."""
AHEAD = 1.5
"""So many times what is taken is let in: enough to notice that there is room again."""
LEAST_PER_S = 2.0
BURST = 8.0
CLIENTS = 4096
"""That are remembered; those that were quiet for longest are forgotten."""


@dataclass
class _Client:
    """refused_s: when the application last refused it;   back_s: when it was told to come back;   taken: how many
    of its requests were, decaying;   room: how many may enter now; both as of `seen_s`"""

    seen_s: float
    refused_s: float = -math.inf
    back_s: float = 0.0
    taken: float = 0.0
    room: float = BURST

    def pass_to(self, now_s: float) -> None:
        """Bring what decays and what fills up to the present."""
        passed_s = max(0.0, now_s - self.seen_s)
        self.room = min(BURST, self.room + passed_s * (AHEAD * self.taken_per_s + LEAST_PER_S))
        self.taken *= 0.5 ** (passed_s / HALF_LIFE_S)
        self.seen_s = now_s

    @property
    def taken_per_s(self) -> float:
        return self.taken * math.log(2) / HALF_LIFE_S


class Throttle:
    """Of one proxy. now: seconds on a clock that never goes back"""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._clients: LRUCache[str, _Client] = LRUCache(CLIENTS)

    def refuses(self, client: str) -> float | None:
        """Seconds after which to come back, if this request is not to be let in; None if it is."""
        known, now_s = self._clients.get(client), self._now()
        if known is None or now_s - known.refused_s > HOLD_S:
            return None
        known.pass_to(now_s)
        if known.room >= 1:
            known.room -= 1
            return None
        return max(1.0, known.back_s - now_s)

    def took(self, client: str) -> None:
        """The application took a request."""
        known = self._of(client)
        known.taken += 1

    def refused(self, client: str, retry_after_s: float) -> None:
        """The application refused one for want of room, and said when to come back."""
        known = self._of(client)
        known.refused_s, known.back_s = known.seen_s, known.seen_s + retry_after_s

    def _of(self, client: str) -> _Client:
        now_s = self._now()
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client(now_s)
        known.pass_to(now_s)
        return known
