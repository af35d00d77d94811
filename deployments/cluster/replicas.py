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
from deployments.api.policies import ADMIN_KEY
from deployments.api.service import Overview, Service
from deployments.assembly import Held, build_orchestrator, host_of
from deployments.cluster.draining import Gate
from deployments.cluster.handles import HandleMonitor, HandleWorker, RemoteOrchestrator
from deployments.cluster.scaling import QUEUED_S
from deployments.cluster.serve_metrics import ServeMetrics
from deployments.orchestration.results import Event, Outcome, PolicyFile, Refused
from deployments.settings import AppSettings, WorkerSettings
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

    def __init__(self, name: str, held: Sequence[Held], placed: WorkerSettings) -> None:
        here = _whereabouts(name)
        self._queued = (float("-inf"), 0.0)
        self._host = host_of(held, placed, lambda card: {**_described(card), **here})
        self._host.load()

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, want_progress: bool
    ) -> AsyncGenerator[Progress | StepResult]:
        """Progress (if wanted), then the result."""
        if not want_progress:
            yield await self._host.run(step, inputs, deadline_s)
            return

        def start(emit: Callable[[Progress], None]) -> Awaitable[StepResult]:
            return self._host.run(step, inputs, deadline_s, emit)

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
    return {"revision": card.revision, **({"guests": ",".join(card.guests)} if card.guests else {})}


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


class OrchestratorReplica:
    """The orchestrator with worker deployments behind it. Expected failures are answers (`Refused`), which
    `RemoteOrchestrator` raises: Serve would log each refused request with its traceback.

    workers: the deployments, by the names that the settings give them
    """

    def __init__(self, settings: dict[str, Any], workers: dict[str, DeploymentHandle]) -> None:
        logging.getLogger("triptych").setLevel(logging.INFO)
        chosen = AppSettings.model_validate(settings)
        by_name = {name: HandleWorker(handle) for name, handle in workers.items()}
        clients = {model: by_name[str(placed.worker)] for model, placed in chosen.models.items()}
        self._monitor = HandleMonitor(
            {name: (worker, _sightings(name, chosen)) for name, worker in by_name.items()},
        )
        self._orchestrator = build_orchestrator(chosen, clients, self._monitor, ServeMetrics())
        self._monitor.queues = self._orchestrator.queues
        self._scaled = [name for name, placed in chosen.workers.items() if placed.scaling is not None]
        self._looking: asyncio.Task[Any] | None = None
        self._gate = Gate()

    async def check_health(self) -> None:
        """Ray Serve asks this every second: then workers that scale are told what waits for them."""
        if self._scaled and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._monitor.look_at(*self._scaled))

    async def route(self, request: GenerationRequest) -> Route | Refused:
        return await told(self._orchestrator.route(request))

    async def generate(self, request: GenerationRequest) -> Outcome | Refused:
        async def within() -> Outcome:
            with self._gate.inside():
                return await self._orchestrator.generate(request)

        return await told(within())

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Event | Outcome | Refused]:
        try:
            with self._gate.inside():
                async with aclosing(self._orchestrator.stream(request)) as items:
                    async for item in items:
                        yield item
        except TriptychError as error:
            yield Refused(error)

    async def drain(self, limit_s: float) -> tuple[int, int]:
        """Refuse what is new and wait for what runs, `limit_s` seconds at most: (so many ran, so many still do)."""
        return await self._gate.close(limit_s)

    async def feedback(self, request_id: str, source: str, value: float, image: int | None) -> Receipt | Refused:
        return await told(self._orchestrator.feedback(request_id, source, value, image))

    async def overview(self) -> Overview:
        return await self._orchestrator.overview()

    async def policy_file(self, name: str, digest: str | None) -> PolicyFile | Refused:
        return await told(self._orchestrator.policy_file(name, digest))

    async def put_policy(self, name: str, text: str, expected: str | None) -> PolicyFile | Refused:
        return await told(self._orchestrator.put_policy(name, text, expected))


@serve.ingress()
class IngressReplica:
    """HTTP, and the same calls for other Ray applications through a handle: builtins in, builtins out.

        triptych = serve.get_app_handle("triptych")
        answer = await triptych.generate.remote({"prompt": "a red circle", "response_format": "bytes"})

    An expected failure comes back as `{"error": {message, type, param, code}}`.
    """

    def __init__(self, settings: dict[str, Any], orchestrator: DeploymentHandle) -> None:
        logging.getLogger("triptych").setLevel(logging.INFO)
        chosen = AppSettings.model_validate(settings)
        self._limits, self._cors = chosen.limits, chosen.cors.origins
        self._service = Service(RemoteOrchestrator(orchestrator), self._limits)

    def __serve_build_asgi_app__(self) -> Any:
        # Serve's proxy puts the request id on the response; a second header would contradict it.
        admin_key = os.environ.get(ADMIN_KEY)
        return create_app(self._service, self._limits, echo_request_id=False, admin_key=admin_key, cors=self._cors)

    async def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1/images/generations` without HTTP; `response_format: bytes` spares the base64."""
        return await self._service.answer(lambda request_id: self._service.generate(body, request_id))

    async def route(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1/route` without HTTP."""
        return await self._service.answer(lambda request_id: self._service.route(body, request_id))

    async def feedback(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1/feedback` without HTTP."""
        return await self._service.answer(lambda _: self._service.feedback(body))

    async def models(self) -> dict[str, Any]:
        """`GET /v1/models` without HTTP."""
        return await self._service.answer(lambda _: self._service.models())
