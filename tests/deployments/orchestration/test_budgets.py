"""The tenants' accounts: exact sums in sliding windows, however many tenants there are."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.orchestration.budgets import Charge, TenantBudgets
from policies import Policy
from tests.policies.values import QUALITY, policy

HOURLY = policy(QUALITY + "budgets: [{name: hourly, window_s: 3600, cost_usd: 1, work_s: 100}]\n")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def left(budgets: TenantBudgets, made: Policy, tenant: str) -> list[float | None]:
    """Seconds and dollars left, and the seconds until some come back."""
    (allowance,) = budgets.allowances(made, tenant)
    return [allowance.work_s, allowance.cost_usd, allowance.renews_s]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_was_granted_is_known_to_the_next_orchestrator(clock: Clock) -> None:
    """Rows of usage restore what is left, what comes back when, and the charges of jobs that are carried on."""
    first = TenantBudgets(clock)
    charge = first.charge(HOURLY, "acme", 20.0, 0.05)
    assert charge is not None
    second = TenantBudgets(clock)
    charges = second.restore(charge.rows("job_1"))
    (allowance,) = second.allowances(HOURLY, "acme")
    assert (allowance.work_s, allowance.cost_usd) == (pytest.approx(80.0), pytest.approx(0.95))
    charges["job_1"].use(5.0, 0.01)
    charges["job_1"].settle()
    (allowance,) = second.allowances(HOURLY, "acme")
    assert (allowance.work_s, allowance.cost_usd) == (pytest.approx(95.0), pytest.approx(0.99))
    assert second.charge(HOURLY, "acme", 95.1, 0.0) is None
    assert second.charge(HOURLY, "acme", 95.0, 0.99) is not None


def test_what_was_used_comes_back_after_the_window(clock: Clock) -> None:
    """A charge counts until exactly one window has passed since it was made."""
    budgets = TenantBudgets(clock=clock)
    budgets.charge(HOURLY, "acme", 40.0, 0.1)
    clock.now_s += 600
    budgets.charge(HOURLY, "acme", 50.0, 0.2)
    assert left(budgets, HOURLY, "acme") == [pytest.approx(10), pytest.approx(0.7), 3000]
    clock.now_s += 2999
    assert left(budgets, HOURLY, "acme") == [pytest.approx(10), pytest.approx(0.7), 1]
    clock.now_s += 1
    assert left(budgets, HOURLY, "acme") == [pytest.approx(50), pytest.approx(0.8), 600]
    clock.now_s += 600
    assert left(budgets, HOURLY, "acme") == [100, 1, 0]


def test_a_settled_charge_counts_what_was_used(clock: Clock) -> None:
    """After settling, the budget is short by the sum of what was used, not by what was expected; also for a charge
    that left the window before it was settled."""
    budgets = TenantBudgets(clock=clock)
    charge = budgets.charge(HOURLY, "acme", 90.0, 0.9)
    assert charge is not None
    charge.use(1.0, 0.01)
    charge.use(2.0, 0.02)
    charge.settle()
    assert left(budgets, HOURLY, "acme")[:2] == [pytest.approx(97), pytest.approx(0.97)]
    late = budgets.charge(HOURLY, "acme", 1.0, 0.1)
    assert late is not None
    clock.now_s += 3600
    assert left(budgets, HOURLY, "acme") == [100, 1, 0]
    late.use(50.0, 0.5)
    late.settle()
    assert left(budgets, HOURLY, "acme") == [100, 1, 0]


@pytest.mark.parametrize(
    ("work_s", "cost_usd", "covered"),
    [(20.0, 0.5, True), (0.0, 0.0, True), (20.001, 0.1, False), (1.0, 0.501, False), (30.0, 0.9, False)],
)
def test_a_charge_covers_what_it_was_made_for(clock: Clock, work_s: float, cost_usd: float, covered: bool) -> None:
    """In seconds and in dollars alike; what no budget binds is covered whatever it takes."""
    charge = TenantBudgets(clock).charge(HOURLY, "acme", 20.0, 0.5)
    assert charge is not None and charge.covers(work_s, cost_usd) is covered
    assert Charge().covers(1e9, 1e9)


def test_a_second_try_goes_on_with_what_lies_outside_of_policies(clock: Clock) -> None:
    """The account of its key is that of the first try; those of the policy are its own."""
    budgets = TenantBudgets(clock)
    first, second = (budgets.charge(HOURLY, "acme", work_s, 0.1) for work_s in (1.0, 2.0))
    assert first is not None and second is not None
    assert budgets.also(first, ("", "key", "key_1"), 60.0, None, 1.0, 0.1) is None
    second.adopt(first)
    second.use(5.0, 0.25)
    second.settle()
    assert [(key, entry.work) for key, _, entry in second.entries] == [
        (("test", "hourly", "acme"), 5 * 10**12),
        (("", "key", "key_1"), 5 * 10**12),
    ]
    assert budgets.used_usd(("", "key", "key_1"), 60.0) == pytest.approx(0.25)


def test_tenants_and_budgets_are_kept_apart(clock: Clock) -> None:
    """A budget for some binds only them, each on its own, and every budget that binds counts."""
    made = policy(
        QUALITY
        + "budgets:\n- {name: all, window_s: 60, cost_usd: 1}\n"
        + "- {name: some, tenants: [a, b], window_s: 600, work_s: 9}\n"
    )
    budgets = TenantBudgets(clock=clock)
    assert budgets.charge(made, "a", 8.0, 0.5) is not None
    assert [a.budget for a in budgets.allowances(made, "c")] == ["all"]
    assert [(a.work_s, a.cost_usd) for a in budgets.allowances(made, "a")] == [(None, 0.5), (1.0, None)]
    assert [(a.work_s, a.cost_usd) for a in budgets.allowances(made, "b")] == [(None, 1.0), (9.0, None)]
    assert budgets.charge(made, "a", 2.0, 0.0) is None
    assert budgets.charge(made, "c", 20.0, 0.0) is not None


def test_a_budget_binds_beyond_ten_thousand_tenants(clock: Clock) -> None:
    """With 12,000 tenants at once, the budget of each is what it was with one, to the last of them."""
    budgets = TenantBudgets(clock=clock)
    for number in range(12_000):
        assert budgets.charge(HOURLY, f"t{number}", 60.0, 0.6) is not None
    for number in (0, 1, 5_000, 10_000, 11_999):
        assert left(budgets, HOURLY, f"t{number}")[:2] == [pytest.approx(40), pytest.approx(0.4)]
        assert budgets.charge(HOURLY, f"t{number}", 60.0, 0.0) is None


def test_a_decision_does_the_same_work_however_many_tenants_there_are(clock: Clock) -> None:
    """The Python calls of an allowance and a charge do not grow with the tenants or with the requests of one."""

    def calls(tenants: int, requests: int) -> int:
        budgets = TenantBudgets(clock=clock)
        for number in range(tenants):
            budgets.charge(HOURLY, f"t{number}", 0.001, 0.00001)
        for _ in range(requests):
            budgets.charge(HOURLY, "acme", 0.001, 0.00001)
        count = 0

        def profile(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(profile)
        try:
            budgets.allowances(HOURLY, "acme")
            budgets.charge(HOURLY, "acme", 0.001, 0.00001)
        finally:
            sys.setprofile(None)
        return count

    assert calls(11_000, 1_000) == calls(20, 10)


def test_accounts_that_hold_nothing_are_forgotten(clock: Clock) -> None:
    """Asking makes no account, and those whose charges left their window go while others come."""
    budgets = TenantBudgets(clock=clock)
    for number in range(500):
        budgets.allowances(HOURLY, f"asked{number}")
    assert budgets.size == 0
    for number in range(500):
        budgets.charge(HOURLY, f"t{number}", 1.0, 0.0)
    assert budgets.size == 500
    clock.now_s += 3600
    for _ in range(300):
        budgets.charge(HOURLY, "acme", 0.1, 0.0)
    assert budgets.size == 1


def test_an_account_that_is_in_use_hides_no_other_that_is_not(clock: Clock) -> None:
    """Looking goes round: behind tenants who come again and again, those who stay away are forgotten all the same."""
    budgets = TenantBudgets(clock=clock)
    for tenant in ("busy", "idle", "busier", "gone"):
        budgets.charge(HOURLY, tenant, 1.0, 0.0)
    clock.now_s += 3599
    for tenant in ("busy", "busier"):
        budgets.charge(HOURLY, tenant, 1.0, 0.0)
    clock.now_s += 1
    for _ in range(4):
        budgets.charge(HOURLY, "busy", 1.0, 0.0)
    assert budgets.size == 2
    assert left(budgets, HOURLY, "busy")[0] == pytest.approx(95.0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["charge", "settle", "wait"]),
        st.sampled_from(["a", "b"]),
        st.floats(0, 60, allow_nan=False),
        st.floats(0, 0.5, allow_nan=False),
        st.integers(0, 2_000),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS)
def test_allowances_are_the_sum_over_the_window(steps: list[tuple[str, str, float, float, int]]) -> None:
    """However charges, settlements and waiting follow one another, what is left is the whole less a plain sum of what
    lies in the window, and nothing is ever charged beyond it."""
    clock = Clock()
    budgets = TenantBudgets(clock=clock)
    log: list[list] = []
    open_: deque[tuple[Charge, list]] = deque()
    for what, tenant, work_s, cost_usd, number in steps:
        if what == "charge":
            before = left(budgets, HOURLY, tenant)
            charge = budgets.charge(HOURLY, tenant, work_s, cost_usd)
            assert (charge is None) == (work_s > before[0] or cost_usd > before[1])  # type: ignore[operator]
            if charge is not None:
                log.append([clock.now_s, tenant, work_s, cost_usd])
                open_.append((charge, log[-1]))
        elif what == "settle" and open_:
            charge, line = open_.popleft()
            charge.use(work_s, cost_usd)
            charge.settle()
            line[2:] = [work_s, cost_usd]
        else:
            clock.now_s += number
        for who in ("a", "b"):
            inside = [line for line in log if line[1] == who and line[0] > clock.now_s - 3600]
            work_left, usd_left, renews_s = left(budgets, HOURLY, who)
            assert work_left == pytest.approx(100 - sum(line[2] for line in inside), abs=1e-9)
            assert usd_left == pytest.approx(1 - sum(line[3] for line in inside), abs=1e-9)
            assert renews_s == (inside[0][0] + 3600 - clock.now_s if inside else 0.0)


def test_an_account_of_which_nothing_is_known_has_all_and_waits_for_nothing(clock: Clock) -> None:
    """As it is before the first request of a key with a budget of its own."""
    allowance = TenantBudgets(clock).left("its key's budget", ("key", "budget", "new"), 3600.0, 2.5)
    assert (allowance.cost_usd, allowance.renews_s) == (2.5, 0.0)


class Handover:
    """A lock that lets another thread run whenever it is asked for, and remembers whether it was ever entered."""

    def __init__(self) -> None:
        self.inner, self.entered = threading.Lock(), 0

    def __enter__(self) -> None:
        self.inner.acquire()
        self.entered += 1

    def __exit__(self, *_: object) -> None:
        self.inner.release()


@pytest.fixture
def eager() -> Iterator[None]:
    """Threads change at every few bytecodes."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_the_accounts_are_only_touched_by_whoever_holds_the_lock(clock: Clock) -> None:
    """Asking, charging and settling each take the one lock of the accounts."""
    budgets, lock = TenantBudgets(clock=clock), Handover()
    budgets._lock = lock  # type: ignore[assignment]
    budgets.allowances(HOURLY, "acme")
    assert lock.entered == 1
    charge = budgets.charge(HOURLY, "acme", 1.0, 0.1)
    assert charge is not None
    assert lock.entered == 2
    charge.settle()
    assert lock.entered == 3


@pytest.mark.usefixtures("eager")
def test_threads_never_charge_more_than_the_whole(clock: Clock) -> None:
    """Eight threads that charge 1 s each as long as they may get exactly 100 s of 100."""
    budgets = TenantBudgets(clock=clock)
    granted: list[float] = []

    def spend() -> None:
        while budgets.charge(HOURLY, "acme", 1.0, 0.0) is not None:
            granted.append(1.0)

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 100.0
