"""What an ingress does when the orchestrator answers, refuses or dies: its handle, with a script in Ray's place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from ray.exceptions import RayActorError

from deployments.cluster import handles
from deployments.cluster.handles import RemoteJobs
from deployments.jobs.values import Delivered, File, JobEvent, Submission
from deployments.orchestration.results import Refused, WorkerLostError
from deployments.store.errors import FencedError
from router.errors import DeadlineError
from router.types import GenerationRequest

GONE = RayActorError()
DONE = Delivered("job_1", {}, ())
ASKED = Submission("job_1", GenerationRequest("a red circle", latency_budget_s=5.0), {})


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next orchestrator is there at once."""
    monkeypatch.setattr(handles, "AGAIN_S", 0.001)


class Response:
    """One remote call: an answer or exception, or, where it is streamed, items of which an exception is the last."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.cancelled = False

    def __await__(self) -> Any:
        async def answered() -> Any:
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

        return answered().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self.answer:
            if isinstance(item, BaseException):
                raise item
            yield item

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """A deployment handle whose calls have these answers, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = [Response(answer) for answer in answers]
        self.asked: list[tuple[Any, ...]] = []

    def options(self, **_: Any) -> Handle:
        return self

    def __getattr__(self, name: str) -> Handle:
        return self

    def remote(self, *given: Any) -> Response:
        self.asked.append(given)
        return self.answers[len(self.asked) - 1]


async def test_a_submission_outlives_its_orchestrator() -> None:
    """It is sent again to the next one, as one that may be accepted already, whether the first died or was replaced."""
    handle = Handle(GONE, Refused(FencedError("replaced")), DONE)
    assert await RemoteJobs(handle, 60.0).complete(ASKED) == DONE  # type: ignore[arg-type]
    assert [given[0].again for given in handle.asked] == [False, True, True]


async def test_a_worker_that_was_lost_to_a_job_is_an_answer() -> None:
    """Three times lost is the job's end: the client hears of it at once, and nobody asks until the deadline."""
    for call in ("complete", "submit"):
        handle = Handle(Refused(WorkerLostError("the worker died three times")))
        with pytest.raises(WorkerLostError, match="died three times"):
            await getattr(RemoteJobs(handle, 60.0), call)(ASKED)  # type: ignore[arg-type]
        assert len(handle.asked) == 1
    handle = Handle([JobEvent(1, "routed"), Refused(WorkerLostError("the worker died three times"))])
    with pytest.raises(WorkerLostError, match="died three times"):
        await heard(RemoteJobs(handle, 60.0).stream(ASKED))  # type: ignore[arg-type]
    assert len(handle.asked) == 1


async def test_an_orchestrator_that_does_not_come_back_is_waited_for_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then the error says so; it is not a hang."""
    monkeypatch.setattr(handles, "MARGIN_S", 0.05)
    brief = Submission("job_1", GenerationRequest("a red circle", latency_budget_s=0.01), {})
    jobs = RemoteJobs(Handle(*[GONE] * 5000), 60.0)  # type: ignore[arg-type]
    with pytest.raises((WorkerLostError, DeadlineError)):
        await asyncio.wait_for(jobs.complete(brief), 5)


async def test_a_stream_goes_on_at_the_next_orchestrator_without_repeating_pictures() -> None:
    """What came before the death is not sent twice, what is new follows, and the stream ends once."""
    first, second = (JobEvent(k + 2, "picture", {}, picture(k)) for k in (0, 1))
    lives: Sequence[Any] = (
        [JobEvent(1, "routed"), first, GONE],
        [JobEvent(1, "routed"), first, second, JobEvent(4, "done")],
    )
    handle = Handle(*lives)
    events = await heard(RemoteJobs(handle, 60.0).stream(ASKED))  # type: ignore[arg-type]
    assert [event.file.index for event in events if event.file is not None] == [0, 1]
    assert [event.kind for event in events] == ["routed", "picture", "routed", "picture", "done"]
    assert [given[0].again for given in handle.asked] == [False, True]
    handle = Handle(*lives)
    events = await heard(RemoteJobs(handle, 60.0).events("job_1", after=1))  # type: ignore[arg-type]
    assert [event.file.index for event in events if event.file is not None] == [0, 1]
    assert handle.asked == [("job_1", 1), ("job_1", 0)]


def picture(index: int) -> File:
    """A file of a job."""
    return File(f"job_1-{index}", index, index, "image/png", 8, 8, b"")


async def heard(events: Any) -> list[JobEvent]:
    """All of them."""
    return [event async for event in events]
