"""API keys: made once, kept as hashes, known to the orchestrator with little delay."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Literal, get_args

from deployments.jobs.values import Identity
from deployments.store.errors import StoreError
from deployments.store.records import KeyRecord
from router.errors import RequestError
from router.types import Priority

logger = logging.getLogger("triptych.keys")

PREFIX = "tp_"
Scope = Literal["generate", "feedback", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
CLASSES: tuple[Priority, ...] = ("batch", "standard", "interactive")
"""Priority classes, the lowest first."""

WINDOWS_S = {"minute": 60.0, "hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_592_000.0}
_BUDGET = re.compile(r"(\d+(?:\.\d+)?) ?usd ?(?:/|per) ?(?:(\d+) ?)?([a-z]+?)s?")
SHOWN = len(PREFIX) + 6  # characters of a key by which its owner knows it

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


def made_key(
    tenant: str,
    name: str = "",
    scopes: Sequence[str] | None = None,
    rpm: int | None = None,
    budget: str | None = None,
    priority: str | None = None,
) -> tuple[str, KeyRecord]:
    """A new key and its record, which is not stored yet. scopes: by default generate and feedback. Raises
    `RequestError`."""
    if not tenant.strip() or len(tenant) > 256:
        raise RequestError("tenant: it has 1 to 256 characters", "tenant", "invalid_value")
    if len(name) > 256:
        raise RequestError("name: it has 256 characters at most", "name", "invalid_value")
    chosen = tuple(dict.fromkeys(scopes if scopes is not None else ("generate", "feedback")))
    for one in chosen:
        if one not in SCOPES:
            raise RequestError(f"scope {one!r}: it is one of {', '.join(SCOPES)}", "scopes", "invalid_value")
    if not chosen:
        raise RequestError(f"scopes: name one at least, of {', '.join(SCOPES)}", "scopes", "invalid_value")
    if priority is not None and priority not in CLASSES:
        raise RequestError(f"priority {priority!r}: it is one of {', '.join(CLASSES)}", "priority", "invalid_value")
    if rpm is not None and not 1 <= rpm < 2**31:
        raise RequestError("rpm: it is 1 or more", "rpm", "invalid_value")
    key, allowed = new_key(), budget_of(budget)
    record = KeyRecord(
        new_key_id(), hash_of(key), tenant, name, chosen, rpm, allowed, priority or "interactive", time.time(),
        prefix=key[:SHOWN],
    )  # fmt: skip
    return key, record


def budget_of(text: str | None) -> dict[str, float] | None:
    """`5usd/day`, `0.5usd/hour`, `20usd/30days`. Raises `RequestError`."""
    if text is None:
        return None
    found = _BUDGET.fullmatch(text.strip().lower()) if len(text) < 100 else None
    if found is None or found[3] not in WINDOWS_S or float(found[1]) <= 0 or found[2] in ("0", "00"):
        message = f"budget {text[:80]!r}: write it as 5usd/day; windows are {', '.join(WINDOWS_S)}"
        raise RequestError(message, "budget", "invalid_value")
    return {"cost_usd": float(found[1]), "window_s": WINDOWS_S[found[3]] * int(found[2] or 1)}


def budget_text(budget: Mapping[str, float] | None) -> str | None:
    """The other way round."""
    if budget is None:
        return None
    dollars = Decimal(repr(budget["cost_usd"])).normalize()  # never with an exponent, which would not be read again
    return f"{dollars:f}usd/{period_of(budget['window_s'])}"


def period_of(window_s: float) -> str:
    """A window in words: `day`, `30days`, `90minutes`."""
    for name, seconds in reversed(WINDOWS_S.items()):
        if window_s >= seconds and window_s % seconds == 0:
            return name if window_s == seconds else f"{window_s / seconds:.0f}{name}s"
    return f"{window_s:g}s"


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
        self._used: dict[str, float] = {}

    async def identify(self, hash: str | None) -> Identity:
        """Whose key has this hash. Raises `StoreError` if the keys were never read."""
        await self._refresh(self._fresh_s)
        if hash is not None and hash not in self._by_hash:
            await self._refresh(self._unknown_s)
        found = None if hash is None else self._by_hash.get(hash)
        if found is not None and found.revoked_at is None:
            self._used[found.id] = time.time()
        return Identity(found if found is not None and found.revoked_at is None else None, bool(self._by_id))

    async def get(self, id: str) -> KeyRecord | None:
        """The key with this id, unless it was revoked. Raises `StoreError` if the keys were never read."""
        await self._refresh(self._fresh_s)
        if id not in self._by_id:
            await self._refresh(self._unknown_s)
        found = self._by_id.get(id)
        return found if found is not None and found.revoked_at is None else None

    @property
    def known(self) -> Sequence[KeyRecord]:
        """Every key as it was read last."""
        return tuple(self._by_id.values())

    def used(self) -> dict[str, float]:
        """When keys were used since this was asked last (Unix seconds), by their id."""
        used, self._used = self._used, {}
        return used

    def not_noted(self, used: Mapping[str, float]) -> None:
        """What `used` gave could not be written: it is given again, unless a key was used since."""
        self._used = {**used, **self._used}

    def changed(self) -> None:
        """The keys are read anew when they are asked for next."""
        self._loaded_s = min(self._loaded_s, self._clock() - self._fresh_s)

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
