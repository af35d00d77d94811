"""The OpenAPI document: valid, complete, and kept by the application."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from deployments.api.app import create_app
from deployments.api.service import Service
from deployments.settings import AppSettings
from deployments.workers.worker import WorkerStatus
from tests.conftest import ADMIN_KEY
from tests.deployments.scripted import GREY, Script, jobs_of, scripted

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
    assert {"ImageRequest", "WireTurn", "FeedbackRequest", "ErrorEnvelope"} <= set(spec["components"]["schemas"])


def test_every_operation_says_how_it_fails(spec: dict[str, Any]) -> None:
    """Each operation documents 405 as the envelope, each with a body 400, 413 and 415, each that draws all others."""
    for name, operation in operations(spec):
        statuses = set(operation["responses"])
        assert "405" in statuses, name
        envelope = operation["responses"]["405"]["content"]["application/json"]["schema"]
        assert envelope == {"$ref": "#/components/schemas/ErrorEnvelope"}
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= statuses, name
        if name in ("POST /v1/route", "POST /v1/images/generations"):
            assert {"404", "422", "429", "500", "503", "504"} <= statuses
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


@pytest.fixture(scope="module")
def scripted_app(settings: AppSettings, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The application over workers that take no time."""
    script = Ready(dict.fromkeys(GREY.values(), 0.9), took_s=0.0)
    policies = {"balanced": "recipes: {draft: {generate: {model: sd15}}}\nobjective: {maximise: quality}\n"}
    orchestrator, _ = scripted(settings, tmp_path_factory.mktemp("policies"), script, policies)
    limits = settings.limits.model_copy(update={"max_n": 3})
    return create_app(Service(jobs_of(orchestrator), limits), limits, admin_key=ADMIN_KEY)


def test_schemathesis_finds_no_5xx_and_nothing_undocumented(scripted_app: Any) -> None:
    """Whatever schemathesis sends, by the schema and against it: no 5xx, and status, type and body as documented."""
    schemathesis = pytest.importorskip("schemathesis", reason="pip install 'triptych[dev]'")
    from schemathesis import GenerationMode
    from schemathesis.checks import load_all_checks, not_a_server_error
    from schemathesis.specs.openapi import checks

    load_all_checks()
    held = (
        not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_schema_conformance, checks.negative_data_rejection, checks.unsupported_method,
    )  # fmt: skip
    api = schemathesis.openapi.from_asgi("/openapi.json", scripted_app)
    calls = 0
    for found in api.get_all_operations():
        operation = found.ok()
        wrong = [GenerationMode.NEGATIVE] if operation.body else []  # without a body there is nothing to get wrong
        for mode in (GenerationMode.POSITIVE, *wrong):
            strategy = operation.as_strategy(generation_mode=mode)

            @seed(0)
            @settings(max_examples=12, deadline=None, database=None, phases=(Phase.generate,),
                      suppress_health_check=list(HealthCheck))  # fmt: skip
            @given(strategy)
            def each(case: Any) -> None:
                nonlocal calls
                calls += 1
                case.call_and_validate(checks=held, headers={"Authorization": f"Bearer {ADMIN_KEY}"})

            each()
    assert calls > 100
