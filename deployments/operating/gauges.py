"""What is as it is now, as samples for whoever scrapes. Called on the orchestrator's event loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deployments.operating.exporter import Sample
from deployments.operating.values import BudgetUse
from deployments.orchestration.orchestrator import Orchestrator

TENANTS = 200  # whose budgets are shown, those that are nearest to their end


def samples(orchestrator: Orchestrator, jobs: Mapping[str, int], budgets: Mapping[str, BudgetUse]) -> Iterator[Sample]:
    """jobs: open ones by state;   budgets: by tenant"""
    statuses, breaker = orchestrator.availability.statuses, orchestrator.step_queues.breaker
    for model, queue in orchestrator.step_queues.snapshot().items():
        waiting = queue["waiting"]
        for priority, one in waiting.items():
            yield "triptych_queued_seconds", {"model": model, "priority": priority}, one["seconds"]
        yield "triptych_queued_steps", {"model": model}, sum(one["steps"] for one in waiting.values())
        yield "triptych_running_steps", {"model": model}, queue["running"]
        yield "triptych_breaker_open", {"model": model}, float(breaker.state(model) == "open")
        status = statuses.get(model)
        ready = status is not None and status.state in ("ready", "idle")
        yield "triptych_model_ready", {"model": model, "worker": orchestrator.worker_of(model)}, float(ready)
        loaded_in_s = status.facts.get("loaded_in_s") if status is not None else None
        if isinstance(loaded_in_s, int | float):
            yield "triptych_model_load_seconds", {"model": model}, float(loaded_in_s)
    for state in ("queued", "running"):
        yield "triptych_jobs_open", {"state": state}, jobs.get(state, 0)
    nearest = sorted(budgets.items(), key=lambda item: -item[1].share)[:TENANTS]
    for tenant, use in nearest:
        yield "triptych_budget_left_usd", {"tenant": tenant}, use.limit_usd - use.spent_usd
        yield "triptych_budget_left_ratio", {"tenant": tenant}, max(0.0, 1.0 - use.share)
