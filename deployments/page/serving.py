"""The page as HTTP answers: the document at `/`, its files under `/page/`, with the headers that keep it to itself.

Nothing is computed here: what is served is what `npm run build` of `web/` left in `built/`.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

BUILT = Path(__file__).parent / "built"
DOCUMENT = "index.html"
FOLDER = "page"
"""Where the files lie, in `built` and in addresses. Their names carry a digest of what they hold."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self' data: blob:",  # previews come as text
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may do: load what this server has, and nothing else. No script stands in the document."""

_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_FOR_EVER = "public, max-age=31536000, immutable"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".woff2": "font/woff2", ".svg": "image/svg+xml"}
_MEDIA_RANGE = re.compile(r"\s*([\w*.+-]+/[\w*.+-]+)\s*((?:;[^,]*)?)")


@dataclass(frozen=True)
class PageFile:
    """One file of the bundle."""

    data: bytes
    media_type: str
    digest: str


def is_browser(headers: Headers) -> bool:
    """Whether a request would rather have a document than JSON: it names `text/html`, as browsers do."""
    accepted = headers.get("accept", "").lower()
    return any(
        kind == "text/html" and "q=0" not in rest.replace(" ", "").split(";")
        for kind, rest in _MEDIA_RANGE.findall(accepted)
    )


def document(request: Request) -> Response:
    """The page. It is asked for anew each time, and answered with 304 while it is the same."""
    file = bundle()[DOCUMENT]
    headers = {
        **_HEADERS,
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Cache-Control": "no-cache",
        "ETag": f'"{file.digest}"',
        "Vary": "Accept",
    }
    if f'"{file.digest}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.media_type, headers=headers)


def part(name: str) -> Response | None:
    """A file of the page, which never changes under its name; None: there is none."""
    file = bundle().get(f"{FOLDER}/{name}")
    if file is None:
        return None
    return Response(file.data, media_type=file.media_type, headers={**_HEADERS, "Cache-Control": _FOR_EVER})


@cache
def bundle() -> dict[str, PageFile]:
    """All files by their place in `built`, read once: only these can be asked for."""
    found = {}
    for path in sorted(BUILT.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            found[path.relative_to(BUILT).as_posix()] = PageFile(data, kind, hashlib.sha256(data).hexdigest()[:16])
    return found
