"""What operators ask of the jobs of a process: how everything is, which keys there are, what a policy would change."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Sequence

from deployments.jobs.codec import unpacked
from deployments.jobs.life.shared import Shared
from deployments.operating import counting
from deployments.operating.exporter import Sample
from deployments.operating.gauges import samples
from deployments.operating.looking import models_of
from deployments.operating.preview import DECISIONS, PATIENCE_S, previewed
from deployments.operating.values import Operations, PolicyPreview
from deployments.store.records import KeyRecord
from deployments.workers.streams import ended
from router.errors import OverloadedError

WINDOW_S = 86_400.0  # over which operators see what was served
MOST_PREVIEWS = 4  # of policies at once, of which one is made and the others wait


class Operators:
    """Answers operators. All on the event loop of the jobs."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._since = time.time()
        self._previews = 0
        self._previewing = asyncio.Lock()

    async def operations(self) -> Operations:
        """How everything is, and what was served within a day. Raises `StoreError`."""
        overview, now = await self._shared.orchestrator.overview(), time.time()
        served = await self._shared.access.do(self._shared.store.served_since, now - WINDOW_S)
        rated = await self._shared.access.do(self._shared.store.rated_since, now - WINDOW_S)
        budgets = self._shared.limits.tightest(await self._shared.keys.all())
        states = self._shared.open.states()
        return Operations(
            since=self._since,
            now=now,
            window_s=WINDOW_S,
            models=models_of(self._shared.orchestrator, overview),
            jobs={"queued": states["queued"], "running": states["running"], **counting.ended(served)},
            recipes=counting.shares(served, rated),
            tenants=counting.uses(served, budgets.get),
            refusals=self._shared.refusals.counts(),
        )

    def samples(self) -> Iterable[Sample]:
        """The gauges as they are now. On the event loop of the jobs."""
        return samples(
            self._shared.orchestrator, self._shared.open.states(), self._shared.limits.tightest(self._shared.keys.known)
        )

    async def all_keys(self) -> Sequence[KeyRecord]:
        """Every key, revoked ones included, the oldest first, as the store has them. Raises `StoreError`."""
        return await self._shared.access.do(self._shared.store.keys)

    async def add_key(self, key: KeyRecord) -> None:
        """Raises `RequestError` for an id or hash that is there already, `StoreError`."""
        await self._shared.access.do(self._shared.store.add_key, key)
        self._shared.keys.changed()

    async def revoke_key(self, id: str) -> KeyRecord:
        """End a key. Raises `NotFoundError`, `StoreError`."""
        revoked = await self._shared.access.do(self._shared.store.revoke_key, id)
        self._shared.keys.changed()
        return revoked

    async def preview_policy(self, name: str, text: str) -> PolicyPreview:
        """What a policy would change of what its predecessor decided, or, if it is new, of what all have. One is made
        at a time, and none for which nobody waits any more. Raises `OverloadedError` if several wait, `StoreError`."""
        if self._previews >= MOST_PREVIEWS:
            raise OverloadedError("other previews of policies are being made; try again in a moment", PATIENCE_S)
        self._previews += 1
        try:
            async with self._previewing:
                return await self._previewed(name, text)
        finally:
            self._previews -= 1

    async def _previewed(self, name: str, text: str) -> PolicyPreview:
        known = name if name in self._shared.orchestrator.policies.names() else None
        records = await self._shared.access.do(self._shared.store.recent_requests, known, 2 * DECISIONS)
        decided = [(unpacked(record.request), str((record.decision or {}).get("policy"))) for record in records]
        left = threading.Event()
        looking = asyncio.ensure_future(
            asyncio.to_thread(previewed, self._shared.orchestrator, name, text, decided, left.is_set)
        )
        try:
            return await asyncio.shield(looking)
        finally:
            left.set()
            await ended(looking)
