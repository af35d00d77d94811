"""The given pictures at hand while requests run: in memory as long as there is room, else where `load` finds them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from cachetools import LRUCache

from deployments.given.files import GivenFile, value_of
from router.errors import StepError
from router.types import Role, Step, StepResult

ROOM = 256 * 2**20
"""Bytes of files that are kept at hand."""

Load = Callable[[str], Awaitable[bytes]]
"""A digest to the bytes of its file; raises `TriptychError` where there is none."""


async def nowhere(digest: str) -> bytes:
    """There is no store behind it."""
    raise StepError(f"the given picture {digest[:12]} is not at hand any more; send it again", "image")


class Gallery:
    """Files by digest, on one event loop. load: finds those that are not at hand"""

    def __init__(self, load: Load = nowhere, room: int = ROOM) -> None:
        self.load = load
        self._files: LRUCache[str, bytes] = LRUCache(room, getsizeof=len)

    def keep(self, files: Iterable[GivenFile]) -> None:
        """Have these at hand."""
        for file in files:
            self._put(file.told.digest, file.data)

    async def run(self, step: Step) -> StepResult:
        """What a step of kind `given` makes: the picture or the mask with its digest."""
        began, digest = time.perf_counter(), str(step.settings["digest"])
        role: Role = "mask" if step.settings["role"] == "mask" else "image"
        data = self._files.get(digest)
        if data is None:
            data = await self.load(digest)
            self._put(digest, data)
        value = await asyncio.to_thread(value_of, data, role)
        return StepResult(value, time.perf_counter() - began, {"device": "cpu"})

    def _put(self, digest: str, data: bytes) -> None:
        if len(data) <= self._files.maxsize:
            self._files[digest] = data
