"""Which models cannot run, and routing around them: the capability gate refuses their recipes, with the reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from deployments.orchestration.breaker import Breaker
from deployments.workers.worker import WorkerStatus
from router.errors import LoadError, NoRecipeError
from router.types import GenerationRequest

MAX_AGE_S = 2.0

PATIENCE_S = 0.05
"""So long whoever asks how workers are waits for their answers, before it is told what was known last."""


class Monitor(Protocol):
    """Whoever can ask all workers how they are."""

    async def statuses(self) -> Mapping[str, WorkerStatus]: ...


class Availability:
    """What is known about the workers, refreshed in the background so that no request waits for it.

    breaker: takes models out whose workers say that they are well, and fail
    """

    def __init__(self, monitor: Monitor, breaker: Breaker | None = None) -> None:
        self._monitor = monitor
        self._breaker = breaker or Breaker()
        self._known: Mapping[str, WorkerStatus] = {}
        self._asked = float("-inf")
        self._asking: asyncio.Task[Mapping[str, WorkerStatus]] | None = None

    async def refresh(self, now: bool = False) -> Mapping[str, WorkerStatus]:
        """The newest statuses. Waits for the workers a moment if `now`, and until they answer if nothing is known."""
        if self._asking is None and (now or time.monotonic() - self._asked > MAX_AGE_S):
            self._asking = asyncio.ensure_future(self._ask())
        if self._asking is not None and (now or not self._known):
            asking = self._asking
            done, _ = await asyncio.wait({asking}, timeout=PATIENCE_S if self._known else None)
            if done and not self._known:
                asking.result()  # raises why nothing is known
        return self.statuses

    async def _ask(self) -> Mapping[str, WorkerStatus]:
        try:
            self._known = {**self._known, **await self._monitor.statuses()}
            self._asked = time.monotonic()
        finally:
            self._asking = None
        return self._known

    def mark_failed(self, model: str, reason: str) -> None:
        """Take a model out at once; the next refresh may bring it back."""
        self._known = {**self._known, model: WorkerStatus(model, "failed", reason)}

    @property
    def statuses(self) -> Mapping[str, WorkerStatus]:
        """What is known now; what the breaker took out counts as failed."""
        if not (reasons := self._breaker.reasons):
            return self._known
        facts = {model: self._known[model].facts for model in reasons if model in self._known}
        out = {m: WorkerStatus(m, "failed", reason, facts.get(m, {})) for m, reason in reasons.items()}
        return {**self._known, **out}

    @property
    def unavailable(self) -> dict[str, str]:
        """Models that failed, with the reason."""
        return {status.model: status.reason for status in self.statuses.values() if status.state == "failed"}

    @property
    def most_pixels(self) -> dict[str, int]:
        """The largest area that models draw on their devices, where these have less memory than their cards ask for."""
        told = {model: status.facts.get("most_pixels") for model, status in self.statuses.items()}
        return {model: pixels for model, pixels in told.items() if isinstance(pixels, int)}


def load_error(error: NoRecipeError, request: GenerationRequest, unavailable: Mapping[str, str]) -> LoadError | None:
    """What to raise instead of `error`, if models that failed are all that stands in the way of this request.

    What rules exclude would not be taken with its models, either, so it does not count.
    """
    wanted = [r for r in error.rejections if request.recipe in (None, r.recipe) and r.gate != "rule"]
    gone = {f"model {model!r} is not available: {reason}" for model, reason in unavailable.items()}
    if wanted and all(r.gate == "capability" and r.reason in gone for r in wanted):
        return LoadError(wanted[0].reason, "model")
    return None
