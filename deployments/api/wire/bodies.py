"""Bodies of requests as bytes: bounded, and refused (415) where type or encoding says that they are something else."""

from __future__ import annotations

import asyncio

from fastapi import Request

from router.errors import RequestError

_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii", "utf-16", "utf-32")
WITHIN_S = 20.0
_GZIP = b"\x1f\x8b"


async def read_body(request: Request, most: int, within_s: float = WITHIN_S) -> bytes:
    """The body, at most `most` bytes of it, if it comes within so many seconds. Raises `RequestError`: 408, 413, or 415
    for a body that is compressed: what is small may become large."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise unsupported(f"the body is encoded ({encoding}); send it as it is, without content-encoding")
    raw = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > most:
                    raise RequestError(f"the body is larger than {most:,} bytes", None, "request_too_large")
    except TimeoutError:
        raise RequestError(f"the body did not arrive within {within_s:g} s", None, "request_timeout") from None
    if raw.startswith(_GZIP):
        raise unsupported("the body is compressed (gzip); send it as it is")
    return bytes(raw)


async def read_json(request: Request, most: int, within_s: float = WITHIN_S) -> bytes:
    """The body of a request that says JSON, or says nothing. Also raises `RequestError` (415) for another type.

    A type that is not JSON is never read as JSON: pages of other origins may send such bodies without being asked.
    """
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if kind and kind not in ("application/json", "text/json") and not kind.endswith("+json"):
        raise unsupported(f"the body is {kind}; send JSON, with the header content-type: application/json")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        charset = value.strip().strip('"').lower()
        if name.strip().lower() == "charset" and charset not in _CHARSETS:
            raise unsupported(f"the body is text in {charset}; send JSON as UTF-8")
    return await read_body(request, most, within_s)


def unsupported(message: str) -> RequestError:
    """A body that is not read, whatever is in it."""
    return RequestError(message, None, "unsupported_media_type")
