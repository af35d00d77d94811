"""What an orchestrator tells of a request, as events and files of its job, and the files in the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from deployments.jobs.access import StoreAccess
from deployments.jobs.live import LiveJob, Previews
from deployments.jobs.values import File, Renderer
from deployments.jobs.views import pinned
from deployments.orchestration.results import (
    Admitted,
    Advanced,
    Checked,
    Chosen,
    Event,
    Finished,
    Outcome,
    Routed,
    StepBegun,
    StepEnded,
)
from deployments.store.records import PictureRecord
from deployments.store.store import Store
from router.route import Route
from router.types import Picture


class Pictures:
    """Makes the files of jobs, has them stored, and finds them again. fence: the token to write with"""

    def __init__(self, store: Store, access: StoreAccess, renderer: Renderer, fence: Callable[[], int]) -> None:
        self._store = store
        self._access = access
        self._renderer = renderer
        self._fence = fence

    async def add(self, job: LiveJob, outcome: Outcome) -> None:
        """Make the file of a picture, tell of it, and have it stored."""
        (made,) = outcome.made
        async with job.turn:
            data, media_type = await self._access.do(self._renderer.file, made, outcome.route, job.record.body)
            height, width = made.picture.pixels.shape[:2]
            file = File(f"{job.record.id}-{made.index}", made.index, made.seed, media_type, width, height, data)
            job.files[made.index] = file
            job.facts[made.index] = facts = self._renderer.facts(made)
            job.tell("picture", self._renderer.result(outcome, job.record.body, job.record.id, {}), file)
        record = PictureRecord(
            id=file.id,
            job=job.record.id,
            index=made.index,
            seed=made.seed,
            media_type=media_type,
            bytes_n=len(data),
            width=width,
            height=height,
            made_at=time.time(),
            facts=facts,
        )

        async def write() -> None:
            await self._access.do(self._store.put_picture, record, data, self._fence())

        job.work.append(asyncio.ensure_future(self._access.insist(write)))

    async def preview(self, job: LiveJob, index: int, number: int, picture: Picture) -> None:
        """Make the file of a preview and tell of it, unless its picture is there by now."""
        async with job.turn:
            if index in job.files or job.admitted is None:
                return
            route = job.admitted.route
            made = await self._access.do(self._renderer.preview, picture, route, job.record.body)
            data, media_type, width, height = made
            file = File(f"{job.record.id}-{index}", index, route.request.seed + index, media_type, width, height, data)
            job.tell("preview", {"index": index, "number": number}, file)

    async def of_job(self, job: LiveJob) -> tuple[File, ...]:
        """The files of a job in the order of its pictures, from memory where they are there."""
        files = []
        for index in range(job.record.n):
            if index in job.files:
                files.append(job.files[index])
            elif index in job.stored:
                files.append(await self.stored(job.stored[index]))
        return tuple(files)

    async def stored(self, record: PictureRecord) -> File:
        """A file from the store. Raises `StoreError`."""
        data = await self._access.do(self._store.read, record)
        return File(record.id, record.index, record.seed, record.media_type, record.width, record.height, data)

    def said(self, event: Routed | Checked | Chosen, job: LiveJob) -> dict[str, Any]:
        """What is told of it."""
        return self._renderer.said(event, job.record.body)

    def wanted_previews(self, job: LiveJob) -> int:
        """How many of each picture whoever asked wants."""
        return self._renderer.previews(job.record.body)


class Listener:
    """Turns what an orchestrator tells of a request into events and files of its job.

    on_begin: called when its first step goes to a worker;   on_route: with each decision on it, the first one included
    rendering: files that are being made
    """

    def __init__(
        self,
        job: LiveJob,
        admitted: Admitted,
        pictures: Pictures,
        on_begin: Callable[[LiveJob], None],
        on_route: Callable[[LiveJob, Route], None],
    ) -> None:
        self._job, self._pictures = job, pictures
        self._on_begin, self._on_route = on_begin, on_route
        steps = sum(
            step.kind in ("generate", "denoise", "refine", "edit", "inpaint") for step in admitted.route.plan.steps
        )
        self._previews = Previews(pictures.wanted_previews(job), steps)
        self._begun: set[int] = set()
        self.rendering: list[asyncio.Task[None]] = []

    def __call__(self, event: Event) -> None:
        job = self._job
        if isinstance(event, Routed):
            self._on_route(job, event.route)
            job.decision = pinned(event.route.decision)
            job.tell("routed", self._pictures.said(event, job))
        elif isinstance(event, Checked):
            job.tell("check", {"index": event.index, **self._pictures.said(event, job)})
        elif isinstance(event, Chosen):
            job.tell("choice", {"index": event.index, **self._pictures.said(event, job)})
        elif isinstance(event, StepBegun):
            if job.state == "queued":
                self._on_begin(job)
            job.advance(event.index, event.step, 0.0)
            job.tell("step", {"index": event.index, "step": event.step, "done": 0, "total": 1})
        elif isinstance(event, StepEnded):
            job.advance(event.index, event.step, 1.0)
            job.tell("step", {"index": event.index, "step": event.step, "done": 1, "total": 1})
        elif isinstance(event, Advanced):
            progress = event.progress
            job.advance(event.index, progress.step, progress.done / max(1, progress.total))
            if progress.preview is None:
                told = {"index": event.index, "step": progress.step, "done": progress.done, "total": progress.total}
                job.tell("step", told)
            elif (number := self._previews.take(event.index)) is not None:
                work = self._pictures.preview(job, event.index, number, progress.preview)
                self.rendering.append(asyncio.ensure_future(work))
        elif isinstance(event, Finished):
            (made,) = event.alone.made
            if made.index not in self._begun:
                self._begun.add(made.index)
                self.rendering.append(asyncio.ensure_future(self._pictures.add(job, event.alone)))
