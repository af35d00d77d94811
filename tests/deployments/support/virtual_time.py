"""An event loop whose clock moves only when nothing is left to do: hours pass at once, and always in the same way."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at second 0. What waits for threads or sockets fails in it: there is nothing to wait for."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Idle(self))

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float | None) -> None:
        if seconds is None:
            raise RuntimeError("everything waits, and nothing is going to happen")
        self._now += max(0.0, seconds)


class _Idle(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.advance(timeout)
        return super().select(0)


def in_virtual_time(work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns, run on a loop of its own. Tasks that it leaves behind are an error."""
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(work)
        loop.run_until_complete(_quiet())
        assert not (left := asyncio.all_tasks(loop)), f"still running: {left}"
        return result
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(_quiet())
        loop.close()


async def _quiet() -> None:
    """What is ready to run has run."""
    for _ in range(20):
        await asyncio.sleep(0)
