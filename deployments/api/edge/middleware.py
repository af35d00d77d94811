"""What a request meets first, in Serve's proxy: before it takes a place anywhere, it has to be all there.

Serve reads two headers of clients that are the operator's business, hands bodies on as slowly as they come, and says
some things in plain text: here that ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api import errors as failures
from deployments.api.edge.throttle import MOST, Throttle
from deployments.api.request_ids import HEADER, RequestIds, new_request_id
from router.errors import (
    DeadlineError,
    LoadError,
    NotFoundError,
    OverloadedError,
    RequestError,
    StepError,
    TriptychError,
)

BODY_BYTES, BODY_TIMEOUT_S = "TRIPTYCH_BODY_BYTES", "TRIPTYCH_BODY_TIMEOUT_S"
UPLOAD_BYTES, INSIDE = "TRIPTYCH_UPLOAD_BYTES", "TRIPTYCH_INSIDE"
"""Environment variables with settings of `limits` and `uploads` for proxies, which have no other way to know them."""

MIDDLEWARE = "deployments.api.edge.middleware.for_serve_proxy"
"""What Serve's proxy is told to run (`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`)."""

ARRIVED = "x-triptych-arrived"
"""When a request came to the proxy, Unix seconds; what a client says is replaced."""

OLDEST_S = 3600.0  # further back nothing is believed to have arrived

THE_OPERATORS = ("x-request-timeout-seconds", "x-request-disconnect-disabled")
"""Headers of Serve's with which a client could do away with time limits, or work on for nobody."""

PICTURED = ("/images/edits", "/images/variations", "/v1/jobs", "/v1/route", "/sdapi/v1/img2img")
"""How the paths end whose bodies may bring pictures."""

AGAIN_S = 2.0  # where Serve refuses, it says nothing about when to come back

_PLAIN = "text/plain"


class Edge:
    """ASGI middleware: bodies within bounds of size and time, no headers that are the operator's, envelopes throughout,
    and refusals at once for whom there is no room.

    max_bytes, within_s: of a body;   upload_bytes: of one that may bring pictures; None: as of any
    inside: requests that are let in at the same time
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        within_s: float,
        upload_bytes: int | None = None,
        inside: int = MOST,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._upload_bytes = max(max_bytes, upload_bytes or 0)
        self._within_s = within_s
        self._throttle = Throttle(most=inside)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = MutableHeaders(scope=scope)
        for name in THE_OPERATORS:
            del headers[name]
        headers[ARRIVED] = repr(time.time())
        request_id = headers.get(HEADER) or new_request_id()
        try:
            most = self._upload_bytes if scope["path"].endswith(PICTURED) else self._max_bytes
            messages = await self._whole(headers, receive, most)
        except RequestError as error:
            await _refuse(error, request_id, send)
            return
        if messages is None:  # the client is gone
            return
        makes, client = scope.get("method") == "POST", _client_of(headers)
        if makes and (seconds := self._throttle.refuses(client)) is not None:
            full = OverloadedError("there is no room for more of your requests now; come back when it says", seconds)
            await _answer(failures.status_of(full), full, request_id, send, [(HEADER.encode(), request_id.encode())])
            return
        answer = _Enveloped(send, request_id, (lambda *told: self._learn(client, *told)) if makes else None)
        try:
            await self._app(scope, _replaying(messages, receive), answer)
        finally:
            if makes:
                self._throttle.leaves(client, answer.status < 400)

    def _learn(self, client: str, status: int, headers: Headers) -> None:
        """What the application answered. Only refusals for want of room count as such: a key that has used up its
        budget finds none by coming more slowly."""
        if failures.FULL in headers or (status in (429, 503) and _is_plain(headers)):
            self._throttle.refused(client, float(headers.get("retry-after", AGAIN_S)))
        elif status < 400:
            self._throttle.took(client)

    async def _whole(self, headers: Headers, receive: Receive, most: int) -> list[Message] | None:
        """The messages of the body, all of them. Raises `RequestError`: 408, 413, 415."""
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise RequestError(f"the body is encoded ({encoding}); send it as it is", None, "unsupported_media_type")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        messages: list[Message] = []
        size = 0
        try:
            async with asyncio.timeout(self._within_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    messages.append(message)
                    size += len(message.get("body", b""))
                    if size > most:
                        raise _too_large(most)
                    if not message.get("more_body"):
                        return messages
        except TimeoutError:
            message_ = f"the body did not arrive within {self._within_s:g} s"
            raise RequestError(message_, None, "request_timeout") from None


def _too_large(most: int) -> RequestError:
    return RequestError(f"the body is larger than {most:,} bytes", None, "request_too_large")


class _Enveloped:
    """Passes an answer on; failures in plain text, which are Serve's own, as envelopes.

    on_start: is told the status and the headers
    """

    def __init__(self, send: Send, request_id: str, on_start: Callable[[int, Headers], None] | None = None) -> None:
        self._send = send
        self.status = 500  # until it is told
        self._on_start = on_start
        self._request_id = request_id
        self._held: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = Headers(raw=list(message.get("headers", ())))
            self.status = message["status"]
            if self._on_start is not None:
                self._on_start(message["status"], headers)
            if message["status"] >= 400 and _is_plain(headers):
                self._held = message
                return
        if self._held is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")[:4096]
        if message.get("more_body"):
            return
        error = told_by_serve(self._held["status"], self._body.decode("utf-8", "replace"))
        kept = [(name, value) for name, value in self._held.get("headers", ()) if name.lower() in (b"x-request-id",)]
        await _answer(self._held["status"], error, self._request_id, self._send, kept)


def _is_plain(headers: Headers) -> bool:
    return headers.get("content-type", "").startswith(_PLAIN)


def _client_of(headers: Headers) -> str:
    """Whoever has one key is one client, and all without a key are one. No key is remembered."""
    return hashlib.sha256(headers.get("authorization", "").encode()).hexdigest()


def told_by_serve(status: int, text: str) -> TriptychError:
    """What Serve says in plain text, in our words."""
    if status == 404:
        return NotFoundError("nothing is served here; is the application running?", None, "unknown_url")
    if status == 429 or (status == 503 and "queue" in text.lower()):
        return OverloadedError("more requests are waiting than may; try again in a moment", AGAIN_S)
    if status == 503:
        error = LoadError("the application does not answer now; try again in a moment", None, "unavailable")
        error.retry_after_s = 2.0
        return error
    if status == 408:
        return DeadlineError("the server's time limit for a request passed")
    return StepError("the application failed before it could say how; the server's log has the details")


def _replaying(messages: Iterable[Message], receive: Receive) -> Receive:
    """What was read already, then what comes: the client's leaving."""
    waiting = iter(messages)

    async def read() -> Message:
        return next(waiting, None) or await receive()

    return read


async def _refuse(error: RequestError, request_id: str, send: Send) -> None:
    headers = [(HEADER.encode(), request_id.encode()), (b"connection", b"close")]
    await _answer(failures.status_of(error), error, request_id, send, headers)


async def _answer(
    status: int, error: TriptychError, request_id: str, send: Send, headers: list[tuple[bytes, bytes]]
) -> None:
    body = json.dumps(failures.envelope(error, request_id), ensure_ascii=False).encode()
    told: dict[str, Any] = {"content-type": "application/json", "content-length": len(body), **failures.headers(error)}
    made = [(name.lower().encode(), str(value).encode()) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *made]})
    await send({"type": "http.response.body", "body": body})


def arrived_s(headers: Headers, now_s: float) -> float | None:
    """When a request came to the proxy, if that said so; never later than now."""
    try:
        return max(now_s - OLDEST_S, min(now_s, float(headers[ARRIVED])))
    except (KeyError, ValueError):
        return None


def for_serve_proxy() -> list[Middleware]:
    """What `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names. The last one is the outermost: Serve's proxy, which sets
    the header of the response to any id that it is sent, is sent sound ones only."""
    max_bytes = int(os.environ.get(BODY_BYTES, 2 * 2**20))
    within_s = float(os.environ.get(BODY_TIMEOUT_S, 20.0))
    upload_bytes = int(os.environ.get(UPLOAD_BYTES, 64 * 2**20))
    inside = int(os.environ.get(INSIDE, MOST))
    return [
        Middleware(Edge, max_bytes=max_bytes, within_s=within_s, upload_bytes=upload_bytes, inside=inside),
        Middleware(RequestIds, echo=False),
    ]
