"""The other side of Ray Serve handles, and the one place where failures of remote calls become our own again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError, RayError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.jobs.values import Delivered, File, Identity, JobEvent, JobView, Submission
from deployments.orchestration.orchestrator import begun
from deployments.orchestration.results import Refused, WorkerLostError
from deployments.store.records import JobState
from deployments.workers.worker import OnBatchProgress, OnProgress, WorkerStatus
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
    """A `WorkerClient` for a worker deployment."""

    def __init__(self, model: str, handle: DeploymentHandle) -> None:
        self._model = model
        self._steps = handle.options(stream=True)
        self._handle = handle

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        with own_failures(f"model {self._model!r}"):
            items = self._steps.run.remote(step, list(inputs), deadline_s, on_progress is not None)
            async with aclosing(_cancelling(items)) as arriving:
                async for item in arriving:
                    if isinstance(item, StepResult):
                        return item
                    if isinstance(item, Progress) and on_progress is not None:
                        on_progress(item)
        raise StepError(f"model {self._model!r} ended step {step.id!r} without a result")

    async def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        deadline_s: float,
        on_progress: OnBatchProgress | None = None,
    ) -> list[StepResult | TriptychError]:
        with own_failures(f"model {steps[0].model!r}"):
            given = list(steps), [list(values) for values in inputs]
            items = self._steps.run_batch.remote(*given, deadline_s, on_progress is not None)
            async with aclosing(_cancelling(items)) as arriving:
                async for item in arriving:
                    if isinstance(item, list):
                        return item
                    if on_progress is not None:
                        on_progress(*item)
        raise StepError(f"model {steps[0].model!r} ended step {steps[0].id!r} and those with it without a result")

    async def status(self) -> WorkerStatus:
        """How the worker is; `starting` if no replica answers in time."""
        response = self._handle.status.remote()
        try:
            return await asyncio.wait_for(_awaited(response), STATUS_TIMEOUT_S)
        except (TimeoutError, RayError, RayServeException):
            response.cancel()
            return WorkerStatus(self._model, "starting", "no replica has answered yet; is there a place for it?")


class HandleMonitor:
    """Asks all worker deployments at once. A worker that was seen and is only busy keeps its last status."""

    def __init__(self, workers: Mapping[str, HandleWorker]) -> None:
        self._workers = workers
        self._last: dict[str, WorkerStatus] = {}

    async def statuses(self) -> Mapping[str, WorkerStatus]:
        answers = await asyncio.gather(*(worker.status() for worker in self._workers.values()))
        for answer in answers:
            if answer.state != "starting" or answer.model not in self._last:
                self._last[answer.model] = answer
        return dict(self._last)


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
        due = self._due(submission)
        while True:
            try:
                return await self._call(self._handle.complete.remote(submission), due)
            except WorkerLostError:
                submission = await self._again(submission, due)

    async def stream(self, submission: Submission, after: int = 0) -> AsyncGenerator[JobEvent]:
        due, sent = self._due(submission), set[tuple[str, int, int]]()
        while True:
            try:
                with own_failures("the orchestrator"):
                    async with aclosing(_cancelling(self._streams.stream.remote(submission, after))) as items:
                        async for item in items:
                            if isinstance(item, Refused):
                                raise item.error
                            if item.file is not None:  # of a life before this one
                                place = (item.kind, item.file.index, item.data.get("number", 0))
                                if place in sent:
                                    continue
                                sent.add(place)
                            yield item
                return
            except WorkerLostError:
                submission = await self._again(submission, due)

    async def submit(self, submission: Submission) -> JobView:
        due = self._due(submission)
        while True:
            try:
                return await self._call(self._handle.submit.remote(submission), due)
            except WorkerLostError:
                submission = await self._again(submission, due)

    async def events(self, job_id: str, after: int = 0) -> AsyncGenerator[JobEvent]:
        """From the next orchestrator they come anew; what has a file is told once."""
        sent = set[tuple[str, int, int]]()
        due = time.monotonic() + LOST_S
        while True:
            try:
                with own_failures("the orchestrator"):
                    async with aclosing(_cancelling(self._streams.events.remote(job_id, after))) as items:
                        async for item in items:
                            if isinstance(item, Refused):
                                raise item.error
                            due = time.monotonic() + LOST_S
                            if item.file is not None:
                                place = (item.kind, item.file.index, item.data.get("number", 0))
                                if place in sent:
                                    continue
                                sent.add(place)
                            yield item
                return
            except WorkerLostError:
                if time.monotonic() + AGAIN_S >= due:
                    raise
                await asyncio.sleep(AGAIN_S)
                after = 0

    async def status(self, job_id: str, tenant: str | None = None) -> JobView:
        return await self._patiently(lambda: self._handle.status.remote(job_id, tenant))

    async def list(self, tenant: str | None, states: Sequence[JobState], limit: int, cursor: str | None) -> Any:
        return await self._patiently(lambda: self._handle.list.remote(tenant, states, limit, cursor))

    async def cancel(self, job_id: str, tenant: str | None = None) -> JobView:
        return await self._patiently(lambda: self._handle.cancel.remote(job_id, tenant))

    async def picture(self, picture_id: str) -> File:
        return await self._patiently(lambda: self._handle.picture.remote(picture_id))

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

    def _due(self, submission: Submission) -> float:
        """On the monotonic clock: when nobody waits for this request any more."""
        request = submission.request
        budget_s = self._timeout_s if request.latency_budget_s is None else request.latency_budget_s
        return begun(request) + budget_s + MARGIN_S

    async def _again(self, submission: Submission, due: float) -> Submission:
        """The submission for the next orchestrator, a moment later. Raises `WorkerLostError` if it is too late."""
        if time.monotonic() + AGAIN_S >= due:
            raise WorkerLostError("the orchestrator ended while it worked, and no other took over in time; try again")
        logger.warning("the orchestrator was lost; job %s is asked for at the next one", submission.id)
        await asyncio.sleep(AGAIN_S)
        return replace(submission, again=True)

    async def _patiently(self, ask: Callable[[], Any]) -> Any:
        """The answer to a question that may be asked twice, of the next orchestrator if the first one is lost."""
        due = time.monotonic() + LOST_S
        while True:
            try:
                return await self._call(ask(), due)
            except WorkerLostError:
                if time.monotonic() + AGAIN_S >= due:
                    raise
                await asyncio.sleep(AGAIN_S)

    async def _call(self, response: Any, due: float | None = None) -> Any:
        left_s = None if due is None else max(0.0, due - time.monotonic())
        with own_failures("the orchestrator"):
            try:
                answer = await asyncio.wait_for(_awaited(response), left_s)
            except TimeoutError:
                response.cancel()
                raise DeadlineError("the orchestrator did not answer before the deadline passed") from None
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
