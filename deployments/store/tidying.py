"""What is forgotten: jobs that ended long ago, with their pictures; the oldest where there are too many bytes; bytes
that belong to no picture. Never an open job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select, union_all

from deployments.store import accounts, pictures
from deployments.store.blobs import Blobs
from deployments.store.database import Database
from deployments.store.records import OPEN
from deployments.store.tables import given, jobs, usage
from deployments.store.tables import pictures as picture_table
from deployments.store.writer import Writer
from router.learning.ratings import normal_group

AT_ONCE = 200  # jobs in one transaction, so that none that arrives waits for long
USAGE_S = 367 * 86_400.0  # the longest window of a budget, and a day
DRAFT_S = 3_600.0  # bytes without a row may still be on their way for so long


_HELD = union_all(*(select(table.c.job, table.c.bytes_n) for table in (picture_table, given))).subquery("held")
"""What jobs hold, made and given."""


class Tidying:
    """Retention of one store. max_age_s: of ended jobs; max_bytes: of all pictures."""

    def __init__(
        self, database: Database, writer: Writer, blobs: Blobs, store: str, max_age_s: float, max_bytes: float
    ) -> None:
        self._database = database
        self._writer = writer
        self._blobs = blobs
        self._store = store
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes

    def tidy(self, now: float) -> dict[str, int]:
        """Forget what is due at `now` (Unix seconds): {"jobs", "pictures", "bytes", "orphans"}, how many of each."""
        counts = {"jobs": 0, "pictures": 0, "bytes": 0, "orphans": 0}
        old = select(jobs.c.id).where(jobs.c.state.not_in(OPEN), jobs.c.finished_at < now - self._max_age_s)
        for some in iter(lambda: self._ids(old.order_by(jobs.c.finished_at).limit(AT_ONCE)), []):
            self._forget(some, counts)
        while (beyond := self._bytes() - self._max_bytes) > 0 and (some := self._oldest(beyond)):
            self._forget(some, counts)
        self._writer.do(lambda db: db.execute(delete(usage).where(usage.c.at < now - USAGE_S)).rowcount)
        self._writer.do(lambda db: accounts.forget_served(db, now))
        for name in self._orphans(now):
            self._blobs.delete(name)
            counts["orphans"] += 1
        return counts

    def forget(self, prompt: str) -> dict[str, int]:
        """Forget ended jobs with this prompt (but for case and spaces) now; counts as of `tidy`."""
        counts = {"jobs": 0, "pictures": 0, "bytes": 0, "orphans": 0}
        wanted, ended = normal_group(prompt), select(jobs.c.id, jobs.c.request).where(jobs.c.state.not_in(OPEN))
        with self._database.reading() as db:
            found = [id for id, sent in db.execute(ended) if normal_group(str(sent.get("prompt", ""))) == wanted]
        for some in batched(found, AT_ONCE):
            self._forget(some, counts)
        return counts

    def _ids(self, query: Select[Any]) -> list[str]:
        with self._database.reading() as db:
            return list(db.execute(query).scalars())

    def _bytes(self) -> int:
        with self._database.reading() as db:
            return int(db.execute(select(func.coalesce(func.sum(_HELD.c.bytes_n), 0))).scalar_one())

    def _oldest(self, bytes_n: float) -> list[str]:
        """The ended jobs with pictures that ended first, as many as hold `bytes_n`, at most some."""
        held = func.sum(_HELD.c.bytes_n)
        query = (
            select(jobs.c.id, held)
            .join(_HELD, _HELD.c.job == jobs.c.id)
            .where(jobs.c.state.not_in(OPEN))
            .group_by(jobs.c.id, jobs.c.finished_at)
            .order_by(jobs.c.finished_at, jobs.c.id)
            .limit(AT_ONCE)
        )
        found: list[str] = []
        with self._database.reading() as db:
            for id, holds in db.execute(query):
                if bytes_n <= 0:
                    break
                found.append(id)
                bytes_n -= int(holds)  # a sum of large integers is a Decimal in PostgreSQL
        return found

    def _forget(self, ids: list[str], counts: dict[str, int]) -> None:
        def rows(db: Connection) -> tuple[int, list[list[Any]]]:
            closed = jobs.c.id.in_(ids) & jobs.c.state.not_in(OPEN)
            gone: list[list[Any]] = []
            for table in (picture_table, given):
                mine = table.c.job.in_(select(jobs.c.id).where(closed))
                gone.append(list(db.execute(delete(table).where(mine).returning(table.c.key, table.c.bytes_n)).all()))
            return db.execute(delete(jobs).where(closed)).rowcount, gone

        ended, gone = self._writer.do(rows)
        for key, bytes_n in (*gone[0], *gone[1]):
            self._blobs.delete(key)
            counts["bytes"] += bytes_n
        counts["jobs"] += ended
        counts["pictures"] += len(gone[0])

    def _orphans(self, now: float) -> Iterator[str]:
        """Bytes of this store that no row names and that are not on their way any more."""
        for some in batched(self._blobs.older(self._store, now - DRAFT_S), 500):
            with self._database.reading() as db:
                kept = pictures.known(db, some)
            yield from (name for name in some if name not in kept)


def batched(items: Iterable[str], most: int) -> Iterator[list[str]]:
    """Lists of up to `most` of them, in order."""
    rest = iter(items)
    while some := list(islice(rest, most)):
        yield some
