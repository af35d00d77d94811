"""Metrics, traces and logs of one request through the real flow in this process, over workers that take no time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from deployments.api import keys as gate_module
from deployments.api.app import create_app
from deployments.api.keys import Gate
from deployments.cluster.counts import ForwardedCounts
from deployments.jobs import keys as keys_module
from deployments.observing import logs, tracing
from deployments.observing.process import observe
from deployments.operating import exporter
from deployments.operating.exporter import PrometheusMetrics
from deployments.orchestration.metrics import METRICS, REASONS
from deployments.settings import AppSettings, LogSettings, MetricsSettings, TracingSettings
from deployments.workers.host import ModelHost
from router.types import Picture, Progress, Step, StepResult
from tests.deployments.support.scripted import Script
from tests.deployments.support.served import BODY, GENERATE, JOBS, Served, served

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
POLICY = """
recipes: {draft: {generate: {model: sd15}}}
objective: {minimise: cost_usd}
verify: {scorer: alignment, accept_above: 0.5}
"""
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """New keys are known without delay."""
    for module, name in ((keys_module, "FRESH_S"), (keys_module, "UNKNOWN_S"), (gate_module, "FRESH_S")):
        monkeypatch.setattr(module, name, 0.0)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Every span of this process."""
    kept = InMemorySpanExporter()
    tracing.start("test", kept, at_once=True)
    yield kept
    tracing.stop()


def measured(app: Served) -> PrometheusMetrics:
    """What is scraped, in place of the tally of the tests."""
    metrics, orchestrator = PrometheusMetrics(app.jobs.samples), app.jobs.orchestrator
    for one in (orchestrator,):
        one.metrics = metrics
    orchestrator.step_queues._metrics = orchestrator._runner._metrics = orchestrator._recorder._metrics = metrics
    return metrics


async def scraped(metrics: PrometheusMetrics) -> Series:
    """The series by name and labels, through the parser of Prometheus' own library."""
    transport = httpx.ASGITransport(app=metrics.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as client:
        text = (await client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text) for sample in family.samples
    }  # fmt: skip


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


async def test_a_request_is_in_every_series_that_concerns_it(settings: AppSettings, tmp_path: Path) -> None:
    """Decision, wait, phases of steps, batch, look, cost, answer: counted with the labels that the dashboard asks for,
    and a refusal with its reason."""
    script = Script({60: 0.9}, took_s=0.02)
    async with served(settings, tmp_path, script, policy=POLICY) as app:
        metrics = measured(app)
        answer = (await app.http.post(GENERATE, json={**BODY, "priority": "batch"})).json()
        await app.done(answer["x_triptych"]["job"])
        assert (await app.http.post(GENERATE, json={**BODY, "model": "nothing"})).status_code == 404
        await asyncio.sleep(0)
        found = await scraped(metrics)
    of = {"policy": "main", "recipe": "draft"}
    assert value(found, "triptych_decisions_total", **of) == 1
    assert value(found, "triptych_decide_seconds_count", policy="main") == 1
    assert value(found, "triptych_wait_seconds_count", model="sd15", priority="batch") == 1
    for phase, least in (("wait", 0.0), ("draw", 0.02), ("way", 0.0)):
        labels = {"model": "sd15", "kind": "generate", "phase": phase}
        assert value(found, "triptych_step_seconds_count", **labels) == 1
        assert value(found, "triptych_step_seconds_sum", **labels) >= least
    assert value(found, "triptych_steps_total", model="alignment", kind="score", outcome="made") == 1
    assert value(found, "triptych_request_seconds_count", **of, priority="batch") == 1
    assert value(found, "triptych_pictures_total", **of) == value(found, "triptych_checked_pictures_total", **of) == 1
    assert value(found, "triptych_checked_quality_total", **of) == pytest.approx(
        answer["x_triptych"]["pictures"][0]["checks"][0]["probability"], abs=1e-3
    )
    assert 0 < value(found, "triptych_checked_expected_total", **of) < 1
    assert value(found, "triptych_work_seconds_total", **of) == pytest.approx(0.04)
    assert value(found, "triptych_jobs_total", state="done", priority="batch") == 1
    assert value(found, "triptych_refusals_total", reason="model_not_found") == 1


async def test_gauges_are_as_it_is_when_somebody_looks(settings: AppSettings, tmp_path: Path) -> None:
    """Queues, jobs, breaker and budgets stay, at zero when there is nothing, however long nothing happens."""
    async with served(settings, tmp_path, Script({}, delay_s=0.3), policy=POLICY) as app:
        metrics = measured(app)
        empty = await scraped(metrics)
        assert value(empty, "triptych_queued_seconds", model="sd15", priority="interactive") == 0
        assert value(empty, "triptych_breaker_open", model="sd15") == value(empty, "triptych_jobs_open", state="queued")
        header = app.key("acme", budget={"cost_usd": 5.0, "window_s": 60.0})
        ids = [
            (await app.http.post(JOBS, json={**BODY, "priority": "batch"}, headers=header)).json()["id"]
            for _ in range(6)
        ]
        await asyncio.sleep(0.05)
        busy = await scraped(metrics)
        assert value(busy, "triptych_running_steps", model="sd15") >= 1
        assert value(busy, "triptych_queued_seconds", model="sd15", priority="batch") > 0
        assert sum(value(busy, "triptych_jobs_open", state=state) for state in ("queued", "running")) == 6
        assert 0 < value(busy, "triptych_budget_left_usd", tenant="acme") < 5
        assert value(busy, "triptych_model_ready", model="sd15", worker="sd15") == 1
        for id in ids:
            await app.http.delete(f"{JOBS}/{id}", headers=header)


async def test_the_series_are_served_on_a_fixed_port_until_they_end() -> None:
    """`/metrics` of a real socket; a port that another process has is taken once it is free."""
    from deployments.cluster.local_cluster import free_port

    port, metrics = free_port(), PrometheusMetrics()
    metrics.record("triptych_policy_problems", 0)
    metrics.record("triptych_retries_total", model="m")
    first = asyncio.ensure_future(exporter.serve(metrics, MetricsSettings(port=port)))
    second = asyncio.ensure_future(exporter.serve(PrometheusMetrics(), MetricsSettings(port=port)))
    async with httpx.AsyncClient() as client:
        for _ in range(100):
            try:
                text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.02)
    assert "triptych_policy_problems 0.0" in text and 'triptych_retries_total{model="m"} 1.0' in text
    assert "# TYPE triptych_step_seconds histogram" in text
    assert all(f'triptych_refusals_total{{reason="{reason}"}} 0.0' in text for reason in REASONS)
    assert not second.done()
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


def test_names_have_base_units_and_the_kinds_agree() -> None:
    """Counters end in `_total`, histograms and times in seconds; every description says something; labels are few."""
    for name, metric in METRICS.items():
        assert name.startswith("triptych_") and metric.description and len(metric.tags) <= 4, name
        assert (metric.kind == "counter") is name.endswith("_total"), name
        assert (metric.kind == "histogram") is bool(metric.buckets), name
        assert metric.kind != "histogram" or name.endswith("_seconds"), name
        assert list(metric.buckets) == sorted(set(metric.buckets)), name


async def test_what_other_processes_count_arrives_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of an ingress are summed up and sent; those that could not be sent are sent later, none twice."""
    from deployments.cluster import counts

    monkeypatch.setattr(counts, "EVERY_S", 0.01)
    metrics, failing = PrometheusMetrics(), [True]

    async def send(told: Any) -> None:
        if failing.pop() if failing else False:
            raise ConnectionError("the orchestrator was lost")
        for name, number, tags in told:
            metrics.record(name, number, **tags)

    there = ForwardedCounts(send)
    labels = {"method": "GET", "route": "/v1/jobs", "status": "200"}
    for _ in range(3):
        there.record("triptych_http_requests_total", **labels)
        there.record("triptych_http_seconds", 0.2, route="/v1/jobs")
    await asyncio.sleep(0.1)
    found = await scraped(metrics)
    assert value(found, "triptych_http_requests_total", **labels) == 3
    assert value(found, "triptych_http_seconds_count", route="/v1/jobs") == 3


async def test_answers_are_counted_by_route_and_status(settings: AppSettings, tmp_path: Path) -> None:
    """The route as it is declared, never what a client made up."""
    seen: list[tuple[str, str, int]] = []
    async with served(settings, tmp_path) as app:
        made = create_app(app.service, app.settings.limits, gate=Gate("auto", True),
                          answered=lambda method, route, status, _: seen.append((method, route, status)))  # fmt: skip
        transport = httpx.ASGITransport(app=made, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://triptych") as http:
            for path in ("/v1/jobs/job_1", "/v1/jobs/job_2", "/nothing/of/this", "/health"):
                await http.get(path)
            await http.request("BREW", "/health")
    assert seen == [
        ("GET", "/v1/jobs/{id}", 404), ("GET", "/v1/jobs/{id}", 404), ("GET", "other", 404), ("GET", "/health", 200),
        ("other", "/health", 405),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- traces


class Denoising:
    """An engine of four denoising steps, alone or in batches."""

    def _one(self, number: int, step: Step, report: Any) -> StepResult:
        import numpy as np

        for done in range(1, 5):
            if report is not None:
                report(number, Progress(step.id, done, 4))
        size = int(step.settings["height"]), int(step.settings["width"]), 3
        return StepResult(Picture(np.full(size, 60, np.uint8)), 0.01)

    def run(self, step: Step, inputs: Any, *, on_progress: Any = None, should_stop: Any = None) -> StepResult:
        return self._one(0, step, None if on_progress is None else lambda _, told: on_progress(told))

    def run_batch(self, steps: Any, inputs: Any, *, on_progress: Any = None, should_stop: Any = None) -> Any:
        return [self._one(number, step, on_progress) for number, step in enumerate(steps)]

    def warm_up(self) -> float:
        return 0.0


def parents(found: list[ReadableSpan]) -> dict[str, list[str]]:
    """Names of spans to the names of their parents, from themselves up."""
    by_id = {span.context.span_id: span for span in found if span.context is not None}

    def up(span: ReadableSpan) -> list[str]:
        above = by_id.get(span.parent.span_id) if span.parent is not None else None
        return [span.name, *(up(above) if above is not None else [])]

    return {span.name: up(span) for span in found}


async def test_one_id_goes_from_the_edge_to_each_denoising_step(
    settings: AppSettings, tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    """A client's trace goes on through admission, decision, waiting and drawing; the answer has its id."""
    host = ModelHost({"sd15": Denoising})  # type: ignore[dict-item]
    host.load()
    policy = POLICY.partition("verify")[0]
    async with served(settings, tmp_path, policy=policy) as app:
        app.jobs.orchestrator.step_queues._workers = {"sd15": host}
        answer = await app.http.post(GENERATE, json=BODY, headers={"traceparent": PARENT, "x-request-id": "mine"})
        assert answer.status_code == 200
        await app.done(answer.json()["x_triptych"]["job"])
    assert answer.headers["x-trace-id"] == PARENT.split("-")[1]
    found = list(spans.get_finished_spans())
    ours = [span for span in found if f"{span.context.trace_id:032x}" == PARENT.split("-")[1]]  # type: ignore[union-attr]
    way = parents(ours)
    edge = f"POST {GENERATE}"
    assert way["denoise 4"] == ["denoise 4", "draw", "step generate", "job", edge]
    assert {"denoise 1", "denoise 2", "denoise 3"} <= way.keys()
    assert way["wait"] == ["wait", "step generate", "job", edge]
    assert way["decide"] == ["decide", "admit", edge]
    root = next(span for span in ours if span.name == edge)
    assert root.parent is not None and f"{root.parent.span_id:016x}" == PARENT.split("-")[2]
    assert root.attributes is not None and root.attributes["triptych.request"] == "mine"


async def test_each_picture_of_a_batch_has_its_spans_in_its_own_trace(spans: InMemorySpanExporter) -> None:
    """What is drawn together is seen by each of those that wait for it, over the border of processes, too."""
    step = Step("s", "generate", "sd15", (), "image", {"width": 8, "height": 8, "steps": 4})
    host = ModelHost({"sd15": Denoising})  # type: ignore[dict-item]
    host.load()
    carriers = []
    for number in range(2):
        with tracing.begun({"request": f"req_{number}"}, "edge"):
            carriers.append(dict(tracing.carrier()))
    with tracing.beside(carriers):
        assert list(tracing.together()) == carriers
        await host.run_batch([step, step], [(), ()], 10.0)
    found = spans.get_finished_spans()
    by_trace = [{span.name for span in found if f"{span.context.trace_id:032x}" in one["traceparent"]}  # type: ignore[union-attr]
                for one in carriers]  # fmt: skip
    assert by_trace == [{"edge", "draw", *(f"denoise {k}" for k in range(1, 5))}] * 2


async def test_without_a_collector_ids_are_carried_and_no_span_is_made(settings: AppSettings, tmp_path: Path) -> None:
    """`x-trace-id` is the client's, or new for each request."""
    async with served(settings, tmp_path) as app:
        given = await app.http.get("/v1/models", headers={"traceparent": PARENT})
        new = {(await app.http.get("/v1/models")).headers["x-trace-id"] for _ in range(3)}
        wrong = await app.http.get("/v1/models", headers={"traceparent": "00-zz-1-01"})
    assert given.headers["x-trace-id"] == PARENT.split("-")[1]
    assert len(new) == 3 and all(len(one) == 32 for one in (*new, wrong.headers["x-trace-id"]))
    assert not tracing.active()


# --------------------------------------------------------------------------------------------------------------- logs


async def test_log_lines_are_json_with_the_ids_of_their_request(settings: AppSettings, tmp_path: Path) -> None:
    """Lines of INFO from edge, jobs and workers name request, job and trace, in the one folder of the settings."""
    logger = logging.getLogger("triptych")
    before = list(logger.handlers), logger.level
    file = observe("test", LogSettings(folder=str(tmp_path / "logs")), TracingSettings())
    try:
        host = ModelHost({"sd15": Denoising})  # type: ignore[dict-item]
        host.load()
        async with served(settings, tmp_path, policy=POLICY.partition("verify")[0]) as app:
            app.jobs.orchestrator.step_queues._workers = {"sd15": host}
            answer = await app.http.post(GENERATE, json=BODY, headers={"x-request-id": "mine", "traceparent": PARENT})
            job = answer.json()["x_triptych"]["job"]
            await app.done(job)
            await app.http.post(GENERATE, json={**BODY, "size": "odd"}, headers={"x-request-id": "wrong"})
        told = [json.loads(line) for line in file.read_text().splitlines()]
    finally:
        for handler in [one for one in logger.handlers if one not in before[0]]:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(before[1])
    assert file.parent == tmp_path / "logs" and file.stem == f"test-{os.getpid()}"
    mine = {one["logger"]: one for one in told if one.get("request") == "mine"}
    assert {"triptych.jobs", "triptych.worker"} <= mine.keys()
    for one in mine.values():
        assert (one["job"], one["trace"], one["level"]) == (job, PARENT.split("-")[1], "INFO")
    assert any(one.get("request") == "wrong" and one["logger"] == "triptych.ingress" for one in told)
    assert all("a red circle" not in one["message"] for one in told)


def test_old_log_files_are_deleted_and_a_folder_that_is_none_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of processes that ended long ago go; logging goes on without a file where there can be none."""
    old, young = tmp_path / "worker-1.jsonl", tmp_path / "worker-2.jsonl"
    for file, age_s in ((old, 20 * 86_400), (young, 60)):
        file.write_text("{}\n")
        os.utime(file, (time.time() - age_s,) * 2)
    logger = logging.getLogger("triptych")
    before = list(logger.handlers), logger.level
    try:
        logs.write_to(tmp_path, "test", "INFO", 1.0, 1, keep_days=14)
        assert not old.exists() and young.exists()
        with caplog.at_level(logging.WARNING, "triptych"):
            logs.write_to(young / "below", "test", "INFO", 1.0, 1, keep_days=14)
        assert "logs cannot be written" in caplog.text
    finally:
        for handler in [one for one in logger.handlers if one not in before[0]]:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(before[1])


async def test_a_log_that_does_not_respond_holds_up_no_answer(
    settings: AppSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer waits a moment at most for its decision to be written; feedback that comes meanwhile is written after
    it."""
    import threading

    from deployments.orchestration import recorder
    from deployments.store.decision_log import DecisionLog

    monkeypatch.setattr(recorder, "SOON_S", 0.1)
    go = threading.Event()

    class Stuck(DecisionLog):
        def record(self, *args: Any) -> None:
            go.wait(5.0)
            super().record(*args)

    async with served(settings, tmp_path) as app:
        app.jobs.orchestrator._recorder._log = log = Stuck(tmp_path / "log.sqlite")
        began = time.monotonic()
        answer = (await app.http.post(GENERATE, json=BODY)).json()
        assert time.monotonic() - began < recorder.PATIENCE_S / 2
        said = {"id": answer["x_triptych"]["request_id"], "rating": 5}
        saying = asyncio.ensure_future(app.http.post("/v1/feedback", json=said))
        await asyncio.sleep(0.05)
        go.set()
        assert (await saying).status_code == 200
        assert len(log.rated("rating")) == 1
