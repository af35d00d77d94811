"""The log of decisions: one append-only SQLite file (WAL) for all processes of a machine, made when first needed.

With `store_prompts: hash` no prompt is in it. A keyed hash tells equal prompts, and embedding and counts stand in for
the text when a predictor is fitted; docs/operations.md says what that does and does not hide.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from router.errors import ArtifactError, NotFoundError, RequestError
from router.learning.feedback import DecisionRecord, Feedback, Receipt, Retention, decision_of, facts_in, packed_facts
from router.learning.ratings import normal_group

SCHEMA = 2  # 1: feedback had no attempt, so of several tries of one recipe only the last was kept
BUSY_S = 1.0  # a request never waits longer than this for another process that writes
PURGE_EVERY = 1_000  # decisions between two looks at the retention

_FEEDBACK = """
CREATE TABLE IF NOT EXISTS feedback (
  decision INTEGER NOT NULL REFERENCES decisions (number) ON DELETE CASCADE, source TEXT NOT NULL,
  image INTEGER NOT NULL, recipe TEXT NOT NULL, value REAL NOT NULL, at_s REAL NOT NULL, attempt INTEGER NOT NULL,
  PRIMARY KEY (decision, source, image, recipe, attempt)) WITHOUT ROWID;
"""
_TABLES = f"""
CREATE TABLE IF NOT EXISTS decisions (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, at_s REAL NOT NULL,
  prompt TEXT, prompt_hash TEXT NOT NULL, embedding BLOB NOT NULL,
  policy TEXT NOT NULL, policy_digest TEXT NOT NULL, artifact TEXT NOT NULL,
  recipe TEXT NOT NULL, propensity REAL NOT NULL, facts TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS decisions_by_id ON decisions (id);
CREATE INDEX IF NOT EXISTS decisions_by_prompt ON decisions (prompt_hash);
{_FEEDBACK}"""
_FROM_1 = f"""
ALTER TABLE feedback RENAME TO feedback_1;
{_FEEDBACK}
INSERT INTO feedback SELECT decision, source, image, recipe, value, at_s, 0 FROM feedback_1;
DROP TABLE feedback_1;
"""


class DecisionLog:
    """The log in file `path`. Safe to use from several threads and processes. Methods that write raise
    `sqlite3.Error` or `OSError` if the file cannot be written to; methods that read, `ArtifactError`."""

    def __init__(
        self,
        path: str | Path,
        store_prompts: Literal["hash", "text"] = "hash",
        retention: Retention | None = None,
        key: bytes | None = None,
    ) -> None:
        """key: of the hash of prompts; by default a random one that is kept beside the file, readable by its owner."""
        self.path = Path(path)
        self._text = store_prompts == "text"
        self._retention = retention or Retention()
        self._key = key
        self._lock = threading.Lock()
        self._written = 0
        self._db: sqlite3.Connection | None = None
        self._place: tuple[int, int] | None = None

    # -------------------------------------------------------------------------------------------------------- writing

    def record(self, decision: DecisionRecord, feedback: Sequence[Feedback] = ()) -> None:
        """Append a decision, with what scorers already said of its pictures."""
        values = {
            "id": decision.id, "at_s": decision.at_s, "prompt": decision.prompt if self._text else None,
            "prompt_hash": self.hashed(decision.prompt), "embedding": decision.embedding.astype("<f2").tobytes(),
            "policy": decision.policy, "policy_digest": decision.policy_digest, "artifact": decision.artifact,
            "recipe": decision.recipe, "propensity": decision.propensity, "facts": packed_facts(decision),
        }  # fmt: skip
        names = ", ".join(values)
        with self._writing() as db:
            marks = ", ".join("?" * len(values))
            number = db.execute(f"INSERT INTO decisions ({names}) VALUES ({marks})", tuple(values.values())).lastrowid
            rows = [
                (number, f.source, f.image, f.recipe, f.value, f.at_s or decision.at_s, f.attempt) for f in feedback
            ]
            db.executemany("INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._written += 1
        if self._written % PURGE_EVERY == 1:
            self.purge()

    def attach(self, request_id: str, source: str, value: float, image: int | None = None) -> Receipt:
        """Say of one picture of a request, or of all of them, how good it is (0..1). The same source again replaces.

        Raises `NotFoundError` if the log has no such request, `RequestError` for a picture that it does not have.
        """
        if not self.path.exists():
            raise _unknown(request_id)
        with self._writing() as db:
            # A client may send the same id twice; what it looks at now is the last answer.
            row = db.execute(
                "SELECT number, facts FROM decisions WHERE id = ? ORDER BY number DESC LIMIT 1", (request_id,)
            ).fetchone()
            if row is None:
                raise _unknown(request_id)
            facts = facts_in(row["facts"])
            made, kept = facts["made"], facts.get("kept") or [0] * len(facts["made"])
            if image is not None and not 0 <= image < len(made):
                raise RequestError(
                    f"image: request {request_id!r} made {len(made)} picture(s), so image is 0 to {len(made) - 1}",
                    "image",
                    "invalid_value",
                )
            images = tuple(range(len(made))) if image is None else (image,)
            rows = [(row["number"], source, k, made[k], value, time.time(), kept[k]) for k in images]
            known = "SELECT count(*) FROM feedback WHERE decision = ? AND source = ? AND image = ? AND recipe = ?"
            before = sum(db.execute(known, entry[:4]).fetchone()[0] for entry in rows)
            db.executemany("INSERT OR REPLACE INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        return Receipt(images, tuple(made[k] for k in images), before > 0)

    def purge(self, now_s: float | None = None) -> int:
        """Forget what the retention says, feedback included; returns how many decisions that were."""
        if not self.path.exists():
            return 0
        oldest = (time.time() if now_s is None else now_s) - self._retention.max_age_s
        with self._writing() as db:
            gone = db.execute("DELETE FROM decisions WHERE at_s < ?", (oldest,)).rowcount
            last = db.execute(
                "SELECT number FROM decisions ORDER BY number DESC LIMIT 1 OFFSET ?", (self._retention.max_rows,)
            ).fetchone()
            if last is not None:
                gone += db.execute("DELETE FROM decisions WHERE number <= ?", (last["number"],)).rowcount
        return gone

    def forget(self, prompt: str) -> int:
        """Delete every decision on a prompt (but for case and spaces); returns how many that were."""
        if not self.path.exists():
            return 0
        with self._writing() as db:
            return db.execute("DELETE FROM decisions WHERE prompt_hash = ?", (self.hashed(prompt),)).rowcount

    # -------------------------------------------------------------------------------------------------------- reading

    def counts(self) -> dict[str, Any]:
        """decisions, by_chance (propensity below 1), with_text, since_s, until_s, policies: {name: decisions},
        feedback: {source: rows}."""
        with self._reading() as db:
            whole = db.execute(
                "SELECT count(*) AS decisions, coalesce(sum(propensity < 1), 0) AS by_chance, "
                "count(prompt) AS with_text, min(at_s) AS since_s, max(at_s) AS until_s FROM decisions"
            ).fetchone()
            policies = db.execute("SELECT policy, count(*) FROM decisions GROUP BY policy ORDER BY 2 DESC").fetchall()
            sources = db.execute("SELECT source, count(*) FROM feedback GROUP BY source ORDER BY 2 DESC").fetchall()
        return {**dict(whole), "policies": dict(map(tuple, policies)), "feedback": dict(map(tuple, sources))}

    def rated(self, source: str) -> list[tuple[DecisionRecord, tuple[Feedback, ...]]]:
        """Decisions with feedback of `source`, in the order in which they were made."""
        wanted = "SELECT decision FROM feedback WHERE source = ?"
        with self._reading() as db:
            said: dict[int, list[Feedback]] = {}
            for row in db.execute("SELECT * FROM feedback WHERE source = ? ORDER BY decision, image", (source,)):
                one = Feedback(*(row[name] for name in ("source", "image", "recipe", "value", "at_s", "attempt")))
                said.setdefault(row["decision"], []).append(one)
            rows = db.execute(f"SELECT * FROM decisions WHERE number IN ({wanted}) ORDER BY number", (source,))
            return [(decision_of(row), tuple(said.get(row["number"], ()))) for row in rows]

    # ----------------------------------------------------------------------------------------------------------- file

    def hashed(self, prompt: str) -> str:
        """A keyed hash (HMAC-SHA-256) that is equal for prompts which differ in case and spaces only."""
        if self._key is None:
            self._key = _key_beside(self.path)
        return hmac.new(self._key, normal_group(prompt).encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            db = self._open()
            db.execute("BEGIN IMMEDIATE")  # takes its turn at once: upgrading later could fail without waiting
            with db:
                yield db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if not self.path.is_file():
            raise ArtifactError(f"{self.path}: there is no such log; it is made with the first logged decision")
        try:
            with self._lock:
                yield self._open()
        except sqlite3.DatabaseError as error:
            raise ArtifactError(f"{self.path} cannot be read ({error}); is it a log of decisions?") from error

    def _open(self) -> sqlite3.Connection:
        """The connection of this process, made anew if the file was moved away meanwhile."""
        try:
            stat = self.path.stat()
            place = (stat.st_dev, stat.st_ino)
        except FileNotFoundError:
            place = None
        if self._db is None or place is None or place != self._place:
            self.close()
            self._db = connect(self.path)
            stat = self.path.stat()
            self._place = (stat.st_dev, stat.st_ino)
        return self._db

    def close(self) -> None:
        """Let go of the file; it is opened again when it is needed."""
        if self._db is not None:
            self._db.close()
        self._db = None


def connect(path: Path) -> sqlite3.Connection:
    """A connection to the log, with its tables. Raises `sqlite3.Error`."""
    fresh = not path.exists()
    # Python threads take turns by the lock of the log.
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON", "secure_delete=ON"):
            db.execute(f"PRAGMA {pragma}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise sqlite3.DatabaseError(f"it has schema {version}, this Triptych writes {SCHEMA}; move it away")
        if version < SCHEMA:
            _make_tables(db)
        if fresh:
            with suppress(OSError):
                path.chmod(0o600)
    except BaseException:
        db.close()
        raise
    return db


def _make_tables(db: sqlite3.Connection) -> None:
    """Make the tables, or those of an older schema anew with what is in them. Several processes may do so at once;
    SQLite does not wait by itself when the journal's mode is changed."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("BEGIN IMMEDIATE")
            version = db.execute("PRAGMA user_version").fetchone()[0]  # another process may have been quicker
            if version < SCHEMA:
                for statement in (_TABLES if version == 0 else _FROM_1).split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA}")
            db.execute("COMMIT")
            return
        except sqlite3.OperationalError:
            if db.in_transaction:
                db.rollback()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _key_beside(log: Path) -> bytes:
    """The key of the hash: made once, whichever process comes first."""
    path = log.with_name(f"{log.name}.key")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    if not path.exists():
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(draft, path)  # fails if another process was quicker, whose key then counts
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()


def _unknown(request_id: str) -> NotFoundError:
    return NotFoundError(
        f"no request {request_id[:60]!r} is in the log: send the `request_id` of `x_triptych` (or of the header "
        "x-request-id) of an answer with pictures; decisions are forgotten with age, and none are kept where "
        "logging is off",
        "id",
    )
