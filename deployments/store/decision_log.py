"""The log of decisions: append-only tables of the store, for all processes that use it.

With `store_prompts: hash` no prompt is in them. A keyed hash tells equal prompts, and embedding and counts stand in for
the text when a predictor is fitted; docs/operations.md says what that does and does not hide.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import shutil
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, case, delete, func, insert, select

from deployments.settings import state_folder
from deployments.store.database import Database, put
from deployments.store.errors import StoreError
from deployments.store.jobs import storable
from deployments.store.records import RatedRow
from deployments.store.tables import decisions, feedback, imports
from deployments.store.writer import Writer
from router.errors import ArtifactError, NotFoundError, RequestError
from router.learning.feedback import (
    RATING,
    DecisionRecord,
    Feedback,
    Receipt,
    Retention,
    decision_of,
    facts_in,
    packed_facts,
)
from router.learning.ratings import normal_group

logger = logging.getLogger("triptych.decisions")
T = TypeVar("T")

PURGE_EVERY = 1_000  # decisions between two looks at the retention
_FEEDBACK_KEY = ("decision", "source", "image", "recipe", "attempt")


class DecisionLog:
    """The log in a database, or in the SQLite file at a path. Nothing is opened or made before it is needed. Safe to
    use from several threads and processes. Methods that write raise `StoreError` if the database does not take it;
    methods that read, `ArtifactError`."""

    def __init__(
        self,
        database: Database | str | Path,
        store_prompts: Literal["hash", "text"] = "hash",
        retention: Retention | None = None,
        key: bytes | None = None,
        writer: Writer | None = None,
        former: Path | None = None,
    ) -> None:
        """key: of the hash of prompts; by default a random one beside the file (or, with a server, in the state
        folder), readable by its owner. writer: shares its transactions. former: a log of version 0.1, which is taken
        over once if it is there."""
        self.database = database if isinstance(database, Database) else Database(f"sqlite:///{Path(database)}", False)
        self.path: Path | str = self.database.file or self.database.place
        self._text = store_prompts == "text"
        self._retention = retention or Retention()
        self._key = key
        self._writer = writer
        self._former = former
        self._lock = threading.Lock()
        self._written = 0
        self._opened = False

    # -------------------------------------------------------------------------------------------------------- writing

    def record(self, decision: DecisionRecord, said: Sequence[Feedback] = ()) -> None:
        """Append a decision, with what scorers already said of its pictures."""
        values = {
            "id": decision.id, "at_s": decision.at_s, "prompt": _text(decision.prompt) if self._text else None,
            "prompt_hash": self.hashed(decision.prompt), "embedding": decision.embedding.astype("<f2").tobytes(),
            "policy": decision.policy, "policy_digest": decision.policy_digest, "artifact": decision.artifact,
            "recipe": decision.recipe, "propensity": decision.propensity, "facts": packed_facts(decision),
        }  # fmt: skip

        def append(db: Connection) -> None:
            number = db.execute(insert(decisions).returning(decisions.c.number), values).scalar_one()
            rows = [_said(number, one, one.at_s or decision.at_s) for one in said]
            if rows:
                db.execute(insert(feedback), rows)

        self._write(append)
        self._written += 1
        if self._written % PURGE_EVERY == 1:
            self.purge()

    def attach(self, request_id: str, source: str, value: float, image: int | None = None) -> Receipt:
        """Say of one picture of a request, or of all of them, how good it is (0..1). The same source again replaces.

        Raises `NotFoundError` if the log has no such request, `RequestError` for a picture that it does not have.
        """
        if not self.database.exists() or not storable(request_id):
            raise _unknown(request_id)

        def say(db: Connection) -> Receipt:
            # A client may send the same id twice; what it looks at now is the last answer.
            latest = select(decisions.c.number, decisions.c.facts).where(decisions.c.id == request_id)
            row = db.execute(latest.order_by(decisions.c.number.desc()).limit(1)).first()
            if row is None:
                raise _unknown(request_id)
            facts = facts_in(row.facts)
            made, kept = facts["made"], facts.get("kept") or [0] * len(facts["made"])
            if image is not None and not 0 <= image < len(made):
                raise RequestError(
                    f"image: request {request_id!r} made {len(made)} picture(s), so image is 0 to {len(made) - 1}",
                    "image",
                    "invalid_value",
                )
            images = tuple(range(len(made))) if image is None else (image,)
            before = select(feedback.c.image, feedback.c.recipe).where(
                feedback.c.decision == row.number, feedback.c.source == source
            )
            replaced = not {(k, made[k]) for k in images}.isdisjoint(map(tuple, db.execute(before)))
            for k in images:
                one = Feedback(source, k, made[k], value, time.time(), kept[k])
                put(db, feedback, _said(row.number, one, one.at_s), *_FEEDBACK_KEY)
            return Receipt(images, tuple(made[k] for k in images), replaced)

        return self._write(say)

    def purge(self, now_s: float | None = None) -> int:
        """Forget what the retention says, feedback included; returns how many decisions that were."""
        if not self.database.exists():
            return 0
        oldest = (time.time() if now_s is None else now_s) - self._retention.max_age_s
        beyond = select(decisions.c.number).order_by(decisions.c.number.desc()).offset(self._retention.max_rows)

        def forget(db: Connection) -> int:
            gone = db.execute(delete(decisions).where(decisions.c.at_s < oldest)).rowcount
            last = db.execute(beyond.limit(1)).scalar()
            if last is not None:
                gone += db.execute(delete(decisions).where(decisions.c.number <= last)).rowcount
            return gone

        return self._write(forget)

    def forget(self, prompt: str) -> int:
        """Delete every decision on a prompt (but for case and spaces); returns how many that were."""
        if not self.database.exists():
            return 0
        same = delete(decisions).where(decisions.c.prompt_hash == self.hashed(prompt))
        return self._write(lambda db: db.execute(same).rowcount)

    def take_over(self, file: Path) -> int:
        """Append what is in a log of version 0.1 (an SQLite file of its own), once; returns how many decisions that
        were. Its key comes along unless there is one already. Raises `ArtifactError` if it is no such log."""
        entries, said = _former_log(file)
        source = f"{file.resolve()} ({file.stat().st_ino})"

        def append(db: Connection) -> int:
            if db.execute(select(imports.c.source).where(imports.c.source == source)).first():
                return 0
            db.execute(insert(imports), {"source": source, "at": time.time(), "decisions": len(entries)})
            new: dict[int, int] = {}
            for some in _by_hundreds(entries):
                rows = [{name: value for name, value in row.items() if name != "number"} for row in some]
                ordered = insert(decisions).returning(decisions.c.number, sort_by_parameter_order=True)
                new |= zip((row["number"] for row in some), db.execute(ordered, rows).scalars(), strict=True)
            for some in _by_hundreds(said):
                db.execute(insert(feedback), [{**row, "decision": new[row["decision"]]} for row in some])
            return len(entries)

        theirs, ours = _key_of(file), self._key_file()
        if theirs.is_file() and not ours.exists():
            ours.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(theirs, ours)
        return self._write(append, taking_over=True)

    # -------------------------------------------------------------------------------------------------------- reading

    def counts(self) -> dict[str, Any]:
        """decisions, by_chance (propensity below 1), with_text, since_s, until_s, policies: {name: decisions},
        feedback: {source: rows}."""
        columns, many = decisions.c, func.count().label("many")
        by_chance = func.coalesce(func.sum(case((columns.propensity < 1, 1), else_=0)), 0)
        whole = select(
            func.count().label("decisions"),
            by_chance.label("by_chance"),
            func.count(columns.prompt).label("with_text"),
            func.min(columns.at_s).label("since_s"),
            func.max(columns.at_s).label("until_s"),
        ).select_from(decisions)
        of_policy = select(columns.policy, many).group_by(columns.policy).order_by(many.desc(), columns.policy)
        of_source = select(feedback.c.source, many).group_by(feedback.c.source)
        with self._reading() as db:
            found = dict(db.execute(whole).one()._mapping)
            policies = dict(map(tuple, db.execute(of_policy)))
            sources = dict(map(tuple, db.execute(of_source.order_by(many.desc(), feedback.c.source))))
        return {**found, "policies": policies, "feedback": sources}

    def rated(self, source: str) -> list[tuple[DecisionRecord, tuple[Feedback, ...]]]:
        """Decisions with feedback of `source`, in the order in which they were made."""
        if not storable(source):
            return []
        names = ("source", "image", "recipe", "value", "at_s", "attempt")
        theirs = select(feedback).where(feedback.c.source == source)
        wanted = select(feedback.c.decision).where(feedback.c.source == source)
        rows = select(decisions).where(decisions.c.number.in_(wanted)).order_by(decisions.c.number)
        with self._reading() as db:
            said: dict[int, list[Feedback]] = {}
            in_order = theirs.order_by(*(feedback.c[name] for name in ("decision", "image", "recipe", "attempt")))
            for row in db.execute(in_order):
                said.setdefault(row.decision, []).append(Feedback(*(getattr(row, name) for name in names)))
            return [(decision_of(dict(row._mapping)), tuple(said.get(row.number, ()))) for row in db.execute(rows)]

    def prompts(self, most: int = 5_000) -> list[str]:
        """The texts of the last prompts, each once, the latest first; none where only their hashes are kept."""
        latest = func.max(decisions.c.number)
        wanted = select(decisions.c.prompt).where(decisions.c.prompt.is_not(None))
        wanted = wanted.group_by(decisions.c.prompt).order_by(latest.desc()).limit(most)
        with self._reading() as db:
            return [str(text) for text in db.execute(wanted).scalars()]

    # ------------------------------------------------------------------------------------------------------- database

    def hashed(self, prompt: str) -> str:
        """A keyed hash (HMAC-SHA-256) that is equal for prompts which differ in case and spaces only."""
        if self._key is None:
            self.open()  # a former log brings its key along
            self._key = _kept_key(self._key_file())
        return hmac.new(self._key, normal_group(prompt).encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def open(self) -> None:
        """Make what is missing, and take a former log over. Raises `StoreError`."""
        with self._lock:
            if self._opened:
                return
            self.database.migrate()
            self._opened = True
        if self._former is not None and self._former.is_file():
            self._take_former(self._former)

    def close(self) -> None:
        """Let go of the database; it is opened again when it is needed."""
        self.database.close()

    def _take_former(self, file: Path) -> None:
        """Once, and then out of the way; a log that cannot be read stays where it is."""
        try:
            count = self.take_over(file)
            aside = file.with_name(f"{file.name}.taken-over")
            file.rename(aside)
        except (ArtifactError, OSError) as error:
            logger.warning("the decisions in %s were not taken over: %s", file, error)
            return
        logger.warning("%d decisions of %s are in %s now; what is left is %s", count, file, self.path, aside)

    def _write(self, run: Callable[[Connection], T], taking_over: bool = False) -> T:
        if not taking_over:
            self.open()
        elif not self._opened:
            self.database.migrate()
        if self._writer is not None:
            return self._writer.do(run)
        with self.database.writing() as db:
            return run(db)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            former = self._former is not None and self._former.is_file()
            if not (self._opened or former or (self.database.exists() and self.database.revision() is not None)):
                self.database.refuse_former()
                raise ArtifactError(f"{self.path}: there is no such log; it is made with the first logged decision")
            self.open()
            with self.database.reading() as db:
                yield db
        except StoreError as error:
            raise ArtifactError(f"the log of decisions cannot be read: {error}") from error

    def _key_file(self) -> Path:
        file = self.database.file
        return state_folder() / "decisions.key" if file is None else _key_of(file)


def rated_since(db: Connection, since: float) -> list[RatedRow]:
    """What people said of pictures after `since` (Unix seconds), by policy and recipe."""
    by = (decisions.c.policy, feedback.c.recipe)
    said = select(*by, func.count().label("said"), func.avg(feedback.c.value).label("mean"))
    said = said.join(decisions, decisions.c.number == feedback.c.decision)
    rows = db.execute(said.where(feedback.c.source == RATING, feedback.c.at_s > since).group_by(*by).order_by(*by))
    return [RatedRow(row.policy, row.recipe, int(row.said), float(row.mean)) for row in rows]


def _said(number: int, one: Feedback, at_s: float) -> dict[str, Any]:
    row = {name: getattr(one, name) for name in ("source", "image", "recipe", "value", "attempt")}
    return {**row, "decision": number, "at_s": at_s}


def _text(prompt: str) -> str:
    """As both databases can hold it."""
    return prompt.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _by_hundreds(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    yield from (rows[k : k + 500] for k in range(0, len(rows), 500))


def _former_log(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of decisions and of feedback of a log of version 0.1, as those of the tables are."""
    if not file.is_file():
        raise ArtifactError(f"{file}: there is no such log")
    try:
        with closing(sqlite3.connect(file)) as db:
            db.row_factory = sqlite3.Row
            if db.execute("PRAGMA user_version").fetchone()[0] not in (1, 2):
                raise ArtifactError(f"{file} is no log of decisions of version 0.1")
            entries = list(map(dict, db.execute("SELECT * FROM decisions ORDER BY number")))
            said = list(map(dict, db.execute("SELECT * FROM feedback")))
    except sqlite3.Error as error:
        raise ArtifactError(f"{file} cannot be read ({error}); is it a log of decisions?") from error
    for row in entries:
        if isinstance(row["facts"], str):
            row["facts"] = zlib.compress(row["facts"].encode())
    numbers = {row["number"] for row in entries}
    return entries, [{"attempt": 0, **row} for row in said if row["decision"] in numbers]


def _key_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.key")


def _kept_key(path: Path) -> bytes:
    """The key of the hash: made once, whichever process comes first. Raises `StoreError`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
            try:
                with suppress(FileExistsError):
                    os.link(draft, path)  # fails if another process was quicker, whose key then counts
            finally:
                draft.unlink()
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: the key of the log cannot be kept there ({error.strerror})") from None


def _unknown(request_id: str) -> NotFoundError:
    return NotFoundError(
        f"no request {request_id[:60]!r} is in the log: send the `request_id` of `x_triptych` (or of the header "
        "x-request-id) of an answer with pictures; decisions are forgotten with age, and none are kept where "
        "logging is off",
        "id",
    )
