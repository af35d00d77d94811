"""Who may ask, what they used, and what work has cost so far."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, insert, select, update

from deployments.store.database import put, value_of
from deployments.store.jobs import storable
from deployments.store.records import KeyRecord, UsageRow
from deployments.store.tables import costs, keys, usage
from router.errors import NotFoundError, RequestError


def add_key(db: Connection, key: KeyRecord) -> None:
    """Raises `RequestError` if its id or hash is there already."""
    for name in ("id", "hash", "tenant", "name", "priority"):
        if not storable(getattr(key, name)):
            raise RequestError(f"{name}: holds NUL or half a character", name, "invalid_value")
    if db.execute(select(keys.c.id).where((keys.c.id == key.id) | (keys.c.hash == key.hash))).first():
        raise RequestError(f"id: there is a key {key.id!r} already; choose another id", "id", "conflict")
    row = {**asdict(key), "scopes": list(key.scopes), "created_at": key.created_at or time.time()}
    db.execute(insert(keys).values(row))


def revoke_key(db: Connection, id: str) -> KeyRecord:
    """The key, of no use from now on; one that was revoked before stays as it was. Raises `NotFoundError`."""
    db.execute(update(keys).where(keys.c.id == id, keys.c.revoked_at.is_(None)).values(revoked_at=time.time()))
    row = db.execute(select(keys).where(keys.c.id == id)).first()
    if row is None:
        raise NotFoundError(f"there is no key {id[:80]!r}; `triptych keys list` shows them", "id")
    return _key(row)


def all_keys(db: Connection) -> list[KeyRecord]:
    """Every key, revoked ones included, the oldest first."""
    return list(map(_key, db.execute(select(keys).order_by(keys.c.created_at, keys.c.id))))


def _key(row: Any) -> KeyRecord:
    values = dict(row._mapping)
    return KeyRecord(**{**values, "scopes": tuple(values["scopes"])})


def usage_since(db: Connection, since: float) -> list[UsageRow]:
    """What was used and reserved after `since` (Unix seconds), the oldest first."""
    rows = db.execute(select(usage).where(usage.c.at > since).order_by(usage.c.at, usage.c.job))
    return [UsageRow(**row._mapping) for row in rows]


def save_costs(db: Connection, snapshot: dict[str, Any]) -> None:
    """Keep what was learned of costs, in place of what was kept before."""
    put(db, costs, {"one": 1, "snapshot": snapshot, "at": time.time()}, "one")


def saved_costs(db: Connection) -> dict[str, Any] | None:
    """What was kept last; None: nothing yet."""
    found: dict[str, Any] | None = value_of(db, costs, "snapshot")
    return found
