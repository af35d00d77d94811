"""Jobs over HTTP: accept now, ask later. A request that is accepted is made, whoever waits for it."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from deployments.api.calls import call_of, picture_body
from deployments.api.openapi import (
    ASKED,
    KEYED,
    READ,
    JobList,
    Responses,
    answered,
    answers,
    body_of,
    events,
    job_schema,
    parameter,
)
from deployments.api.service import Answer, Service
from deployments.api.streams import Accepted, event_stream, job_line
from deployments.api.wire import examples, shapes
from deployments.api.wire.jobs import LAST, MOST, page_of
from deployments.api.wire.requests import ImageRequest
from deployments.store.records import JobState
from router.errors import RequestError

ENDPOINTS = {
    "POST /v1/jobs": "the body of generations or edits: accepted now, made whoever waits (or `Prefer: respond-async`)",
    "GET /v1/jobs": "your jobs, the latest first: ?limit=, ?cursor=, ?state=queued,running,done,failed,cancelled",
    "GET /v1/jobs/{id}": "state, place in the queue, seconds to go, progress, pictures by address",
    "DELETE /v1/jobs/{id}": "end it, if it is open",
    "GET /v1/jobs/{id}/events": "what happens to it, as server-sent events; `Last-Event-ID` goes on from there",
    "GET /v1/images/{id}/content": "a picture, by its signed address",
}

_IDEMPOTENT = parameter("Idempotency-Key", "header", "Sent again, the same request is the same job.")
_JOB: dict[str, Any] = {"content": {"application/json": {"schema": job_schema()}}}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": MOST}
LISTED = [
    parameter("limit", "query", "Jobs on a page; 20 if it is left out.", _LIMIT),
    parameter("cursor", "query", "`next_cursor` of the page before."),
    parameter("state", "query", "queued, running, done, failed, cancelled; several with commas."),
]
"""What a list of jobs may be asked for."""
_FILE = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
_LOCATION = {"Location": {"description": "Where the job is.", "schema": {"type": "string"}}}


def accepted_response() -> Responses:
    """What is documented of a request that became a job."""
    return {202: {"description": "Accepted; the job.", "headers": _LOCATION, **_JOB}}


def add_endpoints(app: FastAPI) -> None:
    """Jobs and their pictures."""
    found: Responses = {200: {"description": "The job.", **_JOB}}
    images = {**body_of(ImageRequest, told=examples.IMAGES), "parameters": [_IDEMPOTENT]}
    app.post(
        "/v1/jobs", openapi_extra=images, status_code=202, response_model=None,
        responses={**accepted_response(), **answers(*ASKED)},
    )(submit)  # fmt: skip
    listed = {**answered(JobList, "A page of jobs."), **answers(400, *KEYED, *READ)}
    app.get("/v1/jobs", openapi_extra={"parameters": LISTED}, response_model=None, responses=listed)(list_jobs)
    app.get("/v1/jobs/{id}", responses={**found, **answers(*KEYED, *READ)}, response_model=None)(get_job)
    app.delete("/v1/jobs/{id}", responses={**found, **answers(*KEYED, *READ)}, response_model=None)(cancel_job)
    stream: Responses = {
        200: {"description": "Events until the job ends.", "content": events(examples.JOB_EVENTS, shapes.JobEvent)},
        204: {"description": "All of them were seen: Last-Event-ID is the last one's."},
    }
    last = [parameter("Last-Event-ID", "header", "The id of the last event that was seen.")]
    app.get(
        "/v1/jobs/{id}/events", openapi_extra={"parameters": last}, response_model=None, response_class=Response,
        responses={**stream, **answers(400, *KEYED, *READ)},
    )(job_events)  # fmt: skip
    kinds = ("image/png", "image/webp", "image/jpeg")
    picture: Responses = {200: {"description": "The picture.", "content": {kind: dict(_FILE) for kind in kinds}}}
    signed = [
        parameter("expires", "query", "Unix seconds, as in the address."),
        parameter("signature", "query", "As in the address."),
    ]
    app.get(
        "/v1/images/{id}/content", openapi_extra={"parameters": signed}, response_model=None, response_class=Response,
        responses={**picture, **answers(403, *READ)},
    )(get_picture)  # fmt: skip


async def submit(request: Request) -> Response:
    """Accept a request as a job."""
    call = call_of(request, "generate")
    wire = await picture_body(request)
    service: Service = request.app.state.service
    return accepted(request, await service.submit(wire, request.state.request_id, call))


def accepted(request: Request, answer: Answer, **headers: str) -> Response:
    """202, and where the job is."""
    where = f"{request.scope.get('root_path', '').rstrip('/')}/v1/jobs/{answer.body['id']}"
    return JSONResponse(answer.body, 202, {"Location": where, **answer.headers, **headers})


async def list_jobs(request: Request) -> dict[str, Any]:
    """Your jobs, the latest first."""
    states, limit, cursor = asked_page(request)
    service: Service = request.app.state.service
    return await service.jobs(states, limit, cursor, call_of(request, "generate"))


def asked_page(request: Request) -> tuple[tuple[JobState, ...], int, str | None]:
    """Which jobs are asked for: states, how many, from where on. Raises `RequestError`."""
    asked = request.query_params
    if unknown := sorted(set(asked) - {"limit", "cursor", "state"}):
        name = unknown[0][:40]
        raise RequestError(f"{name}: unknown; there are limit, cursor and state", name, "unknown_parameter")
    limit, states = page_of(asked.get("limit"), asked.getlist("state"))
    return states, limit, asked.get("cursor")


async def get_job(request: Request, id: str) -> Response:
    """How a job is."""
    service: Service = request.app.state.service
    return JSONResponse(await service.status(id, call_of(request, "generate")), headers=_FRESH)


async def cancel_job(request: Request, id: str) -> Response:
    """End a job, if it is open."""
    service: Service = request.app.state.service
    return JSONResponse(await service.cancel(id, call_of(request, "generate")))


async def job_events(request: Request, id: str) -> Response:
    """What happened and happens to a job, until its end."""
    call, last = call_of(request, "generate"), request.headers.get("last-event-id")
    service: Service = request.app.state.service
    if last == LAST:  # a browser's EventSource would come back for ever
        await service.status(id, call)
        return Response(status_code=204)
    told = Accepted()
    stream = service.events(id, last, told, call)
    return await event_stream(stream, told, request.state.request_id, request.app.state.ping_s, job_line)


async def get_picture(request: Request, id: str) -> Response:
    """A picture, by its signed address."""
    asked = request.query_params
    service: Service = request.app.state.service
    file, expires_at = await service.picture(id, asked.get("expires", ""), asked.get("signature", ""))
    ending = file.media_type.rpartition("/")[2]
    headers = {
        "Cache-Control": f"private, max-age={max(0, int(expires_at - time.time()))}, immutable",
        "Content-Disposition": f'inline; filename="{file.id}.{ending}"',
        "X-Content-Type-Options": "nosniff",
        "ETag": f'"{file.id}"',
    }
    return Response(file.data, media_type=file.media_type, headers=headers)


_FRESH = {"Cache-Control": "no-store"}
