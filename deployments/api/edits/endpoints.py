"""`POST /v1/images/edits` and `/v1/images/variations`, as OpenAI has them: forms or JSON, answers and events alike."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from deployments.api import jobs as job_api
from deployments.api.calls import call_of, picture_body, prefers_async
from deployments.api.openapi import ASKED, RATED, Responses, answered, answers, events, form_body, parameter
from deployments.api.service import Service
from deployments.api.streams import Accepted, event_stream, openai_line
from deployments.api.wire import examples, shapes
from deployments.api.wire.requests import ImageRequest
from router.errors import RequestError

ENDPOINTS = {
    "POST /v1/images/edits": "a picture painted over, or what a mask leaves open of it; OpenAI's form, or JSON",
    "POST /v1/images/variations": "a picture once more, a little different; the same form without a prompt",
}


def add_endpoints(app: FastAPI) -> None:
    """Both of them."""
    idempotent = parameter("Idempotency-Key", "header", "Sent again, the same request has the same pictures.")
    prefer = parameter("Prefer", "header", "respond-async: answer with a job at once.")
    body = {**form_body(ImageRequest, examples.EDITS), "parameters": [idempotent, prefer]}
    stream = events(examples.EDIT_EVENTS, shapes.PartialImageEvent, shapes.CompletedEvent)
    pictures = answered(shapes.ImagesAnswer, "Pictures; with `stream`, events.", content=stream, headers=RATED)
    made: Responses = {**pictures, **job_api.accepted_response(), **answers(*ASKED)}
    for path, endpoint in (("/v1/images/edits", edit), ("/v1/images/variations", variation)):
        app.post(path, openapi_extra=body, responses=made, response_model=None)(endpoint)


async def edit(request: Request) -> Response:
    """The given picture painted over as the prompt says; with a mask, only what that leaves open."""
    return await _answered(request, await picture_body(request))


async def variation(request: Request) -> Response:
    """The given picture, drawn over without a prompt."""
    return await _answered(request, await picture_body(request, prompt=""))


async def _answered(request: Request, wire: ImageRequest) -> Response:
    if not wire.image:
        raise RequestError("image: it is required: a PNG, JPEG or WebP to edit", "image", "invalid_value")
    call, request_id = call_of(request, "generate"), request.state.request_id
    service: Service = request.app.state.service
    if prefers_async(request) and not wire.stream:
        answer = await service.submit(wire, request_id, call)
        return job_api.accepted(request, answer, **{"Preference-Applied": "respond-async"})
    if wire.stream:
        told = Accepted()
        stream = service.stream(wire, request_id, told, call)
        return await event_stream(stream, told, request_id, request.app.state.ping_s, openai_line)
    made = await service.made(wire, request_id, call)
    content: Any = made.body
    return JSONResponse(content, headers=dict(made.headers))
