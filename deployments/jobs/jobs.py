"""Jobs of one orchestrator: accepted in the store, run here, followed by whoever asks, taken over after a death.

A submission that is admitted is written to the store before anybody is told so; from then on it is carried on, by this
process or, should it die, by the next one, which makes the pictures that are missing. Steps are seeded and pure, so
what is made again is the same. Whoever waits for a job may leave and come back: it goes on without them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, replace
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from deployments.jobs.access import AGAIN_S, StoreAccess
from deployments.jobs.codec import digest_of, unpacked
from deployments.jobs.failures import cancelled, draining, fenced, told, unknown
from deployments.jobs.keys import KeyRing
from deployments.jobs.limits import MINUTE_S, KeyLimits
from deployments.jobs.live import LiveJob
from deployments.jobs.pictures import Listener, Pictures
from deployments.jobs.values import Delivered, File, Identity, JobEvent, JobView, Renderer, Submission
from deployments.jobs.views import live_view, of_picture, record_of, view_of
from deployments.jobs.webhooks import Webhooks
from deployments.observing import tracing
from deployments.operating import counting
from deployments.operating.exporter import Sample
from deployments.operating.gauges import samples
from deployments.operating.looking import models_of
from deployments.operating.preview import DECISIONS, previewed
from deployments.operating.refusals import Refusals
from deployments.operating.values import Operations, PolicyPreview
from deployments.orchestration.orchestrator import Orchestrator
from deployments.orchestration.results import (
    Admitted,
    Finished,
    Outcome,
    Overview,
    PolicyFile,
)
from deployments.store.errors import StoreError
from deployments.store.records import GivenRecord, JobRecord, JobState, KeyRecord
from deployments.store.store import Store
from deployments.workers.streams import ended
from router.errors import (
    DeadlineError,
    LoadError,
    NotFoundError,
    OverloadedError,
    RequestError,
    StepError,
    TriptychError,
)
from router.learning.feedback import Receipt
from router.route import Route
from router.types import GenerationRequest

logger = logging.getLogger("triptych.jobs")

TRIES = 3  # processes that may die over one job before it is given up
KEPT_S = 60.0  # for which a job that has ended is answered from memory
LOOK_S = 1.0  # between two looks whether another orchestrator has begun
TIDY_S = 300.0
NOTE_S = 10.0  # between two times at which it is written when keys were used
WINDOW_S = 86_400.0  # over which operators see what was served

FALLBACK_SECRET = secrets.token_bytes(32)  # of addresses that this process alone has to know again

Answer = TypeVar("Answer")


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
        self._since = time.time()
        self._url_secret = url_secret
        self._renderer = renderer
        self._webhooks = webhooks
        self._live: dict[str, LiveJob] = {}
        self._accepting: dict[str, asyncio.Future[JobView]] = {}
        self._entering: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()  # by idempotency key
        self._fence = 0
        self._fenced = self._draining = False
        self._access = StoreAccess()
        self._pictures = Pictures(store, self._access, renderer, lambda: self._fence)
        self._background: list[asyncio.Task[None]] = []
        self._starting: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[Any]] = set()
        orchestrator.gallery.load = self.given

    # -------------------------------------------------------------------------------------------------- life and death

    async def start(self) -> None:
        """Take over what a dead orchestrator left, and keep giving signs of life. Raises `StoreError`."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        self._fence = await self._access.do(self.store.begin)
        taken = await self._access.do(self.store.take_over, self._fence)
        costs = await self._access.do(self.store.costs)
        if costs is not None:
            self.orchestrator.restore_costs(costs)
        budgets = [key.budget or {} for key in await self.keys.all()]
        windows = [MINUTE_S, self.orchestrator.longest_window_s, *(float(one.get("window_s", 0)) for one in budgets)]
        usage = await self._access.do(self.store.usage_since, time.time() - max(windows))
        charges = self.orchestrator.tenant_budgets.restore(usage)
        self.limits.restore(usage)
        for record in taken:
            stored = {one.index: one for one in await self._access.do(self.store.pictures, record.id)}
            job = self._live[record.id] = LiveJob(record, stored)
            job.charge = charges.get(record.id)
            logger.info("job %s is carried on; %d of %d pictures were made", record.id, len(stored), record.n)
            carried = {"job": record.id, "request": str(record.request.get("id", ""))}
            with tracing.begun(carried, "take over", job=record.id):
                job.task = asyncio.ensure_future(self._carry_on(job))
        if self._webhooks is not None:
            self._webhooks.start(self._fence)
        for often_s, what in ((LOOK_S, self._look), (TIDY_S, self._tidy), (NOTE_S, self._note_used)):
            self._background.append(asyncio.ensure_future(self._every(often_s, what)))

    async def stop(self, wait_s: float = 0.0) -> None:
        """Wait for open jobs so long, then stop; whatever is open is left to the next orchestrator at once."""
        running = [job.task for job in self._live.values() if job.task is not None and not job.task.done()]
        if running and wait_s > 0:
            await asyncio.wait(running, timeout=wait_s)
        if self._webhooks is not None:
            await self._webhooks.stop()
        for task in (*self._background, *running):
            task.cancel()
        for task in (*self._background, *running):
            await ended(task)
        if writing := [one for job in self._live.values() for one in job.work if not one.done()]:
            await asyncio.wait(writing, timeout=max(1.0, wait_s))
        if self._closing:
            await asyncio.wait(self._closing, timeout=wait_s)
        with suppress(StoreError):
            await self._access.do(self.store.save_costs, self.orchestrator.costs_snapshot())
            await self._note_used()
        self._access.close()

    async def drain(self, limit_s: float) -> tuple[int, int]:
        """Refuse what is new and wait for what is open, `limit_s` seconds at most: (open before, open now)."""
        self._draining = True
        tasks = [job.task for job in self._live.values() if job.task is not None and not job.task.done()]
        if not tasks:
            return 0, 0
        _, left = await asyncio.wait(tasks, timeout=limit_s)
        if self._closing:
            await asyncio.wait(self._closing, timeout=1.0)
        return len(tasks), len(left)

    async def _look(self) -> None:
        """Whether another orchestrator has begun: then all jobs are its, and whoever waits here is sent there."""
        if self._fenced or await self._access.do(self.store.latest_fence) <= self._fence:
            return
        self._fenced = True
        logger.info("another orchestrator has taken over; what runs here is stopped")
        for job in [job for job in self._live.values() if not job.ended]:
            if job.task is not None:
                job.task.cancel()
            job.end("failed", failure=fenced(), error=self._renderer.error(fenced(), ""))

    async def _tidy(self) -> None:
        await self._access.do(self.store.save_costs, self.orchestrator.costs_snapshot())
        await self._access.do(self.store.tidy, time.time())

    async def _note_used(self) -> None:
        if used := self.keys.used():
            await self._access.do(self.store.keys_used, used)

    async def _every(self, often_s: float, what: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(often_s)
            try:
                await what()
            except StoreError as error:
                logger.warning("the store does not answer: %s", error)
            except Exception:
                logger.exception("%s failed", what.__name__)

    # --------------------------------------------------------------------------------------------------- what is asked

    async def submit(self, submission: Submission) -> JobView:
        """Accept a request as a job, or find the one that it became before; returns once it is in the store.

        Raises what `Orchestrator.admit` raises, `RequestError` for an idempotency key that stands for another request,
        and `StoreError`; nothing is accepted then.
        """
        accepting = self._accepting.get(submission.id)
        if accepting is None:
            accepting = self._accepting[submission.id] = asyncio.ensure_future(self._submitted(submission))
            accepting.add_done_callback(lambda _: self._accepting.pop(submission.id, None))
        # Whoever asked may be gone before the store answers: what it holds then is run all the same.
        return await asyncio.shield(accepting)

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
        if (job := self._live.get(job_id)) is not None:
            await job.over()
            if job.failure is not None:
                raise job.failure
            if job.state == "cancelled":
                raise cancelled(job_id)
            if job.result is not None:
                return Delivered(job_id, job.result, await self._pictures.of_job(job))
        view = await self._until_ended(job_id)
        if view.state == "done" and view.result is not None:
            files = [await self._pictures.stored(record) for record in view.pictures]
            return Delivered(job_id, view.result, tuple(files))
        raise cancelled(job_id) if view.state == "cancelled" else told(view.error or {})

    async def events(self, job_id: str, after: int = 0) -> AsyncGenerator[JobEvent]:
        """What happens to the job from event `after` on, and what happened; the last one is its end."""
        if (job := self._live.get(job_id)) is not None:
            async for event in job.events(after):
                yield event
            return
        view = await self._until_ended(job_id)
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
            view = self._view(job)
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
            views.append(replace(self._view(job), webhook=record.webhook) if job is not None else stored)
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
                self._close(job, "cancelled")
            view = self._view(job)
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
        """How everything is, and what was served within a day. Raises `StoreError`."""
        overview, now = await self.orchestrator.overview(), time.time()
        served = await self._access.do(self.store.served_since, now - WINDOW_S)
        rated = await self._access.do(self.store.rated_since, now - WINDOW_S)
        budgets = self.limits.tightest(await self.keys.all())
        states = Counter(job.state for job in self._live.values())
        return Operations(
            since=self._since,
            now=now,
            window_s=WINDOW_S,
            models=models_of(self.orchestrator, overview),
            jobs={"queued": states["queued"], "running": states["running"], **counting.ended(served)},
            recipes=counting.shares(served, rated),
            tenants=counting.uses(served, budgets.get),
            refusals=self.refusals.counts(),
        )

    def samples(self) -> Iterable[Sample]:
        """The gauges as they are now. On the event loop of the jobs."""
        states = Counter[str](job.state for job in self._live.values())
        return samples(self.orchestrator, states, self.limits.tightest(self.keys.known))

    async def all_keys(self) -> Sequence[KeyRecord]:
        """Every key, revoked ones included, the oldest first, as the store has them. Raises `StoreError`."""
        return await self._access.do(self.store.keys)

    async def add_key(self, key: KeyRecord) -> None:
        """Raises `RequestError` for an id or hash that is there already, `StoreError`."""
        await self._access.do(self.store.add_key, key)
        self.keys.changed()

    async def revoke_key(self, id: str) -> KeyRecord:
        """End a key. Raises `NotFoundError`, `StoreError`."""
        revoked = await self._access.do(self.store.revoke_key, id)
        self.keys.changed()
        return revoked

    async def preview_policy(self, name: str, text: str) -> PolicyPreview:
        """What a policy would change of what its predecessor decided, or, if it is new, of what all have. Raises
        `StoreError`."""
        known = name if name in self.orchestrator.policies.names() else None
        records = await self._access.do(self.store.recent_requests, known, 2 * DECISIONS)
        decided = [(unpacked(record.request), str((record.decision or {}).get("policy"))) for record in records]
        return await asyncio.to_thread(previewed, self.orchestrator, name, text, decided)

    # ------------------------------------------------------------------------------------------------------- accepting

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
                self.refusals.count(error.code)
                self.orchestrator.metrics.record("triptych_refusals_total", reason=error.code)
                raise

    async def _taken_in(self, submission: Submission) -> JobView:
        await self.start()
        if self._fenced:
            raise fenced()
        if self._draining and submission.id not in self._live:
            raise draining()
        if (job := self._live.get(submission.id)) is not None:
            return self._view(job)
        if (known := await self._known(submission)) is not None:
            return await self.status(known.id)
        caller = await self._key_of(submission)
        entered_s = self.limits.enter(caller) if caller is not None else 0.0
        rate = self.limits.rate(caller) if caller is not None else None
        admitted, job = None, None
        given: list[GivenRecord] = []
        try:
            if submission.given:  # on the disk before the job is, and at hand for its first step
                given = await self._access.do(self.store.keep_given, submission.id, submission.given)
                self.orchestrator.gallery.keep(submission.given)
            further = self.limits.allowances(caller) if caller is not None else ()
            admitted = await self.orchestrator.admit(submission.request, further=further)
            if caller is not None:
                self.limits.charge(caller, admitted)
            record = record_of(submission, admitted, self._fence)
            accepting = self.store.accept_soon(record, admitted.charge.rows(record.id), given)
            # Its first step may be on its way while the store commits: nobody is told of the job before that.
            job = self._begin(record, admitted, submission.trace)
            stored = await asyncio.wrap_future(accepting)
        except BaseException:
            await self._take_back(caller, entered_s, admitted, job, given)
            raise
        if stored.id != record.id:  # the same key came twice at once, and the other was first
            await self._take_back(caller, entered_s, admitted, job, given)
            return await self.status(stored.id)
        self._live[record.id] = job
        return replace(self._view(job), rate=rate)

    def _begin(self, record: JobRecord, admitted: Admitted, trace: tracing.Carrier) -> LiveJob:
        job = LiveJob(record)
        job.admit(admitted, self.orchestrator.shares(admitted.route.plan))
        with tracing.resumed({**trace, "job": record.id}):  # goes on after those who asked
            job.task = asyncio.ensure_future(self._run(job))
        return job

    async def _key_of(self, submission: Submission) -> KeyRecord | None:
        """The key that a submission came with. Raises `RequestError` if it was revoked meanwhile."""
        if (id := submission.caller.key_id) is None:
            return None
        if (key := await self.keys.get(id)) is None:
            raise RequestError(f"key {id} was revoked; ask for another", None, "invalid_api_key")
        return key

    async def _take_back(
        self,
        key: KeyRecord | None,
        entered_s: float,
        admitted: Admitted | None,
        job: LiveJob | None,
        given: Sequence[GivenRecord] = (),
    ) -> None:
        """What was not accepted leaves no trace in limits, budgets and queues, and nothing of it runs on."""
        for task in () if job is None or job.task is None else (job.task, *job.work):
            task.cancel()
            await ended(task)
        if key is not None:
            self.limits.leave(key, entered_s)
        if admitted is not None:
            admitted.charge.forget()
            self.orchestrator.give_up(admitted)
        if given:
            with suppress(StoreError):
                await self._access.do(self.store.drop_given, given)

    async def _known(self, submission: Submission) -> JobRecord | None:
        """The job that this became before, if it did."""
        known = await self._access.do(self.store.job, submission.id) if submission.again else None
        tenant, key = submission.caller.tenant, submission.idempotency_key
        if known is not None or key is None:
            return known
        known = await self._access.do(self.store.by_key, tenant, key)
        if known is not None and known.body_digest != digest_of(submission.body):
            message = f"Idempotency-Key {key!r} came with another request before; send a new key with a new request"
            raise RequestError(message, "Idempotency-Key", "idempotency_mismatch")
        return known

    # --------------------------------------------------------------------------------------------------------- running

    async def _carry_on(self, job: LiveJob) -> None:
        """Run a job that another process began. What was accepted is not refused because others wait: it waits, too."""
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
                    admitted = await self.orchestrator.admit(request, job.charge)
                    break
                except (OverloadedError, LoadError) as error:
                    if time.time() + AGAIN_S >= due:
                        raise DeadlineError(f"its deadline passed while it waited: {error.message}") from None
                    await asyncio.sleep(min(max(AGAIN_S, error.retry_after_s or 0.0), 10 * AGAIN_S))
        except asyncio.CancelledError:
            if job.cancelled:
                self._close(job, "cancelled")
            raise
        except Exception as error:
            await self._fail(job, error)
            return
        job.admit(admitted, self.orchestrator.shares(admitted.route.plan))
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
                outcome = await self.orchestrator.run(admitted, listen, job.missing, lambda: shown or job.followers > 0)
                await self._finish(job, outcome, listen)
        except asyncio.CancelledError:
            if job.cancelled:
                self._close(job, "cancelled")
            raise
        except Exception as error:
            await self._fail(job, error)

    async def _finish(self, job: LiveJob, outcome: Outcome, listen: Listener) -> None:
        for made in outcome.made:  # those of a policy that may refuse were kept back until now
            listen(Finished(replace(outcome, made=(made,))))
        await asyncio.gather(*listen.rendering)
        here = {one.index for one in outcome.made}
        earlier = {index: facts for index, facts in job.facts.items() if index not in here}
        result = await self._access.do(self._renderer.result, outcome, job.record.body, job.record.id, earlier)
        job.outcome = outcome
        job.end("done", result)
        self._close(job, "done")

    async def _fail(self, job: LiveJob, error: Exception) -> None:
        if not isinstance(error, TriptychError):
            logger.error("job %s failed", job.record.id, exc_info=error)
        words = self._renderer.error(error, job.record.request.get("id", ""))
        job.end("failed", failure=error, error=words)
        self._close(job, "failed")

    def _close(self, job: LiveJob, state: JobState) -> None:
        """Write the end of a job, after its pictures. The store may be away: it is asked until it answers."""
        if state == "cancelled":
            job.end("cancelled", error={"message": "the job was cancelled", "code": "cancelled"})
        closing = asyncio.ensure_future(self._closed(job, state))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _closed(self, job: LiveJob, state: JobState) -> None:
        if job.work:
            await asyncio.wait(job.work)
        if job.charge is not None:
            job.charge.settle()
        rows = job.charge.rows(job.record.id) if job.charge is not None else None
        used = (job.charge.work_s, job.charge.cost_usd) if job.charge is not None else (0.0, 0.0)
        served = counting.row_of(job.record, state, job.decision, job.outcome, used)
        counting.count(self.orchestrator.metrics, served, job.record.priority)
        where = f"{served.policy}/{served.recipe}"
        logger.info("job %s is %s after %.3f s, by %s", job.record.id, state, served.latency_s, where)

        async def write() -> None:
            ending = self.store.finished_soon(job.record.id, self._fence, state, job.result, job.error, rows, served)
            await asyncio.wrap_future(ending)

        await self._access.insist(write)
        if self._webhooks is not None and job.record.webhook is not None:
            self._webhooks.wake()
        asyncio.get_running_loop().call_later(KEPT_S, self._live.pop, job.record.id, None)

    def _routed(self, job: LiveJob, route: Route) -> None:
        """How a job is done, also when that changes while it waits."""
        if job.admitted is not None:
            job.admit(replace(job.admitted, route=route), self.orchestrator.shares(route.plan))

    def _begun(self, job: LiveJob) -> None:
        """Write that a job is running, and by which decision, without waiting for it: the next process counts it as one
        that may have killed this one, and keeps to the decision."""
        with suppress(StoreError):
            writing = self.store.started_soon(job.record.id, self._fence, job.decision)
            writing.add_done_callback(lambda done: done.cancelled() or done.exception())  # marks it as seen

    async def _until_ended(self, job_id: str) -> JobView:
        """The job once it has ended, where another orchestrator runs it. Raises `NotFoundError`."""
        while True:
            view = await self.status(job_id)
            if view.state in ("done", "failed", "cancelled"):
                return view
            await asyncio.sleep(0.25)

    def _view(self, job: LiveJob) -> JobView:
        return live_view(job, [one for one in self._live.values() if one.state == "queued"])
