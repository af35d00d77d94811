"""A job as a row of the store, and as its owner sees it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from deployments.jobs.codec import digest_of, packed
from deployments.jobs.live import LiveJob
from deployments.jobs.values import File, JobView, Submission
from deployments.orchestration.results import Admitted
from deployments.store.records import JobRecord, PictureRecord
from router.types import Decision


def record_of(submission: Submission, admitted: Admitted, fence: int) -> JobRecord:
    """The row of a job that is admitted."""
    request, decision = submission.request, admitted.route.decision
    arrived_at = request.arrived_s or time.time()
    return JobRecord(
        id=submission.id,
        tenant=submission.caller.tenant,
        key_id=submission.caller.key_id,
        priority=request.priority,
        request=packed(request),
        body=dict(submission.body),
        arrived_at=arrived_at,
        deadline_at=arrived_at + admitted.within_s,
        idempotency_key=submission.idempotency_key,
        body_digest=digest_of(submission.body),
        fence=fence,
        decision=pinned(decision),
        n=request.n,
        webhook=None if submission.webhook is None else {"url": submission.webhook, "base": submission.base_url},
        created_at=time.time(),
    )


def view_of(record: JobRecord, pictures: Sequence[PictureRecord] = ()) -> JobView:
    """A job as the store has it."""
    return JobView(
        id=record.id,
        state=record.state,
        tenant=record.tenant,
        n=record.n,
        priority=record.priority,  # type: ignore[arg-type]
        created_at=record.created_at or record.arrived_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        deadline_at=record.deadline_at,
        progress=1.0 if record.state == "done" else 0.0,
        attempts=record.attempts,
        pictures=tuple(pictures),
        warnings=warnings_in(record.result),
        result=record.result,
        error=record.error,
        body=record.body,
        recipe=(record.decision or {}).get("recipe"),
        webhook=record.webhook,
    )


def warnings_in(result: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What an answer warns of."""
    return tuple(((result or {}).get("x_triptych") or {}).get("warnings") or ())


def of_picture(result: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as if it had one picture alone, as events of open jobs have it. facts: of that picture"""
    return {**result, "x_triptych": {**(result.get("x_triptych") or {}), "pictures": [dict(facts)]}}


def described(job: LiveJob, file: File) -> PictureRecord:
    return PictureRecord(
        file.id, job.record.id, file.index, file.seed, file.media_type, len(file.data), file.width, file.height, "",
        job.record.arrived_at, dict(job.facts.get(file.index, {})),
    )  # fmt: skip


def live_view(job: LiveJob, waiting: Sequence[LiveJob]) -> JobView:
    """A job that is open, or was a short while ago. waiting: the open jobs that have not begun"""
    record = job.record
    view = view_of(record, tuple(job.stored.values()))
    pictures = [*view.pictures, *(described(job, file) for file in job.files.values())]
    return replace(
        view,
        state=job.state,
        started_at=job.started_at or record.started_at,
        finished_at=job.finished_at,
        position=None if job.ended else sum(one.record.arrived_at < record.arrived_at for one in waiting),
        eta_s=None if job.ended else _eta_s(job),
        progress=job.progress,
        pictures=tuple(sorted(pictures, key=lambda one: one.index)),
        result=job.result,
        error=job.error,
        warnings=warnings_in(job.result),
        recipe=job.admitted.route.decision.recipe if job.admitted is not None else view.recipe,
    )


def _eta_s(job: LiveJob) -> float | None:
    """What was expected when it was admitted, less what has passed; never less than its own work that is left."""
    if job.admitted is None:
        return None
    route = job.admitted.route
    expected = route.estimates[route.decision.recipe]
    own = (expected.latency_s - expected.queue_s) * (1.0 - job.progress)
    return max(own, expected.latency_s - (time.time() - job.record.arrived_at))


def pinned(decision: Decision) -> dict[str, Any]:
    """What a process that carries a job on keeps of its decision."""
    return {"policy": decision.policy, "policy_digest": decision.policy_digest, "recipe": decision.recipe}
