"""The tables of the store as they are now. `migrations/versions` has the way here; a test holds that both agree."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

HEAD = "0004"
"""The revision that these tables are."""
SCHEMA_TABLE = "triptych_schema"
"""Where Alembic keeps the revision; not its own name, since another application may share the database."""

metadata = MetaData()
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only in an INTEGER


class JsonText(TypeDecorator[Any]):
    """JSON builtins as text, equally on both databases: PostgreSQL's own JSON takes neither NUL nor lone surrogates."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else json.loads(value)


store = Table(
    "store",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("id", Text, nullable=False),  # the folder of its pictures
    Column("fence", BigInteger, nullable=False),  # the last token that was given
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text),
    Column("priority", Text, nullable=False),
    Column("request", JsonText, nullable=False),
    Column("body", JsonText, nullable=False),
    Column("arrived_at", Double, nullable=False),
    Column("deadline_at", Double),
    Column("idempotency_key", Text),
    Column("body_digest", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("decision", JsonText),
    Column("n", Integer, nullable=False),
    Column("result", JsonText),
    Column("error", JsonText),
    Column("webhook", JsonText),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("webhook_at", Double),  # when the webhook is due; not part of the record
    UniqueConstraint("tenant", "idempotency_key", name="jobs_by_idempotency_key"),
    Index("jobs_by_tenant", "tenant", "created_at", "id"),
    Index("jobs_by_age", "created_at", "id"),
    Index("jobs_by_state", "state", "created_at", "id"),
    Index("jobs_by_end", "finished_at"),
    Index(
        "jobs_open",
        "fence",
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
    Index(
        "jobs_by_webhook",
        "webhook_at",
        sqlite_where=text("webhook_at IS NOT NULL"),
        postgresql_where=text("webhook_at IS NOT NULL"),
    ),
)

pictures = Table(
    "pictures",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("index", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("bytes_n", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("made_at", Double, nullable=False),
    Column("facts", JsonText),
    UniqueConstraint("job", "index", name="pictures_by_job"),
)

# Pictures that jobs brought. Each job has its own bytes, so that it can be forgotten without asking the others.
given = Table(
    "given",
    metadata,
    Column("job", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("role", Text, primary_key=True),
    Column("digest", Text, nullable=False),  # of its pixels
    Column("bytes_n", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Index("given_by_digest", "digest"),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", JsonText, nullable=False),
    Column("rpm", Integer),
    Column("budget", JsonText),
    Column("priority", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
    Column("prefix", Text),  # the first characters, by which its owner knows it; not of keys of before
    Column("last_used_at", Double),
)

# No foreign key: a budget remembers for longer than jobs are kept.
usage = Table(
    "usage",
    metadata,
    Column("job", Text, primary_key=True),
    Column("policy", Text, primary_key=True),
    Column("budget", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("work_s", Double, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Index("usage_by_time", "at"),
)

# Sums over the jobs that ended within ten minutes, so that nobody counts jobs to know what was served today.
served = Table(
    "served",
    metadata,
    Column("at", Double, primary_key=True),  # the beginning of these minutes
    Column("tenant", Text, primary_key=True),
    Column("policy", Text, primary_key=True),
    Column("recipe", Text, primary_key=True),  # that was chosen
    Column("state", Text, primary_key=True),
    Column("jobs", Integer, nullable=False),
    Column("pictures", Integer, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("work_s", Double, nullable=False),
    Column("latency_s", Double, nullable=False),
    Column("expected", Double, nullable=False),
    Column("checked", Integer, nullable=False),
    Column("expected_checked", Double, nullable=False),
    Column("verified", Double, nullable=False),
)

costs = Table(
    "costs",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("snapshot", JsonText, nullable=False),
    Column("at", Double, nullable=False),
)

policies = Table(
    "policies",
    metadata,
    Column("name", Text, primary_key=True),
    Column("at", Double, primary_key=True),  # when it was written
    Column("digest", Text),
    Column("text", Text),  # None: it went
)

decisions = Table(
    "decisions",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("at_s", Double, nullable=False),
    Column("prompt", Text),
    Column("prompt_hash", Text, nullable=False),
    Column("embedding", LargeBinary, nullable=False),
    Column("policy", Text, nullable=False),
    Column("policy_digest", Text, nullable=False),
    Column("artifact", Text, nullable=False),
    Column("recipe", Text, nullable=False),
    Column("propensity", Double, nullable=False),
    Column("facts", LargeBinary, nullable=False),
    Index("decisions_by_id", "id"),
    Index("decisions_by_prompt", "prompt_hash"),
    Index("decisions_by_age", "at_s"),
    sqlite_autoincrement=True,  # a number is never given twice
)

feedback = Table(
    "feedback",
    metadata,
    Column("decision", Number, ForeignKey("decisions.number", ondelete="CASCADE"), primary_key=True),
    Column("source", Text, primary_key=True),
    Column("image", Integer, primary_key=True),
    Column("recipe", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("value", Double, nullable=False),
    Column("at_s", Double, nullable=False),
    Index("feedback_by_source", "source", "at_s"),
)

imports = Table(
    "imports",
    metadata,
    Column("source", Text, primary_key=True),  # a log of an earlier version
    Column("at", Double, nullable=False),
    Column("decisions", Integer, nullable=False),
)
