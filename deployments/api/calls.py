"""What endpoints take from an HTTP request beside its path: who asks, how, and the body."""

from __future__ import annotations

import time
from typing import Any

from fastapi import Request

from deployments.api.edge.middleware import arrived_s
from deployments.api.edits.forms import form_of, is_form
from deployments.api.keys import access_of
from deployments.api.service import Call
from deployments.api.wire.bodies import read_json
from deployments.api.wire.requests import ImageRequest, json_of, parse_body, parse_request
from deployments.jobs.keys import Scope
from deployments.settings import Limits
from router.errors import RequestError


def call_of(request: Request, scope: Scope) -> Call:
    """How a request came. Raises `RequestError` if its key lacks the scope."""
    key = request.headers.get("idempotency-key")
    return Call(access_of(request, scope), key, base_url(request), arrived_s(request.headers, time.time()))


def base_url(request: Request) -> str:
    """This server as the client knows it: scheme, host, and the prefix of the application."""
    url = request.base_url
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"


async def body_of_request(request: Request) -> ImageRequest:
    """The body of a request for pictures. Raises `RequestError`."""
    wire = parse_body(await _raw(request), request.app.state.limits)
    if wire.response_format == "bytes":
        raise RequestError("response_format: bytes cannot stand in JSON; use b64_json or url", "response_format")
    return wire


async def picture_body(request: Request, **defaults: Any) -> ImageRequest:
    """The same of a request that may bring pictures: a form, or JSON with base64. defaults: of fields that are not
    given. Raises `RequestError`."""
    limits, uploads = request.app.state.limits, request.app.state.uploads
    if is_form(request):
        data: Any = await form_of(request, limits, uploads)
    else:
        data = await picture_json(request)
    if isinstance(data, dict):
        data = {**defaults, **{key: value for key, value in _named_as_ours(data).items() if value is not None}}
    wire = parse_request(data, limits)
    if wire.response_format == "bytes":
        raise RequestError("response_format: bytes cannot stand in JSON; use b64_json or url", "response_format")
    return wire


async def picture_json(request: Request) -> Any:
    """A body of JSON that may have pictures in it. Raises `RequestError`."""
    limits, uploads = request.app.state.limits, request.app.state.uploads
    raw = await read_json(request, max(uploads.max_body_bytes, limits.max_body_bytes), limits.body_timeout_s)
    return json_of(raw, '{"prompt": "a red circle", "image": "<base64>"}')


def _named_as_ours(data: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's JSON of edits has `images: [{image_url}]`; `policy` is what model may be."""
    found = dict(data)
    if isinstance(images := found.get("images"), list) and "image" not in found:
        found["image"] = [one.get("image_url", one) if isinstance(one, dict) else one for one in images]
        del found["images"]
    if isinstance(mask := found.get("mask"), dict) and isinstance(mask.get("image_url"), str):
        found["mask"] = mask["image_url"]
    if found.get("policy") is not None and found.get("model") in (None, "", "auto"):
        found["model"] = found.pop("policy")
    return found


async def json_of_request(request: Request, example: str = '{"prompt": "a red circle"}') -> Any:
    """The body as builtins. Raises `RequestError`."""
    return json_of(await _raw(request), example)


async def _raw(request: Request) -> bytes:
    limits: Limits = request.app.state.limits
    return await read_json(request, limits.max_body_bytes, limits.body_timeout_s)


def prefers_async(request: Request) -> bool:
    """Whether the client would rather have a job now than pictures later (RFC 7240)."""
    given = ",".join(request.headers.getlist("prefer"))
    return any(one.partition(";")[0].strip().lower() == "respond-async" for one in given.split(","))
