"""The other side of Ray Serve handles, and the one place where failures of remote calls become our own again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError, RayError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.jobs.values import Delivered, File, Identity, JobEvent, JobView, Submission
from deployments.observing import tracing
from deployments.operating.values import Operations, PolicyPreview
from deployments.orchestration.orchestrator import begun
from deployments.orchestration.results import Refused, WorkerLostError
from deployments.store.errors import FencedError
from deployments.store.records import JobState, KeyRecord
from deployments.workers.statuses import Sightings
from deployments.workers.worker import OnBatchProgress, OnProgress, WorkerStatus
from router.cost.queues import Queues
from router.errors import DeadlineError, LoadError, OverloadedError, StepError, TriptychError
from router.route import Route
from router.types import GenerationRequest, Progress, Step, StepResult, Value

logger = logging.getLogger("triptych.handles")

STATUS_TIMEOUT_S = 2.0
AGAIN_S = 0.5  # before the next orchestrator is asked
LOST_S = 30.0  # for which the next orchestrator is waited for
MARGIN_S = 2.0  # beyond the deadline, for the answer that it passed


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
            given, carried = (step, list(inputs), deadline_s), list(tracing.together())
            if on_progress is None:
                return await _cancelled_with(self._handle.result.remote(*given, carried))
            async with aclosing(_cancelling(self._steps.run.remote(*given, carried))) as arriving:
                async for item in arriving:
                    if isinstance(item, StepResult):
                        return item
                    if isinstance(item, Progress):
                        on_progress(item)
        raise StepError(f"model {step.model!r} ended step {step.id!r} without a result")

    async def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        deadline_s: float,
        on_progress: OnBatchProgress | None = None,
    ) -> list[StepResult | TriptychError]:
        with own_failures(f"model {steps[0].model!r}"):
            given = list(steps), [list(values) for values in inputs], deadline_s, list(tracing.together())
            if on_progress is None:
                return await _cancelled_with(self._handle.results.remote(*given))
            async with aclosing(_cancelling(self._steps.run_batch.remote(*given))) as arriving:
                async for item in arriving:
                    if isinstance(item, list):
                        return item
                    on_progress(*item)
        raise StepError(f"model {steps[0].model!r} ended step {steps[0].id!r} and those with it without a result")

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
                self.queues.set_loading(sightings.loading_s())


class RemoteJobs:
    """The jobs of the orchestrator deployment as the ingress sees them: a `deployments.api.service.Backend`.

    When the orchestrator dies, Serve starts another, which carries the jobs on; whoever waited here asks that one.
    timeout_s: after which a request without a latency budget is given up
    """

    def __init__(self, handle: DeploymentHandle, timeout_s: float) -> None:
        self._handle = handle
        self._streams = handle.options(stream=True)
        self._timeout_s = timeout_s

    async def complete(self, submission: Submission) -> Delivered:
        return await self._accepted(submission, self._handle.complete)

    async def submit(self, submission: Submission) -> JobView:
        return await self._accepted(submission, self._handle.submit)

    async def stream(self, submission: Submission, after: int = 0) -> AsyncGenerator[JobEvent]:
        due = self._due(submission)

        async def again() -> Any:
            nonlocal submission
            submission = await self._again(submission, due)
            return self._streams.stream.remote(submission, 0)

        async with aclosing(_followed(self._streams.stream.remote(submission, after), again)) as events:
            async for event in events:
                yield event

    async def events(self, job_id: str, after: int = 0) -> AsyncGenerator[JobEvent]:
        """From the next orchestrator they come anew; what has a file is told once."""
        lost_at: float | None = None

        async def again() -> Any:
            nonlocal lost_at
            lost_at = lost_at or time.monotonic()
            await _pause(lost_at + LOST_S)
            return self._streams.events.remote(job_id, 0)

        async with aclosing(_followed(self._streams.events.remote(job_id, after), again)) as events:
            async for event in events:
                lost_at = None
                yield event

    async def status(self, job_id: str, tenant: str | None = None) -> JobView:
        return await self._patiently(lambda: self._handle.status.remote(job_id, tenant))

    async def list(self, tenant: str | None, states: Sequence[JobState], limit: int, cursor: str | None) -> Any:
        return await self._patiently(lambda: self._handle.list.remote(tenant, states, limit, cursor))

    async def cancel(self, job_id: str, tenant: str | None = None) -> JobView:
        return await self._patiently(lambda: self._handle.cancel.remote(job_id, tenant))

    async def picture(self, picture_id: str) -> File:
        return await self._patiently(lambda: self._handle.picture.remote(picture_id))

    async def given(self, digest: str, tenant: str | None) -> bytes:
        return await self._patiently(lambda: self._handle.given.remote(digest, tenant))

    async def authenticate(self, hash: str | None) -> Identity:
        return await self._patiently(lambda: self._handle.authenticate.remote(hash))

    async def url_secret(self) -> bytes:
        return await self._patiently(lambda: self._handle.url_secret.remote())

    async def route(self, request: GenerationRequest) -> Route:
        return await self._call(self._handle.route.remote(request))

    async def feedback(self, request_id: str, source: str, value: float, image: int | None) -> Any:
        return await self._call(self._handle.feedback.remote(request_id, source, value, image))

    async def overview(self) -> Any:
        return await self._call(self._handle.overview.remote())

    async def policy_file(self, name: str, digest: str | None) -> Any:
        return await self._call(self._handle.policy_file.remote(name, digest))

    async def put_policy(self, name: str, text: str, expected: str | None) -> Any:
        return await self._call(self._handle.put_policy.remote(name, text, expected))

    async def operations(self) -> Operations:
        return await self._patiently(lambda: self._handle.operations.remote())

    async def all_keys(self) -> Sequence[KeyRecord]:
        return await self._patiently(lambda: self._handle.all_keys.remote())

    async def add_key(self, key: KeyRecord) -> None:
        await self._call(self._handle.add_key.remote(key))

    async def revoke_key(self, id: str) -> KeyRecord:
        return await self._patiently(lambda: self._handle.revoke_key.remote(id))

    async def preview_policy(self, name: str, text: str) -> PolicyPreview:
        return await self._call(self._handle.preview_policy.remote(name, text))

    def _due(self, submission: Submission) -> float:
        """On the monotonic clock: when nobody waits for this request any more."""
        request = submission.request
        budget_s = self._timeout_s if request.latency_budget_s is None else request.latency_budget_s
        return begun(request) + budget_s + MARGIN_S

    async def _accepted(self, submission: Submission, call: Any) -> Any:
        """The answer to a submission, of the next orchestrator if this one is lost."""
        due = self._due(submission)
        while True:
            try:
                return await self._call(call.remote(submission), due)
            except OrchestratorLostError:
                submission = await self._again(submission, due)

    async def _again(self, submission: Submission, due: float) -> Submission:
        """The submission for the next orchestrator, in a moment. Raises `OrchestratorLostError` if it is too late."""
        logger.warning("the orchestrator was lost; job %s is asked for at the next one", submission.id)
        await _pause(due)
        return replace(submission, again=True)

    async def _patiently(self, ask: Callable[[], Any]) -> Any:
        """The answer to a question that may be asked twice, of the next orchestrator if the first one is lost."""
        due = time.monotonic() + LOST_S
        while True:
            try:
                return await self._call(ask(), due)
            except OrchestratorLostError:
                await _pause(due)

    async def _call(self, response: Any, due: float | None = None) -> Any:
        left_s = None if due is None else max(0.0, due - time.monotonic())
        with _orchestrator_s_failures():
            try:
                answer = await asyncio.wait_for(_awaited(response), left_s)
            except TimeoutError:
                response.cancel()
                raise DeadlineError("the orchestrator did not answer before the deadline passed") from None
            except asyncio.CancelledError:
                response.cancel()
                raise
        return _answered(answer)


class OrchestratorLostError(WorkerLostError):
    """The process of the orchestrator is gone, or was replaced: its successor has the jobs. A worker that was lost to a
    job is another thing: that is an answer, and final."""


@contextmanager
def _orchestrator_s_failures() -> Iterator[None]:
    """`own_failures` of calls of the orchestrator."""
    try:
        with own_failures("the orchestrator"):
            yield
    except WorkerLostError as error:
        raise OrchestratorLostError(error.message) from None


def _answered(answer: Any) -> Any:
    """What the orchestrator answered; raises what it refused with."""
    if isinstance(answer, Refused):
        if isinstance(answer.error, FencedError):
            raise OrchestratorLostError(answer.error.message)
        raise answer.error
    return answer


async def _pause(due: float) -> None:
    """A moment in which the next orchestrator may come. Raises `OrchestratorLostError` if `due` is nearer."""
    if time.monotonic() + AGAIN_S >= due:
        raise OrchestratorLostError("the orchestrator ended while it worked, and no other took over in time; try again")
    await asyncio.sleep(AGAIN_S)


async def _followed(items: Any, again: Callable[[], Awaitable[Any]]) -> AsyncGenerator[JobEvent]:
    """The events of a streaming response; when the orchestrator is lost, those of `again()`, without the previews and
    pictures that came before."""
    sent = set[tuple[str, int, int]]()
    while True:
        try:
            async with aclosing(_cancelling(items)) as arriving:
                while True:
                    with _orchestrator_s_failures():
                        item = await anext(arriving, None)
                    if item is None:
                        return
                    event = _answered(item)
                    if event.file is not None:
                        place = (event.kind, event.file.index, event.data.get("number", 0))
                        if place in sent:
                            continue
                        sent.add(place)
                    yield event
        except OrchestratorLostError:
            items = await again()


async def _awaited(response: Any) -> Any:
    return await response


async def _cancelled_with(response: Any) -> Any:
    """What is answered; whoever stops waiting for it cancels the other side."""
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise


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
