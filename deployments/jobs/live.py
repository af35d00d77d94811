"""A job while it is open: its events in order, its files, how far it is. All on one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from deployments.jobs.values import ENDS, EventKind, File, JobEvent
from deployments.orchestration.budgets import Charge
from deployments.orchestration.results import Admitted, Outcome
from deployments.store.records import JobRecord, JobState, PictureRecord

PREVIEWS_PER_STEP = 3  # about what an engine sends for one denoising step of a plan


class LiveJob:
    """One open job, or one that ended a short while ago.

    record: as it was accepted;   stored: pictures that an earlier process made, by index
    weights: share of each step in the seconds of one picture, by the step's id
    """

    def __init__(self, record: JobRecord, stored: Mapping[int, PictureRecord] | None = None) -> None:
        self.record = record
        self.stored = dict(stored or {})
        self.state: JobState = "queued"
        self.admitted: Admitted | None = None
        self.charge: Charge | None = None  # of an earlier process, until it is admitted
        self.decision: dict[str, Any] = dict(record.decision or {})
        self.weights: Mapping[str, float] = {}
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.files: dict[int, File] = {}
        self.facts: dict[int, Mapping[str, Any]] = {index: one.facts or {} for index, one in self.stored.items()}
        self.result: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.failure: BaseException | None = None
        self.outcome: Outcome | None = None
        self.cancelled = False
        self._accepted: bool | None = None
        self._decided = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.work: list[asyncio.Task[Any]] = []  # files that are being made and stored
        self.turn = asyncio.Lock()  # previews and pictures become events in the order in which they came
        self.followers = 0
        self._events: list[JobEvent] = []
        self._changed = asyncio.Event()
        self._steps: dict[tuple[int, str], float] = {}

    @property
    def ended(self) -> bool:
        return self.state in ENDS

    @property
    def missing(self) -> set[int]:
        """The pictures that are still to be made. With none left the first is made again, for what it says."""
        return set(range(self.record.n)) - set(self.stored) or {0}

    @property
    def progress(self) -> float:
        """0 .. 1 of the seconds of work of all pictures."""
        if self.state == "done":
            return 1.0
        made = sum(min(1.0, share) * self.weights.get(step, 0.0) for (_, step), share in self._steps.items())
        return min(1.0, (made + len(self.stored)) / self.record.n)

    def admit(self, admitted: Admitted, weights: Mapping[str, float]) -> None:
        """From now on it waits for its turn on the workers."""
        self.admitted, self.charge, self.weights = admitted, admitted.charge, weights

    def decide(self, accepted: bool) -> None:
        """Whether the store took it, which is decided once."""
        self._accepted = accepted
        self._decided.set()

    async def was_accepted(self) -> bool:
        """Return once that is decided. A step may end before, since it begins while the store commits."""
        await self._decided.wait()
        return bool(self._accepted)

    def advance(self, index: int, step: str, share: float) -> None:
        """A step of a picture is this far; the first of them is the job's beginning."""
        if self.started_at is None:
            self.started_at, self.state = time.time(), "running"
        self._steps[index, step] = share

    def tell(self, kind: EventKind, data: Mapping[str, Any], file: File | None = None) -> None:
        """Add an event, and wake whoever follows."""
        self._events.append(JobEvent(len(self._events) + 1, kind, data, file, self.record.fence))
        self._changed.set()
        self._changed = asyncio.Event()

    def end(
        self,
        state: JobState,
        result: dict[str, Any] | None = None,
        failure: BaseException | None = None,
        error: dict[str, Any] | None = None,
    ) -> None:
        """The last event. Only the first end counts."""
        if self.ended:
            return
        self.state, self.result, self.failure, self.error = state, result, failure, error
        self.finished_at = time.time()
        assert state in ENDS
        self.tell(state, result or error or {})

    async def events(self, after: int = 0) -> AsyncGenerator[JobEvent]:
        """All events with numbers above `after`, then those that come, until the last."""
        self.followers += 1
        try:
            while True:
                changed = self._changed
                for event in self._events[after:]:
                    after = event.number
                    yield event
                    if event.kind in ENDS:
                        return
                if after >= len(self._events):
                    await changed.wait()
        finally:
            self.followers -= 1

    async def over(self) -> None:
        """Return once it has ended."""
        while not self.ended:
            await self._changed.wait()


class Previews:
    """Which of the previews that come are passed on: `wanted` for each picture, spread over its plan."""

    def __init__(self, wanted: int, denoising_steps: int) -> None:
        self._wanted = wanted
        self._expected = max(1, PREVIEWS_PER_STEP * denoising_steps)
        self._seen: dict[int, int] = {}
        self._sent: dict[int, int] = {}

    def take(self, picture: int) -> int | None:
        """The number of this preview among those of its picture, or None to drop it."""
        self._seen[picture] = self._seen.get(picture, 0) + 1
        sent = self._sent.get(picture, 0)
        if sent >= self._wanted or self._seen[picture] * self._wanted < (sent + 1) * self._expected:
            return None
        self._sent[picture] = sent + 1
        return sent
