"""One database, SQLite or PostgreSQL: its connections, its schema, and what its failures mean.

SQLite is one file in WAL mode with `synchronous=FULL`: what is committed survives the loss of power. A write begins
with `BEGIN IMMEDIATE`, so it takes its turn at once instead of failing later. PostgreSQL connections are tried before
they are used, and one that hangs is given up by TCP, so a database that was away is found again by itself.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, exc, inspect, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.engine import URL, make_url

from deployments.store.errors import StoreError, StoreFullError
from deployments.store.tables import HEAD, SCHEMA_TABLE

BUSY_MS = 10_000  # how long SQLite waits for another process that writes
POOL = 8  # connections at most, the writer's among them
POOL_WAIT_S = 10.0
MIGRATING = 0x7417_0001  # the number of PostgreSQL's advisory lock
_FULL = ("database or disk is full", "no space left", "disk full", "could not extend file")
_AWAY = (exc.OperationalError, exc.InterfaceError, exc.InternalError)  # the last: a server that may only be read
_WRITES = "triptych_writes"
_MAKING = threading.Lock()
_PRAGMAS = (
    f"busy_timeout={BUSY_MS}",  # first: changing the journal needs a turn, too
    "journal_mode=WAL",
    "foreign_keys=ON",
    "secure_delete=ON",  # what is deleted is overwritten
)


class Database:
    """The database at `url`: `sqlite:////folder/file` or `postgresql+psycopg://user@host/name`.

    Nothing is opened before the first use. Safe to use from several threads and processes. Every method raises
    `StoreError` if the database does not answer, `StoreFullError` if its disk is full.
    """

    def __init__(self, url: str, durable: bool = True) -> None:
        """durable: whether what is committed must survive the loss of power; if not, a commit in SQLite waits for no
        disk, and what was committed last may be missing afterwards."""
        self.url = _parsed(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.file = Path(str(self.url.database)) if self.sqlite else None
        self.place = str(self.file) if self.file else _server(self.url)
        self.engine = _engine(self.url, self.sqlite, durable)
        # Between processes SQLite has no queue, only trying again; within this one, nobody has to.
        self._turn: AbstractContextManager[Any] = threading.Lock() if self.sqlite else nullcontext()

    def exists(self) -> bool:
        """Whether there is anything to open: a file of SQLite; a server is there or an error."""
        return self.file is None or self.file.is_file()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write; committed at the end, rolled back by an exception."""
        with (
            self._turn,
            self.translated(),
            self.engine.connect() as db,
            db.execution_options(**{_WRITES: True}).begin(),
        ):
            yield db

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read from; every statement sees what is committed by then."""
        with self.translated(), self.engine.connect() as db:
            yield db if self.sqlite else db.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def translated(self) -> Iterator[None]:
        """The driver's errors as the store's. Those that can only be a mistake of ours pass as they are."""
        try:
            yield
        except exc.TimeoutError:
            raise StoreError(f"{self.place}: all {POOL} connections are busy; try again") from None
        except exc.DBAPIError as error:
            raise self.error(error) from error

    def error(self, error: exc.DBAPIError) -> Exception:
        """What a failed statement means: `StoreError`, `StoreFullError`, or the error itself if it is our mistake."""
        said = first_line(error.orig)
        if getattr(error.orig, "sqlstate", None) == "53100" or any(sign in said.lower() for sign in _FULL):
            return StoreFullError(f"{self.place}: the disk is full ({said}); make room there, then send it again")
        if isinstance(error, _AWAY) or error.connection_invalidated:
            return StoreError(f"{self.place} does not answer ({said}); try again")
        if type(error) is exc.DatabaseError and self.sqlite:
            return StoreError(f"{self.place} cannot be read ({said}); is it a database of Triptych? Move it away")
        return error

    # --------------------------------------------------------------------------------------------------------- schema

    def migrate(self) -> None:
        """Make the tables, or bring those of an earlier version up to date. Several processes may do so at once.

        Raises `StoreError` that names file or host if there is no such database, or if a later version made it."""
        try:
            if self.file is not None:
                self._make_file(self.file)
            if self.revision() != HEAD:
                self.refuse_former()
                self._upgrade()
        except (StoreFullError, _OtherError):
            raise
        except StoreError as error:
            cause = getattr(error.__cause__, "orig", None)
            raise self._unreachable(first_line(cause or error)) from None

    def revision(self) -> str | None:
        """The version of the schema that is there; None: none."""
        with self.reading() as db:
            if not inspect(db).has_table(SCHEMA_TABLE):
                return None
            return db.execute(text(f"SELECT version_num FROM {SCHEMA_TABLE}")).scalar()

    def refuse_former(self) -> None:
        """Raises `StoreError` if the file is a log of decisions of version 0.1, which is no store."""
        if not self.sqlite or not self.exists():
            return
        with self.reading() as db:
            former = db.exec_driver_sql("PRAGMA user_version").scalar() in (1, 2) and inspect(db).has_table("decisions")
        if former and self.revision() is None:
            raise _OtherError(
                f"{self.file} is a log of decisions of version 0.1: leave it out of the config, and take over what is "
                f"in it with `triptych router log --take-over {self.file}`"
            )

    def _upgrade(self) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.writing() as db:
            if not self.sqlite:
                db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATING})
            known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
            there = inspect(db).has_table(SCHEMA_TABLE)
            found = db.execute(text(f"SELECT version_num FROM {SCHEMA_TABLE}")).scalar() if there else None
            if found is not None and found not in known:
                raise _OtherError(
                    f"{self.place} has schema {found!r}, of a later Triptych than this one ({HEAD!r}): run that "
                    "version, or name another database under store.url"
                )
            config.attributes["connection"] = db
            command.upgrade(config, "head")

    def _make_file(self, file: Path) -> None:
        # A file that is there is never opened here: closing it would end all locks that SQLite holds on it for this
        # process. Another one that closes the database then takes it for unused, and removes the log of writes (-wal)
        # into which this process goes on writing.
        try:
            with _MAKING:
                file.parent.mkdir(parents=True, exist_ok=True)
                if not file.exists():
                    with suppress(FileExistsError):
                        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise StoreError(f"{error.strerror or error}") from None

    def _unreachable(self, said: str) -> StoreError:
        if self.file is not None:
            return StoreError(
                f"store: {self.file} cannot be opened ({said}); correct store.url, or who may write there"
            )
        return StoreError(
            f"store: no PostgreSQL for us at {self.place}: {said}. Start it, or correct store.url; without store.url, "
            "Triptych keeps a file of its own"
        )

    def close(self) -> None:
        """Let go of all connections; they are opened again when needed."""
        with suppress(exc.SQLAlchemyError):
            self.engine.dispose()


class _OtherError(StoreError):
    """A schema that is not known here; waiting does not help."""

    retry_after_s = None


def insert_new(db: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless it is in conflict with one that is there; says whether it went in."""
    return db.execute(_inserting(db.dialect.name, table), dict(row)).first() is not None


def put(db: Connection, table: Table, row: Mapping[str, Any], *key: str) -> None:
    """Insert a row, all columns of it, or change the one with the same `key` columns to it."""
    db.execute(_putting(db.dialect.name, table, key), dict(row))


def add(db: Connection, table: Table, row: Mapping[str, Any], *key: str) -> None:
    """Insert a row, all columns of it, or add it to the one with the same `key` columns."""
    db.execute(_adding(db.dialect.name, table, key), dict(row))


# Building a statement takes longer than running it.


@cache
def _inserting(dialect: str, table: Table) -> Any:
    insert: Any = _INSERTS[dialect](table)
    return insert.on_conflict_do_nothing().returning(next(iter(table.primary_key)))


@cache
def _putting(dialect: str, table: Table, key: tuple[str, ...]) -> Any:
    insert: Any = _INSERTS[dialect](table)
    changed = {column.name: insert.excluded[column.name] for column in table.c if column.name not in key}
    return insert.on_conflict_do_update(index_elements=list(key), set_=changed)


@cache
def _adding(dialect: str, table: Table, key: tuple[str, ...]) -> Any:
    insert: Any = _INSERTS[dialect](table)
    names = [column.name for column in table.c if column.name not in key]
    changed = {name: table.c[name] + insert.excluded[name] for name in names}
    return insert.on_conflict_do_update(index_elements=list(key), set_=changed)


_INSERTS: dict[str, Any] = {"sqlite": sqlite_dialect.insert, "postgresql": postgresql.insert}


def value_of(db: Connection, table: Table, column: str) -> Any:
    """The value of one column of a table with at most one row; None if it has none."""
    return db.execute(select(table.c[column])).scalar()


def first_line(error: Any) -> str:
    """What a driver said, without its hints."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise StoreError(f"store.url: {url!r} is no address of a database{_WRITE}") from None
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "postgresql+psycopg":
        if importlib.util.find_spec("psycopg") is None:
            raise StoreError("store.url: PostgreSQL needs psycopg: pip install -c constraints.txt -e '.[postgres]'")
        return parsed
    if parsed.drivername == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed
    raise StoreError(f"store.url: {parsed.render_as_string()!r} is neither{_WRITE}")


_WRITE = ": write sqlite:////folder/file or postgresql+psycopg://user:password@host:5432/name"


def _server(url: URL) -> str:
    """host:port/name of a server, without its password."""
    host = url.host or str(url.query.get("host", "localhost"))
    return f"{host}:{url.port or 5432}/{url.database or ''}"


def _engine(url: URL, is_sqlite: bool, durable: bool) -> Engine:
    sizes: dict[str, Any] = {"pool_size": POOL, "max_overflow": 0, "pool_timeout": POOL_WAIT_S}
    if not is_sqlite:
        # A host that vanished is given up after some 10 s instead of TCP's quarter of an hour.
        arguments: dict[str, Any] = {
            "connect_timeout": 5,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
        }
        arguments |= {"tcp_user_timeout": 10_000, "application_name": "triptych"}
        return create_engine(url, pool_pre_ping=True, connect_args=arguments, **sizes)
    engine = create_engine(url, **sizes)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say so, not where the driver guesses
        deadline = time.monotonic() + BUSY_MS / 1000
        for pragma in (*_PRAGMAS, f"synchronous={'FULL' if durable else 'NORMAL'}"):
            while True:
                try:
                    connection.execute(f"PRAGMA {pragma}")
                    break
                except sqlite3.OperationalError:
                    # SQLite does not wait by itself where another process changes the journal's mode, too.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get(_WRITES):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
