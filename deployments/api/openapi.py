"""The OpenAPI document: what FastAPI knows of the routes, with the bodies that it does not parse and every status."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field

from deployments.api.feedback import FeedbackRequest
from deployments.api.wire.requests import ImageRequest

_SCHEMAS = "#/components/schemas/"

REASONS = {
    400: "The request is malformed, or asks for something impossible.",
    401: "The admin key is needed.",
    403: "Policies cannot be seen or changed over HTTP here.",
    404: "There is no such thing; the message has the nearest name.",
    405: "The method is not possible here; Allow has those that are.",
    409: "Another version is in force than was expected, or the folder cannot be written to.",
    413: "The body is too large.",
    415: "The body has a type or an encoding that is not read.",
    422: "No recipe passes the policy's gates, or the policy's text is refused.",
    429: "Too much is waiting, or a budget is used up; Retry-After says for how long.",
    500: "A step failed, or something unforeseen happened.",
    503: "A model, a worker or the log is not available.",
    504: "The deadline passed.",
}
ASKED = (400, 404, 405, 413, 415, 422, 429, 500, 503, 504)
"""What a body that asks for pictures may be answered with, besides 200."""
READ = (404, 405, 500, 503, 504)
MANAGED = (400, 401, 403, 404, 405, 409, 413, 415, 422, 500, 503)


class ErrorDetail(BaseModel):
    """OpenAI's error; some have further keys, such as `rejected` and `problems`."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(BaseModel):
    """The body of every failure."""

    error: ErrorDetail


class PolicyVersion(BaseModel):
    """What `POST /v1/policies/{name}/rollback` takes."""

    digest: str | None = Field(default=None, description="The version to put in force; without it, the one before.")


Responses = dict[int | str, dict[str, Any]]


def answers(*statuses: int) -> Responses:
    """`responses` of a route: every status as an error envelope."""
    return {status: {"model": ErrorEnvelope, "description": REASONS[status]} for status in statuses}


def body_of(schema: type[BaseModel], required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route: its JSON body, since FastAPI does not parse it."""
    content = {"application/json": {"schema": {"$ref": _SCHEMAS + schema.__name__}}}
    return {"requestBody": {"required": required, "content": content}}


def document(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        bodies: tuple[type[BaseModel], ...] = (ImageRequest, FeedbackRequest, PolicyVersion)
        for body in bodies:
            schemas |= component(body)
        app.openapi_schema = made
    return app.openapi_schema


def component(body: type[BaseModel]) -> dict[str, Any]:
    """A body and what it refers to, by name. What need not be given may be null, which means the same."""
    schema = body.model_json_schema(ref_template=_SCHEMAS + "{model}")
    inner = schema.pop("$defs", {})
    for name, one in schema.get("properties", {}).items():
        if name not in schema.get("required", ()) and {"type": "null"} not in one.get("anyOf", ()):
            told = {key: one.pop(key) for key in ("title", "description", "default") if key in one}
            schema["properties"][name] = {**told, "anyOf": [dict(one), {"type": "null"}]}
    return {body.__name__: schema, **inner}
