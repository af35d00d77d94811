"""HTTP as clients, browsers and operators meet it: types, methods, origins, retries, streams, and lines of the log."""

import asyncio
import json
import logging
import pickle
import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import httpx2
import openai
import pytest

from deployments.api import errors as failures
from deployments.api.app import create_app
from deployments.api.service import Service
from deployments.orchestration.results import Refused, WorkerLostError
from deployments.settings import AppSettings
from router import errors
from tests.deployments.support.scripted import Keyless, jobs_of

GENERATE, ROUTE = "/v1/images/generations", "/v1/route"
BODY = {"prompt": "a red circle"}


def around(app: Any) -> httpx.AsyncClient:
    """A client of an application in this process."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://triptych", timeout=60)


class Raising(Keyless):
    """A backend that fails in one way."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def route(self, request: Any) -> Any:
        raise self.error

    complete = route

    async def stream(self, request: Any) -> AsyncGenerator[Any]:
        raise self.error
        yield


def failing(error: BaseException, settings: AppSettings) -> Any:
    """An application whose orchestrator fails."""
    return create_app(Service(Raising(error), settings.limits), settings.limits)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    ("headers", "content", "status", "words"),
    [
        ({"content-type": "application/json"}, json.dumps(BODY).encode(), 200, ""),
        ({"content-type": "application/json; charset=UTF-8"}, json.dumps(BODY).encode(), 200, ""),
        ({"content-type": "application/vnd.api+json"}, json.dumps(BODY).encode(), 200, ""),
        ({}, json.dumps(BODY).encode(), 200, ""),
        ({"content-encoding": "identity"}, json.dumps(BODY).encode(), 200, ""),
        ({"content-encoding": "gzip"}, b"\x1f\x8b\x08\x00", 415, "gzip"),
        ({"content-encoding": "br"}, b"x", 415, "br"),
        ({}, b"\x1f\x8b\x08\x00", 415, "gzip"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"prompt=a+circle", 415, "x-www-form-urlencoded"),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x--", 415, "multipart/form-data"),
        ({"content-type": "text/plain"}, json.dumps(BODY).encode(), 415, "text/plain"),
        ({"content-type": "application/json; charset=latin-1"}, b"{}", 415, "latin-1"),
        ({}, '{"prompt": "größe"}'.encode("latin-1"), 415, "0xf6"),
        ({}, b'{"prompt": "a red circle",}', 400, "line 1, column"),
        ({}, b'{"prompt": "a", "prompt": "b"}', 400, "given twice"),
    ],
)
@pytest.mark.parametrize("path", [ROUTE, GENERATE, "/v1/feedback"])
async def test_what_is_no_json_in_utf_8_is_refused_as_what_it_is(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], content: bytes, status: int, words: str
) -> None:
    """A type or an encoding that is not read is 415 and named, syntax is 400 with its place, on every path alike."""
    if (status == 200 and path != ROUTE) or ("multipart" in words and path == ROUTE):  # which reads forms of edits
        return
    response = await client.post(path, content=content, headers=headers)
    assert response.status_code == status
    if status != 200:
        assert words in response.json()["error"]["message"]


async def test_a_compressed_policy_is_refused_as_one(client: httpx.AsyncClient) -> None:
    """The body of a policy is held to the same encodings, and its rollback to the same JSON."""
    admin = {"authorization": "Bearer open sesame"}
    zipped = await client.put("/v1/policies/x", content=b"\x1f\x8b", headers=admin)
    latin = await client.put("/v1/policies/x", content="größe".encode("latin-1"), headers=admin)
    twice = await client.post("/v1/policies/x/rollback", content=b'{"digest": "a", "digest": "b"}', headers=admin)
    other = await client.post("/v1/policies/x/rollback", content=b'{"digset": "a"}', headers=admin)
    assert [r.status_code for r in (zipped, latin, twice, other)] == [415, 415, 400, 400]


# ------------------------------------------------------------------------------------------------- methods and origins


@pytest.mark.parametrize("path", ["/", "/health", "/readyz", "/v1/models", "/v1/models/auto", "/openapi.json", "/docs"])
async def test_head_is_wherever_get_is(client: httpx.AsyncClient, path: str) -> None:
    """HEAD has GET's status and type, and no body."""
    head, get = await client.head(path), await client.get(path)
    assert (head.status_code, head.headers["content-type"]) == (get.status_code, get.headers["content-type"])
    assert head.content == b""


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (GENERATE, "POST"), ("/v1/models", "GET, HEAD"), ("/v1/policies/balanced", "GET, HEAD, PUT"),
        ("/v1/policies/balanced/rollback", "POST"),
    ],
)  # fmt: skip
async def test_405_names_every_method_that_is_possible(client: httpx.AsyncClient, path: str, allowed: str) -> None:
    """Allow has the methods of all routes at a path, and the message, too."""
    response = await client.delete(path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert allowed in response.json()["error"]["message"]


async def test_pages_of_the_configured_origins_may_call(service: Service, settings: AppSettings) -> None:
    """With `cors`, a named origin gets preflights, answers and errors that it may read; another gets none."""
    app = create_app(service, settings.limits, cors=("https://studio.example.org",))
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    async with around(app) as client:
        for origin, allowed in (("https://studio.example.org", True), ("https://elsewhere.example.org", False)):
            asked = await client.options(GENERATE, headers={"origin": origin, **preflight})
            assert (asked.status_code == 200) is allowed
            for path, body, status in ((ROUTE, BODY, 200), (ROUTE, {}, 400), ("/v1/nothing", BODY, 404)):
                answer = await client.post(path, json=body, headers={"origin": origin})
                assert answer.status_code == status
                assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
                if allowed:
                    assert "x-request-id" in answer.headers["access-control-expose-headers"]


async def test_without_origins_no_page_may_call(client: httpx.AsyncClient) -> None:
    """By default a preflight is refused, and no header opens an answer to pages."""
    headers = {"origin": "https://studio.example.org", "access-control-request-method": "POST"}
    assert (await client.options(GENERATE, headers=headers)).status_code == 405
    assert "access-control-allow-origin" not in (await client.get("/health", headers=headers)).headers


# ------------------------------------------------------------------------------------------------------------ the log


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", ROUTE, {"prompt": ""}, 400), ("POST", ROUTE, {**BODY, "model": "nothing"}, 404),
        ("POST", ROUTE, {**BODY, "max_cost_usd": 0}, 422), ("GET", "/v1/nothing", None, 404),
        ("DELETE", ROUTE, None, 405), ("POST", GENERATE, {**BODY, "stream": True, "model": "nothing"}, 404),
    ],
)  # fmt: skip
async def test_a_refusal_is_one_line_of_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, method: str, path: str, body: Any, status: int
) -> None:
    """Every 4xx is one INFO line with the request's id and code, without a traceback and without the prompt."""
    caplog.set_level(logging.INFO, "triptych")
    content = None if body is None else json.dumps(body).encode()
    response = await client.request(method, path, content=content, headers={"x-request-id": "req_seen"})
    assert response.status_code == status
    (line,) = [record for record in caplog.records if "req_seen" in record.getMessage()]
    assert (line.levelname, line.exc_info) == ("INFO", None)
    assert f"{status} {response.json()['error']['code']}" in line.getMessage()
    assert "red circle" not in line.getMessage()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_refusal_by_handle_is_one_line_too(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """A handle's refused call leaves the same line."""
    caplog.set_level(logging.INFO, "triptych")
    answer = await service.answer(lambda request_id: service.route({"prompt": ""}, request_id))
    assert answer["error"]["param"] == "prompt"
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.match(r"request req_\w+: 400 invalid_value \(prompt\), by handle", line)


async def test_refusals_cross_processes_as_values() -> None:
    """What the orchestrator's replica refuses is a value on the way, which Ray does not log, and an exception again."""
    from deployments.cluster.replicas import told

    async def refused() -> None:
        raise errors.NoRecipeError("nothing", ())

    answer = await told(refused())
    assert isinstance(answer, Refused)
    again = pickle.loads(pickle.dumps(answer)).error  # noqa: S301
    assert (type(again), again.message) == (errors.NoRecipeError, "nothing")


# ------------------------------------------------------------------------------------------------------------ retries


@pytest.mark.parametrize(
    ("error", "status", "retry_after", "should_retry"),
    [
        (errors.OverloadedError("later", 1.2), 429, "2", None),
        (errors.OverloadedError("later", 0.0), 429, "1", None),
        (errors.OverloadedError("later", 30.0), 429, "30", None),
        (errors.BudgetError("used up", 59.01), 429, "60", None),
        (WorkerLostError("gone"), 503, "1", None),
        (errors.StepError("failed"), 500, None, "false"),
        (errors.DeadlineError("late"), 504, None, "false"),
        (errors.LoadError("no weights"), 503, None, "false"),
        (errors.CatalogueError("broken"), 500, None, "false"),
        (errors.ArtifactError("broken"), 500, None, "false"),
        (ZeroDivisionError(), 500, None, "false"),
        (errors.RequestError("stale", None, "conflict"), 409, None, "false"),
        (errors.NoRecipeError("nothing"), 422, None, None),
        (errors.UnlikelyError("wrong"), 422, None, None),
        (errors.NotFoundError("nothing"), 404, None, None),
    ],
)
async def test_a_retry_is_asked_for_where_it_helps(
    settings: AppSettings, error: Exception, status: int, retry_after: str | None, should_retry: str | None
) -> None:
    """Overload is 429, waiting is said in whole seconds rounded up, and what fails again is not to be retried."""
    async with around(failing(error, settings)) as client:
        response = await client.post(ROUTE, json=BODY)
    assert response.status_code == status
    assert response.headers.get("retry-after") == retry_after
    assert response.headers.get("x-should-retry") == should_retry


@pytest.mark.parametrize(
    ("error", "calls"),
    [(errors.StepError("failed"), 1), (errors.DeadlineError("late"), 1), (WorkerLostError("gone"), 2)],
)
async def test_openais_client_follows(settings: AppSettings, error: Exception, calls: int) -> None:
    """OpenAI's client, which would retry every 5xx, asks again only where the failure may pass."""
    app, seen = failing(error, settings), []
    service: Any = app.state.service
    service._backend.complete = lambda submission: seen.append(submission) or Raising(error).complete(submission)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app)) as http:
        client = openai.AsyncOpenAI(
            base_url="http://t/v1", api_key="-", http_client=http, max_retries=1, _strict_response_validation=True
        )
        with pytest.raises(openai.APIStatusError):
            await client.images.generate(prompt="x")
    assert len(seen) == calls


# ------------------------------------------------------------------------------------------------------------ streams


class Queued(Keyless):
    """A backend that admits at once, and makes its picture when the test says so."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.go = asyncio.Event()
        self.left = False

    async def stream(self, request: Any) -> AsyncGenerator[Any]:
        try:
            async for item in self.inner.stream(request):
                yield item
                await self.go.wait()
        finally:
            self.left = True


async def opened(app: Any, body: dict[str, Any]) -> tuple[asyncio.Queue[Any], asyncio.Task[None], asyncio.Event]:
    """The messages of a request to an ASGI application as they come, its task, and the event that disconnects."""
    messages: asyncio.Queue[Any] = asyncio.Queue()
    gone = asyncio.Event()
    raw = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if raw:
            return raw.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": "POST", "path": GENERATE,
             "raw_path": GENERATE.encode(), "query_string": b"", "headers": headers, "scheme": "http",
             "server": ("t", 80), "client": ("t", 1), "root_path": "", "http_version": "1.1"}  # fmt: skip
    task = asyncio.ensure_future(app(scope, receive, messages.put))
    return messages, task, gone


async def test_a_stream_behind_a_queue_begins_at_once_and_stays_alive(orchestrator: Any, settings: AppSettings) -> None:
    """The status leaves when the request is admitted, comments follow while it waits, and then the picture."""
    queued = Queued(jobs_of(orchestrator))
    app = create_app(Service(queued, settings.limits), settings.limits, ping_s=0.01)  # type: ignore[arg-type]
    messages, task, _ = await opened(app, {**BODY, "stream": True, "model": "sd15", "steps": 1})
    start = await messages.get()
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert [(await messages.get())["body"] for _ in range(3)] == [b": ping\n\n"] * 3
    queued.go.set()
    await task
    rest = b"".join([messages.get_nowait().get("body", b"") for _ in range(messages.qsize())])
    assert b"event: image_generation.completed" in rest
    assert queued.left


async def test_a_client_that_leaves_a_waiting_stream_is_not_followed(orchestrator: Any, settings: AppSettings) -> None:
    """When the client goes while its stream waits, nobody goes on telling it; the job itself is carried on."""
    queued = Queued(jobs_of(orchestrator))
    app = create_app(Service(queued, settings.limits), settings.limits)  # type: ignore[arg-type]
    messages, task, gone = await opened(app, {**BODY, "stream": True, "model": "sd15", "steps": 1})
    await messages.get()
    gone.set()
    await task
    assert queued.left


async def test_a_failure_before_the_start_of_a_stream_has_its_status(client: httpx.AsyncClient) -> None:
    """Who asks to stream what cannot be had gets the status and envelope of any other request."""
    response = await client.post(GENERATE, json={**BODY, "stream": True, "max_cost_usd": 0})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "no_recipe"


async def test_openais_client_reads_through_pings(orchestrator: Any, settings: AppSettings) -> None:
    """OpenAI's strict client takes a stream with comments for what it is."""
    queued = Queued(jobs_of(orchestrator))
    app = create_app(Service(queued, settings.limits), settings.limits, ping_s=0.001)  # type: ignore[arg-type]
    queued.go.set()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app)) as http:
        client = openai.AsyncOpenAI(
            base_url="http://t/v1", api_key="-", http_client=http, max_retries=0, _strict_response_validation=True
        )
        events = await client.images.generate(
            prompt="a red circle", model="sd15", stream=True, partial_images=1, extra_body={"steps": 2}
        )
        kinds = [event.type async for event in events]
    assert kinds[-1] == "image_generation.completed"


# -------------------------------------------------------------------------------------------------------------- names


async def test_a_recipe_of_another_policy_is_proposed(client: httpx.AsyncClient) -> None:
    """Who names a recipe that only other policies have is told how to ask for it, and so asked for, it is taken."""
    error = (await client.post(ROUTE, json={**BODY, "model": "Latents"})).json()["error"]
    assert (error["code"], "'lab/latents'" in error["message"]) == ("model_not_found", True)
    assert (await client.post(ROUTE, json={**BODY, "model": "lab/latents"})).json()["recipe"] == "latents"


@pytest.mark.parametrize("model", ["SDXL", "Balanced", "AUTO", "Lab/Pixels"])
async def test_names_are_known_in_any_case(client: httpx.AsyncClient, model: str) -> None:
    """A policy, recipe or model is found in capitals, too, also under /v1/models."""
    assert (await client.post(ROUTE, json={**BODY, "model": model})).status_code == 200
    if "/" not in model:
        assert (await client.get(f"/v1/models/{model}")).json()["id"] == model.lower()


async def test_only_what_can_generate_is_proposed(client: httpx.AsyncClient) -> None:
    """A refiner or a scorer is never proposed as a model, however near its name is."""
    for near in ("sdxl-refine", "alignmen", "zzz"):
        for body in ({"model": near}, {"recipe": near}):
            message = (await client.post(ROUTE, json={**BODY, **body})).json()["error"]["message"]
            assert "'sdxl-refiner'" not in message
            assert "alignment'" not in message


async def test_aliases_are_models(orchestrator: Any, settings: AppSettings) -> None:
    """An alias is listed with what it stands for, and means that in a request."""
    limits = settings.limits.model_copy(update={"aliases": {"gpt-image-1": "auto", "dall-e-3": "best"}})
    async with around(create_app(Service(jobs_of(orchestrator), limits), limits)) as client:
        assert (await client.get("/v1/models/dall-e-3")).json()["x_triptych"]["description"] == "stands for best"
        report = (await client.post(ROUTE, json={**BODY, "model": "dall-e-3", "quality": "hd"})).json()
        assert report["policy"] == "best"
        report = (await client.post(ROUTE, json={**BODY, "model": "gpt-image-1", "quality": "high"})).json()
        assert report["policy"] == "best"


def test_every_status_of_a_failure_is_documented() -> None:
    """No failure has a status that the OpenAPI document does not know."""
    from deployments.api.openapi import REASONS

    assert {*failures.STATUS.values(), *failures.STATUS_OF_CODE.values()} <= set(REASONS)
