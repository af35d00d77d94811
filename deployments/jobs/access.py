"""The store as an event loop asks it: in threads, and for what was promised until it answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from deployments.store.errors import FencedError, StoreError

logger = logging.getLogger("triptych.jobs")

THREADS = 16
AGAIN_S = 0.5  # before a write is tried again; twice as long each time
AGAIN_MOST_S = 30.0

Answer = TypeVar("Answer")


class StoreAccess:
    """Calls that block, off the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "triptych-store")

    async def do(self, call: Callable[..., Answer], *args: Any) -> Answer:
        """`call(*args)` in a thread. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    async def insist(self, write: Callable[[], Awaitable[Any]]) -> None:
        """`write` until the store takes it, or says that it is another orchestrator's to write by now."""
        wait_s = AGAIN_S
        while True:
            try:
                await write()
                return
            except FencedError:
                logger.info("another orchestrator has taken over what was to be written")
                return
            except StoreError as error:
                logger.warning("the store does not take what is done (%s); it is tried again", error)
                await asyncio.sleep(wait_s)
                wait_s = min(AGAIN_MOST_S, 2 * wait_s)

    def close(self) -> None:
        """Take no calls any more."""
        self._threads.shutdown(wait=False)
