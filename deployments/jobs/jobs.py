"""Jobs of one orchestrator: accepted in the store, run here, followed by whoever asks, taken over after a death.

A submission that is admitted is written to the store before anybody is told so; from then on it is carried on, by this
process or, should it die, by the next one, which makes the pictures that are missing. Steps are seeded and pure, so
what is made again is the same. Whoever waits for a job may leave and come back: it goes on without them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, replace

from deployments.jobs.access import StoreAccess
from deployments.jobs.failures import cancelled, told, unknown
from deployments.jobs.keys import KeyRing
from deployments.jobs.life.acceptance import Acceptance
from deployments.jobs.life.open_jobs import OpenJobs
from deployments.jobs.life.pictures import Pictures
from deployments.jobs.life.running import Running
from deployments.jobs.life.shared import Shared
from deployments.jobs.life.upkeep import Upkeep
from deployments.jobs.limits import KeyLimits
from deployments.jobs.live import LiveJob
from deployments.jobs.operators import WINDOW_S, Operators
from deployments.jobs.values import Delivered, File, Identity, JobEvent, JobView, Renderer, Submission
from deployments.jobs.views import of_picture, view_of
from deployments.jobs.webhooks import Webhooks
from deployments.operating.exporter import Sample
from deployments.operating.refusals import Refusals
from deployments.operating.values import Operations, PolicyPreview
from deployments.orchestration.orchestrator import Orchestrator
from deployments.orchestration.results import Overview, PolicyFile
from deployments.store.errors import StoreError
from deployments.store.records import JobState, KeyRecord
from deployments.store.store import Store
from deployments.workers.streams import ended
from router.errors import NotFoundError
from router.learning.feedback import Receipt
from router.route import Route
from router.types import GenerationRequest

FALLBACK_SECRET = secrets.token_bytes(32)  # of addresses that this process alone has to know again


class Jobs:
    """What `deployments.api` asks. Call `start` before anything else, on the loop that everything runs on.

    webhooks: tell others of jobs that have ended
    url_secret: signs addresses of pictures, the same for every ingress
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        store: Store,
        renderer: Renderer,
        webhooks: Webhooks | None = None,
        url_secret: Callable[[], bytes] = lambda: FALLBACK_SECRET,
    ) -> None:
        self.orchestrator = orchestrator
        self.store = store
        self.keys = KeyRing(lambda: self._access.do(store.keys))
        self.limits = KeyLimits(orchestrator.tenant_budgets)
        self.refusals = Refusals(WINDOW_S)
        self._url_secret = url_secret
        self._webhooks = webhooks
        self._access = StoreAccess()
        self._open = OpenJobs()
        self._pictures = Pictures(store, self._access, renderer, lambda: self._open.fence)
        shared = Shared(orchestrator, store, self._access, self.keys, self.limits, self.refusals, self._open)
        self._running = Running(shared, self._pictures, renderer, webhooks)
        self._upkeep = Upkeep(shared, self._running, renderer)
        self._acceptance = Acceptance(shared, self._running, self.start, self.status)
        self._operators = Operators(shared)
        self._starting: asyncio.Task[None] | None = None
        orchestrator.gallery.load = self.given

    @property
    def _live(self) -> dict[str, LiveJob]:
        return self._open.live

    # -------------------------------------------------------------------------------------------------- life and death

    async def start(self) -> None:
        """Take over what a dead orchestrator left, and keep giving signs of life. Raises `StoreError`."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        await self._upkeep.take_over()
        if self._webhooks is not None:
            self._webhooks.start(self._open.fence)
        self._upkeep.begin()

    async def stop(self, wait_s: float = 0.0) -> None:
        """Wait for open jobs so long, then stop; whatever is open is left to the next orchestrator at once."""
        running = [job.task for job in self._live.values() if job.task is not None and not job.task.done()]
        if running and wait_s > 0:
            await asyncio.wait(running, timeout=wait_s)
        if self._webhooks is not None:
            await self._webhooks.stop()
        for task in (*self._upkeep.background, *running):
            task.cancel()
        for task in (*self._upkeep.background, *running):
            await ended(task)
        if writing := [one for job in self._live.values() for one in job.work if not one.done()]:
            await asyncio.wait(writing, timeout=max(1.0, wait_s))
        if self._running.closing:
            await asyncio.wait(self._running.closing, timeout=wait_s)
        with suppress(StoreError):
            await self._upkeep.keep_costs()
            await self._upkeep.note_used()
        self._access.close()

    async def drain(self, limit_s: float) -> tuple[int, int]:
        """Refuse what is new and wait for what is open, `limit_s` seconds at most: (open before, open now)."""
        self._open.draining = True
        tasks = [job.task for job in self._live.values() if job.task is not None and not job.task.done()]
        if not tasks:
            return 0, 0
        _, left = await asyncio.wait(tasks, timeout=limit_s)
        if self._running.closing:
            await asyncio.wait(self._running.closing, timeout=1.0)
        return len(tasks), len(left)

    # --------------------------------------------------------------------------------------------------- what is asked

    async def submit(self, submission: Submission) -> JobView:
        """Accept a request as a job, or find the one that it became before; returns once it is in the store.

        Raises what `Orchestrator.admit` raises, `RequestError` for an idempotency key that stands for another request,
        and `StoreError`; nothing is accepted then.
        """
        return await self._acceptance.accepted(submission)

    async def complete(self, submission: Submission) -> Delivered:
        """`submit`, then `answer`."""
        view = await self.submit(submission)
        return replace(await self.answer(view.id), rate=view.rate)

    async def stream(self, submission: Submission, after: int = 0) -> AsyncGenerator[JobEvent]:
        """`submit`, then an event `accepted`, then `events`; a job that fails raises its error after them."""
        view = await self.submit(submission)
        yield JobEvent(0, "accepted", {"job": view.id, "rate": None if view.rate is None else asdict(view.rate)})
        async with aclosing(self.events(view.id, after)) as events:
            async for event in events:
                if event.kind == "failed":
                    job = self._live.get(view.id)
                    raise job.failure if job is not None and job.failure is not None else told(event.data)
                yield event

    async def answer(self, job_id: str) -> Delivered:
        """Wait for the job. Raises its error, `NotFoundError`, or `StepError` if it was cancelled."""
        found = await self._followed(job_id)
        if isinstance(found, LiveJob):
            job = found
            await job.over()
            if job.failure is not None:
                raise job.failure
            if job.state == "cancelled":
                raise cancelled(job_id)
            if job.result is not None:
                return Delivered(job_id, job.result, await self._pictures.of_job(job))
        view = found if isinstance(found, JobView) else await self.status(job_id)
        if view.state == "done" and view.result is not None:
            files = [await self._pictures.stored(record) for record in view.pictures]
            return Delivered(job_id, view.result, tuple(files))
        raise cancelled(job_id) if view.state == "cancelled" else told(view.error or {})

    async def events(self, job_id: str, after: int = 0) -> AsyncGenerator[JobEvent]:
        """What happens to the job from event `after` on, and what happened; the last one is its end."""
        view = await self._followed(job_id)
        if isinstance(view, LiveJob):
            async for event in view.events(after):
                yield event
            return
        number = 0
        for record in view.pictures:
            number += 1
            if number > after:
                alone = of_picture(view.result or {}, record.facts or {})
                yield JobEvent(number, "picture", alone, await self._pictures.stored(record))
        assert view.state in ("done", "failed", "cancelled")
        yield JobEvent(max(number + 1, after + 1), view.state, view.result or view.error or {})

    async def status(self, job_id: str, tenant: str | None = None) -> JobView:
        """The job as it is. Raises `NotFoundError`, also for that of another tenant; tenant None: of anybody."""
        job = self._live.get(job_id)
        if job is not None:
            view = self._open.view(job)
            if (
                job.ended
                and view.webhook is not None
                and (record := await self._access.do(self.store.job, job_id)) is not None
            ):
                view = replace(view, webhook=record.webhook)
        else:
            record = await self._access.do(self.store.job, job_id)
            if record is None:
                raise unknown(job_id)
            view = view_of(record, await self._access.do(self.store.pictures, job_id))
        if tenant is not None and view.tenant != tenant:
            raise unknown(job_id)
        return view

    async def list(
        self, tenant: str | None = None, states: Sequence[JobState] = (), limit: int = 20, cursor: str | None = None
    ) -> tuple[list[JobView], str | None]:
        """Jobs, newest first, and the cursor of the next page, if there is one."""
        records, after = await self._access.do(self.store.jobs, tenant, states, limit, cursor)
        made = await self._access.do(self.store.pictures_of, [record.id for record in records])
        views = []
        for record in records:
            job = self._live.get(record.id)
            stored = view_of(record, made.get(record.id, ()))
            views.append(replace(self._open.view(job), webhook=record.webhook) if job is not None else stored)
        return views, after

    async def cancel(self, job_id: str, tenant: str | None = None) -> JobView:
        """End a job that is open; nothing happens to one that has ended. Raises `NotFoundError`."""
        view = await self.status(job_id, tenant)
        job = self._live.get(job_id)
        if job is not None and not job.ended and job.task is not None:
            job.cancelled = True
            job.task.cancel()
            await ended(job.task)
            if not job.ended:  # its task had not begun
                self._running.close(job, "cancelled")
            view = self._open.view(job)
        return view

    async def picture(self, picture_id: str) -> File:
        """A picture of a job, by its id. Raises `NotFoundError`."""
        job_id, _, index = picture_id.rpartition("-")
        if (job := self._live.get(job_id)) is not None and index.isdigit() and int(index) in job.files:
            return job.files[int(index)]
        record = await self._access.do(self.store.picture, picture_id)
        if record is None:
            raise NotFoundError(f"there is no picture {picture_id!r}; it may be past the store's retention", "id")
        return await self._pictures.stored(record)

    async def authenticate(self, hash: str | None) -> Identity:
        """Whose key has this hash, if one was sent. Raises `StoreError` if that cannot be known."""
        return await self.keys.identify(hash)

    async def given(self, digest: str, tenant: str | None = None) -> bytes:
        """The file of a picture that a request of this tenant (None: of any) brought. Raises `NotFoundError`."""
        return await self._access.do(self.store.given, digest, tenant)

    async def url_secret(self) -> bytes:
        """What addresses of pictures are signed with. Raises `StoreError`."""
        return await self._access.do(self._url_secret)

    # ----------------------------------------------------------------------------------------------- what needs no job

    async def route(self, request: GenerationRequest) -> Route:
        return await self.orchestrator.route(request)

    async def feedback(self, request_id: str, source: str, value: float, image: int | None = None) -> Receipt:
        return await self.orchestrator.feedback(request_id, source, value, image)

    async def overview(self) -> Overview:
        return await self.orchestrator.overview()

    async def policy_file(self, name: str, digest: str | None = None) -> PolicyFile:
        return await self.orchestrator.policy_file(name, digest)

    async def put_policy(self, name: str, text: str, expected: str | None = None) -> PolicyFile:
        return await self.orchestrator.put_policy(name, text, expected)

    # ------------------------------------------------------------------------------------------- what operators ask

    async def operations(self) -> Operations:
        return await self._operators.operations()

    def samples(self) -> Iterable[Sample]:
        return self._operators.samples()

    async def all_keys(self) -> Sequence[KeyRecord]:
        return await self._operators.all_keys()

    async def add_key(self, key: KeyRecord) -> None:
        await self._operators.add_key(key)

    async def revoke_key(self, id: str) -> KeyRecord:
        return await self._operators.revoke_key(id)

    async def preview_policy(self, name: str, text: str) -> PolicyPreview:
        return await self._operators.preview_policy(name, text)

    async def _followed(self, job_id: str) -> LiveJob | JobView:
        """The job as it is here, or, where another orchestrator runs it, once it has ended there. Raises
        `NotFoundError`."""
        while True:
            # It may come to be here meanwhile: the store knows of a job before the process does that accepts it.
            if (job := self._live.get(job_id)) is not None:
                return job
            view = await self.status(job_id)
            if job_id not in self._live and view.state in ("done", "failed", "cancelled"):
                return view
            await asyncio.sleep(0.25)
