"""Who may ask, what they used, what they were served, what work has cost so far, and the versions of policies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from deployments.store.database import add, put, value_of
from deployments.store.jobs import storable
from deployments.store.records import KeyRecord, PolicyVersion, ServedRow, UsageRow
from deployments.store.tables import costs, keys, policies, served, usage
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


def keys_used(db: Connection, at: Mapping[str, float]) -> None:
    """When keys were used last (Unix seconds), by their id; an earlier time changes nothing."""
    for id, used_at in sorted(at.items()):
        earlier = or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < used_at)
        db.execute(update(keys).where(keys.c.id == id, earlier).values(last_used_at=used_at))


def _key(row: Any) -> KeyRecord:
    values = dict(row._mapping)
    return KeyRecord(**{**values, "scopes": tuple(values["scopes"])})


def usage_since(db: Connection, since: float) -> list[UsageRow]:
    """What was used and reserved after `since` (Unix seconds), the oldest first."""
    rows = db.execute(select(usage).where(usage.c.at > since).order_by(usage.c.at, usage.c.job))
    return [UsageRow(**row._mapping) for row in rows]


MINUTES_S = 600.0  # over which jobs are summed up
SERVED_S = 31 * 86_400.0  # for which the sums are kept
_NAMES = ("tenant", "policy", "recipe", "state")
_SUMS = tuple(column.name for column in served.c if not column.primary_key)


def add_served(db: Connection, row: ServedRow) -> None:
    """Count a job that has ended."""
    at = row.at // MINUTES_S * MINUTES_S
    add(db, served, asdict(replace(row, at=at)), "at", *_NAMES)


def served_since(db: Connection, since: float) -> list[ServedRow]:
    """The sums of all jobs that ended after `since` (Unix seconds, taken down to ten minutes), by tenant, policy,
    recipe and state."""
    names = [served.c[name] for name in _NAMES]
    sums = [func.sum(served.c[name]).label(name) for name in _SUMS]
    first = func.min(served.c["at"]).label("at")
    query = select(first, *names, *sums).where(served.c["at"] >= since // MINUTES_S * MINUTES_S)
    rows = db.execute(query.group_by(*names).order_by(*names))
    whole = ("jobs", "pictures", "checked")
    return [ServedRow(**{**row._mapping, **{name: int(getattr(row, name)) for name in whole}}) for row in rows]


def forget_served(db: Connection, now: float) -> int:
    """Drop what nobody looks at any more; returns how many rows that were."""
    return db.execute(delete(served).where(served.c["at"] < now - SERVED_S)).rowcount


def save_costs(db: Connection, snapshot: dict[str, Any]) -> None:
    """Keep what was learned of costs, in place of what was kept before."""
    put(db, costs, {"one": 1, "snapshot": snapshot, "at": time.time()}, "one")


def saved_costs(db: Connection) -> dict[str, Any] | None:
    """What was kept last; None: nothing yet."""
    found: dict[str, Any] | None = value_of(db, costs, "snapshot")
    return found


VERSIONS = 100
"""So many of each policy are kept."""


def keep_policy(db: Connection, version: PolicyVersion) -> None:
    """A version that was written later than all that are kept, and is another than the last of them."""
    mine = select(policies).where(policies.c.name == version.name).order_by(policies.c.at.desc())
    last = db.execute(mine.limit(1)).first()
    if last is not None and (last.at >= version.at or last.digest == version.digest):
        return
    db.execute(insert(policies).values(asdict(version)))
    for row in db.execute(mine.offset(VERSIONS)).all():
        db.execute(delete(policies).where(policies.c.name == row.name, policies.c.at == row.at))


def latest_policies(db: Connection) -> list[PolicyVersion]:
    """The last version of each policy, by name."""
    newest = select(policies.c.name, func.max(policies.c.at).label("at")).group_by(policies.c.name).subquery()
    found = select(policies).join(newest, (policies.c.name == newest.c.name) & (policies.c.at == newest.c.at))
    return [PolicyVersion(**row._mapping) for row in db.execute(found.order_by(policies.c.name))]
