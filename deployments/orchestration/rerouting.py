"""Requests that wait under a policy with `reroute: true` are decided anew when the queues have changed.

Only as long as none of their steps has begun, in the order of their arrival, a few at a time; each as if it came now,
behind what was admitted before it and is still to be done. It moves at nobody's expense: to a worker that others wait
for only with less work than it has there now, and only to what its tenant's budgets were charged for.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from deployments.orchestration.metrics import Metrics
from deployments.orchestration.results import Admitted, Event, OnEvent, StepBegun
from deployments.orchestration.runner import Batch
from deployments.workers.streams import ended
from router.errors import TriptychError
from router.route import Route
from router.routing import Router
from router.types import Context

logger = logging.getLogger("triptych.orchestrator")

LOOK_S = 0.25  # between two looks whether the queues have changed
MOST = 8  # requests that are decided anew in one look: deciding must not take the time that it saves


class Rerouting:
    """What waits and may still go another way.

    admitting: held while a request is decided and takes its place;   unavailable: models that cannot run, with reasons
    aside: where deciding takes place, which may last some milliseconds
    most_pixels: the largest areas that models draw on their devices
    """

    def __init__(
        self,
        router: Router,
        admitting: asyncio.Lock,
        unavailable: Callable[[], Mapping[str, str]],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        aside: Callable[..., Awaitable[Route | None]] = asyncio.to_thread,
        most_pixels: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._clock = clock
        self._aside = aside
        self._router = router
        self._admitting = admitting
        self._unavailable = unavailable
        self._most_pixels = most_pixels
        self._metrics = metrics
        self._waiting: dict[int, _Waiting] = {}
        self._looking: asyncio.Task[None] | None = None
        self._seen: object = None

    async def follow(
        self,
        waiting: Waiting,
        start: Callable[[Admitted, OnEvent], Awaitable[Batch]],
        on_event: OnEvent | None,
    ) -> Batch:
        """What `start` makes of an admitted request, which goes another way while it waits if that is better now."""

        def listen(event: Event) -> None:
            if isinstance(event, StepBegun):
                self._waiting.pop(waiting.ticket, None)
            if on_event is not None:
                on_event(event)

        self._waiting[waiting.ticket] = held = _Waiting(waiting)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        try:
            while True:
                held.task = asyncio.ensure_future(start(waiting.admitted, listen))
                try:
                    return await held.task
                except asyncio.CancelledError:
                    moved, held.moved = held.moved, None
                    if moved is None or _being_cancelled():
                        raise
                    waiting.go(moved, self._clock())
        finally:
            self._waiting.pop(waiting.ticket, None)
            if not self._waiting and self._looking is not None:
                self._looking.cancel()
                self._looking = None  # whoever comes before it has ended begins another
            if held.task is not None:
                held.task.cancel()
                await ended(held.task)

    async def _look(self) -> None:
        while self._waiting:
            await asyncio.sleep(LOOK_S)
            if (seen := self._router.queues.state) == self._seen:
                continue
            self._seen = seen
            for ticket in list(itertools.islice(self._waiting, MOST)):
                try:
                    await self._again(ticket)
                except Exception:
                    logger.exception("a request that waits could not be decided anew")
                if (held := self._waiting.pop(ticket, None)) is not None:
                    self._waiting[ticket] = held  # the others come first in the next look

    async def _again(self, ticket: int) -> None:
        async with self._admitting:
            if (held := self._waiting.get(ticket)) is None or held.moved is not None:
                return
            admitted = held.of.admitted
            route = await self._aside(self._decided, admitted, held.of.started)
            if route is None or held.task is None or self._waiting.get(ticket) is not held:
                return
            moved = replace(admitted, route=route)
            if not self._may(admitted, moved):
                return
            self._router.queues.move(ticket, route.plan, route.request.n)
            self._metrics.record("triptych_rerouted_total", policy=admitted.policy.name)
            held.moved = moved
            held.task.cancel()

    def _may(self, admitted: Admitted, moved: Admitted) -> bool:
        """Whether to go the other way: at nobody's expense."""
        route = moved.route
        return (
            route.decision.recipe != admitted.route.decision.recipe
            and self._router.queues.delays_nobody(admitted.ticket, route.plan, route.request.n)
            and admitted.charge.covers(*moved.expected())
        )

    def _decided(self, admitted: Admitted, started: float) -> Route | None:
        """The request as it would be decided now; None if there is no way that the policy allows."""
        asked = admitted.route.request
        waited_s = self._clock() - started
        left_s = None if asked.latency_budget_s is None else asked.latency_budget_s - waited_s
        if left_s is not None and left_s <= 0:
            return None
        router = self._router.behind(admitted.ticket)
        context = Context(unavailable=self._unavailable(), most_pixels=self._most_pixels())
        try:
            route = router.route(replace(asked, latency_budget_s=left_s), admitted.policy, context)
        except TriptychError:
            return None
        before = admitted.route.decision
        reason = f"rerouted: {before.recipe} was chosen when it came, {waited_s:.1f} s ago; queues have changed"
        decision = replace(route.decision, reasons=(*route.decision.reasons, reason), safety=before.safety)
        return replace(route, request=asked, decision=decision)


class Waiting:
    """A request that waits. admitted: as it is decided now; notes: what became of it; started: when it came, on the
    monotonic clock"""

    def __init__(self, admitted: Admitted, started: float) -> None:
        self.admitted = admitted
        self.started = started
        self.ticket = admitted.ticket
        self.notes: tuple[str, ...] = ()

    def go(self, moved: Admitted, now: float) -> None:
        """It is done in another way from now on."""
        before, recipe = self.admitted.route.decision.recipe, moved.route.decision.recipe
        self.notes += (f"while it waited ({now - self.started:.1f} s), {recipe} was taken instead of {before}",)
        self.admitted = moved


@dataclass(eq=False)
class _Waiting:
    """moved: how it goes on once its task has ended"""

    of: Waiting
    task: asyncio.Future[Batch] | None = None
    moved: Admitted | None = None


def reroutable(admitted: Admitted) -> bool:
    """Whether a request may go another way while it waits: its policy says so, and neither the client nor chance chose
    its recipe."""
    decision = admitted.route.decision
    return admitted.policy.reroute and admitted.route.request.recipe is None and not decision.explored


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
