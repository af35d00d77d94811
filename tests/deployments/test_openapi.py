"""The OpenAPI document: valid, complete, and kept by the application."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as examples

from deployments.api.app import create_app
from deployments.api.edge import for_serve_proxy
from deployments.api.keys import Gate
from deployments.api.service import Service
from deployments.settings import AppSettings
from deployments.workers.worker import WorkerStatus
from tests.conftest import ADMIN_KEY
from tests.deployments.scripted import GREY, Script, jobs_of, scripted

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
BODY = {"prompt": "a red circle"}
METHODS = ("get", "put", "post", "delete")


@pytest.fixture(scope="module")
async def spec() -> dict[str, Any]:
    """The document as a client gets it."""
    from deployments.settings import Limits

    app = create_app(Service(None, Limits()), Limits())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://t") as client:
        return (await client.get("/openapi.json")).json()


def operations(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(METHOD path, operation) of the document."""
    for path, item in spec["paths"].items():
        yield from ((f"{method.upper()} {path}", item[method]) for method in METHODS if method in item)


def test_every_reference_resolves(spec: dict[str, Any]) -> None:
    """No `$ref` leads to nowhere, and no `$defs` is left."""
    text = json.dumps(spec)
    assert "$defs" not in text
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found: Any = spec
        for part in reference.split("/"):
            found = found[part]
    assert {"ImageRequest", "WireTurn", "FeedbackRequest", "ErrorEnvelope", "Job", "JobPicture"} <= set(
        spec["components"]["schemas"]
    )


def test_every_operation_says_how_it_fails(spec: dict[str, Any]) -> None:
    """Each operation documents 405 as the envelope, each with a body 400, 413 and 415, each that draws all others."""
    for name, operation in operations(spec):
        statuses = set(operation["responses"])
        assert "405" in statuses, name
        envelope = operation["responses"]["405"]["content"]["application/json"]["schema"]
        assert envelope == {"$ref": "#/components/schemas/ErrorEnvelope"}
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= statuses, name
        if name in ("POST /v1/route", "POST /v1/images/generations", "POST /v1/jobs"):
            assert {"401", "403", "404", "408", "409", "422", "429", "500", "503", "504", "507"} <= statuses
        if "policies" in name:
            assert {"401", "403"} <= statuses, name


def test_what_may_be_left_out_may_be_null(spec: dict[str, Any]) -> None:
    """The document says of every field but the required that null is taken, as it is."""
    for name in ("ImageRequest", "FeedbackRequest"):
        schema = spec["components"]["schemas"][name]
        for field, one in schema["properties"].items():
            assert (field in schema.get("required", ())) is not ({"type": "null"} in one.get("anyOf", ()))


class Ready(Script):
    """Workers that are all there."""

    async def statuses(self) -> dict[str, WorkerStatus]:
        return {model: WorkerStatus(model, "ready") for model in (*GREY, "alignment", "sdxl-turbo", "broken")}


POLICIES = {"balanced": "recipes: {draft: {generate: {model: sd15}}}\nobjective: {maximise: quality}\n"}


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """A real server of an application, in a thread, since jobs need one event loop; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = server.force_exit = True
    thread.join()


def fronted(app: Any) -> Any:
    """Behind what Serve's proxy is given."""
    for one in for_serve_proxy():
        app = one.cls(app, **one.kwargs)
    return app


@pytest.fixture(scope="module")
def scripted_url(settings: AppSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The application over workers that take no time, with an admin key of the environment, behind the edge."""
    script = Ready(dict.fromkeys(GREY.values(), 0.9), took_s=0.0)
    orchestrator, _ = scripted(settings, tmp_path_factory.mktemp("policies"), script, POLICIES)
    limits = settings.limits.model_copy(update={"max_n": 3})
    with listening(fronted(create_app(Service(jobs_of(orchestrator), limits), limits, admin_key=ADMIN_KEY))) as url:
        yield url


def fuzzed(url: str, header: dict[str, str], cases: int, known: dict[str, list[str]] | None = None) -> int:
    """Send what schemathesis thinks of, by the schema and against it, and hold the answers to the document; returns
    how many there were. known: values of path parameters that mean something, tried beside made-up ones."""
    schemathesis = pytest.importorskip("schemathesis", reason="pip install 'triptych[dev]'")
    from schemathesis import GenerationMode
    from schemathesis.checks import load_all_checks, not_a_server_error
    from schemathesis.specs.openapi import checks

    load_all_checks()
    held = (
        not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_schema_conformance, checks.negative_data_rejection, checks.unsupported_method,
    )  # fmt: skip
    api = schemathesis.openapi.from_url(f"{url}/openapi.json")
    calls = 0
    for found in api.get_all_operations():
        operation = found.ok()
        # Without a body there is nothing to get wrong, and what is wrong with a policy is what its preview answers.
        any_body = not operation.body or operation.path.endswith("/preview")
        wrong = [] if any_body else [GenerationMode.NEGATIVE]
        for mode in (GenerationMode.POSITIVE, *wrong):
            strategy = operation.as_strategy(generation_mode=mode)

            @seed(0)
            @examples(max_examples=cases, deadline=None, database=None, phases=(Phase.generate,),
                      suppress_health_check=list(HealthCheck))  # fmt: skip
            @given(strategy)
            def each(case: Any) -> None:
                nonlocal calls
                calls += 1
                for name, values in (known or {}).items():
                    if name in (case.path_parameters or {}) and calls % 2:
                        case.path_parameters[name] = values[calls % len(values)]
                case.call_and_validate(checks=held, headers=header)

            each()
    return calls


def test_schemathesis_finds_no_5xx_and_nothing_undocumented(scripted_url: str) -> None:
    """Whatever schemathesis sends, by the schema and against it: no 5xx, and status, type and body as documented."""
    assert fuzzed(scripted_url, ADMIN, 12, jobs_at(scripted_url)) > 200


def jobs_at(url: str) -> dict[str, list[str]]:
    """Ids of jobs and pictures that there are."""
    ids = [httpx.post(f"{url}/v1/jobs", json=BODY, headers=ADMIN).json()["id"] for _ in range(3)]
    return {"id": [*ids, f"{ids[0]}-0"]}


@pytest.mark.parametrize("key", [None, "tp_" + "x" * 43])
def test_schemathesis_finds_nothing_undocumented_without_a_good_key(
    settings: AppSettings, tmp_path: Path, key: str | None
) -> None:
    """Where keys are needed, what comes without one, or with a wrong one, is refused as documented."""
    orchestrator, _ = scripted(settings, tmp_path, Ready(dict.fromkeys(GREY.values(), 0.9), took_s=0.0), POLICIES)
    service = Service(jobs_of(orchestrator), settings.limits)
    with listening(create_app(service, settings.limits, gate=Gate(True))) as url:
        assert fuzzed(url, {} if key is None else {"x-api-key": key}, 4) > 60


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_five_thousand_cases(scripted_url: str) -> None:
    """The same, for a long time."""
    assert fuzzed(scripted_url, ADMIN, 300, jobs_at(scripted_url)) >= 5000
