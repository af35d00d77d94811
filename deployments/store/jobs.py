"""Jobs in the database: accepted once, held by one orchestrator at a time, ended once.

Every function takes the connection of a transaction. Those that write to a job take the fencing token of whoever
writes, and raise `FencedError`, having written nothing, if a later one has the job.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, delete, insert, or_, select, update

from deployments.store.database import insert_new
from deployments.store.errors import FencedError
from deployments.store.records import OPEN, GivenRecord, JobRecord, JobState, UsageRow
from deployments.store.tables import given as given_table
from deployments.store.tables import jobs, store, usage
from router.errors import NotFoundError, RequestError

_COLUMNS = [column for column in jobs.c if column.name != "webhook_at"]
_TEXTS = ("id", "tenant", "key_id", "priority", "idempotency_key", "body_digest")


def begin(db: Connection) -> int:
    """A new fencing token, larger than all before."""
    return db.execute(update(store).values(fence=store.c.fence + 1).returning(store.c.fence)).scalar_one()


def latest_fence(db: Connection) -> int:
    """The last token that was given."""
    return db.execute(select(store.c.fence)).scalar_one()


def accept(
    db: Connection,
    job: JobRecord,
    used: Sequence[UsageRow],
    given: Sequence[GivenRecord] = (),
    instead_of: str | None = None,
) -> JobRecord:
    """Insert a job with what it reserves of budgets and the pictures that it brought; or return the one with its
    idempotency key, if it is the same request. Raises `RequestError` with code "idempotency_mismatch" if it is another,
    `FencedError`.

    instead_of: a job that failed, which hands its idempotency key over to this one
    """
    # Held until the commit: an orchestrator that begins meanwhile waits, and then finds this job when it takes over.
    latest = db.execute(select(store.c.fence).with_for_update(read=True)).scalar_one()
    if job.fence < latest:
        raise FencedError(f"job {job.id}: orchestrator {job.fence} was replaced by {latest} and accepts nothing more")
    if instead_of is not None:
        failed = and_(jobs.c.id == instead_of, jobs.c.tenant == job.tenant)
        db.execute(update(jobs).where(failed).values(idempotency_key=None))
    fresh = replace(job, state="queued", created_at=time.time())
    due_at = None if job.webhook is None else job.webhook.get("next_at") or fresh.created_at
    if insert_new(db, jobs, {**asdict(fresh), "webhook_at": due_at}):
        if used:
            db.execute(insert(usage), [asdict(row) for row in used])
        if given:
            db.execute(insert(given_table), [asdict(row) for row in given])
        return fresh
    found = by_key(db, job.tenant, job.idempotency_key) if job.idempotency_key is not None else None
    if found is None:
        found = one(db, job.id)
        if found is None or (found.tenant, found.body_digest) != (job.tenant, job.body_digest):
            raise RequestError(f"id: {job.id[:80]!r} names another job already; choose another id", "id", "conflict")
        return found
    if found.body_digest != job.body_digest:
        raise RequestError(
            f"Idempotency-Key {job.idempotency_key!r} came with another request before (job {found.id}); send a new "
            "key with a new request",
            "Idempotency-Key",
            "idempotency_mismatch",
        )
    return found


def undo_accept(db: Connection, job: JobRecord) -> None:
    """Take a job back whose caller was told that it was not accepted. Its first step may have begun meanwhile, which
    can be written by the same transaction. What it brought goes with its row."""
    gone = delete(jobs).where(jobs.c.id == job.id, jobs.c.fence == job.fence, jobs.c.state.in_(("queued", "running")))
    if db.execute(gone).rowcount:
        db.execute(delete(usage).where(usage.c.job == job.id))


def checked(job: JobRecord) -> JobRecord:
    """The job, if both databases can store its texts; raises `RequestError` otherwise."""
    for name in _TEXTS:
        value = getattr(job, name)
        if value is not None and not storable(value):
            raise RequestError(f"{name}: {value[:80]!r} holds NUL or half a character", name, "invalid_value")
    return job


def storable(value: str) -> bool:
    """Whether it is text in UTF-8 without NUL, which PostgreSQL does not take."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in value


def take_over(db: Connection, fence: int, taken: set[str]) -> list[JobRecord]:
    """All open jobs that an earlier orchestrator had, oldest arrival first; they are queued again. `attempts` grows
    for those that were running. taken: ids, kept by the caller if this runs twice."""
    was_running = jobs.c.state == "running"
    change = (
        update(jobs)
        .where(jobs.c.state.in_(OPEN), jobs.c.fence < fence)
        .values(fence=fence, state="queued", attempts=jobs.c.attempts + case((was_running, 1), else_=0))
        .returning(jobs.c.id)
    )
    taken.update(db.execute(change).scalars())
    mine = select(*_COLUMNS).where(jobs.c.state.in_(OPEN), jobs.c.fence == fence)
    rows = db.execute(mine.order_by(jobs.c.arrived_at, jobs.c.id))
    return [job for job in map(_record, rows) if job.id in taken]


def started(db: Connection, id: str, fence: int, decision: dict[str, Any]) -> None:
    """Running now, with the decision that a take-over keeps."""
    values = {"state": "running", "decision": decision, "fence": fence}
    values["started_at"] = case((jobs.c.started_at.is_(None), time.time()), else_=jobs.c.started_at)
    change = update(jobs).where(jobs.c.id == id, jobs.c.fence <= fence, jobs.c.state.in_(OPEN)).values(values)
    if db.execute(change).rowcount == 0:
        _held(db, id, fence)


def finished(
    db: Connection,
    id: str,
    fence: int,
    state: JobState,
    result: dict[str, Any] | None,
    error: dict[str, Any] | None,
    used: Sequence[UsageRow] | None,
) -> bool:
    """End a job, and put what it used in place of what it reserved (None: as it was). The first end counts: returns
    whether this was it."""
    values = {"state": state, "result": result, "error": error, "finished_at": time.time(), "fence": fence}
    change = update(jobs).where(jobs.c.id == id, jobs.c.fence <= fence, jobs.c.state.in_(OPEN)).values(values)
    if db.execute(change).rowcount == 0:
        _held(db, id, fence)
        return False
    if used is not None:
        db.execute(delete(usage).where(usage.c.job == id))
        if used:
            db.execute(insert(usage), [asdict(row) for row in used])
    return True


def set_webhook(db: Connection, id: str, fence: int, webhook: dict[str, Any]) -> None:
    """What became of a job's webhook; due again at its `next_at`, never if that is None."""
    change = update(jobs).where(jobs.c.id == id, jobs.c.fence <= fence)
    values = {"webhook": webhook, "webhook_at": webhook.get("next_at"), "fence": fence}
    if db.execute(change.values(values)).rowcount == 0:
        _held(db, id, fence)


def due_webhooks(db: Connection, now: float, limit: int) -> list[JobRecord]:
    """Ended jobs whose webhook is due, the longest due first."""
    due = select(*_COLUMNS).where(jobs.c.webhook_at <= now, jobs.c.state.not_in(OPEN))
    return list(map(_record, db.execute(due.order_by(jobs.c.webhook_at).limit(limit))))


def _held(db: Connection, id: str, fence: int) -> None:
    """Why nothing was changed: raises, unless the job has only ended already."""
    row = db.execute(select(jobs.c.fence).where(jobs.c.id == id)).first()
    if row is None:
        raise NotFoundError(f"there is no job {id[:80]!r}", "id")
    if row.fence > fence:
        raise FencedError(f"job {id}: orchestrator {row.fence} has it now, {fence} may not write to it any more")


def hold(db: Connection, id: str, fence: int) -> None:
    """Hold a job until the commit, so that no orchestrator can take it over meanwhile; raises `FencedError` if one
    has, `NotFoundError`."""
    row = db.execute(select(jobs.c.fence).where(jobs.c.id == id).with_for_update()).first()
    if row is None or row.fence > fence:
        _held(db, id, fence)


# ------------------------------------------------------------------------------------------------------------ reading


def one(db: Connection, id: str) -> JobRecord | None:
    """The job with this id."""
    return _first(db, select(*_COLUMNS).where(jobs.c.id == id)) if storable(id) else None


def by_key(db: Connection, tenant: str, idempotency_key: str) -> JobRecord | None:
    """The job that a tenant sent under this key."""
    if not (storable(tenant) and storable(idempotency_key)):
        return None
    same = and_(jobs.c.tenant == tenant, jobs.c.idempotency_key == idempotency_key)
    return _first(db, select(*_COLUMNS).where(same))


def listed(
    db: Connection, tenant: str | None, states: Sequence[JobState], limit: int, cursor: str | None
) -> tuple[list[JobRecord], str | None]:
    """Jobs of one tenant, or of all, the latest first, and the cursor of those that follow. states: (): any.
    Raises `RequestError` for a cursor that is none."""
    chosen = select(*_COLUMNS)
    if tenant is not None:
        if not storable(tenant):
            return [], None
        chosen = chosen.where(jobs.c.tenant == tenant)
    if states:
        chosen = chosen.where(jobs.c.state.in_(states))
    if cursor is not None:
        at, id = _place(cursor)
        chosen = chosen.where(or_(jobs.c.created_at < at, and_(jobs.c.created_at == at, jobs.c.id < id)))
    rows = db.execute(chosen.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit + 1)).all()
    found = list(map(_record, rows[:limit]))
    more = len(rows) > limit and bool(found)
    return found, _cursor(found[-1]) if more else None


def recent(db: Connection, policy: str | None, limit: int, look_at: int) -> list[JobRecord]:
    """The latest jobs with a decision of `policy` (None: of any), the latest first, without their answers; at most
    `limit`, among the latest `look_at` jobs."""
    without = [column for column in _COLUMNS if column.name not in ("result", "error", "body", "webhook")]
    latest = select(*without).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(look_at)
    found: list[JobRecord] = []
    for row in db.execute(latest):
        if row.decision is not None and policy in (None, row.decision.get("policy")):
            found.append(JobRecord(**row._mapping, body={}))
            if len(found) == limit:
                break
    return found


def _cursor(last: JobRecord) -> str:
    return base64.urlsafe_b64encode(json.dumps([last.created_at, last.id]).encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[float, str]:
    try:
        at, id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(at, int | float) and isinstance(id, str) and storable(id):
            return float(at), id
    except (ValueError, TypeError):
        pass
    raise RequestError(
        f"cursor: {cursor[:80]!r} is none of ours; leave it out, or send the one of the page before",
        "cursor",
        "invalid_value",
    )


def _first(db: Connection, query: Select[Any]) -> JobRecord | None:
    row = db.execute(query).first()
    return None if row is None else _record(row)


def _record(row: Row[Any]) -> JobRecord:
    return JobRecord(**row._mapping)
