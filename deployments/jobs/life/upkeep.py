"""What goes on beside the jobs of a process: it takes over what a dead one left, looks whether another has begun, keeps
what was learned, tidies the store.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from deployments.jobs.failures import fenced
from deployments.jobs.life.running import Running
from deployments.jobs.life.shared import Shared
from deployments.jobs.limits import MINUTE_S
from deployments.jobs.values import Renderer
from deployments.orchestration.budgets import Charge
from deployments.store.errors import StoreError

logger = logging.getLogger("triptych.jobs")

LOOK_S = 1.0  # between two looks whether another orchestrator has begun
TIDY_S = 300.0
NOTE_S = 10.0  # between two times at which it is written when keys were used


class Upkeep:
    """background: what goes on until `stop` of `Jobs` ends it"""

    def __init__(self, shared: Shared, running: Running, renderer: Renderer) -> None:
        self._shared = shared
        self._running = running
        self._renderer = renderer
        self.background: list[asyncio.Task[None]] = []

    async def take_over(self) -> None:
        """Become the orchestrator, and carry on with the jobs of the former one. Raises `StoreError`."""
        self._shared.open.fence = await self._shared.access.do(self._shared.store.begin)
        taken = await self._shared.access.do(self._shared.store.take_over, self._shared.open.fence)
        costs = await self._shared.access.do(self._shared.store.costs)
        if costs is not None:
            self._shared.orchestrator.restore_costs(costs)
        charges = await self._restored()
        for record in taken:
            stored = {one.index: one for one in await self._shared.access.do(self._shared.store.pictures, record.id)}
            self._running.take_over(record, stored, charges.get(record.id))

    async def _restored(self) -> Mapping[str, Charge]:
        """What was used within the windows of all limits counts again; the charges of open jobs, by their id."""
        budgets = [key.budget or {} for key in await self._shared.keys.all()]
        own = [float(one.get("window_s", 0)) for one in budgets]
        longest_s = max(MINUTE_S, self._shared.orchestrator.longest_window_s, *own)
        usage = await self._shared.access.do(self._shared.store.usage_since, time.time() - longest_s)
        charges = self._shared.orchestrator.tenant_budgets.restore(usage)
        self._shared.limits.restore(usage)
        return charges

    def begin(self) -> None:
        """From now on it goes on by itself."""
        for often_s, what in ((LOOK_S, self.look), (TIDY_S, self.tidy), (NOTE_S, self.note_used)):
            self.background.append(asyncio.ensure_future(_every(often_s, what)))

    async def look(self) -> None:
        """Whether another orchestrator has begun: then all jobs are its, and whoever waits here is sent there."""
        if (
            self._shared.open.fenced
            or await self._shared.access.do(self._shared.store.latest_fence) <= self._shared.open.fence
        ):
            return
        self._shared.open.fenced = True
        logger.info("another orchestrator has taken over; what runs here is stopped")
        for job in [job for job in self._shared.open.live.values() if not job.ended]:
            if job.task is not None:
                job.task.cancel()
            job.end("failed", failure=fenced(), error=self._renderer.error(fenced(), ""))

    async def keep_costs(self) -> None:
        """Keep what was learned of costs."""
        await self._shared.access.do(self._shared.store.save_costs, self._shared.orchestrator.costs_snapshot())

    async def tidy(self) -> None:
        """Keep what was learned, and forget what is past its time."""
        await self.keep_costs()
        await self._shared.access.do(self._shared.store.tidy, time.time())

    async def note_used(self) -> None:
        """Write when keys were used. What the store does not take is written the next time."""
        if used := self._shared.keys.used():
            try:
                await self._shared.access.do(self._shared.store.keys_used, used)
            except BaseException:
                self._shared.keys.not_noted(used)
                raise


async def _every(often_s: float, what: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(often_s)
        try:
            await what()
        except StoreError as error:
            logger.warning("the store does not answer: %s", error)
        except Exception:
            logger.exception("%s failed", what.__name__)
