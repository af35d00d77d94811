"""How everything is: models and queues as the orchestrator knows them, what was served as the store sums it up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.operating.values import Health, ModelState
from deployments.orchestration.orchestrator import Orchestrator
from deployments.orchestration.results import Overview
from deployments.workers.worker import WorkerStatus
from router.types import ModelCard

_HEALTH: Mapping[str, Health] = {
    "ready": "ready", "starting": "starting", "idle": "asleep", "failed": "broken", "lost": "out",
}  # fmt: skip


def models_of(orchestrator: Orchestrator, overview: Overview) -> Sequence[ModelState]:
    """Every model with its worker and its queue, in the order of the catalogue."""
    queues = orchestrator.step_queues.snapshot()
    return [_model(orchestrator, card, overview.statuses.get(card.id), queues.get(card.id)) for card in overview.cards]


def _model(
    orchestrator: Orchestrator, card: ModelCard, status: WorkerStatus | None, queue: Mapping[str, Any] | None
) -> ModelState:
    breaker = orchestrator.step_queues.breaker.state(card.id)
    status = status or WorkerStatus(card.id, "starting", "its worker has not said how it is")
    waiting = (queue or {}).get("waiting", {})
    seconds, batch = orchestrator.seconds_per_picture(card.id) or (None, 1)
    return ModelState(
        name=card.id,
        worker=orchestrator.worker_of(card.id),
        state="out" if breaker == "open" else _HEALTH[status.state],
        detail=status.reason,
        replicas=_replicas(orchestrator, status),
        age_s=0.0 if status.seen_at is None else max(0.0, time.time() - status.seen_at),
        memory_gb=card.memory_gb,
        seconds_per_picture=seconds,
        batch=batch,
        queued_s={name: one["seconds"] for name, one in waiting.items()},
        queued_steps=sum(one["steps"] for one in waiting.values()),
        running=(queue or {}).get("running", 0),
        breaker=breaker,
    )


def _replicas(orchestrator: Orchestrator, status: WorkerStatus) -> int:
    """How many processes answer; a reason beside `idle` or `starting` says that there is none."""
    if status.each:
        return len(status.each)
    absent = status.state == "lost" or (status.state in ("idle", "starting") and bool(status.reason))
    return 0 if absent else orchestrator.queues.replicas(status.model)
