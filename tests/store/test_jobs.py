"""Jobs: accepted once, lost never, written to only by the orchestrator that has them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.store.errors import FencedError, StoreError
from deployments.store.records import JobRecord, UsageRow, from_json, to_json
from deployments.store.store import Store, open_store
from router.errors import NotFoundError, RequestError
from tests.store.conftest import Settings
from tests.store.values import job, picture, used

ROOT = Path(__file__).resolve().parents[2]
ODD = "Ünïcødé \U0001f3a8 漢字 \x00 \ud800 \r\n'; DROP TABLE jobs; --"


def test_a_job_comes_back_as_it_was(store: Store) -> None:
    """Every field survives the way through the database and through JSON, whatever characters a prompt has."""
    sent = job(
        key_id="key_1",
        request={"prompt": ODD, "tags": ["ä", ODD], "width": None, "guidance": 0.1 + 0.2, "big": 2**63},
        deadline_at=12.5,
        idempotency_key="Schlüssel-\U0001f511",
        webhook={"url": "https://example.org/ü", "state": "waiting", "tries": 0, "next_at": None},
        n=4,
    )
    accepted = store.accept(sent)
    assert accepted.created_at is not None
    assert accepted == replace(sent, created_at=accepted.created_at)
    assert store.job(sent.id) == accepted == store.by_key("acme", "Schlüssel-\U0001f511")
    assert from_json(JobRecord, to_json(accepted)) == accepted
    assert from_json(UsageRow, to_json(used("x", at=1.0))) == used("x", at=1.0)


def test_a_job_goes_through_its_states(store: Store) -> None:
    """Queued, running with its decision, done with its result; usage takes the place of what was reserved."""
    fence = store.begin()
    one = store.accept(job(fence=fence), [])
    store.accept(job("paid", fence=fence), [used("paid", cost_usd=1.0), used("paid", budget="hourly")])
    store.started("paid", fence, {"recipe": "draft", "policy": "balanced"})
    running = store.job("paid")
    assert running is not None and (running.state, running.decision) == (
        "running", {"recipe": "draft", "policy": "balanced"},
    )  # fmt: skip
    assert store.finished("paid", fence, "done", {"data": [1]}, usage=[used("paid", cost_usd=0.25, at=5.0)])
    done = store.job("paid")
    assert done is not None and (done.state, done.result, done.error) == ("done", {"data": [1]}, None)
    assert done.created_at and done.started_at and done.finished_at
    assert done.created_at <= done.started_at <= done.finished_at
    assert [(row.job, row.budget, row.cost_usd) for row in store.usage_since(0)] == [("paid", "daily", 0.25)]
    assert store.usage_since(5.0) == []
    assert store.job(one.id) == one


def test_the_first_end_counts(store: Store) -> None:
    """A job that was cancelled while its pictures were made stays cancelled, and is not begun again."""
    store.accept(job("a"), [used("a")])
    assert store.finished("a", 0, "cancelled", error={"message": "cancelled"})
    assert not store.finished("a", 0, "done", {"data": []}, usage=[])
    store.started("a", 0, {"recipe": "draft"})
    found = store.job("a")
    assert found is not None and (found.state, found.result, found.decision) == ("cancelled", None, None)
    assert len(store.usage_since(0)) == 1


def test_a_thousand_at_once_share_transactions(store: Store) -> None:
    """1,000 jobs from 16 threads are all there, each once, in a fraction of as many transactions."""
    before = store.transactions
    with ThreadPoolExecutor(16) as pool:
        accepted = list(pool.map(lambda k: store.accept(job(f"j{k}"), [used(f"j{k}")]), range(1000)))
    assert [one.id for one in accepted] == [f"j{k}" for k in range(1000)]
    assert store.transactions - before < 500
    assert len(store.usage_since(0)) == 1000
    assert {one.id for one in every(store)} == {f"j{k}" for k in range(1000)}


def test_an_event_loop_needs_one_transaction_for_many(store: Store) -> None:
    """What is handed over without waiting is written in a few transactions, and all of it is."""
    before = store.transactions
    futures = [store.accept_soon(job(f"j{k}")) for k in range(1000)]
    assert [future.result().id for future in futures] == [f"j{k}" for k in range(1000)]
    assert store.transactions - before < 50


def test_the_same_request_again_is_the_same_job(store: Store) -> None:
    """With its idempotency key a request returns the job that it made, another request is refused, another tenant has
    keys of its own, and without a key nothing is the same."""
    first = store.accept(job("a", idempotency_key="k"), [used("a")])
    store.finished("a", 0, "done", {"data": []})
    again = store.accept(job("b", idempotency_key="k"), [used("b")])
    assert (again.id, again.state, store.job("b")) == (first.id, "done", None)
    with pytest.raises(RequestError, match="another request before") as refused:
        store.accept(job("c", idempotency_key="k", body_digest="d2"))
    assert refused.value.code == "idempotency_mismatch"
    assert store.accept(job("d", idempotency_key="k", tenant="other")).id == "d"
    assert {store.accept(job(name)).id for name in ("e", "f")} == {"e", "f"}
    assert [row.job for row in store.usage_since(0)] == ["a"]
    assert store.by_key("nobody", "k") is None


def test_one_of_many_with_one_key_wins(store: Store, settings: Settings) -> None:
    """The same key from 16 threads and two processes' stores at once makes one job."""
    other = open_store(settings())
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda k: (store, other)[k % 2].accept(job(f"j{k}", idempotency_key="k")).id, range(100)))
    other.close()
    assert len(set(found)) == 1
    assert [one.id for one in every(store)] == found[:1]


def test_a_taken_id_is_refused(store: Store) -> None:
    """An id that another tenant's job has is refused; one's own again is the same job."""
    store.accept(job("mine"))
    assert store.accept(job("mine")).id == "mine"
    with pytest.raises(RequestError, match="names another job"):
        store.accept(job("mine", tenant="other"))


@pytest.mark.parametrize("field", ["id", "tenant", "idempotency_key"])
@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_what_no_database_can_hold_is_refused(store: Store, field: str, text: str) -> None:
    """NUL and half a character in a column are the client's mistake, named, and found nowhere."""
    with pytest.raises(RequestError, match=field):
        store.accept(replace(job(), **{field: text}))
    assert store.job(text) is None and store.by_key(text, text) is None and store.jobs(text) == ([], None)
    assert store.picture(text) is None and store.pictures(text) == []


def test_a_stale_orchestrator_writes_nothing(store: Store) -> None:
    """Once another has taken its jobs over, an orchestrator can neither start, end, nor add a picture, nor accept."""
    old = store.begin()
    store.accept(job("a", fence=old))
    store.started("a", old, {"recipe": "draft"})
    new = store.begin()
    assert new > old
    with pytest.raises(FencedError):
        store.accept(job("late", fence=old))
    (taken,) = store.take_over(new)
    writes = [
        lambda: store.started("a", old, {"recipe": "other"}),
        lambda: store.finished("a", old, "done", {"wrong": True}, usage=[]),
        lambda: store.put_picture(picture("a"), b"wrong", old),
        lambda: store.set_webhook("a", old, {"next_at": 1.0}),
    ]
    for write in writes:
        with pytest.raises(FencedError):
            write()
    assert store.job("a") == taken and store.pictures("a") == [] and store.job("late") is None
    assert store.finished("a", new, "done", {"data": []})
    with pytest.raises(FencedError):
        store.finished("a", old, "failed")
    with pytest.raises(NotFoundError):
        store.started("unknown", new, {})


def test_all_open_jobs_are_taken_over(store: Store) -> None:
    """An orchestrator that starts gets every open job, the oldest arrival first, queued again, with its decision and
    its pictures; only what was running counts as tried."""
    old = store.begin()
    for name, arrived_at in (("young", 30.0), ("old", 10.0), ("ended", 5.0), ("middle", 20.0)):
        store.accept(job(name, fence=old, arrived_at=arrived_at))
    store.started("middle", old, {"recipe": "draft"})
    store.put_picture(picture("middle", 1), b"png", old)
    store.finished("ended", old, "failed", error={"message": "no"})
    new = store.begin()
    taken = store.take_over(new)
    assert [(one.id, one.state, one.attempts, one.fence) for one in taken] == [
        ("old", "queued", 0, new),
        ("middle", "queued", 1, new),
        ("young", "queued", 0, new),
    ]
    assert taken[1].decision == {"recipe": "draft"}
    assert [one.index for one in store.pictures("middle")] == [1]
    assert store.take_over(new) == []
    store.accept(job("fresh", fence=new))
    assert store.take_over(new) == []
    third = store.begin()
    assert [one.attempts for one in store.take_over(third)] == [0, 1, 0, 0]


def test_no_job_falls_between_two_orchestrators(store: Store, settings: Settings) -> None:
    """While one accepts as fast as it can, another begins: each job that was accepted is either taken over, or its
    acceptance was refused."""
    second = open_store(settings())
    old, accepted, refused = store.begin(), [], threading.Event()

    def accept() -> None:
        try:
            for k in range(10_000):
                accepted.append(store.accept(job(f"j{k}", fence=old)).id)
        except FencedError:
            refused.set()

    thread = threading.Thread(target=accept)
    thread.start()
    while len(accepted) < 20:
        time.sleep(0.001)
    new = second.begin()
    taken = second.take_over(new)
    thread.join(300)
    second.close()
    assert refused.is_set()
    assert {one.id for one in taken} == set(accepted)


def test_listing_by_pages(store: Store) -> None:
    """Pages follow one another from the latest to the oldest without gap or double, also while jobs come and go, and
    hold the tenant's own jobs only."""
    for k in range(25):
        store.accept(job(f"a{k:02}"))
        store.accept(job(f"b{k:02}", tenant="other"))
    first, cursor = store.jobs("acme", limit=10)
    store.accept(job("latest"))
    second, cursor = store.jobs("acme", limit=10, cursor=cursor)
    third, end = store.jobs("acme", limit=10, cursor=cursor)
    assert [one.id for one in (*first, *second, *third)] == [f"a{k:02}" for k in reversed(range(25))]
    assert (len(third), end) == (5, None)
    assert {one.tenant for one in first + second + third} == {"acme"}
    assert len(every(store)) == 51
    assert store.jobs("nobody") == ([], None)
    assert [one.id for one in store.jobs("other", limit=1, cursor=cursor)[0]] != []


def test_listing_by_state(store: Store) -> None:
    """Only jobs in one of the given states are listed."""
    for name in ("a", "b", "c"):
        store.accept(job(name))
    store.started("b", 0, {})
    store.finished("c", 0, "failed", error={"message": "no"})
    assert [one.id for one in store.jobs("acme", ("failed",))[0]] == ["c"]
    assert {one.id for one in store.jobs("acme", ("queued", "running"))[0]} == {"a", "b"}


@pytest.mark.parametrize("cursor", ["", "x", "!!", "eyJhIjoxfQ", "WzEsMl0", "ä" * 300])
def test_a_foreign_cursor_is_refused(store: Store, cursor: str) -> None:
    """A cursor that no page gave is the client's mistake."""
    with pytest.raises(RequestError, match="cursor"):
        store.jobs("acme", cursor=cursor)


def test_webhooks_are_due_when_their_job_has_ended(store: Store) -> None:
    """A webhook is due from the end of its job on, again at the time it was put off to, and never once it is done."""
    hook = {"url": "https://example.org", "state": "waiting", "tries": 0, "next_at": None}
    store.accept(job("a", webhook=hook))
    store.accept(job("b"))
    now = time.time() + 1
    assert store.due_webhooks(now) == []
    for name in ("a", "b"):
        store.finished(name, 0, "done", {})
    assert [one.id for one in store.due_webhooks(now)] == ["a"]
    store.set_webhook("a", 0, {**hook, "tries": 1, "next_at": now + 60})
    assert store.due_webhooks(now) == [] and [one.webhook["tries"] for one in store.due_webhooks(now + 61)] == [1]
    store.set_webhook("a", 0, {**hook, "state": "delivered"})
    assert store.due_webhooks(now + 1e6) == []


def test_one_bad_write_stops_no_other(store: Store) -> None:
    """A write that the database refuses fails alone; those that shared its transaction are written."""
    futures = [store.accept_soon(job(f"j{k}", n=2**40 if k == 3 else 1, attempts=0)) for k in range(8)]
    bad = store._writer.submit(lambda db: db.exec_driver_sql("INSERT INTO jobs (id) VALUES ('bad')"))
    futures += [store.accept_soon(job(f"k{k}")) for k in range(8)]
    with pytest.raises(Exception, match=r"(?i)null"):
        bad.result()
    written = [future.result().id for future in futures if future.exception() is None]
    assert len(written) >= 15
    assert {one.id for one in every(store)} == set(written)


KILLED = """
import os, sys
from deployments.settings import StoreSettings
from deployments.store.store import open_store
from tests.store.values import job, picture
store = open_store(StoreSettings(url=sys.argv[1], pictures=sys.argv[2], keep_free_mib=0))
for k in range(10_000):
    store.accept(job(f"j{k}"))
    store.put_picture(picture(f"j{k}"), b"picture", 0)
    os.write(1, f"j{k}\\n".encode())
"""


def test_what_was_accepted_survives_kill_9(settings: Settings) -> None:
    """A process that is killed while it accepts has lost no job and no picture of which it had said so."""
    chosen = settings()
    command = [sys.executable, "-c", KILLED, str(chosen.url), str(chosen.pictures)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    said += process.stdout.readlines()
    process.wait(10)
    names = [line.decode().strip() for line in said if line.endswith(b"\n")]
    store = open_store(chosen)
    try:
        assert len(names) >= 50
        for name in names:
            assert store.job(name) is not None
            (kept,) = store.pictures(name)
            assert store.read(kept) == b"picture"
        assert {one.id for one in store.take_over(store.begin())} >= set(names)
    finally:
        store.close()


def test_a_closed_store_takes_nothing(settings: Settings) -> None:
    """What was handed over before the store was closed is written; afterwards it says that it is closed."""
    store = open_store(settings())
    futures = [store.accept_soon(job(f"j{k}")) for k in range(100)]
    store.close()
    assert all(future.result().created_at for future in futures)
    with pytest.raises(StoreError, match="closed"):
        store.accept(job())


def every(store: Store) -> list[JobRecord]:
    """All jobs, page by page."""
    found, cursor = store.jobs(limit=300)
    while cursor is not None:
        more, cursor = store.jobs(limit=300, cursor=cursor)
        found += more
    return found
