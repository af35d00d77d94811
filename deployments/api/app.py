"""HTTP: `create_app(service, limits)` makes a FastAPI application around a `Service`, wherever its backend runs.

Bodies are parsed by requests.py, not by FastAPI, so that HTTP and handles refuse the same things in the same words.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api import errors as failures
from deployments.api import policies as policy_api
from deployments.api import responses as explain
from deployments.api.feedback import FeedbackRequest, parse_feedback
from deployments.api.request_ids import RequestIds
from deployments.api.requests import ImageRequest, parse_body
from deployments.api.service import Service
from deployments.settings import Limits
from router.errors import NotFoundError, RequestError, TriptychError

logger = logging.getLogger("triptych.ingress")

ENDPOINTS = {
    "POST /v1/images/generations": "make pictures; the body is OpenAI's, with further fields",
    "POST /v1/route": "the same body: which recipe would be taken, and why; nothing is run",
    "POST /v1/feedback": "how good a picture is: an id of an answer with a rating (1 to 5), or a score and its scorer",
    "GET /v1/models": "what `model` may be: auto, policies, recipes, models",
    "GET /health": "whether the process answers",
    "GET /readyz": "whether the models are loaded, one by one",
    **policy_api.ENDPOINTS,
    "GET /docs": "this API as OpenAPI",
}


def body_of(schema: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of the body, since FastAPI does not parse it."""
    content = {"application/json": {"schema": schema.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def create_app(service: Service, limits: Limits, echo_request_id: bool = True, admin_key: str | None = None) -> FastAPI:
    """The ASGI application. Every failure leaves as OpenAI's error envelope."""
    app = FastAPI(title="Triptych", description="A routing orchestrator for text-to-image models.")
    app.state.service, app.state.limits = service, limits
    app.get("/")(index)
    app.get("/health")(health)
    app.get("/readyz")(readyz)
    app.get("/v1/models")(list_models)
    app.get("/v1/models/{name:path}")(get_model)
    app.post("/v1/route", openapi_extra=body_of(ImageRequest))(route)
    app.post("/v1/images/generations", openapi_extra=body_of(ImageRequest), response_model=None)(generate)
    app.post("/v1/feedback", openapi_extra=body_of(FeedbackRequest))(feedback)
    policy_api.add_endpoints(app, admin_key)
    app.add_exception_handler(TriptychError, on_failure)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_middleware(Guard)
    app.add_middleware(RequestIds, echo=echo_request_id)
    return app


# ---------------------------------------------------------------------------------------------------------- endpoints


async def index() -> dict[str, Any]:
    """What is here."""
    return {"name": "triptych", "endpoints": ENDPOINTS}


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
    report = await request.app.state.service.route(await _body(request), request.state.request_id)
    response.headers.update(explain.headers(report))
    return report


async def generate(request: Request) -> Response:
    """Pictures; with `stream: true` as server-sent events."""
    wire = await _body(request)
    if wire.response_format == "bytes":
        raise RequestError("response_format: bytes cannot stand in JSON; use b64_json", "response_format")
    service: Service = request.app.state.service
    if wire.stream:
        return await _event_stream(service.stream(wire, request.state.request_id), request.state.request_id)
    body = await service.generate(wire, request.state.request_id)
    return JSONResponse(body, headers=explain.headers(body["x_triptych"]))


async def feedback(request: Request) -> dict[str, Any]:
    """Say how good a picture is."""
    return await request.app.state.service.feedback(parse_feedback(await _raw(request)))


async def _body(request: Request) -> ImageRequest:
    return parse_body(await _raw(request), request.app.state.limits)


async def _raw(request: Request) -> bytes:
    limits: Limits = request.app.state.limits
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > limits.max_body_bytes:
            message = f"the body is larger than {limits.max_body_bytes:,} bytes"
            raise RequestError(message, None, "request_too_large")
    return raw


async def _event_stream(events: AsyncGenerator[dict[str, Any]], request_id: str) -> Response:
    """The events as `text/event-stream`. A failure before the first event is an ordinary error response."""
    first = await anext(events)

    async def lines() -> AsyncGenerator[bytes]:
        try:
            yield _line(first)
            async for event in events:
                yield _line(event)
        except Exception as error:
            _log_unforeseen(error, request_id)
            yield format_sse_event(data_str=_json(failures.envelope(error, request_id)))
        finally:
            await events.aclose()

    return EventSourceResponse(lines(), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


def _line(event: dict[str, Any]) -> bytes:
    return format_sse_event(event=event["type"], data_str=_json(event))


def _json(data: dict[str, Any]) -> str:
    return bytes(JSONResponse(data).body).decode()


# ----------------------------------------------------------------------------------------------------------- failures


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
            request_id = scope["state"]["request_id"]
            _log_unforeseen(error, request_id)
            if begun:
                raise
            await _failure(error, request_id)(scope, receive, sending)


async def on_failure(request: Request, error: Exception) -> Response:
    return _failure(error, request.state.request_id)


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        return _failure(NotFoundError(f"there is nothing at {path}; GET / lists what is", None, "unknown_url"))
    if error.status_code == 405:
        message = f"{request.method} is not possible at {path}; GET / lists what is"
        response = _failure(RequestError(message, None, "method_not_allowed"))
        response.headers.update(error.headers or {})
        return response
    return _failure(RequestError(str(error.detail)))


async def on_validation_error(request: Request, error: Exception) -> Response:
    return _failure(RequestError(f"the request is malformed: {error}"))


def _failure(error: Exception, request_id: str = "") -> Response:
    return JSONResponse(failures.envelope(error, request_id), failures.status_of(error), failures.headers(error))


def _log_unforeseen(error: Exception, request_id: str) -> None:
    if not isinstance(error, TriptychError):
        logger.error("request %s failed", request_id, exc_info=error)
