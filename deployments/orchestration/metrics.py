"""What is counted about decisions, by name; where it is counted depends on who runs: see `Tally` and replicas.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Metric:
    """kind: counters only grow, a gauge is set; tags: the names of its labels."""

    kind: Literal["counter", "gauge"]
    description: str
    tags: tuple[str, ...] = ()


METRICS: dict[str, Metric] = {
    "triptych_decisions_total": Metric("counter", "requests by policy and chosen recipe", ("policy", "recipe")),
    "triptych_explored_total": Metric("counter", "requests whose recipe was drawn at random", ("policy",)),
    "triptych_degraded_total": Metric("counter", "requests with a lesser recipe because of load", ("policy",)),
    "triptych_refused_total": Metric("counter", "requests that the policy refused", ("policy", "code")),
    "triptych_safety_total": Metric("counter", "findings of checks of safety", ("policy", "stage", "check", "action")),
    "triptych_verified_total": Metric("counter", "pictures that were checked", ("policy", "verdict")),
    "triptych_batches_total": Metric("counter", "steps sent to workers, as one or several", ("model", "size")),
    "triptych_waited_seconds_total": Metric("counter", "seconds that steps waited", ("model", "priority")),
    "triptych_retries_total": Metric("counter", "steps begun once more since their worker was lost", ("model",)),
    "triptych_breaker_total": Metric("counter", "failures that took a model out for a while", ("model",)),
    "triptych_canary_total": Metric("counter", "requests that a canary answered", ("policy", "canary")),
    "triptych_shadow_total": Metric("counter", "compared decisions", ("policy", "shadow", "same")),
    "triptych_shadow_cost_usd_total": Metric("counter", "expected cost of compared decisions", ("policy", "by")),
    "triptych_shadow_quality_total": Metric("counter", "expected quality of compared decisions", ("policy", "by")),
    "triptych_policy_changes_total": Metric("counter", "changes of policies that this orchestrator followed"),
    "triptych_log_failures_total": Metric("counter", "decisions that could not be logged"),
    "triptych_feedback_total": Metric("counter", "feedback that was stored", ("kind",)),
    "triptych_artifact_changes_total": Metric("counter", "artefacts that this orchestrator took up"),
    "triptych_artifact_problems": Metric("gauge", "1 while the artefact's folder holds a broken one"),
    "triptych_policy_problems": Metric("gauge", "problems of policy files that are refused"),
}


class Metrics(Protocol):
    """Where metrics go. `record` adds to a counter and sets a gauge."""

    def record(self, name: str, value: float = 1.0, **tags: str) -> None: ...


class Tally:
    """Counts in memory: for one process without Ray, and for tests."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def record(self, name: str, value: float = 1.0, **tags: str) -> None:
        metric = METRICS[name]
        if set(tags) != set(metric.tags):
            raise ValueError(f"{name} has the tags {', '.join(metric.tags)}, not {', '.join(tags)}")
        key = (name, tuple(sorted(tags.items())))
        self._by_key[key] = value + (self._by_key.get(key, 0.0) if metric.kind == "counter" else 0.0)

    def value(self, name: str, **tags: str) -> float:
        """What was counted so far, 0 if nothing was."""
        return self._by_key.get((name, tuple(sorted(tags.items()))), 0.0)
