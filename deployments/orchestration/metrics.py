"""What is measured, by name; where it is kept depends on who runs: see `Tally` and `operating/exporter.py`.

Units are base units (seconds, US dollars, quality from 0 to 1), and stand in the names. Counters end in `_total`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

MOMENTS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
DURATIONS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)


@dataclass(frozen=True)
class Metric:
    """kind: counters only grow, a gauge is set, a histogram counts what it is told by size
    tags: the names of its labels;   buckets: of a histogram, upper bounds
    """

    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _seconds(description: str, *tags: str, buckets: tuple[float, ...] = DURATIONS) -> Metric:
    return Metric("histogram", description, tags, buckets)


_RECIPE = ("policy", "recipe")

METRICS: dict[str, Metric] = {
    # Requests, as they come in and go out
    "triptych_http_requests_total": Metric("counter", "answers over HTTP", ("method", "route", "status")),
    "triptych_http_seconds": _seconds("until the end of an answer over HTTP, streams included", "route"),
    "triptych_refusals_total": Metric(
        "counter", "requests that did not become jobs, by the code of the failure", ("reason",)
    ),
    "triptych_jobs_total": Metric("counter", "jobs that have ended", ("state", "priority")),
    "triptych_request_seconds": _seconds("from arrival to answer of jobs that are done", *_RECIPE, "priority"),
    "triptych_pictures_total": Metric("counter", "pictures that were made", _RECIPE),
    "triptych_work_seconds_total": Metric("counter", "seconds of work, every try and look included", _RECIPE),
    "triptych_cost_usd_total": Metric("counter", "cost as measured, every try and look included", _RECIPE),
    # Decisions
    "triptych_decide_seconds": _seconds("of a decision, once a prompt is understood", "policy", buckets=MOMENTS),
    "triptych_decisions_total": Metric("counter", "requests by policy and chosen recipe", _RECIPE),
    "triptych_explored_total": Metric("counter", "requests whose recipe was drawn at random", ("policy",)),
    "triptych_degraded_total": Metric("counter", "requests with a lesser recipe because of load", ("policy",)),
    "triptych_rerouted_total": Metric("counter", "requests that went another way while they waited", ("policy",)),
    "triptych_refused_total": Metric("counter", "requests that the policy refused", ("policy", "code")),
    "triptych_safety_total": Metric("counter", "findings of checks of safety", ("policy", "stage", "check", "action")),
    "triptych_canary_total": Metric("counter", "requests that a canary answered", ("policy", "canary")),
    "triptych_shadow_total": Metric("counter", "compared decisions", ("policy", "shadow", "same")),
    "triptych_shadow_cost_usd_total": Metric("counter", "expected cost of compared decisions", ("policy", "by")),
    "triptych_shadow_quality_total": Metric("counter", "expected quality of compared decisions", ("policy", "by")),
    # What was foreseen, and what came out
    "triptych_verified_total": Metric("counter", "pictures that were checked", ("policy", "verdict")),
    "triptych_checked_pictures_total": Metric("counter", "pictures that had a first look", _RECIPE),
    "triptych_checked_expected_total": Metric("counter", "quality that was expected of these, summed up", _RECIPE),
    "triptych_checked_quality_total": Metric("counter", "quality of these at the first look, summed up", _RECIPE),
    "triptych_feedback_total": Metric("counter", "feedback that was stored", ("kind",)),
    # Steps on their way to workers
    "triptych_wait_seconds": _seconds("that steps waited for their turn", "model", "priority"),
    "triptych_step_seconds": _seconds("of steps that were made, by phase: wait, draw, way", "model", "kind", "phase"),
    "triptych_steps_total": Metric("counter", "steps that came back from workers", ("model", "kind", "outcome")),
    "triptych_batches_total": Metric("counter", "steps sent to workers, as one or several", ("model", "size")),
    "triptych_retries_total": Metric("counter", "steps begun once more since their worker was lost", ("model",)),
    "triptych_breaker_total": Metric("counter", "failures that took a model out for a while", ("model",)),
    # As it is now; asked when it is scraped
    "triptych_queued_seconds": Metric("gauge", "seconds of work that wait", ("model", "priority")),
    "triptych_queued_steps": Metric("gauge", "steps that wait", ("model",)),
    "triptych_running_steps": Metric("gauge", "steps that are with a worker", ("model",)),
    "triptych_model_ready": Metric("gauge", "1 if steps of the model can run", ("model", "worker")),
    "triptych_model_load_seconds": Metric("gauge", "that loading the model took", ("model",)),
    "triptych_breaker_open": Metric("gauge", "1 while no step is sent, since those before failed", ("model",)),
    "triptych_jobs_open": Metric("gauge", "jobs that are to be done", ("state",)),
    "triptych_budget_left_usd": Metric("gauge", "of the key of a tenant that is nearest to its end", ("tenant",)),
    "triptych_budget_left_ratio": Metric("gauge", "the same as a share of the budget, 0 to 1", ("tenant",)),
    # What is followed
    "triptych_policy_changes_total": Metric("counter", "changes of policies that this orchestrator followed"),
    "triptych_policy_problems": Metric("gauge", "problems of policy files that are refused"),
    "triptych_artifact_changes_total": Metric("counter", "artefacts that this orchestrator took up"),
    "triptych_artifact_problems": Metric("gauge", "1 while the artefact's folder holds a broken one"),
    "triptych_log_failures_total": Metric("counter", "decisions that could not be logged"),
}


REASONS = (
    "overloaded", "deadline_exceeded", "budget_exhausted", "rate_limit_exceeded", "no_recipe", "model_not_loaded",
    "store_full", "store_unavailable",
)  # fmt: skip
"""Of refusals, those that somebody should hear of."""


class Metrics(Protocol):
    """Where metrics go. `record` adds to a counter, sets a gauge, tells a histogram."""

    def record(self, name: str, value: float = 1.0, **tags: str) -> None: ...


class Tally:
    """Counts in memory: for one process without Ray, and for tests. Of a histogram, the sum of what it was told."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def record(self, name: str, value: float = 1.0, **tags: str) -> None:
        metric = METRICS[name]
        if set(tags) != set(metric.tags):
            raise ValueError(f"{name} has the tags {', '.join(metric.tags)}, not {', '.join(tags)}")
        key = (name, tuple(sorted(tags.items())))
        self._by_key[key] = value + (self._by_key.get(key, 0.0) if metric.kind != "gauge" else 0.0)

    def value(self, name: str, **tags: str) -> float:
        """What was counted so far, 0 if nothing was."""
        return self._by_key.get((name, tuple(sorted(tags.items()))), 0.0)
