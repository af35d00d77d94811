"""What each tenant used of the budgets of a policy, in sliding windows.

They are kept in the memory of the one orchestrator and, as rows of usage, in the store, from which the next one starts.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from deployments.store.records import UsageRow
from policies import Policy
from policies.language.schema import BudgetSpec
from router.types import Allowance

LOOKED_AT = 2  # accounts that each charge looks over, so that those which hold nothing any more are dropped in time
UNIT = 1e-12  # of a second and of a dollar: sums of whole numbers are exact, in whatever order they are added

_Key = tuple[str, str, str]  # policy, budget, tenant


@dataclass(slots=True)
class _Entry:
    """What one request counts, in `UNIT`s. counted: as long as it lies in its window"""

    at_s: float
    work: int
    cost: int
    counted: bool = True


@dataclass(slots=True)
class _Account:
    """The requests of a tenant within the window of a budget, oldest first, and their sums."""

    window_s: float
    entries: deque[_Entry] = field(default_factory=deque)
    work: int = 0
    cost: int = 0

    def add(self, entry: _Entry) -> None:
        self.entries.append(entry)
        self.work, self.cost = self.work + entry.work, self.cost + entry.cost

    def change(self, entry: _Entry, work: int, cost: int) -> None:
        """What an entry counts instead; nothing if it is out of the window."""
        if entry.counted:
            self.work, self.cost = self.work + work - entry.work, self.cost + cost - entry.cost
            entry.work, entry.cost = work, cost

    def drop_old(self, now_s: float) -> None:
        while self.entries and self.entries[0].at_s <= now_s - self.window_s:
            old = self.entries.popleft()
            old.counted = False
            self.work, self.cost = self.work - old.work, self.cost - old.cost


@dataclass
class Charge:
    """One request on all budgets that bind it: first what was expected, at last what was used."""

    entries: list[tuple[_Key, _Account, _Entry]] = field(default_factory=list)
    work_s: float = 0.0
    cost_usd: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def use(self, work_s: float, cost_usd: float) -> None:
        self.work_s += work_s
        self.cost_usd += cost_usd

    def forget(self) -> None:
        """What was used does not count: nobody was granted it."""
        self.work_s = self.cost_usd = 0.0

    def settle(self) -> None:
        """From now on the budgets count what was used, however the request ended."""
        with self.lock:
            for _, account, entry in self.entries:
                account.change(entry, _units(self.work_s), _units(self.cost_usd))

    def covers(self, work_s: float, cost_usd: float) -> bool:
        """Whether every budget was charged for as much as that. True if none binds the request."""
        work, cost = _units(work_s), _units(cost_usd)
        with self.lock:
            return all(work <= entry.work and cost <= entry.cost for _, _, entry in self.entries)

    def adopt(self, before: Charge) -> None:
        """Go on with what the charge of an earlier try has outside of policies (`TenantBudgets.also`)."""
        with self.lock:
            self.entries += [entry for entry in before.entries if not entry[0][0]]

    def rows(self, job: str) -> tuple[UsageRow, ...]:
        """What the store keeps of it, one row a budget; times are Unix seconds."""
        with self.lock:
            unix_s = time.time() - self.clock()
            return tuple(
                UsageRow(job, policy, budget, tenant, entry.at_s + unix_s, entry.work * UNIT, entry.cost * UNIT)
                for (policy, budget, tenant), _, entry in self.entries
            )


class TenantBudgets:
    """The accounts. Safe to use from several threads: decisions read them while other requests are charged.

    A decision takes the same time however many tenants and requests there are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: OrderedDict[_Key, _Account] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """How many accounts are kept."""
        return len(self._accounts)

    def allowances(self, policy: Policy, tenant: str) -> tuple[Allowance, ...]:
        """What the budgets that bind this tenant have left now."""
        with self._lock:
            now_s = self._clock()
            found = ((budget, self._accounts.get(key)) for key, budget in _binding(policy, tenant))
            return tuple(self._left(budget, account, now_s) for budget, account in found)

    def charge(self, policy: Policy, tenant: str, work_s: float, cost_usd: float) -> Charge | None:
        """Take what a request is expected to use; None if a budget has not that much left any more."""
        with self._lock:
            now_s = self._clock()
            binding = list(_binding(policy, tenant))
            for key, budget in binding:
                allowance = self._left(budget, self._accounts.get(key), now_s)
                for value, left in ((work_s, allowance.work_s), (cost_usd, allowance.cost_usd)):
                    if left is not None and value > left:
                        return None
            charge = Charge(lock=self._lock, clock=self._clock)
            for key, budget in binding:
                account = self._accounts.setdefault(key, _Account(budget.window_s))
                entry = _Entry(now_s, _units(work_s), _units(cost_usd))
                account.add(entry)
                charge.entries.append((key, account, entry))
            self._tidy(now_s)
            return charge

    def also(
        self, charge: Charge, key: _Key, window_s: float, most_usd: float | None, work_s: float, cost_usd: float
    ) -> float | None:
        """Count a request that was charged on an account outside of policies, too. None: it does; else it would go
        beyond `most_usd`, and has to wait so many seconds: infinitely, if it costs more than that by itself."""
        with self._lock:
            now_s = self._clock()
            account = self._accounts.setdefault(key, _Account(window_s))
            account.window_s = window_s
            account.drop_old(now_s)
            if most_usd is not None and (over := account.cost + _units(cost_usd) - _units(most_usd)) > 0:
                return _freed_in_s(account, over, now_s)
            entry = _Entry(now_s, _units(work_s), _units(cost_usd))
            account.add(entry)
            charge.entries.append((key, account, entry))
            return None

    def used_usd(self, key: _Key, window_s: float) -> float:
        """What is reserved and used on an account outside of policies (`also`) within its window."""
        with self._lock:
            account = self._accounts.get(key)
            if account is None:
                return 0.0
            account.window_s = window_s
            account.drop_old(self._clock())
            return account.cost * UNIT

    def left(self, name: str, key: _Key, window_s: float, most_usd: float) -> Allowance:
        """What an account outside of policies has left now. name: for reasons"""
        with self._lock:
            now_s, account = self._clock(), self._accounts.get(key)
            cost, renews_s = 0, 0.0
            if account is not None:
                account.window_s = window_s
                account.drop_old(now_s)
                cost = account.cost
                renews_s = account.entries[0].at_s + window_s - now_s if account.entries else 0.0
            return Allowance(name, None, most_usd - cost * UNIT, max(0.0, renews_s), None, most_usd)

    def restore(self, rows: Iterable[UsageRow]) -> dict[str, Charge]:
        """Take in what an earlier process granted; the charges by job, for those that are carried on.

        How long a window is, the policies say when they are asked next; until then all of it counts.
        """
        charges: dict[str, Charge] = {}
        with self._lock:
            unix_s = time.time() - self._clock()
            for row in sorted(rows, key=lambda row: row.at):
                key = (row.policy, row.budget, row.tenant)
                account = self._accounts.setdefault(key, _Account(float("inf")))
                entry = _Entry(row.at - unix_s, _units(row.work_s), _units(row.cost_usd))
                account.add(entry)
                charges.setdefault(row.job, Charge(lock=self._lock, clock=self._clock)).entries.append(
                    (key, account, entry)
                )
        return charges

    def _left(self, budget: BudgetSpec, account: _Account | None, now_s: float) -> Allowance:
        work = cost = 0
        renews_s = 0.0
        if account is not None:
            account.window_s = budget.window_s  # the policy's file may have changed
            account.drop_old(now_s)
            work, cost = account.work, account.cost
            renews_s = account.entries[0].at_s + budget.window_s - now_s if account.entries else 0.0
        return Allowance(
            budget.name,
            None if budget.work_s is None else budget.work_s - work * UNIT,
            None if budget.cost_usd is None else budget.cost_usd - cost * UNIT,
            max(0.0, renews_s),
            budget.work_s,
            budget.cost_usd,
        )

    def _tidy(self, now_s: float) -> None:
        """Look over the accounts that were looked at longest ago, and drop those that hold nothing."""
        for _ in range(min(LOOKED_AT, len(self._accounts))):
            key, account = next(iter(self._accounts.items()))
            account.drop_old(now_s)
            if account.entries:
                self._accounts.move_to_end(key)
            else:
                del self._accounts[key]


def _freed_in_s(account: _Account, cost: int, now_s: float) -> float:
    """After how many seconds so much of what was used is out of the window."""
    for entry in account.entries:
        cost -= entry.cost
        if cost <= 0:
            return max(0.0, entry.at_s + account.window_s - now_s)
    return float("inf")


def _binding(policy: Policy, tenant: str) -> Iterator[tuple[_Key, BudgetSpec]]:
    for budget in policy.budgets:
        if budget.tenants is None or tenant in budget.tenants:
            yield (policy.name, budget.name, tenant), budget


def _units(value: float) -> int:
    return round(value / UNIT)
