"""Where requests come in: a trace is begun or gone on with, and what was answered is counted. Plain ASGI."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.observing import tracing

HEADER = "x-trace-id"
Answered = Callable[[str, str, int, float], None]
"""Told of each answer: method, path as the routes have it, status, seconds until its end."""

_SILENT = ("/health", "/readyz")  # asked every few seconds by whoever watches; a span each would bury the others
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))


class Observed:
    """ASGI middleware, right after the one that decides the request's id: what comes after runs within a span, log
    lines have the id, the response has `x-trace-id`."""

    def __init__(self, app: ASGIApp, answered: Answered = lambda *_: None) -> None:
        self._app = app
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500
        method = scope["method"] if scope["method"] in _METHODS else "other"
        headers = Headers(scope=scope)
        carried = {name: value for name in ("traceparent", "tracestate") if (value := headers.get(name))}
        carried["request"] = str(scope.get("state", {}).get("request_id", ""))
        silent = scope["path"].removeprefix(scope.get("root_path", "")) in _SILENT
        within: Any = tracing.resumed(carried) if silent else tracing.begun(carried, method, request=carried["request"])

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = tracing.trace_id()
            await send(message)

        with within as span:
            try:
                await self._app(scope, receive, sending)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                if span is not None:
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.response.status_code", status)
                self._answered(method, route, status, time.monotonic() - began)
