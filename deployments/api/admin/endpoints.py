"""Overview, jobs of all tenants, keys and previews of policies.

On loopback, as long as there are no keys, whoever reaches the server may look; what changes something needs an admin
key in any case.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from deployments.api.admin import schemas
from deployments.api.calls import base_url
from deployments.api.jobs import LISTED, asked_page
from deployments.api.keys import access_of
from deployments.api.openapi import KEYED, MANAGED, READ, Responses, answers, body_of
from deployments.api.policies import policy_text
from deployments.api.service import Call, Service
from deployments.api.wire.admin import KeyRequest
from deployments.api.wire.bodies import read_json
from deployments.settings import Limits

ENDPOINTS = {
    "GET /v1/admin/overview": "models, queues in seconds of work, what was served and refused within a day (operators)",
    "GET /v1/admin/jobs": "jobs of all tenants, as GET /v1/jobs has yours (operators)",
    "GET /v1/admin/keys": "every key, without the key itself (operators)",
    "POST /v1/admin/keys": 'make a key: {"tenant": ..., "scopes": [...], "rpm": ..., "budget": "5usd/day"} (admin key)',
    "DELETE /v1/admin/keys/{id}": "end a key (admin key)",
    "POST /v1/policies/{name}/preview": "the body, YAML: what it would change of the latest requests (admin key)",
}


_KEYS = {
    "application": {"value": {"tenant": "acme", "scopes": ["generate"], "rpm": 60, "budget": "5usd/day"}},
    "of nights": {"value": {"tenant": "acme", "scopes": ["generate"], "priority": "batch"}},
}
_POLICY = {
    "example": "version: 1\nname: fast\nrecipes:\n  draft: {generate: {model: sd15}}\nobjective: {minimise: cost_usd}\n"
}


def add_endpoints(app: FastAPI) -> None:
    """Seen by operators: keys of scope admin, or on loopback whoever asks while there are none; changed by keys."""
    read = answers(*KEYED, *READ)
    overview: Responses = {200: schemas.answer(schemas.AdminOverview, "How everything is.")}
    app.get("/v1/admin/overview", responses={**overview, **read}, response_model=None)(get_overview)
    jobs: Responses = {200: schemas.answer(schemas.AdminJobList, "A page of jobs.")}
    app.get(
        "/v1/admin/jobs", openapi_extra={"parameters": LISTED}, response_model=None,
        responses={**jobs, **answers(400, *KEYED, *READ)},
    )(list_all_jobs)  # fmt: skip
    listed: Responses = {200: schemas.answer(schemas.AdminKeyList, "The keys.")}
    app.get("/v1/admin/keys", responses={**listed, **read}, response_model=None)(list_keys)
    made: Responses = {201: schemas.answer(schemas.AdminNewKey, "The key, which is shown this once.")}
    app.post(
        "/v1/admin/keys", openapi_extra=body_of(KeyRequest, told=_KEYS), status_code=201, response_model=None,
        responses={**made, **answers(*MANAGED, 504)},
    )(make_key)  # fmt: skip
    ended: Responses = {200: schemas.answer(schemas.AdminKey, "The key, which is of no use any more.")}
    app.delete("/v1/admin/keys/{id}", responses={**ended, **read}, response_model=None)(revoke_key)
    written = {
        "requestBody": {"required": True, "content": {"application/yaml": {"schema": {}, **_POLICY}}}
    }  # also what is none
    previewed: Responses = {200: schemas.answer(schemas.PolicyPreviewed, "What it would change, or what is wrong.")}
    app.post(
        "/v1/policies/{name}/preview", openapi_extra=written, response_model=None,
        responses={**previewed, **answers(*MANAGED, 504)},
    )(preview_policy)  # fmt: skip


async def get_overview(request: Request) -> JSONResponse:
    """How everything is, and what was served within a day."""
    return JSONResponse(await _looked_at(request).operations(), headers=_FRESH)


async def list_all_jobs(request: Request) -> JSONResponse:
    """Jobs of all tenants, the latest first."""
    service, (states, limit, cursor) = _looked_at(request), asked_page(request)
    call = Call(access_of(request), base_url=base_url(request))
    return JSONResponse(await service.all_jobs(states, limit, cursor, call), headers=_FRESH)


async def list_keys(request: Request) -> JSONResponse:
    """Every key, without the key itself."""
    return JSONResponse(await _looked_at(request).keys(), headers=_FRESH)


async def make_key(request: Request) -> JSONResponse:
    """Make a key."""
    access_of(request, "admin")
    limits: Limits = request.app.state.limits
    raw = await read_json(request, limits.max_body_bytes, limits.body_timeout_s)
    return JSONResponse(await _service(request).make_key(raw), 201, headers=_FRESH)


async def revoke_key(request: Request, id: str) -> JSONResponse:
    """End a key."""
    access_of(request, "admin")
    return JSONResponse(await _service(request).revoke_key(id))


async def preview_policy(request: Request, name: str) -> dict[str, Any]:
    """What a policy would change, before it is put in force."""
    service = _looked_at(request)
    return await service.preview_policy(name, await policy_text(request))


def _looked_at(request: Request) -> Service:
    access_of(request).need_to_look()
    return _service(request)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


_FRESH = {"Cache-Control": "no-store"}
