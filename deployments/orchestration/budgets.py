"""What each tenant used of the budgets of a policy, in sliding windows, in the memory of one orchestrator.

With several orchestrators each grants its `share`, so that together they never grant more than the whole. What was used
is forgotten when an orchestrator ends.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from policies import Policy
from policies.language.schema import BudgetSpec
from router.types import Allowance

MANY = 10_000  # accounts from which those that hold nothing are dropped

_Key = tuple[str, str, str]  # policy, budget, tenant


@dataclass
class _Entry:
    at_s: float
    work_s: float
    cost_usd: float


@dataclass
class Charge:
    """One request on all budgets that bind it: first what was expected, at last what was used."""

    entries: list[_Entry] = field(default_factory=list)
    work_s: float = 0.0
    cost_usd: float = 0.0

    def use(self, work_s: float, cost_usd: float) -> None:
        self.work_s += work_s
        self.cost_usd += cost_usd

    def settle(self) -> None:
        """From now on the budgets count what was used, however the request ended."""
        for entry in self.entries:
            entry.work_s, entry.cost_usd = self.work_s, self.cost_usd


class TenantBudgets:
    """The accounts. Safe to use from several threads: decisions read them while other requests are charged."""

    def __init__(self, share: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._accounts: dict[_Key, deque[_Entry]] = {}
        self._lock = threading.Lock()

    def allowances(self, policy: Policy, tenant: str) -> tuple[Allowance, ...]:
        """What the budgets that bind this tenant have left now."""
        with self._lock:
            return tuple(self._left(budget, entries) for budget, entries in self._binding(policy, tenant))

    def charge(self, policy: Policy, tenant: str, work_s: float, cost_usd: float) -> Charge | None:
        """Take what a request is expected to use; None if a budget has not that much left any more."""
        with self._lock:
            accounts = list(self._binding(policy, tenant))
            for allowance in (self._left(budget, entries) for budget, entries in accounts):
                for value, left in ((work_s, allowance.work_s), (cost_usd, allowance.cost_usd)):
                    if left is not None and value > left:
                        return None
            charge = Charge([_Entry(self._clock(), work_s, cost_usd) for _ in accounts])
            for (_, entries), entry in zip(accounts, charge.entries, strict=True):
                entries.append(entry)
            return charge

    def _binding(self, policy: Policy, tenant: str) -> Iterator[tuple[BudgetSpec, deque[_Entry]]]:
        for budget in policy.budgets:
            if budget.tenants is not None and tenant not in budget.tenants:
                continue
            entries = self._accounts.setdefault((policy.name, budget.name, tenant), deque())
            while entries and entries[0].at_s <= self._clock() - budget.window_s:
                entries.popleft()
            yield budget, entries
        if len(self._accounts) > MANY:
            self._accounts = {key: entries for key, entries in self._accounts.items() if entries}

    def _left(self, budget: BudgetSpec, entries: deque[_Entry]) -> Allowance:
        def left(granted: float | None, used: float) -> float | None:
            return None if granted is None else granted * self._share - used

        renews_s = entries[0].at_s + budget.window_s - self._clock() if entries else 0.0
        work_s = left(budget.work_s, sum(entry.work_s for entry in entries))
        cost_usd = left(budget.cost_usd, sum(entry.cost_usd for entry in entries))
        return Allowance(budget.name, work_s, cost_usd, max(0.0, renews_s))
