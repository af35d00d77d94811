"""Policies over HTTP, for whoever holds an admin key: see, change, look back, roll back.

On loopback, as long as there are no keys, whoever reaches the server may see them; what changes one needs an admin key
in any case. A change is validated, written to the policy folder, and followed by every orchestrator with its next
request.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from deployments.api.keys import access_of
from deployments.api.openapi import MANAGED, PolicyVersion, answered, answers, body_of
from deployments.api.service import Service
from deployments.api.wire import examples, shapes
from deployments.api.wire.bodies import read_body, read_json, unsupported
from deployments.api.wire.requests import json_of
from policies.language.source import MAX_BYTES
from router.errors import RequestError

EXAMPLE = '{"digest": "0123456789ab"}'

ENDPOINTS = {
    "GET /v1/policies": "names and digests of all policies, and what is wrong with their files (operators)",
    "GET /v1/policies/{name}": "the file in force, with its history; `?digest=` for an earlier one (operators)",
    "PUT /v1/policies/{name}": "the body, YAML, is validated and put in force; `If-Match: DIGEST` (admin key)",
    "POST /v1/policies/{name}/rollback": 'put an earlier version in force: {"digest": ...} (admin key)',
}


def add_endpoints(app: FastAPI) -> None:
    """Seen by operators; changed by keys of scope admin, and closed where there can be none."""
    failed = answers(*MANAGED)
    text = {"schema": {"type": "string"}, "example": examples.POLICY}
    shown = answered(shapes.PolicyText, "The policy.", content={"application/yaml": text})
    put = {**answered(shapes.PolicyText, "It is in force."), **failed}
    written = {"requestBody": {"required": True, "content": {"application/yaml": text}}}
    listed = {**answered(shapes.PolicyList, "The policies."), **failed}
    app.get("/v1/policies", responses=listed, response_model=None)(list_policies)
    app.get("/v1/policies/{name}", responses={**shown, **failed}, response_model=None)(get_policy)
    app.put("/v1/policies/{name}", openapi_extra=written, responses=put, response_model=None)(put_policy)
    version = body_of(PolicyVersion, required=False, told=examples.ROLL_BACK)
    app.post("/v1/policies/{name}/rollback", openapi_extra=version, responses=put, response_model=None)(roll_back)


async def list_policies(request: Request) -> dict[str, Any]:
    """All policies in force."""
    return await _shown(request).policies()


async def get_policy(request: Request, name: str, digest: str | None = None) -> Response:
    """The file as YAML if that is what is accepted, else as JSON with its history."""
    found = await _shown(request).policy(name, digest)
    headers = {"ETag": f'"{found["digest"]}"'}
    if "yaml" in request.headers.get("accept", ""):
        return PlainTextResponse(found["text"], headers=headers, media_type="application/yaml")
    return JSONResponse(found, headers=headers)


async def put_policy(request: Request, name: str) -> dict[str, Any]:
    """Validate and put in force."""
    service = _service(request)
    text = await policy_text(request)
    expected = request.headers.get("if-match", "").strip().strip('"') or None
    return await service.put_policy(name, text, expected)


async def roll_back(request: Request, name: str) -> dict[str, Any]:
    """Put the version of a digest in force again, or the one before the present."""
    service = _service(request)
    body = json_of(await read_json(request, MAX_BYTES) or b"{}", EXAMPLE)
    digest = body.get("digest") if isinstance(body, dict) and body.keys() <= {"digest"} else body
    if digest is not None and not isinstance(digest, str):
        raise RequestError(f"the body is not a JSON object such as {EXAMPLE}", "digest", "invalid_value")
    return await service.roll_back(name, digest)


def _shown(request: Request) -> Service:
    """The service, if the request may see what operators see."""
    access_of(request).need_to_look()
    return request.app.state.service


def _service(request: Request) -> Service:
    """The service, if the request carries an admin key."""
    access_of(request, "admin")
    return request.app.state.service


async def policy_text(request: Request) -> str:
    """The body, as YAML. Raises `RequestError`."""
    try:
        return (await read_body(request, MAX_BYTES)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise unsupported("the body is not UTF-8") from None
