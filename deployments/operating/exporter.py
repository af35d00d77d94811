"""The series of all processes in one place: Prometheus' text at a fixed port, from the orchestrator's process.

What the orchestrator does is counted where it happens; what changes by itself (queues, budgets) is asked when somebody
scrapes, so no gauge goes stale or vanishes. Other processes send their counts here (`cluster/counts.py`). Nothing has a
prefix but `triptych_`; the `ray_` series are Ray's, and on a port of Ray's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, make_asgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import disable_created_metrics
from prometheus_client.registry import Collector

from deployments.orchestration.metrics import METRICS, REASONS
from deployments.settings import MetricsSettings

logger = logging.getLogger("triptych.metrics")

AGAIN_S = 2.0  # until the port is tried again that a predecessor may still have

Sample = tuple[str, dict[str, str], float]
"""Name, labels, value of a gauge."""

disable_created_metrics()  # type: ignore[no-untyped-call]


class PrometheusMetrics:
    """A `Metrics` whose series Prometheus can scrape. now: the gauges that are asked when it does; None: no such"""

    def __init__(self, now: Callable[[], Iterable[Sample]] | None = None) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.now = now
        self._made: dict[str, Any] = {}
        for name, metric in METRICS.items():
            if metric.kind == "counter":
                self._made[name] = Counter(name, metric.description, metric.tags, registry=self.registry)
            elif metric.kind == "histogram":
                buckets = metric.buckets
                self._made[name] = Histogram(
                    name, metric.description, metric.tags, registry=self.registry, buckets=buckets
                )
        for reason in REASONS:  # from the start, since a rate does not see how a series comes into being
            self._made["triptych_refusals_total"].labels(reason=reason)
        ProcessCollector(registry=self.registry)
        self._gauges: dict[str, Gauge] = {}
        self.registry.register(_Now(self))

    def record(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Raises `KeyError` for a metric that is not in `METRICS`, `ValueError` for other labels than it has."""
        metric = METRICS[name]
        if metric.kind == "gauge":
            if name not in self._gauges:
                self._gauges[name] = Gauge(name, metric.description, metric.tags, registry=self.registry)
            made: Any = self._gauges[name]
        else:
            made = self._made[name]
        child = made.labels(**tags) if metric.tags else made
        if metric.kind == "counter":
            child.inc(max(0.0, value))
        elif metric.kind == "gauge":
            child.set(value)
        else:
            child.observe(value)

    def app(self) -> Any:
        """An ASGI application with the series at every path."""
        return make_asgi_app(self.registry)  # type: ignore[no-untyped-call]


class _Now(Collector):
    """The gauges that are asked when somebody scrapes."""

    def __init__(self, metrics: PrometheusMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        if self._metrics.now is None:
            return
        families: dict[str, GaugeMetricFamily] = {}
        for name, tags, value in self._metrics.now():
            metric = METRICS[name]
            if name not in families:
                families[name] = GaugeMetricFamily(name, metric.description, labels=metric.tags)
            families[name].add_metric([tags[tag] for tag in metric.tags], value)
        yield from families.values()


class _Server(uvicorn.Server):
    """Signals are of whoever runs the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(metrics: PrometheusMetrics, settings: MetricsSettings) -> None:
    """Answer scrapes until cancelled. On the event loop of the orchestrator, so that nothing changes meanwhile. A port
    that is taken is a warning, and is tried again: an orchestrator that ends may still have it."""
    if settings.port is None:
        return
    told = False
    while True:
        try:
            listening = _bound(settings.host, settings.port)
            break
        except OSError as error:
            if not told:
                where = f"{settings.host}:{settings.port}"
                logger.warning("metrics cannot be served on %s yet: %s; see metrics.port", where, error.strerror)
                told = True
            await asyncio.sleep(AGAIN_S)
    server = _Server(uvicorn.Config(metrics.app(), log_config=None, lifespan="off", access_log=False))
    logger.info("metrics are at http://%s:%d/metrics", settings.host, settings.port)
    try:
        await server.serve(sockets=[listening])
    finally:
        listening.close()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(16)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
