"""HTTP: `create_app(service, limits)` makes a FastAPI application around a `Service`, wherever its backend runs.

Bodies are parsed by requests.py, not by FastAPI, so that HTTP and handles refuse the same things in the same words.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api import errors as failures
from deployments.api import jobs as job_api
from deployments.api import policies as policy_api
from deployments.api.admin import endpoints as admin_api
from deployments.api.calls import body_of_request, call_of, picture_body, prefers_async
from deployments.api.compat import routes as compat_api
from deployments.api.compat import sdapi
from deployments.api.edits import endpoints as edit_api
from deployments.api.keys import Gate, Keys, access_of
from deployments.api.openapi import (
    ASKED,
    KEYED,
    RATED,
    READ,
    PolicyVersion,
    Responses,
    answered,
    answers,
    body_of,
    document,
    events,
    parameter,
)
from deployments.api.request_ids import RequestIds
from deployments.api.service import Service
from deployments.api.streams import PING_S, Accepted, event_stream, openai_line
from deployments.api.wire import examples, shapes
from deployments.api.wire import responses as explain
from deployments.api.wire.admin import KeyRequest
from deployments.api.wire.bodies import read_json
from deployments.api.wire.feedback import FeedbackRequest, parse_feedback
from deployments.api.wire.requests import ImageRequest
from deployments.observing.http import Answered, Observed
from deployments.page import serving as page
from deployments.settings import Limits, UploadSettings
from router.errors import NotFoundError, RequestError, TriptychError

logger = logging.getLogger("triptych.ingress")

ENDPOINTS = {
    "GET /": "the page, for browsers; this list for others",
    "POST /v1/images/generations": "make pictures; the body is OpenAI's, with further fields",
    **edit_api.ENDPOINTS,
    "POST /v1/route": "the same body: which recipe would be taken, and why; nothing is run",
    "POST /v1/feedback": "how good a picture is: an id of an answer with a rating (1 to 5), a thumb or a score",
    **job_api.ENDPOINTS,
    "GET /v1/models": "what `model` may be: auto, policies, recipes, models",
    "GET /health": "whether the process answers",
    "GET /readyz": "whether the models are loaded, one by one",
    **policy_api.ENDPOINTS,
    **admin_api.ENDPOINTS,
    **compat_api.ENDPOINTS,
    "GET /docs": "this API as OpenAPI",
}


BODIES = (ImageRequest, FeedbackRequest, PolicyVersion, KeyRequest, *compat_api.BODIES)
"""What the document has of what is sent."""

EXPOSED = ("x-request-id", "x-trace-id", "retry-after", "location", "x-triptych-recipe", "x-triptych-policy",
           "x-triptych-policy-digest", "x-triptych-latency-s", "x-triptych-cost", "x-triptych-job",
           "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
           "idempotent-replayed", "preference-applied")  # fmt: skip
"""Headers that pages of other origins may read."""


def create_app(
    service: Service,
    limits: Limits,
    echo_request_id: bool = True,
    admin_key: str | None = None,
    cors: Sequence[str] = (),
    ping_s: float = PING_S,
    gate: Gate | None = None,
    answered: Answered = lambda *_: None,
    uploads: UploadSettings | None = None,
) -> FastAPI:
    """The ASGI application. Every failure leaves as OpenAI's error envelope.

    admin_key: of the environment;   gate: whether others need a key, too; default: no
    cors: origins whose pages may call it;   ping_s: seconds between two signs of life of a stream
    answered: told of each answer, for the metrics;   uploads: what pictures a request may bring
    """
    gate = gate or Gate(admin_key=admin_key)
    app = FastAPI(
        title="Triptych",
        description="A routing orchestrator for text-to-image models.",
        generate_unique_id_function=lambda one: one.name,
    )
    app.state.service, app.state.limits, app.state.ping_s = service, limits, ping_s
    app.state.uploads, app.state.cors = uploads or UploadSettings(), tuple(cors)
    app.openapi = lambda: document(app, BODIES)  # type: ignore[method-assign]
    _add_endpoints(app)
    edit_api.add_endpoints(app)
    job_api.add_endpoints(app)
    policy_api.add_endpoints(app)
    admin_api.add_endpoints(app)
    compat_api.add_endpoints(app)
    app.add_exception_handler(TriptychError, on_failure)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_middleware(Keys, gate=gate, authenticate=service.authenticate)
    app.add_middleware(Guard)
    app.add_middleware(Heads)
    if cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors),
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=list(EXPOSED),
        )
    app.add_middleware(Observed, answered=answered)
    app.add_middleware(RequestIds, echo=echo_request_id)
    return app


# ---------------------------------------------------------------------------------------------------------- endpoints


def _add_endpoints(app: FastAPI) -> None:
    """What this module has, with what the document says of it."""
    images = body_of(ImageRequest, told=examples.IMAGES)
    rated = body_of(FeedbackRequest, told=examples.FEEDBACK)
    idempotent = parameter("Idempotency-Key", "header", "Sent again, the same request has the same pictures.")
    prefer = parameter("Prefer", "header", "respond-async: answer with a job at once.")
    making = {**images, "parameters": [idempotent, prefer]}
    stream = events(examples.IMAGE_EVENTS, shapes.PartialImageEvent, shapes.CompletedEvent)
    pictures = answered(shapes.ImagesAnswer, "Pictures; with `stream`, events.", content=stream, headers=RATED)
    made: Responses = {**pictures, **job_api.accepted_response(), **answers(*ASKED)}
    ready = answered(shapes.Readiness, "Every model is loaded, or out.")
    loading: Responses = {503: {"model": shapes.Readiness, "description": "Models are still loading."}}
    names = answered(shapes.ModelList, "All names.", examples.MODEL_LIST)
    name = answered(shapes.Model, "The name.", examples.MODEL_LIST["data"][0])
    decided = answered(shapes.Decided, "The decision.")
    kept = answered(shapes.FeedbackAnswer, "What it was attached to.")

    def get(path: str, endpoint: Any, responses: Responses) -> None:
        app.get(path, responses=responses, response_model=None)(endpoint)

    def post(path: str, endpoint: Any, responses: Responses, body: dict[str, Any]) -> None:
        app.post(path, openapi_extra=body, responses=responses, response_model=None)(endpoint)

    listed = answered(
        shapes.Index,
        "The page for browsers, the endpoints for others.",
        content={"text/html": {"schema": {"type": "string"}}},
    )
    get("/", index, {**listed, **answers(405)})
    app.get(f"/{page.FOLDER}/{{name}}", include_in_schema=False)(page_file)
    get("/health", health, {**answered(shapes.Health, "It does.", {"status": "ok"}), **answers(405)})
    get("/readyz", readyz, {**ready, **answers(405, 500), **loading})
    get("/v1/models", list_models, {**names, **answers(*KEYED, *READ)})
    get("/v1/models/{name:path}", get_model, {**name, **answers(*KEYED, *READ)})
    post("/v1/route", route, {**decided, **answers(*ASKED)}, images)
    post("/v1/images/generations", generate, made, making)
    post("/v1/feedback", feedback, {**kept, **answers(*ASKED)}, rated)


async def index(request: Request) -> Response:
    """The page to browsers, to others what is here."""
    if page.is_browser(request.headers):
        return page.document(request)
    return JSONResponse({"name": "triptych", "endpoints": ENDPOINTS}, headers={"Vary": "Accept"})


async def page_file(name: str) -> Response:
    """A file of the page."""
    if (found := page.part(name)) is None:
        message = f"the page has no file {name[:60]!r}; load / again, it names those that there are"
        raise NotFoundError(message, None, "unknown_url")
    return found


async def health() -> dict[str, str]:
    """This process answers; see /readyz for the models."""
    return {"status": "ok"}


async def readyz(request: Request) -> JSONResponse:
    """503 until no worker is starting any more."""
    ready, body = await request.app.state.service.readiness()
    return JSONResponse(body, 200 if ready else 503)


async def list_models(request: Request) -> dict[str, Any]:
    """What `model` may be."""
    return await request.app.state.service.models()


async def get_model(request: Request, name: str) -> dict[str, Any]:
    """One of them."""
    return await request.app.state.service.model(name)


async def route(request: Request, response: Response) -> dict[str, Any]:
    """The decision, without running anything."""
    call = call_of(request, "generate")
    report = await request.app.state.service.route(await picture_body(request), request.state.request_id, call)
    response.headers.update(explain.headers(report))
    return report


async def generate(request: Request) -> Response:
    """Pictures; with `stream: true` as server-sent events; with `Prefer: respond-async` as a job."""
    call = call_of(request, "generate")
    wire = await body_of_request(request)
    service: Service = request.app.state.service
    request_id: str = request.state.request_id
    if prefers_async(request) and not wire.stream:
        answer = await service.submit(wire, request_id, call)
        return job_api.accepted(request, answer, **{"Preference-Applied": "respond-async"})
    if wire.stream:
        told = Accepted()
        stream = service.stream(wire, request_id, told, call)
        return await event_stream(stream, told, request_id, request.app.state.ping_s, openai_line)
    made = await service.made(wire, request_id, call)
    return JSONResponse(made.body, headers=dict(made.headers))


async def feedback(request: Request) -> dict[str, Any]:
    """Say how good a picture is."""
    access_of(request, "feedback")
    limits: Limits = request.app.state.limits
    raw = await read_json(request, limits.max_body_bytes, limits.body_timeout_s)
    return await request.app.state.service.feedback(parse_feedback(raw))


# ----------------------------------------------------------------------------------------------------------- failures


class Heads:
    """HEAD wherever GET is, without a body. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, sending)


class Guard:
    """Gives every unforeseen failure an envelope. Plain ASGI, as `RequestIds` is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if begun:
                failures.log(logger, error, scope["state"]["request_id"], scope["path"])
                raise
            await _failure(Request(scope), error)(scope, receive, sending)


async def on_failure(request: Request, error: Exception) -> Response:
    return _failure(request, error)


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        return _failure(request, NotFoundError(f"there is nothing at {path}; GET / lists what is", None, "unknown_url"))
    if error.status_code == 405:
        allowed = ", ".join(_allowed(request))
        message = f"{request.method} is not possible at {path}, but {allowed}; GET / lists what is"
        response = _failure(request, RequestError(message, None, "method_not_allowed"))
        response.headers["Allow"] = allowed
        return response
    return _failure(request, RequestError(str(error.detail)))


async def on_validation_error(request: Request, error: Exception) -> Response:
    return _failure(request, RequestError(f"the request is malformed: {error}"))


def _allowed(request: Request) -> list[str]:
    """The methods of all routes at this path; starlette only tells those of the first."""
    found: set[str] = set()
    for one in request.app.routes:
        if one.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(one, "methods", None) or set()
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def _failure(request: Request, error: Exception) -> Response:
    """The response, and a line in the log with the request's id."""
    request_id = request.scope["state"]["request_id"]
    failures.log(logger, error, request_id, f"{request.method} {request.url.path}")
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    shape = sdapi.envelope if path.startswith("/sdapi/") else failures.envelope
    return JSONResponse(shape(error, request_id), failures.status_of(error), failures.headers(error))
