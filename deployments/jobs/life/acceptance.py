"""A submission becomes an open job, or finds the one that it became before: told to nobody before it is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from weakref import WeakValueDictionary

from deployments.jobs.codec import digest_of
from deployments.jobs.failures import draining, fenced, worth_another_try
from deployments.jobs.life.running import Running
from deployments.jobs.life.shared import Shared
from deployments.jobs.live import LiveJob
from deployments.jobs.values import JobView, Submission
from deployments.jobs.views import record_of
from deployments.observing import tracing
from deployments.orchestration.results import Admitted
from deployments.store.errors import StoreError
from deployments.store.records import GivenRecord, JobRecord, KeyRecord
from deployments.workers.streams import ended
from router.errors import RequestError, TriptychError


class Acceptance:
    """Takes submissions in. start: of `Jobs`;   status: a job as the store or this process has it"""

    def __init__(
        self,
        shared: Shared,
        running: Running,
        start: Callable[[], Awaitable[None]],
        status: Callable[[str], Awaitable[JobView]],
    ) -> None:
        self._shared = shared
        self._running = running
        self._start = start
        self._status = status
        self._accepting: dict[str, asyncio.Future[JobView]] = {}
        self._entering: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()  # by idempotency key

    async def accepted(self, submission: Submission) -> JobView:
        """The job that a submission has become, once it is in the store. Raises as `Jobs.submit` does."""
        accepting = self._accepting.get(submission.id)
        if accepting is None:
            accepting = self._accepting[submission.id] = asyncio.ensure_future(self._submitted(submission))
            accepting.add_done_callback(lambda _: self._accepting.pop(submission.id, None))
        # Whoever asked may be gone before the store answers: what it holds then is run all the same.
        return await asyncio.shield(accepting)

    async def _submitted(self, submission: Submission) -> JobView:
        """One after the other where an idempotency key comes several times at once: the first is begun, the others find
        it."""
        if (key := submission.idempotency_key) is None:
            return await self._enter(submission)
        async with self._entering.setdefault((submission.caller.tenant, key), asyncio.Lock()):
            return await self._enter(submission)

    async def _enter(self, submission: Submission) -> JobView:
        with tracing.resumed(submission.trace), tracing.saying(job=submission.id):
            try:
                with tracing.span("admit", job=submission.id):
                    return await self._taken_in(submission)
            except TriptychError as error:
                self._shared.refusals.count(error.code)
                self._shared.orchestrator.metrics.record("triptych_refusals_total", reason=error.code)
                raise

    async def _taken_in(self, submission: Submission) -> JobView:
        await self._start()
        if self._shared.open.fenced:
            raise fenced()
        if self._shared.open.draining and submission.id not in self._shared.open.live:
            raise draining()
        if (job := self._shared.open.live.get(submission.id)) is not None:
            return self._shared.open.view(job)
        known = await self._known(submission)
        failed = known is not None and known.id != submission.id and await self._failed_here(known)
        if known is not None and not failed:
            return await self._status(known.id)
        caller = await self._key_of(submission)
        entered_s = self._shared.limits.enter(caller) if caller is not None else 0.0
        rate = self._shared.limits.rate(caller) if caller is not None else None
        admitted, job = None, None
        given: list[GivenRecord] = []
        try:
            if submission.given:  # on the disk before the job is, and at hand for its first step
                given = await self._shared.access.do(self._shared.store.keep_given, submission.id, submission.given)
                self._shared.orchestrator.gallery.keep(submission.given)
            further = self._shared.limits.allowances(caller) if caller is not None else ()
            admitted = await self._shared.orchestrator.admit(submission.request, further=further)
            if caller is not None:
                self._shared.limits.charge(caller, admitted)
            record = record_of(submission, admitted, self._shared.open.fence)
            instead_of = None if known is None else known.id
            accepting = self._shared.store.accept_soon(record, admitted.charge.rows(record.id), given, instead_of)
            # Its first step may be on its way while the store commits: nobody is told of the job before that.
            job = self._running.begin(record, admitted, submission.trace)
            stored = await asyncio.wrap_future(accepting)
        except BaseException:
            await self._take_back(caller, entered_s, admitted, job, given)
            raise
        if stored.id != record.id:  # the same key came twice at once, and the other was first
            await self._take_back(caller, entered_s, admitted, job, given)
            return await self._status(stored.id)
        self._shared.open.live[record.id] = job
        job.decide(accepted=True)
        return replace(self._shared.open.view(job), rate=rate)

    async def _take_back(
        self,
        key: KeyRecord | None,
        entered_s: float,
        admitted: Admitted | None,
        job: LiveJob | None,
        given: Sequence[GivenRecord],
    ) -> None:
        """What was not accepted leaves no trace in limits, budgets and queues, and nothing of it runs on."""
        if job is not None:
            job.decide(accepted=False)
        for task in () if job is None or job.task is None else (job.task, *job.work):
            task.cancel()
            await ended(task)
        if key is not None:
            self._shared.limits.leave(key, entered_s)
        if admitted is not None:
            admitted.charge.forget()
            self._shared.orchestrator.give_up(admitted)
        if given:
            with suppress(StoreError):  # then it is tidied later
                await self._shared.access.do(self._shared.store.drop_given, given)

    async def _key_of(self, submission: Submission) -> KeyRecord | None:
        """The key that a submission came with. Raises `RequestError` if it was revoked meanwhile."""
        if (id := submission.caller.key_id) is None:
            return None
        if (key := await self._shared.keys.get(id)) is None:
            raise RequestError(f"key {id} was revoked; ask for another", None, "invalid_api_key")
        return key

    async def _known(self, submission: Submission) -> JobRecord | None:
        """The job that this became before, if it did."""
        known = await self._shared.access.do(self._shared.store.job, submission.id) if submission.again else None
        tenant, key = submission.caller.tenant, submission.idempotency_key
        if known is not None or key is None:
            return known
        known = await self._shared.access.do(self._shared.store.by_key, tenant, key)
        if known is not None and known.body_digest != digest_of(submission.body):
            message = f"Idempotency-Key {key!r} came with another request before; send a new key with a new request"
            raise RequestError(message, "Idempotency-Key", "idempotency_mismatch")
        return known

    async def _failed_here(self, known: JobRecord) -> bool:
        """Whether a job with the same idempotency key failed of what may be otherwise next time: then it is tried
        again, as a job of its own."""
        view = await self._status(known.id)
        return view.state == "failed" and worth_another_try(view.error or {})
