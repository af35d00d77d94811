"""One at a time, or so many, whatever event loop asks."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary


class Turn:
    """A semaphore of asyncio for programs that run one event loop after the other, each of which has its own queue.

    at_once: how many may have it at the same time
    Two loops at once do not exclude each other here; what they start runs on one thread all the same.
    """

    def __init__(self, at_once: int = 1) -> None:
        self._at_once = at_once
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def acquire(self) -> None:
        """Wait for the turn, in the order of arrival."""
        await self._lock().acquire()

    def release(self) -> None:
        """Give it to whoever waits longest."""
        self._lock().release()

    def _lock(self) -> asyncio.Semaphore:
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._at_once))
