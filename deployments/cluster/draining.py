"""Ending in order: nothing new is begun, what runs may finish."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from router.errors import OverloadedError

AGAIN_S = 10.0
"""After which a client that was refused may find the next server."""


class Gate:
    """What goes through it is counted; once closed, nothing goes in. For one event loop."""

    def __init__(self) -> None:
        self._inside = 0
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """While something runs. Raises `OverloadedError` if the gate is closed."""
        if self._closed:
            raise OverloadedError("this server is shutting down; try again in a moment", AGAIN_S)
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def close(self, limit_s: float) -> tuple[int, int]:
        """Let nothing in any more, and wait until all is out, `limit_s` seconds at most. (inside before, inside now)"""
        self._closed = True
        before = self._inside
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), limit_s)
        return before, self._inside
