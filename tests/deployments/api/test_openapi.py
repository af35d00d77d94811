"""The OpenAPI document: valid, complete, and kept by the application.

Its contract is in `tests/golden/contract.json`; `python -m tests.deployments.api.test_openapi` renews.
"""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as examples

from deployments.api.app import create_app
from deployments.api.edge.middleware import for_serve_proxy
from deployments.api.keys import Gate
from deployments.api.service import Service
from deployments.api.wire.fields import CHOICES, SAME_VALUES
from deployments.settings import AppSettings
from deployments.workers.worker import WorkerStatus
from tests.conftest import ADMIN_KEY
from tests.deployments.api.test_conformance import JS, node_modules
from tests.deployments.support.listening import listening
from tests.deployments.support.scripted import GREY, Script, jobs_of, scripted

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
BODY = {"prompt": "a red circle"}
DRAWING = (
    "POST /v1/route", "POST /v1/images/generations", "POST /v1/jobs", "POST /v1/chat/completions", "POST /v1/responses",
    "POST /sdapi/v1/txt2img",
)  # fmt: skip
METHODS = ("get", "put", "post", "delete")
WRITTEN = Path(__file__).parents[2] / "golden/contract.json"
IN_WORDS = ("description", "summary", "example", "examples", "operationId", "title")


async def document() -> dict[str, Any]:
    """What a client gets."""
    from deployments.settings import Limits

    app = create_app(Service(None, Limits()), Limits())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://t") as client:
        found: dict[str, Any] = (await client.get("/openapi.json")).json()
        return found


@pytest.fixture(scope="module")
async def spec() -> dict[str, Any]:
    """The document."""
    return await document()


def contract(spec: dict[str, Any]) -> dict[str, Any]:
    """What programs rely on, by operation and by schema: all but the words for people."""

    def bare(found: Any, names: bool = False) -> Any:
        if isinstance(found, list):
            return [bare(one) for one in found]
        if not isinstance(found, dict):
            return found
        kept = found if names else {name: one for name, one in found.items() if name not in IN_WORDS}
        return {name: bare(one, names=name == "properties" and not names) for name, one in kept.items()}

    schemas = {f"schema {name}": bare(schema) for name, schema in spec["components"]["schemas"].items()}
    return {**{name: bare(operation) for name, operation in operations(spec)}, **schemas}


def operations(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(METHOD path, operation) of the document."""
    for path, item in spec["paths"].items():
        yield from ((f"{method.upper()} {path}", item[method]) for method in METHODS if method in item)


def test_every_reference_resolves(spec: dict[str, Any]) -> None:
    """No `$ref` leads to nowhere, no `$defs` is left, and every schema is one."""
    text = json.dumps(spec)
    for schema in spec["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert "$defs" not in text
    assert re.findall(r'"(?:ge|gt|le|lt|(?:min|max)_length)": ', text) == []  # bounds in words that no client knows
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found: Any = spec
        for part in reference.split("/"):
            found = found[part]
    assert {"ImageRequest", "WireTurn", "FeedbackRequest", "ErrorEnvelope", "Job", "JobPicture"} <= set(
        spec["components"]["schemas"]
    )


def test_the_contract_with_clients_is_as_it_is_written_down(spec: dict[str, Any]) -> None:
    """Paths, statuses, headers, fields, their types, bounds and defaults: each is changed on purpose."""
    before, now = json.loads(WRITTEN.read_text("utf-8")), contract(spec)
    assert list(before) == sorted(now)
    assert [name for name in sorted(now) if now[name] != before[name]] == []


def test_every_operation_says_how_it_fails(spec: dict[str, Any]) -> None:
    """Each operation documents 405 as the envelope, each with a body 400, 413 and 415, each that draws all others."""
    for name, operation in operations(spec):
        statuses = set(operation["responses"])
        assert "405" in statuses, name
        envelope = operation["responses"]["405"]["content"]["application/json"]["schema"]
        shape = "SdError" if "/sdapi/" in name else "ErrorEnvelope"
        assert envelope == {"$ref": f"#/components/schemas/{shape}"}
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= statuses, name
        if name in DRAWING:
            assert {"401", "403", "404", "408", "409", "422", "429", "500", "503", "504", "507"} <= statuses
        if "policies" in name:
            assert {"401", "403"} <= statuses, name


def test_every_operation_says_what_it_answers(spec: dict[str, Any]) -> None:
    """Each has a name of its own and a summary, each success a schema or is said to be empty, each body an example."""
    names = [operation["operationId"] for _, operation in operations(spec)]
    assert len(names) == len(set(names)) > 20
    for name, operation in operations(spec):
        assert operation["summary"], name
        for status, told in operation["responses"].items():
            if status[0] == "2" and status != "204" and name != "POST /sdapi/v1/options":
                assert told["content"] and all(one["schema"] for one in told["content"].values()), (name, status)
            for kind, one in told.get("content", {}).items():
                if kind == "text/event-stream":
                    assert one["x-example"] and one["schema"]["properties"]["data"]["contentSchema"], name
        for one in operation.get("requestBody", {}).get("content", {}).values():
            assert one.get("examples") or one.get("example"), name


def fits(spec: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Raises if a value does not fit a schema of the document."""
    # That the document is one is for another test: to look at all of its schemas for every value takes long.
    jsonschema.Draft202012Validator({**schema, "components": spec["components"]}).validate(value)


async def test_the_examples_are_true(spec: dict[str, Any], client: httpx.AsyncClient) -> None:
    """Each example of an answer fits its schema; each of a body does, and is answered by success where it may be."""
    for name, operation in operations(spec):
        for told in operation["responses"].values():
            one = told.get("content", {}).get("application/json", {})
            if "example" in one:
                fits(spec, one["schema"], one["example"])
        one = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in one.get("examples", {}).values():
            fits(spec, one["schema"], example["value"])
            if name in DRAWING or name == "POST /sdapi/v1/options":
                answer = await client.post(name.split()[1], json=example["value"])
                assert answer.status_code in (200, 202), (name, answer.text)
                told = operation["responses"][str(answer.status_code)].get("content", {}).get("application/json")
                if told:
                    fits(spec, told["schema"], answer.json())


def test_what_may_be_left_out_may_be_null(spec: dict[str, Any]) -> None:
    """The document says of every field but the required that null is taken, as it is."""
    for name in ("ImageRequest", "FeedbackRequest", "ChatRequest", "ResponsesRequest", "Txt2ImgRequest"):
        schema = spec["components"]["schemas"][name]
        for field, one in schema["properties"].items():
            assert (field in schema.get("required", ())) is not ({"type": "null"} in one.get("anyOf", ()))


class Ready(Script):
    """Workers that are all there."""

    async def statuses(self) -> dict[str, WorkerStatus]:
        return {model: WorkerStatus(model, "ready") for model in (*GREY, "alignment", "sdxl-turbo", "broken")}


POLICIES = {"balanced": "recipes: {draft: {generate: {model: sd15}}}\nobjective: {maximise: quality}\n"}


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
        httpx.get(f"{url}/readyz", timeout=60)  # how the workers are is known, as of a server that has begun
        yield url


def fuzzed(url: str, header: dict[str, str], cases: int, known: dict[str, list[str]] | None = None) -> int:
    """Send what schemathesis thinks of, by the schema and against it, and hold the answers to the document; returns
    how many there were. known: values of path parameters that mean something, tried beside made-up ones."""
    schemathesis = pytest.importorskip("schemathesis", reason="pip install -c constraints.txt -e '.[dev]'")
    from schemathesis import GenerationMode
    from schemathesis.checks import load_all_checks, not_a_server_error
    from schemathesis.specs.openapi import checks

    load_all_checks()
    held = (
        not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_schema_conformance, checks.negative_data_rejection, checks.unsupported_method,
    )  # fmt: skip
    api = schemathesis.openapi.from_url(f"{url}/openapi.json")
    calls, problems = 0, []
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
                if spelt_otherwise(case.body) or passes_at_once(case.body):
                    return
                calls += 1
                for name, values in (known or {}).items():
                    if name in (case.path_parameters or {}) and calls % 2:
                        case.path_parameters[name] = values[calls % len(values)]
                case.call_and_validate(checks=held, headers=header)

            try:
                each()
            except Exception as error:  # the others are looked at all the same
                problems.append(f"{operation.label}, {mode.name.lower()}: {error}")
    assert problems == [], f"{len(problems)} after {calls} cases:\n" + "\n".join(problems)
    return calls


def passes_at_once(body: Any) -> bool:
    """Whether a body sets a deadline that has passed by the time it is read: 504, as it is documented."""
    budget = body.get("latency_budget_s") if isinstance(body, dict) else None
    return isinstance(budget, int | float) and 0 < budget < 0.1


def spelt_otherwise(body: Any) -> bool:
    """Whether a body has a value in another spelling than the document, which is understood all the same: HD, jpg."""
    if not isinstance(body, dict):
        return False
    words = {key: value for key, value in body.items() if isinstance(value, str)}
    return any(
        (key, value) in SAME_VALUES
        or (key in CHOICES and value != value.strip().lower())
        or (key, value.strip().lower()) in SAME_VALUES
        for key, value in words.items()
    )


def test_schemathesis_finds_no_5xx_and_nothing_undocumented(scripted_url: str) -> None:
    """Whatever schemathesis sends, by the schema and against it: no 5xx, and status, type and body as documented."""
    assert fuzzed(scripted_url, ADMIN, 8, jobs_at(scripted_url)) > 200


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
        assert fuzzed(url, {} if key is None else {"x-api-key": key}, 3) > 60


TYPED = (JS / "client.ts").read_text(encoding="utf-8")
WRONG = ('{ prompt: "a red circle", n: "two" }', '{ prompt: "a red circle", output_format: "gif" }', "{}")
OPTIONAL = ("--default-non-nullable=false",)  # what has a default need not be sent
TSC = ("--strict", "--noUncheckedIndexedAccess", "--target", "es2022", "--module", "nodenext", "--skipLibCheck")


@pytest.mark.slow
def test_a_generated_client_type_checks_and_works(spec: dict[str, Any], scripted_url: str, tmp_path: Path) -> None:
    """openapi-typescript makes types of the document; a program that uses them compiles strictly and runs; one that
    sends a wrong field does not compile."""
    modules = node_modules()
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "document.json").write_text(json.dumps(spec))

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    made = run("node", "node_modules/.bin/openapi-typescript", "document.json", "-o", "document.d.ts", *OPTIONAL)
    assert made.returncode == 0, made.stderr
    (tmp_path / "globals.d.ts").write_text("declare const process: { argv: string[] };\n")
    (tmp_path / "client.ts").write_text(TYPED)
    compiled = run("node", "node_modules/.bin/tsc", *TSC, "client.ts", "globals.d.ts")
    assert compiled.returncode == 0, compiled.stdout
    done = run("node", "client.js", scripted_url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "pictures": 2, "recipe": "draft", "job": True, "chat": "assistant", "images": 1, "code": "invalid_value",
    }  # fmt: skip
    for body in WRONG:
        text = TYPED.replace('{ prompt: "a red circle", n: 2, seed: 7 }', body)
        assert text != TYPED
        (tmp_path / "wrong.ts").write_text(text)
        assert run("node", "node_modules/.bin/tsc", *TSC, "--noEmit", "wrong.ts", "globals.d.ts").returncode != 0, body


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_five_thousand_cases(scripted_url: str) -> None:
    """The same with 300 of each kind for each operation, from seed 0: some minutes."""
    calls = fuzzed(scripted_url, ADMIN, 300, jobs_at(scripted_url))
    print(f"{calls:,} cases")
    assert calls >= 5000


if __name__ == "__main__":
    told = contract(asyncio.run(document()))
    WRITTEN.write_text(
        "{\n" + ",\n".join(f'"{name}": {json.dumps(told[name])}' for name in sorted(told)) + "\n}\n", "utf-8"
    )
