"""What a key may use, beside a plain list of what it used: requests of the last minute, and dollars in its window."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.jobs.limits import KEY, KeyLimits, RateLimitError
from deployments.jobs.values import Rate
from deployments.orchestration.budgets import Charge, TenantBudgets
from deployments.store.records import KeyRecord, UsageRow
from router.errors import BudgetError

START_S = 5000.0


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class Admitted:
    """What limits ask of an admitted request."""

    charge: Charge
    cost_usd: float
    work_s: float = 1.0

    def expected(self) -> tuple[float, float]:
        return self.work_s, self.cost_usd


DOINGS = st.lists(
    st.tuples(st.sampled_from(["enter", "leave", "rate"]), st.sampled_from([0.0, 0.0, 5.0, 20.0, 60.0])),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(rpm=st.integers(1, 4), doings=DOINGS)
def test_requests_of_the_last_minute_count_and_no_others(rpm: int, doings: list[tuple[str, float]]) -> None:
    """However requests come, are taken back and grow old, a key may send as many in any minute as it is allowed; what
    is left, when a slot is free again and when all are, follows from the times of those that count."""
    clock = Clock()
    limits, key, counted = (
        KeyLimits(TenantBudgets(clock), clock),
        KeyRecord("key_1", "", "acme", rpm=rpm),
        list[float](),
    )
    for doing, waited_s in doings:
        clock.now_s += waited_s
        counted = [at for at in counted if at > clock.now_s - 60]
        if doing == "leave" and counted:
            limits.leave(key, counted.pop())
        elif doing == "enter" and len(counted) < rpm:
            assert limits.enter(key) == clock.now_s
            counted.append(clock.now_s)
        elif doing == "enter":
            with pytest.raises(RateLimitError) as refused:
                limits.enter(key)
            wait_s = counted[-rpm] + 60 - clock.now_s
            assert refused.value.retry_after_s == pytest.approx(wait_s)
            assert f"try again in {math.ceil(wait_s)} s" in refused.value.message
            assert refused.value.rate == Rate(rpm, 0, pytest.approx(counted[-1] + 60 - clock.now_s))  # type: ignore[arg-type]
        reset_s = counted[-1] + 60 - clock.now_s if counted else 0.0
        assert limits.rate(key) == Rate(rpm, rpm - len(counted), pytest.approx(reset_s))  # type: ignore[arg-type]
    clock.now_s += 60
    assert limits.rate(key) == Rate(rpm, rpm, 0.0) and not limits._times


def test_a_key_without_a_limit_is_never_refused_and_its_requests_are_still_counted() -> None:
    """Without `rpm` there is nothing to tell; a limit that is set later counts what was sent before."""
    clock = Clock()
    limits, free = KeyLimits(TenantBudgets(clock), clock), KeyRecord("key_1", "", "acme")
    for _ in range(5):
        limits.enter(free)
    assert limits.rate(free) is None
    bound = KeyRecord("key_1", "", "acme", rpm=3)
    assert limits.rate(bound) == Rate(3, 0, 60.0)
    with pytest.raises(RateLimitError):
        limits.enter(bound)
    limits.enter(KeyRecord("key_2", "", "acme", rpm=3))


def test_taking_back_what_never_entered_changes_nothing() -> None:
    """`leave` is harmless for another time and for a key that is not known."""
    clock = Clock()
    limits, key = KeyLimits(TenantBudgets(clock), clock), KeyRecord("key_1", "", "acme", rpm=2)
    limits.leave(key, clock.now_s)
    limits.enter(key)
    limits.leave(key, clock.now_s - 1)
    assert limits.rate(key) == Rate(2, 1, 60.0)


def test_a_restart_counts_the_rows_of_keys_in_the_order_of_their_times() -> None:
    """Rows of usage of a key count from when they were made, whatever their order; those of policies' budgets do
    not."""
    clock = Clock()
    limits, now = KeyLimits(TenantBudgets(clock), clock), time.time()
    rows = [UsageRow(f"job_{ago}", *KEY, "key_1", now - ago, 1.0, 0.1) for ago in (10, 50, 70, 30)]
    others = [
        UsageRow("job_0", "main", "key", "key_1", now, 1.0, 0.1),
        UsageRow("job_0", "", "day", "key_1", now, 1, 1),
    ]
    limits.restore([*rows, *others])
    rate = limits.rate(KeyRecord("key_1", "", "acme", rpm=5))
    assert rate is not None and (rate.limit, rate.remaining) == (5, 2)
    assert rate.reset_s == pytest.approx(50, abs=1)
    clock.now_s += 11
    assert limits.rate(KeyRecord("key_1", "", "acme", rpm=5)).remaining == 3  # type: ignore[union-attr]


def charged(limits: KeyLimits, key: KeyRecord, cost_usd: float) -> Charge:
    """The charge of a request that the key's budget takes."""
    charge = Charge()
    limits.charge(key, Admitted(charge, cost_usd))  # type: ignore[arg-type]
    return charge


@settings(max_examples=60, deadline=None)
@given(
    window_s=st.sampled_from([10.0, 3600.0]),
    asked=st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0.0, 1.0, 4.0])), min_size=1, max_size=12),
)
def test_dollars_within_the_window_count_and_a_refusal_says_when_there_is_room(
    window_s: float, asked: list[tuple[int, float]]
) -> None:
    """As long as the sum of what counts and what a request may cost is at most the budget, it enters; else the refusal
    names the seconds after which enough of it is out of the window."""
    clock, most = Clock(), 10
    limits = KeyLimits(TenantBudgets(clock), clock)
    key = KeyRecord("key_1", "", "acme", budget={"window_s": window_s, "cost_usd": most / 100})
    counted: list[tuple[float, int]] = []
    for cents, waited_s in asked:
        clock.now_s += waited_s
        counted = [(at, used) for at, used in counted if at > clock.now_s - window_s]
        over = sum(used for _, used in counted) + cents - most
        if over <= 0:
            (((_, account, entry),)) = charged(limits, key, cents / 100).entries
            assert (entry.at_s, account.window_s) == (clock.now_s, window_s)
            counted.append((clock.now_s, cents))
            continue
        with pytest.raises(BudgetError) as refused:
            charged(limits, key, cents / 100)
        freed = itertools.accumulate(used for _, used in counted)
        last = next(at for (at, _), sum_ in zip(counted, freed, strict=True) if sum_ >= over)
        wait_s = last + window_s - clock.now_s
        assert refused.value.retry_after_s == pytest.approx(wait_s)
        assert f"{cents / 100:.3g} USD" in refused.value.message
        assert f"try again in {math.ceil(wait_s)} s" in refused.value.message


@pytest.mark.parametrize(("budget", "window_s"), [(None, 60.0), ({"window_s": 5.0}, 5.0), ({"cost_usd": 1.0}, 60.0)])
def test_whatever_a_key_uses_is_counted_also_without_a_budget(budget: dict[str, Any] | None, window_s: float) -> None:
    """The rows of a key without a budget are written all the same; without a window it is a minute."""
    clock = Clock()
    limits = KeyLimits(TenantBudgets(clock), clock)
    charge = charged(limits, KeyRecord("key_1", "", "acme", budget=budget), 0.5)
    ((key, account, entry),) = charge.entries
    assert (key, account.window_s, entry.work, entry.cost) == ((*KEY, "key_1"), window_s, 10**12, 5 * 10**11)


def test_what_is_more_than_the_whole_budget_is_refused_for_good() -> None:
    """By a hair more than all of it: no time to wait; exactly all of it is granted to who has used nothing."""
    clock = Clock()
    limits, key = KeyLimits(TenantBudgets(clock), clock), KeyRecord("key_1", "", "acme", budget={"cost_usd": 0.1})
    with pytest.raises(BudgetError) as refused:
        charged(limits, key, 0.1000001)
    assert refused.value.retry_after_s is None
    charged(limits, key, 0.1)
    with pytest.raises(BudgetError) as later:
        charged(limits, key, 0.1)
    assert later.value.retry_after_s == pytest.approx(60.0)
