"""The edges of the store: what a row must have, when there is no room, who writes last, what is named how."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import inspect, select

from deployments.given.files import GivenFile, file_of
from deployments.settings import FeedbackSettings, StoreSettings
from deployments.store import blobs as blobs_module
from deployments.store import database as database_module
from deployments.store import store as store_module
from deployments.store import tables
from deployments.store.blobs import Blobs, _written
from deployments.store.database import Database, first_line
from deployments.store.errors import FencedError, StoreError, StoreFullError
from deployments.store.jobs import _cursor, _place, undo_accept
from deployments.store.pictures import known, new_key
from deployments.store.records import KeyRecord
from deployments.store.store import Store, decision_log, open_store
from deployments.store.tidying import batched
from router.errors import NotFoundError, RequestError
from tests.store.values import job, picture, used

MIB = 2**20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """One of SQLite and a folder."""
    place = {"url": f"sqlite:///{tmp_path / 'a.sqlite'}", "pictures": str(tmp_path / "pictures")}
    made = open_store(StoreSettings(**place, keep_free_mib=0))
    yield made
    made.close()


def test_the_migrations_ask_of_a_row_what_the_tables_say(store: Store) -> None:
    """What identifies it, what it must have, what no other may have, and what goes with what."""

    def unique(table: Any) -> set[tuple[str, ...]]:
        named = {
            tuple(c.name for c in one.columns) for one in table.constraints if type(one).__name__.startswith("Uniq")
        }
        return named | {(column.name,) for column in table.columns if column.unique}

    with store.database.reading() as db:
        there = inspect(db)
        for table in tables.metadata.sorted_tables:
            columns = {one["name"]: one["nullable"] for one in there.get_columns(table.name)}
            assert columns == {column.name: column.nullable for column in table.columns}, table.name
            assert there.get_pk_constraint(table.name)["constrained_columns"] == [one.name for one in table.primary_key]
            assert {tuple(one["column_names"]) for one in there.get_unique_constraints(table.name)} == unique(table)
            keys = {one["constrained_columns"][0]: one["options"] for one in there.get_foreign_keys(table.name)}
            assert keys == {one.parent.name: {"ondelete": one.ondelete} for one in table.foreign_keys}


def test_a_number_of_a_decision_is_never_given_twice(store: Store) -> None:
    """Also after the last one was deleted."""
    with store.database.reading() as db:
        made = db.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'decisions'").scalar_one()
    assert "AUTOINCREMENT" in made


def test_a_server_that_vanished_is_given_up_after_ten_seconds_or_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """By TCP's own questions, also while something is being sent; one that does not answer at first after five; a
    connection is tried before it is used. Its name has no password, and the usual port if it says none."""
    pytest.importorskip("psycopg")
    told: dict[str, Any] = {}
    monkeypatch.setattr(database_module, "create_engine", lambda url, **how: told.update(how))
    assert Database("postgresql://me:secret@db/triptych").place == "db:5432/triptych"
    assert Database("postgresql://db:5433").place == "db:5433/"
    tcp = told["connect_args"]
    assert tcp["keepalives_idle"] + tcp["keepalives_interval"] * tcp["keepalives_count"] == pytest.approx(10, abs=1)
    assert tcp["tcp_user_timeout"] == 10_000 and tcp["connect_timeout"] == 5 and told["pool_pre_ping"] is True


def test_eight_connections_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants a ninth waits, and is told that all are busy."""
    monkeypatch.setattr(database_module, "POOL_WAIT_S", 0.05)
    database = Database(f"sqlite:///{tmp_path / 'a.sqlite'}")
    with ExitStack() as held:
        for _ in range(8):
            held.enter_context(database.reading())
        with pytest.raises(StoreError, match="all 8 connections are busy"):
            held.enter_context(database.reading())
    with database.reading():
        pass
    database.close()


# ----------------------------------------------------------------------------------------------------------------- room


def test_the_disk_is_looked_at_every_half_second(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly the reserve is enough; what was seen counts until the next look, and the message has all figures."""
    now, free = [100.0], [10 * MIB]
    monkeypatch.setattr(store_module, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    monkeypatch.setattr(store_module, "_free", lambda folder: free[0])
    monkeypatch.setattr(store._blobs, "free", lambda: None)
    store._reserve = 10 * MIB
    store._check_room()
    free[0] -= 1
    now[0] = 100.5
    store._check_room()
    now[0] = 100.501
    with pytest.raises(StoreFullError, match=r"has 10 MiB left, of which 10 MiB are kept .*; make room, or lower"):
        store._check_room()
    free[0] += 1
    with pytest.raises(StoreFullError):
        store._check_room()
    now[0] = 101.002
    store._check_room()
    monkeypatch.setattr(store._blobs, "free", lambda: 3 * MIB)
    now[0] = 200.0
    with pytest.raises(StoreFullError, match=r"pictures has 3 MiB left"):
        store._check_room()


def test_after_a_write_without_room_nothing_is_accepted_for_ten_seconds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is tried again; the picture of a job that was accepted is tried at any time."""
    now = [100.0]
    monkeypatch.setattr(store_module, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    store.accept(job("a"))

    def full(*_: Any) -> None:
        raise StoreFullError("full")

    with monkeypatch.context() as patched:
        patched.setattr(store._blobs, "write", full)
        with pytest.raises(StoreFullError):
            store.put_picture(picture("a"), b"x", 0)
    now[0] = 109.999
    with pytest.raises(StoreFullError, match=r"pictures is full; make room there"):
        store.accept(job("b"))
    now[0] = 110.0
    assert store.accept(job("b")).id == "b"


def test_the_reserve_is_in_mebibytes_and_ages_are_in_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the settings say."""
    monkeypatch.setenv(store_module.LOG_KEY, "secret")
    settings = StoreSettings(
        url=f"sqlite:///{tmp_path / 'a.sqlite'}", pictures=str(tmp_path / "p"), keep_free_mib=1.5, max_gib=0.5,
        max_age_days=2,
    )  # fmt: skip
    feedback = FeedbackSettings(max_age_days=3, max_rows=7)
    made = open_store(settings, feedback)
    assert made._reserve == 1.5 * MIB
    assert (made._tidying._max_age_s, made._tidying._max_bytes) == (2 * 86_400, 512 * MIB)
    log = decision_log(settings, feedback)
    assert (log._retention.max_age_s, log._retention.max_rows, log._key) == (3 * 86_400, 7, b"secret")
    assert log._former is None
    made.close()


def test_a_folder_that_is_not_there_yet_has_any_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be looked at is said."""
    assert store_module._free(None) is None is store_module._free(tmp_path / "none")
    free = store_module._free(tmp_path)
    assert free is not None and free > 0

    def denied(folder: Path) -> None:
        raise OSError(errno.EACCES, "no way")

    monkeypatch.setattr(store_module.shutil, "disk_usage", denied)
    with pytest.raises(StoreError, match="cannot be looked at: no way"):
        store_module._free(tmp_path)


# ---------------------------------------------------------------------------------------------------------------- bytes


def test_what_a_file_system_says_of_a_file_is_its_age() -> None:
    """By whatever name, as a time or as a number; the first that is known."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert _written({"LastModified": at}) == at.timestamp()
    assert _written({"mtime": 5}) == 5.0 == _written({"LastModified": None, "created": 5.0})
    assert _written({"name": "x"}) is None is _written({"mtime": "yesterday"})


def test_a_place_in_memory_is_used_like_any_other() -> None:
    """Objects appear whole, are found by age, and what was not there is nothing."""
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem.store.clear()
    place = Blobs("memory://edges")
    assert place.free() is None and place._whole and place.read("none") is None
    assert not place._fs.dircache.use_listings_cache  # other processes write there, too
    place.write("a/b.png", b"x")
    place.delete("a/none.png")
    assert place.read("a/b.png") == b"x"
    assert list(place.older("a", time.time() + 60)) == ["a/b.png"] and list(place.older("a", time.time() - 60)) == []
    assert list(place.older("none", time.time() + 60)) == []
    place.delete("a/b.png")
    assert place.read("a/b.png") is None


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OSError(errno.ENOSPC, "no room"), StoreFullError, r"is full \(no room\); make room there"),
        (OSError(errno.EDQUOT, "quota"), StoreFullError, r"is full \(quota\)"),
        (OSError(errno.EIO, "broken"), StoreError, r"does not answer \(broken\); try again"),
        (RuntimeError("QuotaExceeded: \n x"), StoreFullError, r"is full \(QuotaExceeded: x\)"),
        (RuntimeError("y" * 400), StoreError, rf"does not answer \({'y' * 300}\); try again"),
        (RuntimeError(), StoreError, r"does not answer \(RuntimeError\)"),
        (StoreError("as it is"), StoreError, "^as it is$"),
    ],
)
def test_errors_of_a_place_are_told_in_its_own_words(tmp_path: Path, error: Exception, kind: Any, says: str) -> None:
    """Full, or away; on one line and not too long."""
    place = Blobs(str(tmp_path))
    with pytest.raises(StoreError, match=says) as refused, place._told():
        raise error
    assert type(refused.value) is kind


def test_a_write_that_fails_leaves_nothing_and_an_empty_folder_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file nobody is told half; names of files that are being written are not those of pictures."""
    place = Blobs(str(tmp_path / "p"))
    place.write("day/one.png", b"1")
    place.write("day/two.png", b"2")
    place.delete("day/one.png")
    assert [one.name for one in (tmp_path / "p" / "day").iterdir()] == ["two.png"]
    place.delete("day/two.png")
    assert list((tmp_path / "p").iterdir()) == []
    monkeypatch.setattr(blobs_module.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(StoreError, match="broken"):
        place.write("day/three.png", b"3")
    assert list((tmp_path / "p" / "day").iterdir()) == []


def test_a_folder_may_be_a_url(tmp_path: Path) -> None:
    """`file://` is the folder that it names; room is what its disk has."""
    place = Blobs(f"file://{tmp_path / 'p'}")
    place.write("a.png", b"x")
    assert (tmp_path / "p" / "a.png").read_bytes() == b"x"
    free = place.free()
    assert free is not None and free > 0 and not place._whole
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    if os.geteuid():  # root may write anywhere
        sealed.chmod(0o500)
        with pytest.raises(StoreError, match="cannot be used; correct store"):
            Blobs(str(sealed))


def test_bytes_are_named_by_their_store_day_and_kind() -> None:
    """Nothing else is in the name, and no name is given twice."""
    one = picture("a", made_at=datetime(2026, 3, 4, 23, 59, tzinfo=UTC).timestamp())
    key = new_key("store", one)
    assert (
        key.startswith("store/2026-03-04/") and key.endswith(".png") and len(key) == len("store/2026-03-04/.png") + 32
    )
    assert key != new_key("store", one)
    assert new_key("s", picture("a", made_at=0.0, media_type="x/unknown")).endswith(".bin")


def given(*roles: Any) -> list[GivenFile]:
    """Small pictures and masks, each another one."""
    shapes = {"mask": (4, 6)}
    return [file_of(np.full(shapes.get(role, (4, 6, 3)), 40 * k + 40, np.uint8), role) for k, role in enumerate(roles)]


def test_given_pictures_are_kept_with_their_job(store: Store) -> None:
    """Several of a role are numbered from the second on; each is found by the digest of its pixels, by its tenant
    alone, from when the job is accepted until it is forgotten."""
    sent = given("image", "mask", "image", "image")
    kept = store.keep_given("a", sent)
    assert [one.role for one in kept] == ["image", "mask", "image 2", "image 3"]
    assert [(one.job, one.width, one.height, one.digest, one.bytes_n) for one in kept] == [
        ("a", 6, 4, file.told.digest, len(file.data)) for file in sent
    ]
    assert all(len(one.key) == len(f"{store.id}/given/.png") + 32 for one in kept)
    with pytest.raises(NotFoundError, match="send it again"):
        store.given(sent[0].told.digest)
    store.accept(job("a"), (), kept)
    for file in sent:
        assert store.given(file.told.digest) == store.given(file.told.digest, "acme") == file.data
        with pytest.raises(NotFoundError):
            store.given(file.told.digest, "other")
    store.finished("a", 0, "done", {})
    held = sum(len(file.data) for file in sent)
    assert store.tidy(time.time() + 8 * 86_400) == {"jobs": 1, "pictures": 0, "bytes": held, "orphans": 0}
    with pytest.raises(NotFoundError):
        store.given(sent[0].told.digest)


def test_a_job_that_was_not_accepted_after_all_leaves_nothing(store: Store) -> None:
    """Taken back, it is gone with what it reserved and brought; not once it has ended, or is another orchestrator's."""
    fence = store.begin()
    for id, goes in (("queued", True), ("running", True), ("ended", False), ("theirs", False)):
        brought = store.keep_given(id, given("image"))
        accepted = store.accept(job(id, fence=fence), [used(id)], brought)
        if id == "running":
            store.started(id, fence, {})
        if id == "ended":
            store.finished(id, fence, "done", {})
        mine = replace(accepted, fence=accepted.fence if id != "theirs" else fence - 1)
        store._writer.do(lambda db, mine=mine: undo_accept(db, mine))  # type: ignore[misc]
        assert (store.job(id) is None) == goes
        assert [row.job for row in store.usage_since(0.0) if row.job == id] == ([] if goes else [id])
        with store.database.reading() as db:
            assert len(known(db, [one.key for one in brought])) == (0 if goes else 1)


def test_given_pictures_for_which_there_is_no_room_leave_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written of them goes, and nothing new is accepted for a while; a place that is away is no full one."""
    write, errors = store._blobs.write, [None, StoreFullError("full"), None, StoreError("away")]

    def tried(name: str, data: bytes) -> None:
        if (error := errors.pop(0)) is not None:
            raise error
        write(name, data)

    monkeypatch.setattr(store._blobs, "write", tried)
    for error, accepted in ((StoreFullError, False), (StoreError, True)):
        with pytest.raises(error):
            store.keep_given("a", given("image", "mask"))
        assert list(store._blobs.older(store.id, time.time() + 60)) == []
        if not accepted:
            with pytest.raises(StoreFullError, match="is full; make room there"):
                store.accept(job("b"))
            store._full_until = 0.0
        else:
            assert store.accept(job("b")).id == "b"


# -------------------------------------------------------------------------------------------------------- who was first


def test_tokens_grow_by_one_and_the_latest_counts(store: Store) -> None:
    """From 1 on, whoever has the latest may write, whoever has an earlier one may not, a job of its own included."""
    assert store.latest_fence() == 0
    first, second = store.begin(), store.begin()
    assert (first, second, store.latest_fence()) == (1, 2, 2)
    store.accept(job("a", fence=second))
    with pytest.raises(FencedError, match="orchestrator 1 was replaced by 2"):
        store.accept(job("b", fence=first))
    store.started("a", second, {})
    store.put_picture(picture("a"), b"x", second)
    third = store.begin()
    assert store.take_over(second) == []  # its own are not taken
    assert [one.id for one in store.take_over(third)] == ["a"]
    with pytest.raises(FencedError, match="orchestrator 3 has it now, 2 may not"):
        store.put_picture(picture("a", 1), b"y", second)
    with pytest.raises(NotFoundError, match="there is no job 'none'"):
        store.put_picture(picture("none"), b"y", third)


def test_a_picture_keeps_when_it_was_made(store: Store) -> None:
    """If it says so; else it is now. Its size is that of its bytes, whatever it says."""
    store.accept(job("a"))
    kept = store.put_picture(picture("a", made_at=5.0, bytes_n=99), b"abc", 0)
    assert (kept.made_at, kept.bytes_n) == (5.0, 3) and kept.key.split("/")[1] == "1970-01-01"
    assert store.put_picture(picture("a", 1, facts=None), b"", 0).facts == {}
    assert store.pictures_of(["a", "b"]) == {"a": store.pictures("a")}
    again = store.put_picture(picture("a", made_at=6.0), b"abcd", 0)
    assert store.read(again) == b"abcd" and [one.bytes_n for one in store.pictures("a")] == [4, 0]


def test_started_once_and_from_its_first_begin(store: Store) -> None:
    """A second begin, by the next orchestrator, keeps when it began first."""
    store.accept(job("a"))
    store.started("a", 0, {"recipe": "one"})
    first = store.job("a")
    store.started("a", 0, {"recipe": "two"})
    again = store.job("a")
    assert first is not None and again is not None and again.started_at == first.started_at
    assert again.decision == {"recipe": "two"}


def test_webhooks_are_told_in_the_order_in_which_they_are_due(store: Store) -> None:
    """Exactly when they are, up to as many as are asked for."""
    for name, at in (("late", 30.0), ("early", 10.0), ("middle", 20.0)):
        store.accept(job(name, webhook={"url": "u", "next_at": at}))
        store.finished(name, 0, "done", {})
    assert [one.id for one in store.due_webhooks(20.0)] == ["early", "middle"]
    assert [one.id for one in store.due_webhooks(19.99)] == ["early"]
    assert [one.id for one in store.due_webhooks(99.0, limit=2)] == ["early", "middle"]


def test_pages_end_where_there_is_nothing_more(store: Store) -> None:
    """A page that holds all has no next one, also if it is just full; jobs of one moment are told apart by their id."""
    for name in ("a", "b", "c"):
        store.accept(job(name))
    with store.database.writing() as db:
        db.execute(tables.jobs.update().values(created_at=5.0))
    assert [one.id for one in store.jobs(limit=3)[0]] == ["c", "b", "a"] and store.jobs(limit=3)[1] is None
    page, cursor = store.jobs(limit=2)
    assert [one.id for one in page] == ["c", "b"] and cursor is not None
    assert [one.id for one in store.jobs(limit=2, cursor=cursor)[0]] == ["a"]
    assert _place(_cursor(page[-1])) == (5.0, "b")
    assert store.jobs(limit=0) == ([], None)
    for wrong in ("WzEsMl0", "WyJhIiwiYiJd"):  # [1,2] and ["a","b"]
        with pytest.raises(RequestError, match="is none of ours"):
            _place(wrong)


def test_a_page_has_twenty_and_a_look_at_webhooks_a_hundred(store: Store) -> None:
    """If nobody says how many."""
    for future in [store.accept_soon(job(f"j{k:03}", webhook={"url": "u", "next_at": 1.0})) for k in range(101)]:
        future.result()
    with store.database.writing() as db:
        db.execute(tables.jobs.update().values(state="done"))
    assert len(store.jobs()[0]) == 20 and len(store.due_webhooks(2.0)) == 100
    assert store.recent_requests(None, 200) == []


def test_what_was_used_is_told_after_its_time(store: Store) -> None:
    """The oldest first; a key lacks nothing that a database cannot hold."""
    store.accept(job("a"), [used("a", at=2.0, budget="x"), used("a", at=1.0, budget="y")])
    assert [row.budget for row in store.usage_since(0.0)] == ["y", "x"]
    assert [row.budget for row in store.usage_since(1.0)] == ["x"]
    for name in ("id", "hash", "tenant", "name", "priority"):
        with pytest.raises(RequestError, match=f"{name}: holds NUL"):
            store.add_key(KeyRecord(**{"id": "k", "hash": "h", "tenant": "t", name: "a\0"}))  # type: ignore[arg-type]
    store.add_key(KeyRecord("k", "h", "t", created_at=7.0))
    store.keys_used({"k": 5.0})
    store.keys_used({"k": 6.0})
    assert (store.keys()[0].created_at, store.keys()[0].last_used_at) == (7.0, 6.0)


def test_of_what_there_is_one_there_is_one_row(store: Store) -> None:
    """Whoever writes it again writes the same."""
    for learned in ({"a": 1.0}, {"a": 2.0}):
        store.save_costs(learned)
    with store.database.reading() as db:
        for table in (tables.store, tables.costs):
            assert db.execute(select(table.c.one)).scalars().all() == [1]
    assert store.costs() == {"a": 2.0}


def test_lists_are_cut_in_order() -> None:
    """Up to as many at once; of nothing there is no list."""
    assert list(batched("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(batched("abcd", 2)) == [["a", "b"], ["c", "d"]] and list(batched("", 2)) == []


def test_a_driver_s_first_line_is_enough() -> None:
    """Its kind, if it says nothing."""
    assert first_line(" it broke \n hint") == "it broke" and first_line(ValueError()) == "ValueError"
