"""Open jobs are run to their end, and the end is written, whoever follows them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from deployments.jobs.access import AGAIN_S
from deployments.jobs.codec import unpacked
from deployments.jobs.life.pictures import Listener, Pictures
from deployments.jobs.life.shared import Shared
from deployments.jobs.live import LiveJob
from deployments.jobs.values import Renderer
from deployments.jobs.webhooks import Webhooks
from deployments.observing import tracing
from deployments.operating import counting
from deployments.orchestration.budgets import Charge
from deployments.orchestration.results import Admitted, Finished, Outcome
from deployments.store.errors import StoreError
from deployments.store.records import JobRecord, JobState, PictureRecord
from router.errors import DeadlineError, LoadError, OverloadedError, StepError, TriptychError
from router.route import Route

logger = logging.getLogger("triptych.jobs")

TRIES = 3  # processes that may die over one job before it is given up
KEPT_S = 60.0  # for which a job that has ended is answered from memory


class Running:
    """Runs the jobs of `open_jobs`. closing: ends that are being written"""

    def __init__(self, shared: Shared, pictures: Pictures, renderer: Renderer, webhooks: Webhooks | None) -> None:
        self._shared = shared
        self._pictures = pictures
        self._renderer = renderer
        self._webhooks = webhooks
        self.closing: set[asyncio.Task[Any]] = set()

    def begin(self, record: JobRecord, admitted: Admitted, trace: tracing.Carrier) -> LiveJob:
        """Run a job from now on. Until it is known whether it was accepted, nobody is told of its end."""
        job = LiveJob(record)
        job.admit(admitted, self._shared.orchestrator.shares(admitted.route.plan))
        with tracing.resumed({**trace, "job": record.id}):  # goes on after those who asked
            job.task = asyncio.ensure_future(self._run(job))
        return job

    def take_over(self, record: JobRecord, stored: Mapping[int, PictureRecord], charge: Charge | None) -> None:
        """Carry on with a job that another process began. stored: its pictures that are there"""
        job = self._shared.open.live[record.id] = LiveJob(record, stored)
        job.charge = charge
        job.decide(accepted=True)
        logger.info("job %s is carried on; %d of %d pictures were made", record.id, len(stored), record.n)
        carried = {"job": record.id, "request": str(record.request.get("id", ""))}
        with tracing.begun(carried, "take over", job=record.id):
            job.task = asyncio.ensure_future(self._carry_on(job))

    async def _carry_on(self, job: LiveJob) -> None:
        """What was accepted is not refused because others wait: it waits, too."""
        record = job.record
        try:
            if record.attempts >= TRIES:
                raise StepError(f"{record.attempts} processes ended while they worked on it; it is not tried again")
            request = unpacked(record.request)
            if job.stored and record.decision is not None:  # the other pictures of the request are of the same recipe
                request = replace(request, target=record.decision["policy"], recipe=record.decision["recipe"])
            due = record.deadline_at or float("inf")
            while True:
                try:
                    admitted = await self._shared.orchestrator.admit(request, job.charge)
                    break
                except (OverloadedError, LoadError) as error:
                    if time.time() + AGAIN_S >= due:
                        raise DeadlineError(f"its deadline passed while it waited: {error.message}") from None
                    await asyncio.sleep(min(max(AGAIN_S, error.retry_after_s or 0.0), 10 * AGAIN_S))
        except asyncio.CancelledError:
            if job.cancelled:
                self.close(job, "cancelled")
            raise
        except Exception as error:
            await self._fail(job, error)
            return
        job.admit(admitted, self._shared.orchestrator.shares(admitted.route.plan))
        await self._run(job)

    async def _run(self, job: LiveJob) -> None:
        admitted = job.admitted
        assert admitted is not None
        listen = Listener(job, admitted, self._pictures, self._begun, self._routed)
        recipe = admitted.route.decision.recipe
        try:
            # Whoever asked for previews comes to follow them; the first step would have begun by then.
            shown = self._pictures.wanted_previews(job) > 0
            with tracing.span("job", job=job.record.id, recipe=recipe, tenant=job.record.tenant):
                outcome = await self._shared.orchestrator.run(
                    admitted, listen, job.missing, lambda: shown or job.followers > 0
                )
                await self._finish(job, outcome, listen)
        except asyncio.CancelledError:
            if job.cancelled:
                self.close(job, "cancelled")
            raise
        except Exception as error:
            await self._fail(job, error)

    async def _finish(self, job: LiveJob, outcome: Outcome, listen: Listener) -> None:
        for made in outcome.made:  # those of a policy that may refuse were kept back until now
            listen(Finished(replace(outcome, made=(made,))))
        await asyncio.gather(*listen.rendering)
        here = {one.index for one in outcome.made}
        earlier = {index: facts for index, facts in job.facts.items() if index not in here}
        result = await self._shared.access.do(self._renderer.result, outcome, job.record.body, job.record.id, earlier)
        job.outcome = outcome
        job.end("done", result)
        self.close(job, "done")

    async def _fail(self, job: LiveJob, error: Exception) -> None:
        if not isinstance(error, TriptychError):
            logger.error("job %s failed", job.record.id, exc_info=error)
        words = self._renderer.error(error, job.record.request.get("id", ""))
        job.end("failed", failure=error, error=words)
        self.close(job, "failed")

    def close(self, job: LiveJob, state: JobState) -> None:
        """Write the end of a job, after its pictures. The store may be away: it is asked until it answers."""
        if state == "cancelled":
            job.end("cancelled", error={"message": "the job was cancelled", "code": "cancelled"})
        closing = asyncio.ensure_future(self._closed(job, state))
        self.closing.add(closing)
        closing.add_done_callback(self.closing.discard)

    async def _closed(self, job: LiveJob, state: JobState) -> None:
        if not await job.was_accepted():  # then there never was such a job, and whoever took it in takes all of it back
            return
        if job.work:
            await asyncio.wait(job.work)
        if job.charge is not None:
            job.charge.settle()
        rows = job.charge.rows(job.record.id) if job.charge is not None else None
        used = (job.charge.work_s, job.charge.cost_usd) if job.charge is not None else (0.0, 0.0)
        served = counting.row_of(job.record, state, job.decision, job.outcome, used)
        counting.count(self._shared.orchestrator.metrics, served, job.record.priority)
        where = f"{served.policy}/{served.recipe}"
        logger.info("job %s is %s after %.3f s, by %s", job.record.id, state, served.latency_s, where)

        async def write() -> None:
            ending = self._shared.store.finished_soon(
                job.record.id, self._shared.open.fence, state, job.result, job.error, rows, served
            )
            await asyncio.wrap_future(ending)

        await self._shared.access.insist(write)
        if self._webhooks is not None and job.record.webhook is not None:
            self._webhooks.wake()
        asyncio.get_running_loop().call_later(KEPT_S, self._shared.open.live.pop, job.record.id, None)

    def _routed(self, job: LiveJob, route: Route) -> None:
        """How a job is done, also when that changes while it waits."""
        if job.admitted is not None:
            job.admit(replace(job.admitted, route=route), self._shared.orchestrator.shares(route.plan))

    def _begun(self, job: LiveJob) -> None:
        """Write that a job is running, and by which decision, without waiting for it: the next process counts it as one
        that may have killed this one, and keeps to the decision."""
        with suppress(StoreError):
            writing = self._shared.store.started_soon(job.record.id, self._shared.open.fence, job.decision)
            writing.add_done_callback(lambda done: done.cancelled() or done.exception())  # marks it as seen
