"""The store: one object for all that must last. Sync and thread-safe; what is returned is committed."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from deployments.given.files import GivenFile
from deployments.settings import FeedbackSettings, StoreSettings, state_folder
from deployments.store import accounts, jobs, pictures
from deployments.store.blobs import Blobs
from deployments.store.database import Database, insert_new, value_of
from deployments.store.decision_log import DecisionLog, rated_since
from deployments.store.errors import FencedError, StoreError, StoreFullError
from deployments.store.records import (
    GivenRecord,
    JobRecord,
    JobState,
    KeyRecord,
    PictureRecord,
    PolicyVersion,
    RatedRow,
    ServedRow,
    UsageRow,
)
from deployments.store.tables import store as store_table
from deployments.store.tidying import Tidying
from deployments.store.writer import Writer
from router.errors import NotFoundError
from router.learning.feedback import Retention

logger = logging.getLogger("triptych.store")

FULL_FOR_S = 10.0  # how long nothing new is accepted after a write found no room
LOOK_EVERY_S = 0.5  # between two looks at the disk


LOG_KEY = "TRIPTYCH_LOG_KEY"
"""The environment variable with the key of the hash of prompts; without it, a random one lies beside the database."""


def open_store(settings: StoreSettings, feedback: FeedbackSettings | None = None) -> Store:
    """The store of these settings, its schema up to date. feedback: what its log of decisions keeps. Raises
    `StoreError` that says what is not there."""
    database = Database(settings.database_url)
    database.migrate()
    store = Store(database, Blobs(settings.pictures_place), settings, feedback or FeedbackSettings())
    store.decisions.open()
    return store


def decision_log(
    settings: StoreSettings, feedback: FeedbackSettings, database: Database | None = None, writer: Writer | None = None
) -> DecisionLog:
    """The log of decisions of a store, by itself. Nothing is opened or made yet, if no database is given."""
    key = os.environ.get(LOG_KEY)
    return DecisionLog(
        database or Database(settings.database_url, durable=False),  # no request waits for it
        feedback.store_prompts,
        Retention(feedback.max_age_days * 86_400, feedback.max_rows),
        key.encode() if key else None,
        writer,
        state_folder() / "decisions.sqlite" if settings.url is None else None,
    )


class Store:
    """All that must last. Use `open_store`. decisions: the log of decisions.

    Methods raise `StoreError` if the database or the pictures' place does not answer: nothing was written then, or will
    be found undone, and the same call may succeed after `retry_after_s`. Writes to a job by an orchestrator whose job
    was taken over raise `FencedError`. The `…_soon` methods are for event loops: `await asyncio.wrap_future(…)`.
    """

    def __init__(self, database: Database, blobs: Blobs, settings: StoreSettings, feedback: FeedbackSettings) -> None:
        self.database = database
        self._blobs = blobs
        self._writer = Writer(database)
        self._lock = threading.Lock()
        self._full_until = self._looked = float("-inf")
        self._little: str | None = None
        self._reserve = int(settings.keep_free_mib * 2**20)
        self.decisions = decision_log(settings, feedback, database, self._writer)
        self.id = self._writer.do(_identify)
        max_bytes = settings.max_gib * 2**30
        self._tidying = Tidying(database, self._writer, blobs, self.id, settings.max_age_days * 86_400, max_bytes)

    @property
    def transactions(self) -> int:
        """How many transactions this process has committed."""
        return self._writer.transactions

    def close(self) -> None:
        """Write what waits and let go of everything."""
        self._writer.close()
        self.database.close()

    def ping(self) -> None:
        """Raises `StoreError` if the database does not answer."""
        with self.database.reading() as db:
            db.execute(text("SELECT 1"))

    # ----------------------------------------------------------------------------------------------------------- jobs

    def begin(self) -> int:
        """A new fencing token for an orchestrator that starts. From now on, none before it may accept."""
        return self._writer.do(jobs.begin)

    def latest_fence(self) -> int:
        """The token of the orchestrator that began last: whoever has an older one is replaced."""
        with self.database.reading() as db:
            return jobs.latest_fence(db)

    def accept(self, job: JobRecord, usage: Sequence[UsageRow] = (), given: Sequence[GivenRecord] = ()) -> JobRecord:
        """Commit a job, what it reserves, and the pictures that it brought (of `keep_given`). job.fence: token of the
        orchestrator that accepts it.

        If the tenant has sent its idempotency key before, returns that job (same digest), or raises `RequestError` with
        code "idempotency_mismatch". Raises `StoreFullError` where there is no room for new work."""
        return self.accept_soon(job, usage, given).result()

    def accept_soon(
        self,
        job: JobRecord,
        usage: Sequence[UsageRow] = (),
        given: Sequence[GivenRecord] = (),
        instead_of: str | None = None,
    ) -> Future[JobRecord]:
        """`accept`, without waiting for the commit. instead_of: a job that failed, whose idempotency key is this one's
        from now on"""
        self._check_room()
        job = jobs.checked(job)
        return self._writer.submit(
            lambda db: jobs.accept(db, job, usage, given, instead_of), lambda db: jobs.undo_accept(db, job)
        )

    def take_over(self, fence: int) -> list[JobRecord]:
        """All open jobs of earlier orchestrators, which are queued and this one's now; the oldest arrival first.
        `attempts` has grown by one for those that were running."""
        taken: set[str] = set()
        return self._writer.do(lambda db: jobs.take_over(db, fence, taken))

    def started(self, id: str, fence: int, decision: dict[str, Any]) -> None:
        """A job is running, by this decision."""
        self.started_soon(id, fence, decision).result()

    def started_soon(self, id: str, fence: int, decision: dict[str, Any]) -> Future[None]:
        """`started`, without waiting for the commit."""
        return self._writer.submit(lambda db: jobs.started(db, id, fence, decision))

    def finished(
        self,
        id: str,
        fence: int,
        state: JobState,
        result: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
        usage: Sequence[UsageRow] | None = None,
        served: ServedRow | None = None,
    ) -> bool:
        """A job has ended. usage: in place of what was reserved; None: that stays.   served: what operators see of it.
        Its first end counts; returns whether this was it."""
        return self.finished_soon(id, fence, state, result, error, usage, served).result()

    def finished_soon(
        self,
        id: str,
        fence: int,
        state: JobState,
        result: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
        usage: Sequence[UsageRow] | None = None,
        served: ServedRow | None = None,
    ) -> Future[bool]:
        """`finished`, without waiting for the commit."""

        def end(db: Connection) -> bool:
            first = jobs.finished(db, id, fence, state, result, error, usage)
            if first and served is not None:
                accounts.add_served(db, served)
            return first

        return self._writer.submit(end)

    def set_webhook(self, id: str, fence: int, webhook: dict[str, Any]) -> None:
        """What became of a job's webhook. It is due at `webhook["next_at"]` (Unix seconds), never if that is None."""
        self._writer.do(lambda db: jobs.set_webhook(db, id, fence, webhook))

    def due_webhooks(self, now: float, limit: int = 100) -> list[JobRecord]:
        """Ended jobs whose webhook is due, the longest due first."""
        with self.database.reading() as db:
            return jobs.due_webhooks(db, now, limit)

    def job(self, id: str) -> JobRecord | None:
        """The job with this id; None: none, or it was forgotten."""
        with self.database.reading() as db:
            return jobs.one(db, id)

    def by_key(self, tenant: str, idempotency_key: str) -> JobRecord | None:
        """The job that a tenant sent under this idempotency key."""
        with self.database.reading() as db:
            return jobs.by_key(db, tenant, idempotency_key)

    def jobs(
        self,
        tenant: str | None = None,
        states: Sequence[JobState] = (),
        limit: int = 20,
        cursor: str | None = None,
    ) -> tuple[list[JobRecord], str | None]:
        """Jobs of a tenant (None: of all) in one of `states` ((): in any), the latest first, and the cursor of the next
        page (None: there is none). Raises `RequestError` for a cursor that is none."""
        with self.database.reading() as db:
            return jobs.listed(db, tenant, states, limit, cursor)

    # ------------------------------------------------------------------------------------------------------- pictures

    def put_picture(self, picture: PictureRecord, data: bytes, fence: int) -> PictureRecord:
        """Keep a picture: its bytes, then its row, with `key`, `bytes_n` and `made_at` filled in. One with the same
        index of the same job is replaced."""
        picture = replace(picture, bytes_n=len(data), made_at=picture.made_at or time.time(), facts=picture.facts or {})
        picture = replace(picture, key=pictures.new_key(self.id, picture))
        try:
            self._blobs.write(picture.key, data)
        except StoreFullError:
            self._full_until = time.monotonic() + FULL_FOR_S
            raise
        try:
            old = self._writer.do(lambda db: pictures.put(db, picture, fence))
        except (FencedError, NotFoundError):
            self._discard(picture.key)  # on any other error the row may be there
            raise
        if old is not None:
            self._discard(old)
        return picture

    def keep_given(self, job: str, files: Sequence[GivenFile]) -> list[GivenRecord]:
        """Keep the bytes of pictures that a job brings, before it is accepted with what this returns; without that,
        they are tidied, or dropped by `drop_given`."""
        self._check_room()
        kept: list[GivenRecord] = []
        for file in files:
            key = f"{self.id}/given/{secrets.token_hex(16)}.png"
            told = file.told
            before = sum(one.role.partition(" ")[0] == told.role for one in kept)
            role = f"{told.role} {before + 1}" if before else told.role
            kept.append(GivenRecord(job, role, told.digest, len(file.data), told.width, told.height, key))
            try:
                self._blobs.write(key, file.data)
            except StoreError as error:
                if isinstance(error, StoreFullError):
                    self._full_until = time.monotonic() + FULL_FOR_S
                self.drop_given(kept)
                raise
        return kept

    def drop_given(self, kept: Sequence[GivenRecord]) -> None:
        """Delete what `keep_given` kept for a job that was not accepted."""
        for one in kept:
            self._discard(one.key)

    def given(self, digest: str, tenant: str | None = None) -> bytes:
        """The file of a picture that a job of this tenant (None: of any) brought. Raises `NotFoundError`."""
        with self.database.reading() as db:
            key = pictures.given_key(db, digest, tenant)
        data = None if key is None else self._blobs.read(key)
        if data is None:
            raise NotFoundError(f"the given picture {digest[:12]} is not kept any more; send it again", "image")
        return data

    def pictures(self, job: str) -> list[PictureRecord]:
        """The pictures of a job that are there, by index."""
        with self.database.reading() as db:
            return pictures.of_job(db, job)

    def pictures_of(self, jobs: Sequence[str]) -> dict[str, list[PictureRecord]]:
        """The pictures of several jobs, by job and index; jobs without any are left out."""
        with self.database.reading() as db:
            return pictures.of_jobs(db, jobs)

    def picture(self, id: str) -> PictureRecord | None:
        """The picture with this id; None: none, or it was forgotten."""
        with self.database.reading() as db:
            return pictures.one(db, id)

    def read(self, picture: PictureRecord) -> bytes:
        """The bytes of a picture. Raises `NotFoundError` if they were forgotten meanwhile."""
        data = self._blobs.read(picture.key)
        if data is None:
            raise NotFoundError(f"picture {picture.id} is not kept any more", "id")
        return data

    def _discard(self, key: str) -> None:
        """Delete bytes that belong to no row; what cannot be deleted now is tidied later."""
        try:
            self._blobs.delete(key)
        except StoreError as error:
            logger.warning("%s was left behind: %s", key, error)

    # ----------------------------------------------------------------------------------------------- keys, usage, costs

    def keys(self) -> list[KeyRecord]:
        """Every key, revoked ones included, the oldest first."""
        with self.database.reading() as db:
            return accounts.all_keys(db)

    def add_key(self, key: KeyRecord) -> None:
        """Raises `RequestError` if its id or its hash is there already."""
        self._writer.do(lambda db: accounts.add_key(db, key))

    def revoke_key(self, id: str) -> KeyRecord:
        """The key, which is of no use from now on. Raises `NotFoundError`."""
        return self._writer.do(lambda db: accounts.revoke_key(db, id))

    def keys_used(self, at: Mapping[str, float]) -> None:
        """When keys were used last (Unix seconds), by their id."""
        self._writer.do(lambda db: accounts.keys_used(db, at))

    def served_since(self, since: float) -> list[ServedRow]:
        """Sums of what ended after `since` (Unix seconds, ten minutes exact), by tenant, policy, recipe and state. Kept
        for 31 days."""
        with self.database.reading() as db:
            return accounts.served_since(db, since)

    def rated_since(self, since: float) -> list[RatedRow]:
        """What people said of pictures after `since` (Unix seconds), by policy and recipe that made them."""
        with self.database.reading() as db:
            return rated_since(db, since)

    def recent_requests(self, policy: str | None, limit: int, look_at: int = 1000) -> list[JobRecord]:
        """The latest jobs that this policy decided (None: any), the latest first, among the latest `look_at` of all."""
        with self.database.reading() as db:
            return jobs.recent(db, policy, limit, look_at)

    def usage_since(self, since: float) -> list[UsageRow]:
        """What was reserved and used after `since` (Unix seconds), the oldest first. Kept for 367 days."""
        with self.database.reading() as db:
            return accounts.usage_since(db, since)

    def save_costs(self, snapshot: dict[str, Any]) -> None:
        """Keep what was learned of costs, in place of what was kept before."""
        self._writer.do(lambda db: accounts.save_costs(db, snapshot))

    def costs(self) -> dict[str, Any] | None:
        """What was kept last; None: nothing yet."""
        with self.database.reading() as db:
            return accounts.saved_costs(db)

    def keep_policy_soon(self, name: str, digest: str | None, text: str | None, at: float) -> Future[None]:
        """Keep a version of a policy that was written at `at` (Unix seconds; no text: it went), unless one that is as
        new is there, or it is the last one again. Not waited for."""
        version = PolicyVersion(name, at, digest, text)
        return self._writer.submit(lambda db: accounts.keep_policy(db, version))

    def policies(self) -> list[PolicyVersion]:
        """The last version of each policy, by name."""
        with self.database.reading() as db:
            return accounts.latest_policies(db)

    # ----------------------------------------------------------------------------------------------------------- room

    def tidy(self, now: float | None = None) -> dict[str, int]:
        """Forget ended jobs by age and bytes, with their pictures, and bytes that belong to nothing; never an open job.
        Returns how many: {"jobs", "pictures", "bytes", "orphans"}."""
        return self._tidying.tidy(time.time() if now is None else now)

    def forget(self, prompt: str) -> dict[str, int]:
        """Delete what is kept on a prompt (but for case and spaces), open jobs excepted: {"decisions", "jobs",
        "pictures"}, how many of each."""
        counts = self._tidying.forget(prompt)
        return {"decisions": self.decisions.forget(prompt), "jobs": counts["jobs"], "pictures": counts["pictures"]}

    def _check_room(self) -> None:
        """Raises `StoreFullError` when so little is left that what was accepted may need it."""
        now = time.monotonic()
        with self._lock:
            if now - self._looked > LOOK_EVERY_S:
                self._looked, self._little = now, self._tight()
        if self._little is not None:
            raise StoreFullError(f"no new work is accepted: {self._little}; make room, or lower store.max_gib")
        if now < self._full_until:
            raise StoreFullError(f"no new work is accepted: {self._blobs.place} is full; make room there")

    def _tight(self) -> str | None:
        folder = self.database.file.parent if self.database.file else None
        places = {str(folder): _free(folder), self._blobs.place: self._blobs.free()}
        for place, free in places.items():
            if free is not None and free < self._reserve:
                kept = f"{self._reserve / 2**20:.0f} MiB are kept for what was accepted"
                return f"{place} has {free / 2**20:.0f} MiB left, of which {kept} (store.keep_free_mib)"
        return None


def _free(folder: Path | None) -> int | None:
    try:
        return None if folder is None else shutil.disk_usage(folder).free
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise StoreError(f"{folder} cannot be looked at: {error.strerror}") from None


def _identify(db: Any) -> str:
    """The store's id: made once."""
    insert_new(db, store_table, {"one": 1, "id": secrets.token_hex(8), "fence": 0})
    found: str = value_of(db, store_table, "id")
    return found
