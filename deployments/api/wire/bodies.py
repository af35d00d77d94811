"""Bodies of requests as bytes: bounded, and refused (415) where type or encoding says that they are something else."""

from __future__ import annotations

from fastapi import Request

from router.errors import RequestError

_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii", "utf-16", "utf-32")
_GZIP = b"\x1f\x8b"


async def read_body(request: Request, most: int) -> bytes:
    """The body, at most `most` bytes of it. Raises `RequestError`: 413, or 415 for a body that is compressed."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise unsupported(f"the body is encoded ({encoding}); send it as it is, without content-encoding")
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > most:
            raise RequestError(f"the body is larger than {most:,} bytes", None, "request_too_large")
    if raw.startswith(_GZIP):
        raise unsupported("the body is compressed (gzip); send it as it is")
    return bytes(raw)


async def read_json(request: Request, most: int) -> bytes:
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
    return await read_body(request, most)


def unsupported(message: str) -> RequestError:
    """A body that is not read, whatever is in it."""
    return RequestError(message, None, "unsupported_media_type")
