"""Metrics, traces and logs of the application on Ray Serve: what several processes know of a request, in one place."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import RayApp

pytestmark = pytest.mark.ray

TRACE = "5bf92f3577b34da6a3ce929d0e0e4737"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b8-01", "x-request-id": "dialled"}
BODY = {"prompt": "a red circle", "model": "sd15", "steps": 3, "seed": 4}


async def until(holds: Callable[[], Any], within_s: float = 20.0) -> Any:
    """What `holds` says once it says anything; else what it says last."""
    for _ in range(int(within_s / 0.2)):
        if found := holds():
            return found
        await asyncio.sleep(0.2)
    return holds()


@pytest.fixture(scope="module")
async def drawn(http: httpx.AsyncClient) -> dict[str, Any]:
    """A picture whose request has a trace of its client's."""
    answer = await http.post("/v1/images/generations", json=BODY, headers=HEADERS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-trace-id"] == TRACE
    return answer.json()


async def test_the_series_of_all_processes_are_on_one_port(ray_app: RayApp, drawn: dict[str, Any]) -> None:
    """Steps and queues of the orchestrator, answers of the ingresses: at the port of the settings, by name."""
    async with httpx.AsyncClient() as client:
        for _ in range(100):
            text = (await client.get(ray_app.metrics_url)).text
            if 'route="/v1/images/generations"' in text:
                break
            await asyncio.sleep(0.1)
    lines = text.splitlines()
    wanted = 'triptych_http_requests_total{method="POST",route="/v1/images/generations",status="200"}'
    assert any(line.startswith(wanted) for line in lines)
    assert any(
        line.startswith('triptych_step_seconds_count{kind="generate",model="sd15",phase="draw"}') for line in lines
    )
    assert any(line.startswith('triptych_queued_seconds{model="flux",priority="batch"}') for line in lines)
    assert not any(line.startswith("ray_") for line in lines)


async def test_a_trace_goes_through_all_processes(ray_app: RayApp, drawn: dict[str, Any]) -> None:
    """The client's trace has spans of ingress, orchestrator and worker, down to each denoising step."""

    def spans() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for body in list(ray_app.spans):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                process = {one.key: one.value.string_value for one in resource.resource.attributes}[
                    "service.instance.id"
                ]
                names = {s.name for scope in resource.scope_spans for s in scope.spans if s.trace_id.hex() == TRACE}
                found[process] = found.get(process, set()) | names
        return found

    await until(lambda: "denoise 3" in spans().get("worker-sd15", ()) and "job" in spans().get("orchestrator", ())
                and spans().get("ingress"))  # fmt: skip
    found = spans()
    assert "POST /v1/images/generations" in found["ingress"]
    assert {"admit", "decide", "job", "step generate", "wait"} <= found["orchestrator"]
    assert {"draw", "denoise 1", "denoise 2", "denoise 3"} <= found["worker-sd15"]


async def test_log_lines_of_all_processes_are_in_one_folder(ray_app: RayApp, drawn: dict[str, Any]) -> None:
    """Lines of INFO from the orchestrator and the worker have the request, its job and its trace."""

    def mine() -> dict[str, dict[str, Any]]:
        lines = [json.loads(line) for file in ray_app.logs.glob("*.jsonl") for line in file.read_text().splitlines()]
        return {one["process"].rpartition("-")[0]: one for one in lines if one.get("request") == "dialled"}

    await until(lambda: {"orchestrator", "worker-sd15"} <= mine().keys())
    found = mine()
    for process in ("orchestrator", "worker-sd15"):
        job = drawn["x_triptych"]["job"]
        assert (found[process]["trace"], found[process]["job"], found[process]["level"]) == (TRACE, job, "INFO")
    assert any(file.name.startswith("ingress-") for file in ray_app.logs.glob("*.jsonl"))
