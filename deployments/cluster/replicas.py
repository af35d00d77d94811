"""The classes that Ray Serve runs in its replicas. Each only connects a plain class of ours to Serve.

Torch is imported in the constructor of `WorkerReplica` alone: the ingress and the orchestrator stay light.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.api.app import create_app
from deployments.api.keys import ADMIN_KEY, Gate
from deployments.api.service import Call, Overview, Service
from deployments.assembly import Held, build_orchestrator, host_of, jobs_in
from deployments.cluster.counts import Count, ForwardedCounts
from deployments.cluster.handles import HandleMonitor, HandleWorker, RemoteJobs
from deployments.cluster.scaling import QUEUED_S
from deployments.jobs.values import Delivered, File, Identity, JobEvent, JobView, Submission
from deployments.observing import tracing
from deployments.observing.process import observe
from deployments.operating import exporter
from deployments.operating.exporter import PrometheusMetrics
from deployments.operating.values import Operations, PolicyPreview
from deployments.orchestration.results import PolicyFile, Refused
from deployments.placement import WorkerSettings
from deployments.policy_versions import bring, follow
from deployments.settings import AppSettings, LogSettings, TracingSettings
from deployments.store import open_store
from deployments.store.records import JobState, KeyRecord
from deployments.workers.statuses import Sightings
from deployments.workers.streams import stream
from deployments.workers.worker import WorkerStatus
from router.errors import TriptychError
from router.learning.feedback import Receipt
from router.route import Route
from router.types import GenerationRequest, ModelCard, Progress, Scalar, Step, StepResult, Value

Answer = TypeVar("Answer")

TOLD_S = 10.0
"""So long what waits for a worker is taken for true; then its orchestrator is gone, or has other troubles."""


class WorkerReplica:
    """The models of one worker on the accelerator that Ray assigned to this process."""

    def __init__(
        self, name: str, held: Sequence[Held], placed: WorkerSettings, log: LogSettings, traces: TracingSettings
    ) -> None:
        observe(f"worker-{name}", log, traces)
        here = _whereabouts(name)
        self._queued = (float("-inf"), 0.0)
        self._host = host_of(held, placed, lambda card: {**_described(card), **here})
        self._host.load()

    async def result(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, carried: Sequence[tracing.Carrier] = ()
    ) -> StepResult:
        """A step of which nobody asks how far it is: one message instead of a stream of them. carried: its place in a
        trace"""
        with tracing.beside(carried):
            return await self._host.run(step, inputs, deadline_s)

    async def results(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        deadline_s: float,
        carried: Sequence[tracing.Carrier] = (),
    ) -> list[StepResult | TriptychError]:
        """The same for steps of one batch: what became of each."""
        with tracing.beside(carried):
            return await self._host.run_batch(steps, inputs, deadline_s)

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, carried: Sequence[tracing.Carrier] = ()
    ) -> AsyncGenerator[Progress | StepResult]:
        """Progress, then the result."""

        async def start(emit: Callable[[Progress], None]) -> StepResult:
            with tracing.beside(carried):
                return await self._host.run(step, inputs, deadline_s, emit)

        async with aclosing(stream(start)) as items:
            async for item in items:
                yield item

    async def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        deadline_s: float,
        carried: Sequence[tracing.Carrier] = (),
    ) -> AsyncGenerator[tuple[int, Progress] | list[StepResult | TriptychError]]:
        """Progress as (number of the step, how far it is), then what became of each step."""

        async def start(emit: Callable[[tuple[int, Progress]], None]) -> list[StepResult | TriptychError]:
            with tracing.beside(carried):
                return await self._host.run_batch(steps, inputs, deadline_s, lambda number, told: emit((number, told)))

        async with aclosing(stream(start)) as items:
            async for item in items:
                yield item

    async def statuses(self, queued_s: float | None = None) -> dict[str, WorkerStatus]:
        """How the models are. queued_s: seconds of work that wait for all replicas of this worker; kept for the
        autoscaler."""
        if queued_s is not None:
            self._queued = (time.monotonic(), queued_s)
        return self._host.statuses()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray Serve asks this for its autoscaler: what was said last, unless that is old."""
        told_at, queued_s = self._queued
        return {QUEUED_S: queued_s} if time.monotonic() - told_at < TOLD_S else {}

    def check_health(self) -> None:
        """Ray Serve asks this every few seconds and replaces the process if it raises."""
        self._host.check_health()


def _described(card: ModelCard) -> dict[str, Scalar]:
    said = {"guests": ",".join(card.guests), "tuning": card.tuned}
    return {"revision": card.revision, **{key: value for key, value in said.items() if value}}


def _whereabouts(worker: str) -> dict[str, Scalar]:
    context = ray.get_runtime_context()
    return {
        "worker": worker,
        "node": context.get_node_id(),
        "accelerators": ",".join(context.get_accelerator_ids().get("GPU", [])),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "process": os.getpid(),
    }


def _sightings(worker: str, settings: AppSettings) -> Sightings:
    scaling = settings.workers[worker].scaling
    return Sightings(worker, settings.models_of(worker), scaling is not None and scaling.min_replicas == 0)


async def told(answer: Awaitable[Answer]) -> Answer | Refused:
    """What is awaited, or the expected failure that it raises, as a value."""
    try:
        return await answer
    except TriptychError as error:
        return Refused(error)


async def told_each(items: AsyncGenerator[Answer]) -> AsyncGenerator[Answer | Refused]:
    """The items, and the expected failure that ends them as the last one."""
    try:
        async with aclosing(items) as arriving:
            async for item in arriving:
                yield item
    except TriptychError as error:
        yield Refused(error)


async def awaited(response: Any) -> None:
    """Wait for what a handle returned."""
    await response


def only_this_machine() -> bool:
    """Whether Serve listens on loopback, so that nobody else can reach it. No, where that cannot be known."""
    from ipaddress import ip_address

    from ray.serve.context import _get_global_client

    try:
        host = str(_get_global_client().http_config.host)
        return host == "localhost" or ip_address(host).is_loopback
    except Exception as error:
        logging.getLogger("triptych.ingress").warning(
            "it is not known where Serve listens (%s): keys are needed", error
        )
        return False


class OrchestratorReplica:
    """The orchestrator and its jobs, with worker deployments behind them. Expected failures are answers (`Refused`),
    which `RemoteJobs` raises: Serve would log each refused request with its traceback.

    workers: the deployments, by the names that the settings give them
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: dict[str, Any], workers: dict[str, DeploymentHandle]
    ) -> None:
        chosen = AppSettings.model_validate(settings)
        observe("orchestrator", chosen.logs, chosen.tracing)
        by_name = {name: HandleWorker(handle) for name, handle in workers.items()}
        clients = {model: by_name[str(placed.worker)] for model, placed in chosen.models.items()}
        self._monitor = HandleMonitor(
            {name: (worker, _sightings(name, chosen)) for name, worker in by_name.items()},
        )
        self._metrics = PrometheusMetrics()
        store = open_store(chosen.store)
        if chosen.store.url is not None:  # else it belongs to this machine, as the folder does
            bring(store, chosen.policies.path)
        orchestrator = build_orchestrator(chosen, clients, self._monitor, self._metrics)
        follow(orchestrator.policies, store)
        self._monitor.queues = orchestrator.queues
        self._scaled = [name for name, placed in chosen.workers.items() if placed.scaling is not None]
        self._looking: asyncio.Task[Any] | None = None
        self._jobs = jobs_in(store, chosen, orchestrator)
        await self._jobs.start()
        self._metrics.now = self._jobs.samples
        self._scraped = asyncio.create_task(exporter.serve(self._metrics, chosen.metrics))

    async def counts(self, counts: Sequence[Count]) -> None:
        """What another process counted."""
        for name, value, tags in counts:
            self._metrics.record(name, value, **tags)

    async def check_health(self) -> None:
        """Ray Serve asks this every second: then workers that scale are told what waits for them."""
        if self._scaled and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._monitor.look_at(*self._scaled))

    async def route(self, request: GenerationRequest) -> Route | Refused:
        return await told(self._jobs.route(request))

    async def complete(self, submission: Submission) -> Delivered | Refused:
        return await told(self._jobs.complete(submission))

    async def submit(self, submission: Submission) -> JobView | Refused:
        return await told(self._jobs.submit(submission))

    async def stream(self, submission: Submission, after: int) -> AsyncGenerator[JobEvent | Refused]:
        async with aclosing(told_each(self._jobs.stream(submission, after))) as items:
            async for item in items:
                yield item

    async def events(self, job_id: str, after: int) -> AsyncGenerator[JobEvent | Refused]:
        async with aclosing(told_each(self._jobs.events(job_id, after))) as items:
            async for item in items:
                yield item

    async def status(self, job_id: str, tenant: str | None) -> JobView | Refused:
        return await told(self._jobs.status(job_id, tenant))

    async def list(
        self, tenant: str | None, states: Sequence[JobState], limit: int, cursor: str | None
    ) -> tuple[Sequence[JobView], str | None] | Refused:
        return await told(self._jobs.list(tenant, states, limit, cursor))

    async def cancel(self, job_id: str, tenant: str | None) -> JobView | Refused:
        return await told(self._jobs.cancel(job_id, tenant))

    async def picture(self, picture_id: str) -> File | Refused:
        return await told(self._jobs.picture(picture_id))

    async def given(self, digest: str, tenant: str | None) -> bytes | Refused:
        return await told(self._jobs.given(digest, tenant))

    async def authenticate(self, hash: str | None) -> Identity | Refused:
        return await told(self._jobs.authenticate(hash))

    async def url_secret(self) -> bytes | Refused:
        return await told(self._jobs.url_secret())

    async def drain(self, limit_s: float) -> tuple[int, int]:
        """Refuse what is new and wait for what runs, `limit_s` seconds at most: (so many ran, so many still do)."""
        return await self._jobs.drain(limit_s)

    async def feedback(self, request_id: str, source: str, value: float, image: int | None) -> Receipt | Refused:
        return await told(self._jobs.feedback(request_id, source, value, image))

    async def overview(self) -> Overview:
        return await self._jobs.overview()

    async def policy_file(self, name: str, digest: str | None) -> PolicyFile | Refused:
        return await told(self._jobs.policy_file(name, digest))

    async def put_policy(self, name: str, text: str, expected: str | None) -> PolicyFile | Refused:
        return await told(self._jobs.put_policy(name, text, expected))

    async def operations(self) -> Operations | Refused:
        return await told(self._jobs.operations())

    async def all_keys(self) -> Sequence[KeyRecord] | Refused:
        return await told(self._jobs.all_keys())

    async def add_key(self, key: KeyRecord) -> Refused | None:
        return await told(self._jobs.add_key(key))

    async def revoke_key(self, id: str) -> KeyRecord | Refused:
        return await told(self._jobs.revoke_key(id))

    async def preview_policy(self, name: str, text: str) -> PolicyPreview | Refused:
        return await told(self._jobs.preview_policy(name, text))


@serve.ingress()
class IngressReplica:
    """HTTP, and the same calls for other Ray applications through a handle: builtins in, builtins out.

        triptych = serve.get_app_handle("triptych")
        answer = await triptych.generate.remote({"prompt": "a red circle", "response_format": "bytes"})

    An expected failure comes back as `{"error": {message, type, param, code}}`.
    """

    def __init__(self, settings: dict[str, Any], orchestrator: DeploymentHandle) -> None:
        chosen = AppSettings.model_validate(settings)
        observe("ingress", chosen.logs, chosen.tracing)
        self._limits, self._cors, self._uploads = chosen.limits, chosen.cors.origins, chosen.uploads
        jobs = RemoteJobs(orchestrator, self._limits.request_timeout_s)
        self._service = Service(jobs, self._limits, chosen.urls, chosen.webhooks, chosen.uploads)
        self._counts = ForwardedCounts(lambda counts: awaited(orchestrator.counts.remote(counts)))
        self._gate = Gate(chosen.auth.required, only_this_machine(), os.environ.get(ADMIN_KEY))

    def __serve_build_asgi_app__(self) -> Any:
        # Serve's proxy puts the request id on the response; a second header would contradict it.
        return create_app(
            self._service,
            self._limits,
            echo_request_id=False,
            cors=self._cors,
            gate=self._gate,
            answered=self._answered,
            uploads=self._uploads,
        )

    def _answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._counts.record("triptych_http_requests_total", method=method, route=route, status=str(status))
        self._counts.record("triptych_http_seconds", seconds, route=route)

    async def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1/images/generations` without HTTP; `response_format: bytes` spares the base64."""
        return await self._service.answer(lambda request_id: self._service.generate(body, request_id))

    async def submit(self, body: dict[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """`POST /v1/jobs` without HTTP: the job, which is made whoever waits for it."""
        call = Call(idempotency_key=idempotency_key)

        async def ask(request_id: str) -> dict[str, Any]:
            return (await self._service.submit(body, request_id, call)).body

        return await self._service.answer(ask)

    async def status(self, job_id: str) -> dict[str, Any]:
        """`GET /v1/jobs/{id}` without HTTP."""
        return await self._service.answer(lambda _: self._service.status(job_id))

    async def cancel(self, job_id: str) -> dict[str, Any]:
        """`DELETE /v1/jobs/{id}` without HTTP."""
        return await self._service.answer(lambda _: self._service.cancel(job_id))

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The events of `stream: true` without HTTP; call it with `handle.options(stream=True)`. With the id of a job
        under `job` in place of a request: the events of `GET /v1/jobs/{id}/events`. A failure is the last item."""
        events = self._service.events(str(body["job"])) if body.keys() == {"job"} else self._service.stream(body)
        async with aclosing(self._service.told_each(events)) as items:
            async for item in items:
                yield item

    async def route(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1/route` without HTTP."""
        return await self._service.answer(lambda request_id: self._service.route(body, request_id))

    async def feedback(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1/feedback` without HTTP."""
        return await self._service.answer(lambda _: self._service.feedback(body))

    async def models(self) -> dict[str, Any]:
        """`GET /v1/models` without HTTP."""
        return await self._service.answer(lambda _: self._service.models())
