"""What operators look at, in both databases: sums of what was served, ratings, keys that were used, latest requests."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from deployments.store.records import JobState, KeyRecord, RatedRow, ServedRow
from deployments.store.store import Store
from router.learning.feedback import DecisionRecord, Feedback
from tests.store.values import job


def ended(store: Store, name: str, row: ServedRow) -> bool:
    """A job that was accepted and ends so; whether this was its first end."""
    fence = store.begin()
    if store.job(name) is None:
        store.accept(job(name, fence=fence))
    return store.finished(name, fence, row.state, served=row)


def served(at: float, recipe: str = "draft", tenant: str = "acme", state: JobState = "done") -> ServedRow:
    return ServedRow(at, tenant, "main", recipe, state, 1, 2, 0.25, 1.5, 3.0, 1.6, 1, 0.8, 0.5)


def test_sums_add_up_and_are_dropped_in_time(store: Store) -> None:
    """Rows of the same ten minutes become one, each job counts once; those of a month ago are tidied away."""
    now = time.time() // 600 * 600 + 1
    for name, at in (("a", now), ("b", now + 300), ("c", now - 40 * 86_400)):
        assert ended(store, name, served(at))
        assert not ended(store, name, served(at))
    (row,) = store.served_since(now - 3600)
    assert (row.jobs, row.pictures, row.checked) == (2, 4, 2)
    assert (row.cost_usd, row.work_s, row.latency_s, row.expected) == (0.5, 3.0, 6.0, 3.2)
    assert (row.expected_checked, row.verified) == (1.6, 1.0)
    assert [row.jobs for row in store.served_since(0.0)] == [3]
    store.tidy(now)
    assert [row.jobs for row in store.served_since(0.0)] == [2]


def test_sums_are_by_tenant_recipe_and_state(store: Store) -> None:
    """What differs in one of them is a row of its own; nothing is counted without a word of it."""
    now = time.time()
    rows = [served(now), served(now, "fine"), served(now, tenant="other"), served(now, state="failed")]
    for number, row in enumerate(rows):
        ended(store, f"j{number}", row)
    fence = store.begin()
    store.accept(job("silent", fence=fence))
    store.finished("silent", fence, "done")
    found = [(row.tenant, row.recipe, row.state, row.jobs) for row in store.served_since(now - 60)]
    assert found == [
        ("acme", "draft", "done", 1), ("acme", "draft", "failed", 1), ("acme", "fine", "done", 1),
        ("other", "draft", "done", 1),
    ]  # fmt: skip


def test_ratings_are_by_the_recipe_that_made_the_picture(store: Store) -> None:
    """What people said within the window, not what scorers did."""
    decision = DecisionRecord(
        "req_1", time.time(), "a cat", np.ones(4, np.float32) / 2, {}, "main", "d", "a", "b", {}, {}, {}, "draft", 1.0,
        made=("draft", "fine"),
    )  # fmt: skip
    store.decisions.record(decision, [Feedback("scorer:alignment", 0, "draft", 0.1)])
    store.decisions.attach("req_1", "rating", 0.75)
    store.decisions.attach("req_1", "rating", 0.25, 1)
    assert store.rated_since(time.time() - 60) == [
        RatedRow("main", "draft", 1, 0.75),
        RatedRow("main", "fine", 1, 0.25),
    ]
    assert store.rated_since(time.time() + 60) == []


def test_a_key_was_used_when_it_was_used_last(store: Store) -> None:
    """An earlier time, and a key that there is not, change nothing."""
    store.add_key(KeyRecord("key_1", "h", "acme", prefix="tp_abc123"))
    for at in (100.0, 50.0):
        store.keys_used({"key_1": at, "key_2": at})
    (key,) = store.keys()
    assert (key.prefix, key.last_used_at) == ("tp_abc123", 100.0)


def test_the_latest_requests_are_those_of_a_policy(store: Store) -> None:
    """The latest first, up to a number, without their answers; a policy that decided none has none."""
    fence = store.begin()
    for number in range(6):
        decision = {"policy": "even" if number % 2 == 0 else "odd", "recipe": "draft"}
        store.accept(replace(job(f"j{number}", fence=fence), decision=decision, created_at=float(number)))
    assert [one.id for one in store.recent_requests(None, 3)] == ["j5", "j4", "j3"]
    assert [one.id for one in store.recent_requests("even", 2)] == ["j4", "j2"]
    assert [one.id for one in store.recent_requests("even", 9, look_at=3)] == ["j4"]
    assert store.recent_requests("none", 5) == []
