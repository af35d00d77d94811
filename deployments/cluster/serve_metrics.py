"""Metrics on Ray Serve: they come out at Ray's `/metrics` with the tags of application, deployment and replica."""

from __future__ import annotations

from ray.serve.metrics import Counter, Gauge

from deployments.orchestration.metrics import METRICS


class ServeMetrics:
    """A `deployments.metrics.Metrics` inside a replica."""

    def __init__(self) -> None:
        self._counters = {n: Counter(n, m.description, m.tags) for n, m in METRICS.items() if m.kind == "counter"}
        self._gauges = {n: Gauge(n, m.description, m.tags) for n, m in METRICS.items() if m.kind == "gauge"}

    def record(self, name: str, value: float = 1.0, **tags: str) -> None:
        if name in self._gauges:
            self._gauges[name].set(value, tags)
        elif value > 0:  # Ray refuses to add nothing
            self._counters[name].inc(value, tags)
