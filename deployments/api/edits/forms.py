"""Multipart forms as OpenAI's clients send them: files of pictures, everything else as text, as a body of ours."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from deployments.api.wire.bodies import read_body
from deployments.settings import Limits, UploadSettings
from router.errors import RequestError

PICTURES = ("image", "mask", "reference")
WHOLE = ("n", "seed", "steps", "partial_images", "output_compression")
NUMBERS = ("guidance_scale", "strength", "latency_budget_s", "max_cost_usd")
FLAGS = {"true": True, "1": True, "false": False, "0": False}
FLAGGED = ("stream", "degrade", "deterministic")
JSON = ("style", "extend", "turns")
SEVERAL = ("image", "tags")
MOST_FIELDS = 64


def is_form(request: Request) -> bool:
    """Whether the body is multipart."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data"


async def form_of(request: Request, limits: Limits, uploads: UploadSettings) -> dict[str, Any]:
    """The fields of a form: pictures as bytes, numbers as numbers. Raises `RequestError`: 400, 403, 408, 413."""
    _check_origin(request)
    raw = await read_body(request, uploads.max_body_bytes, limits.body_timeout_s)

    async def once() -> AsyncGenerator[bytes]:
        yield raw

    parser = MultiPartParser(
        request.headers,
        once(),
        max_files=uploads.max_files + 1,
        max_fields=MOST_FIELDS,
        max_part_size=uploads.max_body_bytes,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        why = getattr(error, "message", None) or "its boundary is missing"
        raise RequestError(f"the form cannot be read: {why}", None, "invalid_form") from None
    found: dict[str, Any] = {}
    try:
        for key, value in form.multi_items():
            name = key.removesuffix("[]")
            one = await value.read() if isinstance(value, UploadFile) else _typed(name, value)
            if one is None:
                continue
            if isinstance(one, bytes) and name not in PICTURES:
                raise RequestError(f"{name}: it is no file here", name, "invalid_value")
            if name in SEVERAL:
                found.setdefault(name, []).append(one)
            elif name in found:
                raise RequestError(f"{name}: it is given twice; give it once", name, "duplicate_parameter")
            else:
                found[name] = one
    finally:
        await form.close()
    return found


def _typed(name: str, text: str) -> Any:
    """The value of a text field; None for an empty one, as pages send what was not filled in."""
    if text == "":
        return None
    try:
        if name in WHOLE:
            return int(text)
        if name in NUMBERS:
            return float(text)
        if name in JSON and text.lstrip()[:1] in ("{", "["):
            return json.loads(text)
    except (ValueError, RecursionError):
        kind = "JSON" if name in JSON else "a number"
        raise RequestError(f"{name}: {text[:40]!r} is not {kind}", name, "invalid_value") from None
    if name in FLAGGED:
        if text.lower() not in FLAGS:
            raise RequestError(f"{name}: {text[:40]!r} is neither true nor false", name, "invalid_value")
        return FLAGS[text.lower()]
    return text


def _check_origin(request: Request) -> None:
    """Refuse forms of pages of other origins, which browsers send without asking first, as they do no JSON."""
    origin = request.headers.get("origin")
    allowed = request.app.state.cors
    if origin is None or origin in allowed or "*" in allowed:
        return
    if urlsplit(origin).netloc != request.headers.get("host"):
        raise RequestError(
            f"forms of pages of {origin[:80]} are not taken; list it under cors.origins, or send JSON",
            None,
            "origin_refused",
        )
