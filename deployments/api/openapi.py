"""The OpenAPI document: what FastAPI knows of the routes, with the bodies that it does not parse and every status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field

from deployments.api.compat.shapes import SdError
from deployments.api.wire import examples, shapes

_SCHEMAS = "#/components/schemas/"

REASONS = {
    400: "The request is malformed, or asks for something impossible.",
    401: "A key is needed, or this one is not known.",
    403: "The key has not this scope, or the address is forged or has expired.",
    404: "There is no such thing; the message has the nearest name.",
    405: "The method is not possible here; Allow has those that are.",
    408: "The body did not arrive in time.",
    409: "Another version is in force than was expected, the folder cannot be written to, or the Idempotency-Key "
    "came with another request.",
    413: "The body is too large.",
    415: "The body has a type or an encoding that is not read.",
    422: "No recipe passes the policy's gates, or the policy's text is refused.",
    429: "Too much is waiting, or a budget is used up; Retry-After says for how long.",
    500: "A step failed, or something unforeseen happened.",
    503: "A model, a worker, the store or the log is not available.",
    504: "The deadline passed.",
    507: "The store is full; what was accepted is made.",
}
KEYED = (401, 403)
"""What the key of a request may be answered with."""
ASKED = (400, *KEYED, 404, 405, 408, 409, 413, 415, 422, 429, 500, 503, 504, 507)
"""What a body that asks for pictures may be answered with, besides 200."""
READ = (404, 405, 500, 503, 504)
MANAGED = (400, *KEYED, 404, 405, 408, 409, 413, 415, 422, 500, 503)


class ErrorDetail(BaseModel):
    """OpenAI's error; some have further keys, such as `rejected` and `problems`."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(BaseModel):
    """The body of every failure."""

    error: ErrorDetail


class JobPicture(BaseModel):
    """A picture of a job, by its address, which whoever has it may open until it expires."""

    id: str
    index: int
    seed: int
    media_type: str
    width: int
    height: int
    bytes: int
    url: str
    expires_at: int


class Job(BaseModel):
    """A request that was accepted. Times are Unix seconds."""

    id: str
    object: Literal["job"]
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    n: int
    prompt: str | None
    model: str
    user: str | None
    priority: Literal["interactive", "standard", "batch"]
    position: int | None = Field(description="Open jobs that were accepted before and have not begun.")
    eta_s: float | None = Field(description="Seconds until it is expected to be done.")
    progress: float = Field(ge=0, le=1)
    created_at: float
    started_at: float | None
    finished_at: float | None
    deadline_at: float | None
    attempts: int
    recipe: str | None
    warnings: list[str]
    error: dict[str, Any] | None
    webhook: dict[str, Any] | None
    pictures: list[JobPicture] = Field(description="Those that are there already.")
    request: dict[str, Any] = Field(description="The body that it was asked for with.")
    result: dict[str, Any] | None = Field(default=None, description="The answer of generations; not in lists.")


class JobList(BaseModel):
    """A page of jobs, the latest first."""

    object: Literal["list"]
    data: list[Job] = Field(description="Without pictures and result.")
    has_more: bool
    next_cursor: str | None


class PolicyVersion(BaseModel):
    """What `POST /v1/policies/{name}/rollback` takes."""

    digest: str | None = Field(default=None, description="The version to put in force; without it, the one before.")


Responses = dict[int | str, dict[str, Any]]


def answers(*statuses: int) -> Responses:
    """`responses` of a route: every status as an error envelope."""
    content = {"application/json": {"example": examples.ERROR}}
    return {status: {"model": ErrorEnvelope, "description": REASONS[status], "content": content} for status in statuses}


def sd_answers(*statuses: int) -> Responses:
    """The same in A1111's shape."""
    return {status: {"model": SdError, "description": REASONS[status]} for status in statuses}


def answered(schema: type[BaseModel], what: str, example: Any = None, **further: Any) -> Responses:
    """200 of a route. further: what stands beside, such as headers"""
    content = {} if example is None else {"content": {"application/json": {"example": example}}}
    return {200: {"model": schema, "description": what, **content, **further}}


def events(example: str, *schemas: type[BaseModel]) -> dict[str, Any]:
    """`content` of a stream: the schema is that of one event, as OpenAPI 3.2's `itemSchema`, whose data are JSON."""
    one = {"anyOf": [{"$ref": _SCHEMAS + schema.__name__} for schema in schemas]}
    text = {"type": "string"}
    data = {**text, "contentMediaType": "application/json", "contentSchema": one}
    event = {"type": "object", "required": ["data"], "properties": {"data": data, "event": text, "id": text}}
    return {"text/event-stream": {"schema": event, "x-example": example}}


RATED: dict[str, Any] = {
    f"x-ratelimit-{name}-requests": {"description": f"{what} Of a key with a limit.", "schema": {"type": "string"}}
    for name, what in (
        ("limit", "Requests a minute."), ("remaining", "Those that are left."), ("reset", "When all are free again."),
    )
}  # fmt: skip
"""Headers of what was accepted."""


def parameter(name: str, place: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """A parameter that FastAPI does not parse."""
    return {"name": name, "in": place, "description": description, "schema": schema or {"type": "string"}}


def job_schema() -> dict[str, Any]:
    """The schema of a job, by reference."""
    return {"$ref": _SCHEMAS + "Job"}


def body_of(schema: type[BaseModel], required: bool = True, told: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`openapi_extra` of a route: its JSON body, since FastAPI does not parse it. told: examples, by name"""
    content: dict[str, Any] = {"schema": {"$ref": _SCHEMAS + schema.__name__}}
    if told:
        content["examples"] = dict(told)
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def form_body(schema: type[BaseModel], told: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a body that is a form with files, or JSON. told: examples of JSON, by name"""
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    fields = {"image": {"type": "array", "items": file}, "mask": file, "prompt": {"type": "string"}}
    example = {"prompt": "a green star above a blue square", "image": ["(the file)"], "strength": "0.6"}
    schema_of_form = {"type": "object", "required": ["image"], "properties": fields, "additionalProperties": True}
    form = {"schema": schema_of_form, "example": example}
    body = body_of(schema, told=told)
    body["requestBody"]["content"]["multipart/form-data"] = form
    return body


def document(app: FastAPI, bodies: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """The document, made once. bodies: those that `body_of` refers to"""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        parts = made.setdefault("components", {})
        schemas = parts.setdefault("schemas", {})
        for body in bodies:
            schemas |= component(body)
        for answer in (Job, shapes.PartialImageEvent, shapes.CompletedEvent, shapes.JobEvent):
            schemas |= component(answer, nullable=False)
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "A key: tp_…"}}
        made["security"] = [{}, {"key": []}]
        app.openapi_schema = made
    return app.openapi_schema


def component(body: type[BaseModel], nullable: bool = True) -> dict[str, Any]:
    """A body and what it refers to, by name. nullable: what need not be given may be null, which means the same"""
    schema = body.model_json_schema(ref_template=_SCHEMAS + "{model}")
    inner = schema.pop("$defs", {})
    for name, one in schema.get("properties", {}).items():
        if nullable and name not in schema.get("required", ()) and {"type": "null"} not in one.get("anyOf", ()):
            told = {key: one.pop(key) for key in ("title", "description", "default") if key in one}
            schema["properties"][name] = {**told, "anyOf": [dict(one), {"type": "null"}]}
    return {body.__name__: schema, **inner}
