"""What other processes than the orchestrator count, on its way to where it is scraped."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from deployments.orchestration.metrics import METRICS

logger = logging.getLogger("triptych.metrics")

EVERY_S = 2.0
MOST = 10_000  # values of histograms that wait; beyond, they are dropped

Count = tuple[str, float, dict[str, str]]
"""Name, value and labels, as `Metrics.record` takes them."""


class ForwardedCounts:
    """A `Metrics` that sends what it was told every few seconds; what cannot be sent is sent later. Of an event loop.

    send: to the orchestrator
    """

    def __init__(self, send: Callable[[Sequence[Count]], Awaitable[None]]) -> None:
        self._send = send
        self._counters: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self._values: list[Count] = []
        self._sending: asyncio.Task[None] | None = None

    def record(self, name: str, value: float = 1.0, **tags: str) -> None:
        if METRICS[name].kind == "counter":
            self._counters[name, tuple(sorted(tags.items()))] += value  # type: ignore[assignment]
        elif len(self._values) < MOST:
            self._values.append((name, value, tags))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._soon())

    async def _soon(self) -> None:
        while self._counters or self._values:
            await asyncio.sleep(EVERY_S)
            counters, values = dict(self._counters), self._values
            self._counters.clear()
            self._values = []
            told = [(name, float(value), dict(tags)) for (name, tags), value in counters.items()]
            try:
                await self._send([*told, *values])
            except Exception as error:
                logger.debug("counts are kept for later: %s", error)
                self._counters.update(counters)
                self._values = [*values, *self._values][:MOST]
