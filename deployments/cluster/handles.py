"""The other side of Ray Serve handles, and the one place where failures of remote calls become our own again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from ray.exceptions import RayActorError, RayError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.orchestration.results import Event, Outcome, Refused, WorkerLostError
from deployments.workers.statuses import Sightings
from deployments.workers.worker import OnProgress, WorkerStatus
from router.cost.queues import Queues
from router.errors import LoadError, OverloadedError, StepError, TriptychError
from router.route import Route
from router.types import GenerationRequest, Progress, Step, StepResult, Value

logger = logging.getLogger("triptych.handles")

STATUS_TIMEOUT_S = 2.0


@contextmanager
def own_failures(what: str) -> Any:
    """Turn the exceptions of Ray and Serve inside the block into `TriptychError`s; `what` was called."""
    try:
        yield
    except (RayError, RayServeException) as error:
        raise unwrapped(error, what) from None


def unwrapped(error: BaseException, what: str) -> BaseException:
    """The failure that a remote call means.

    Serve raises the exception of the other side wrapped as `RayTaskError`, whose `cause` is the original.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException) and not isinstance(error, RayActorError):
        return unwrapped(cause, what)
    if isinstance(error, TriptychError):
        return error
    if isinstance(error, TaskCancelledError):
        return asyncio.CancelledError()
    if isinstance(error, BackPressureError):
        return OverloadedError(f"{what} has as many requests waiting as it may have; try again later", 2.0)
    if isinstance(error, RayActorError):
        return WorkerLostError(f"the process of {what} ended while it worked; try again")
    if isinstance(error, DeploymentUnavailableError):
        return LoadError(f"{what} could not be deployed; see `serve status` for the reason")
    logger.error("%s failed", what, exc_info=error)
    return StepError(f"{what} failed: {type(error).__name__}; the server's log has the details")


class HandleWorker:
    """A `WorkerClient` for all models of a worker deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._steps = handle.options(stream=True)
        self._handle = handle

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        with own_failures(f"model {step.model!r}"):
            items = self._steps.run.remote(step, list(inputs), deadline_s, on_progress is not None)
            async with aclosing(_cancelling(items)) as arriving:
                async for item in arriving:
                    if isinstance(item, StepResult):
                        return item
                    if isinstance(item, Progress) and on_progress is not None:
                        on_progress(item)
        raise StepError(f"model {step.model!r} ended step {step.id!r} without a result")

    async def statuses(self, queued_s: float) -> list[dict[str, WorkerStatus]] | None:
        """How its models are, from every replica that there is; None if they have not answered in time.

        queued_s: what they are told, seconds of work that wait for all of them together
        """
        response = self._handle.broadcast("statuses", queued_s)
        asking = asyncio.ensure_future(response.results_async(return_exceptions=True))
        try:
            answers = await asyncio.wait_for(asking, STATUS_TIMEOUT_S)
        except TimeoutError:
            return None
        except (RayError, RayServeException):  # there is none at the moment
            return []
        return [answer for answer in answers if isinstance(answer, dict)]


class HandleMonitor:
    """Asks every replica of all workers at once how it is, and tells it what waits.

    workers: by name, with what was seen of them
    queues:  what waits, once there is somebody who knows; it is told how many replicas there are
    """

    def __init__(self, workers: Mapping[str, tuple[HandleWorker, Sightings]]) -> None:
        self._workers = dict(workers)
        self.queues: Queues | None = None

    async def statuses(self) -> Mapping[str, WorkerStatus]:
        await self.look_at(*self._workers)
        return {m: status for _, seen in self._workers.values() for m, status in seen.statuses().items()}

    async def look_at(self, *names: str) -> None:
        """Ask the workers with these names now."""
        await asyncio.gather(*map(self._look_at, names))

    async def _look_at(self, name: str) -> None:
        worker, sightings = self._workers[name]
        answers = await worker.statuses(self.queues.outstanding_at_s(name) if self.queues else 0.0)
        if answers is not None:
            sightings.answered(answers)
            if self.queues is not None:
                self.queues.set_replicas(name, sightings.replicas)


class RemoteOrchestrator:
    """The orchestrator deployment as the ingress sees it: a `deployments.service.Backend`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._streams = handle.options(stream=True)

    async def route(self, request: GenerationRequest) -> Route:
        return await self._call(self._handle.route.remote(request))

    async def generate(self, request: GenerationRequest) -> Outcome:
        return await self._call(self._handle.generate.remote(request))

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Event | Outcome]:
        with own_failures("the orchestrator"):
            async with aclosing(_cancelling(self._streams.stream.remote(request))) as items:
                async for item in items:
                    if isinstance(item, Refused):
                        raise item.error
                    yield item

    async def feedback(self, request_id: str, source: str, value: float, image: int | None) -> Any:
        return await self._call(self._handle.feedback.remote(request_id, source, value, image))

    async def overview(self) -> Any:
        return await self._call(self._handle.overview.remote())

    async def policy_file(self, name: str, digest: str | None) -> Any:
        return await self._call(self._handle.policy_file.remote(name, digest))

    async def put_policy(self, name: str, text: str, expected: str | None) -> Any:
        return await self._call(self._handle.put_policy.remote(name, text, expected))

    async def _call(self, response: Any) -> Any:
        with own_failures("the orchestrator"):
            try:
                answer = await response
            except asyncio.CancelledError:
                response.cancel()
                raise
        if isinstance(answer, Refused):
            raise answer.error
        return answer


async def _awaited(response: Any) -> Any:
    return await response


async def _cancelling(items: Any) -> AsyncGenerator[Any]:
    """The items of a streaming response; whoever leaves before the end cancels the other side."""
    ended = False
    try:
        async for item in items:
            yield item
        ended = True
    finally:
        if not ended:
            items.cancel()
