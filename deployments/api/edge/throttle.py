"""Who is let in at once, and who is told when to come back, before any of it costs the application.

A refusal costs the application nearly what a decision does: the request crosses the proxy, an ingress and the
orchestrator. At ten times what the workers can draw, deciding and refusing would take the processor from drawing. So

- no more requests are inside at the same time than `MOST`, and when so many are, each client may have its share of
  them; who is refused is given a turn of its own, by the rate at which requests have been done;
- while the application refuses somebody for want of room, that client is let in at the rate at which its requests are
  taken, and a little more: adaptive throttling (Google, Site Reliability Engineering, chapter 21,
  https://sre.google/sre-book/handling-overload/), by rates and not by shares: pictures may take longer than any window.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import LRUCache

MOST = 128
"""Requests inside at once: enough for batches and for reordering, and each is a decision that has to be made."""
HOLD_S = 2.0
"""So long after a refusal the application is taken to be full for whoever met it."""
HALF_LIFE_S = 5.0
"""Of what is counted as taken."""
AHEAD = 1.5
"""So many times what is taken is let in: enough to notice that there is room again."""
LEAST_PER_S = 2.0
BURST = 8.0
FIRST_PER_S = 4.0
"""How fast requests are taken to be done until some were."""
LONGEST_S = 120.0
"""To come back after; who knows what is then?"""
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
    """Of one proxy. now: seconds on a clock that never goes back;   most: requests inside at once"""

    def __init__(self, now: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        self._now, self._most = now, most
        self._clients: LRUCache[str, _Client] = LRUCache(CLIENTS)
        self._inside: Counter[str] = Counter()
        self._done, self._busy_s = FIRST_PER_S, 1.0  # both decay with the time in which something is inside
        self._counted_s = self._turn_s = now()

    def refuses(self, client: str) -> float | None:
        """Seconds after which to come back, if this request is not to be let in; None if it is: then it is inside
        until `leaves`."""
        now_s = self._now()
        self._count(now_s)
        known = self._clients.get(client)
        if known is not None and now_s - known.refused_s <= HOLD_S:
            known.pass_to(now_s)
            if known.room < 1:
                return max(1.0, known.back_s - now_s)
            known.room -= 1
        if self._inside.total() >= self._most and self._inside[client] >= self._most / len({*self._inside, client}):
            per_s = self._done / self._busy_s
            turn_s = max(now_s + self._inside.total() / per_s, self._turn_s + 1 / per_s)
            self._turn_s = min(turn_s, now_s + LONGEST_S)
            return max(1.0, self._turn_s - now_s)
        if self._inside.total() < self._most / 2:
            self._turn_s = now_s  # those who were given turns until later did not all come
        self._inside[client] += 1
        return None

    def leaves(self, client: str, done: bool) -> None:
        """A request that was let in is answered, or its client is gone. done: it was not refused"""
        self._count(self._now())
        self._done += done
        self._inside[client] -= 1
        if self._inside[client] <= 0:
            del self._inside[client]

    def took(self, client: str) -> None:
        """The application took a request."""
        known = self._of(client)
        known.taken += 1

    def refused(self, client: str, retry_after_s: float) -> None:
        """The application refused one for want of room, and said when to come back."""
        known = self._of(client)
        known.refused_s, known.back_s = known.seen_s, known.seen_s + retry_after_s

    def _count(self, now_s: float) -> None:
        """Let time pass for the rate at which requests are done."""
        if self._inside:
            passed_s = now_s - self._counted_s
            kept = 0.5 ** (passed_s / HALF_LIFE_S)
            self._done, self._busy_s = self._done * kept, self._busy_s * kept + passed_s
        self._counted_s = now_s

    def _of(self, client: str) -> _Client:
        now_s = self._now()
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client(now_s)
        known.pass_to(now_s)
        return known
