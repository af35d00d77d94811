"""API keys: made once, kept as hashes, known to the orchestrator with little delay."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, get_args

from deployments.jobs.values import Identity
from deployments.store.errors import StoreError
from deployments.store.records import KeyRecord
from router.types import Priority

logger = logging.getLogger("triptych.keys")

PREFIX = "tp_"
Scope = Literal["generate", "feedback", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
CLASSES: tuple[Priority, ...] = ("batch", "standard", "interactive")
"""Priority classes, the lowest first."""

FRESH_S = 2.0  # so old may be what is known of the keys
UNKNOWN_S = 0.25  # and so old, when a key comes that is not known: it may be new


def new_key() -> str:
    """A secret that nobody guesses: 256 bits."""
    return PREFIX + secrets.token_urlsafe(32)


def new_key_id() -> str:
    """What a key is called where it is listed and revoked; no secret."""
    return f"key_{secrets.token_hex(6)}"


def hash_of(key: str) -> str:
    """SHA-256 of a key, hex. The keys are random, so nothing slower is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


class KeyRing:
    """The keys of the store, followed at most `FRESH_S` late.

    load: reads them; while it fails, those that are known stay as they are;   fresh_s, unknown_s: see above
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[Sequence[KeyRecord]]],
        clock: Callable[[], float] = time.monotonic,
        fresh_s: float | None = None,
        unknown_s: float | None = None,
    ) -> None:
        self._fresh_s = FRESH_S if fresh_s is None else fresh_s
        self._unknown_s = UNKNOWN_S if unknown_s is None else unknown_s
        self._load = load
        self._clock = clock
        self._by_hash: dict[str, KeyRecord] = {}
        self._by_id: dict[str, KeyRecord] = {}
        self._loaded_s = float("-inf")
        self._loading = asyncio.Lock()

    async def identify(self, hash: str | None) -> Identity:
        """Whose key has this hash. Raises `StoreError` if the keys were never read."""
        await self._refresh(self._fresh_s)
        if hash is not None and hash not in self._by_hash:
            await self._refresh(self._unknown_s)
        found = None if hash is None else self._by_hash.get(hash)
        return Identity(found if found is not None and found.revoked_at is None else None, bool(self._by_id))

    async def get(self, id: str) -> KeyRecord | None:
        """The key with this id, unless it was revoked. Raises `StoreError` if the keys were never read."""
        await self._refresh(self._fresh_s)
        if id not in self._by_id:
            await self._refresh(self._unknown_s)
        found = self._by_id.get(id)
        return found if found is not None and found.revoked_at is None else None

    async def all(self) -> Sequence[KeyRecord]:
        """Every key, revoked ones included."""
        await self._refresh(self._fresh_s)
        return tuple(self._by_id.values())

    async def _refresh(self, age_s: float) -> None:
        async with self._loading:
            if self._clock() - self._loaded_s < age_s:
                return
            try:
                keys = await self._load()
            except StoreError as error:
                if self._loaded_s == float("-inf"):
                    raise
                logger.warning("keys are as they were before: %s", error)
                return
            self._by_hash = {key.hash: key for key in keys}
            self._by_id = {key.id: key for key in keys}
            self._loaded_s = self._clock()
