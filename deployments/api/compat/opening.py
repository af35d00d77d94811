"""A stream of the service as other protocols begin theirs: with something said as soon as the request is accepted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from deployments.api.streams import Accepted
from deployments.workers.streams import ended


async def opened(events: AsyncGenerator[dict[str, Any]], accepted: Accepted) -> AsyncGenerator[dict[str, Any] | None]:
    """None once the request is accepted, then its events. What fails before that is raised in the place of None."""
    async with aclosing(events):
        first = asyncio.ensure_future(anext(events, None))
        waiting = asyncio.ensure_future(accepted.event.wait())
        try:
            await asyncio.wait((first, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not accepted.event.is_set():
                first.result()
            yield None
            event = await first
            while event is not None:
                yield event
                event = await anext(events, None)
        finally:
            waiting.cancel()
            first.cancel()
            await ended(first)
