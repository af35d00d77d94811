"""Server-sent events: headers leave at once, a comment keeps the connection, a failure before that is an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, format_sse_event

from deployments.api import errors as failures
from deployments.workers.streams import ended

logger = logging.getLogger("triptych.ingress")

PING_S = 15.0
"""How long a stream may be silent: proxies and clients give up on connections that are."""

_END = object()
_PING = b": ping\n\n"


class Accepted:
    """Set once a request is accepted, with the headers that this is told with."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.event = asyncio.Event()

    def __call__(self, headers: Mapping[str, str]) -> None:
        self.headers |= headers
        self.event.set()


async def event_stream(
    events: AsyncGenerator[dict[str, Any]],
    accepted: Accepted,
    request_id: str,
    ping_s: float,
    line: Callable[[dict[str, Any]], bytes],
) -> Response:
    """The events as `text/event-stream`, whose headers leave as soon as the request is accepted. A failure before that
    is an ordinary error response; a comment keeps the connection while nothing happens."""
    queue: asyncio.Queue[Any] = asyncio.Queue(1)

    async def pump() -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    await queue.put(event)
            await queue.put(_END)
        except Exception as error:
            if not accepted.event.is_set():
                raise
            await queue.put(error)

    pumping = asyncio.ensure_future(pump())
    waiting = asyncio.ensure_future(accepted.event.wait())
    try:
        await asyncio.wait((pumping, waiting), timeout=ping_s, return_when=asyncio.FIRST_COMPLETED)
        if pumping.done():
            pumping.result()
        accepted.event.set()  # from now on the status is 200
    except BaseException:
        pumping.cancel()
        await ended(pumping)
        raise
    finally:
        waiting.cancel()

    async def lines() -> AsyncGenerator[bytes]:
        try:
            yield _PING  # proxies pass headers on with the first byte
            while True:
                try:
                    async with asyncio.timeout(ping_s):  # `wait_for` loses a cancellation that comes with an event
                        event = await queue.get()
                except TimeoutError:
                    yield _PING
                    continue
                if event is _END:
                    return
                if isinstance(event, Exception):
                    failures.log(logger, event, request_id, "in a stream")
                    yield format_sse_event(data_str=json_of(failures.envelope(event, request_id)))
                    return
                yield line(event)
        finally:
            pumping.cancel()
            await ended(pumping)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **accepted.headers}
    return EventSourceResponse(lines(), headers=headers)


def openai_line(event: dict[str, Any]) -> bytes:
    """An event of OpenAI's. Its client crashes over `id:` lines, so there are none."""
    return format_sse_event(event=event["type"], data_str=json_of(event))


def job_line(event: dict[str, Any]) -> bytes:
    """An event of a job, whose `id` is its line's."""
    data = {key: value for key, value in event.items() if key != "id_line"}
    return format_sse_event(event=event["type"], data_str=json_of(data), id=event["id_line"])


def json_of(data: dict[str, Any]) -> str:
    """As everywhere in answers."""
    return bytes(JSONResponse(data).body).decode()
