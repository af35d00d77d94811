"""A task that reports events while it runs, as one async generator: the events, and last what the task returned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

Event = TypeVar("Event")
Result = TypeVar("Result")

_END = object()


async def stream(start: Callable[[Callable[[Event], None]], Awaitable[Result]]) -> AsyncGenerator[Event | Result]:
    """Run `start(emit)`; yield every emitted event in order, then its result, last.

    An exception of the task is raised in its place. When the consumer leaves early or is cancelled, the task is
    cancelled and waited for, so that nothing goes on running behind its back.
    """
    queue: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.ensure_future(start(queue.put_nowait))
    task.add_done_callback(lambda _: queue.put_nowait(_END))
    try:
        while (item := await queue.get()) is not _END:
            yield item
        yield task.result()
    finally:
        task.cancel()
        await ended(task)


async def ended(future: asyncio.Future[Any]) -> None:
    """Wait until `future` is done, however often the waiting task itself is cancelled meanwhile; never raises."""
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # marks it as seen
