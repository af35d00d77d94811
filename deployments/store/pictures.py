"""Pictures: rows in the database, bytes elsewhere. The row is committed after the bytes are there, and deleted before
they are, so a row's bytes are always found; bytes without a row are tidied."""

from __future__ import annotations

import mimetypes
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, insert, select

from deployments.store import jobs
from deployments.store.records import PictureRecord
from deployments.store.tables import given, pictures
from deployments.store.tables import jobs as jobs_table


def new_key(store: str, picture: PictureRecord) -> str:
    """Where the bytes of a picture go: nothing of what a client wrote is in it. Picture folders that two stores share
    stay apart by the store's id."""
    day = datetime.fromtimestamp(picture.made_at, UTC).strftime("%Y-%m-%d")
    return f"{store}/{day}/{secrets.token_hex(16)}{mimetypes.guess_extension(picture.media_type) or '.bin'}"


def put(db: Connection, picture: PictureRecord, fence: int) -> str | None:
    """Insert a picture, in place of one with the same number in its job; returns the key of that one's bytes."""
    jobs.hold(db, picture.job, fence)
    same = (pictures.c.job == picture.job) & (pictures.c.index == picture.index)
    old = db.execute(delete(pictures).where(same).returning(pictures.c.key)).scalar()
    db.execute(insert(pictures), asdict(picture))
    return old if old != picture.key else None


def of_job(db: Connection, job: str) -> list[PictureRecord]:
    """The pictures of a job by their place."""
    if not jobs.storable(job):
        return []
    rows = db.execute(select(pictures).where(pictures.c.job == job).order_by(pictures.c.index))
    return [PictureRecord(**row._mapping) for row in rows]


def of_jobs(db: Connection, jobs: Sequence[str]) -> dict[str, list[PictureRecord]]:
    """The pictures of jobs by their place."""
    found: dict[str, list[PictureRecord]] = {}
    for row in db.execute(select(pictures).where(pictures.c.job.in_(jobs)).order_by(pictures.c.index)):
        found.setdefault(row.job, []).append(PictureRecord(**row._mapping))
    return found


def one(db: Connection, id: str) -> PictureRecord | None:
    """The picture with this id."""
    row = db.execute(select(pictures).where(pictures.c.id == id)).first() if jobs.storable(id) else None
    return None if row is None else PictureRecord(**row._mapping)


def known(db: Connection, keys: Sequence[str]) -> set[str]:
    """Which of these keys belong to a row."""
    found = (db.execute(select(table.c.key).where(table.c.key.in_(keys))).scalars() for table in (pictures, given))
    return {key for keys in found for key in keys}


def given_key(db: Connection, digest: str, tenant: str | None) -> str | None:
    """Where the bytes of a picture are that a job of this tenant (None: of any) brought; None: nowhere."""
    query = select(given.c.key).where(given.c.digest == digest).limit(1)
    if tenant is not None:
        query = query.join(jobs_table, jobs_table.c.id == given.c.job).where(jobs_table.c.tenant == tenant)
    found: str | None = db.execute(query).scalar()
    return found
