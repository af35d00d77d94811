"""What a key may use: requests a minute and dollars in a window, exact because one orchestrator counts all of them.

A request counts when it is accepted as a job, from then on for a minute; refused ones do not. What counts is in the
store with the job, as a row of usage under `KEY`, from which the next orchestrator starts.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable

from deployments.jobs.values import Rate
from deployments.operating.values import BudgetUse
from deployments.orchestration.budgets import TenantBudgets
from deployments.orchestration.results import Admitted
from deployments.store.records import KeyRecord, UsageRow
from router.errors import BudgetError, OverloadedError
from router.types import Allowance

MINUTE_S = 60.0
KEY = ("", "key")
"""Policy and budget of the rows of usage that belong to keys; their tenant is the key's id."""


class RateLimitError(OverloadedError):
    """A key has sent as many requests as it may for now. rate: what it has left, which is nothing"""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, retry_after_s: float, rate: Rate) -> None:
        super().__init__(message, retry_after_s)
        self.args = (message, retry_after_s, rate)
        self.rate = rate


class KeyLimits:
    """The requests of the last minute, by key, and the keys' accounts among the budgets. For one event loop."""

    def __init__(self, budgets: TenantBudgets, clock: Callable[[], float] = time.monotonic) -> None:
        self._budgets = budgets
        self._clock = clock
        self._times: dict[str, deque[float]] = {}

    def restore(self, rows: Iterable[UsageRow]) -> None:
        """Count what an earlier orchestrator accepted."""
        unix_s = time.time() - self._clock()
        for row in sorted(rows, key=lambda row: row.at):
            if (row.policy, row.budget) == KEY:
                self._times.setdefault(row.tenant, deque()).append(row.at - unix_s)

    def enter(self, key: KeyRecord) -> float:
        """Count a request that comes now; returns what `leave` takes. Raises `RateLimitError`."""
        now_s, times = self._clock(), self._recent(key.id)
        if key.rpm is not None and len(times) >= key.rpm:
            wait_s = times[len(times) - key.rpm] + MINUTE_S - now_s
            rate = Rate(key.rpm, 0, times[-1] + MINUTE_S - now_s)
            message = f"this key may send {key.rpm} requests a minute, and has; try again in {math.ceil(wait_s)} s"
            raise RateLimitError(message, wait_s, rate)
        times.append(now_s)
        self._times[key.id] = times
        return now_s

    def leave(self, key: KeyRecord, at_s: float) -> None:
        """A request that entered was not accepted after all: it does not count."""
        times = self._times.get(key.id)
        if times is not None and at_s in times:
            times.remove(at_s)

    def allowances(self, key: KeyRecord) -> tuple[Allowance, ...]:
        """What the key's budget has left, if it has one: a request is decided within it."""
        budget = key.budget or {}
        if (most_usd := budget.get("cost_usd")) is None:
            return ()
        window_s = float(budget.get("window_s", MINUTE_S))
        return (self._budgets.left("its key's budget", (*KEY, key.id), window_s, most_usd),)

    def charge(self, key: KeyRecord, admitted: Admitted) -> None:
        """Take from the key's budget what an admitted request is expected to use. Raises `BudgetError`."""
        work_s, cost_usd = admitted.expected()
        budget = key.budget or {}
        window_s, most_usd = float(budget.get("window_s", MINUTE_S)), budget.get("cost_usd")
        wait_s = self._budgets.also(admitted.charge, (*KEY, key.id), window_s, most_usd, work_s, cost_usd)
        if wait_s is None:
            return
        whole = f"the key's budget of {most_usd:g} USD in {window_s:g} s"
        if math.isinf(wait_s):
            error = BudgetError(f"this request may cost {cost_usd:.3g} USD, which is more than {whole}; ask for less")
            error.retry_after_s = None
            raise error
        message = f"{whole} has less left than the {cost_usd:.3g} USD that this request may cost"
        raise BudgetError(f"{message}; try again in {math.ceil(wait_s)} s", wait_s)

    def spent_usd(self, key: KeyRecord) -> float:
        """What of the key's budget is reserved and used now."""
        return self._budgets.used_usd((*KEY, key.id), float((key.budget or {}).get("window_s", MINUTE_S)))

    def tightest(self, keys: Iterable[KeyRecord]) -> dict[str, BudgetUse]:
        """By tenant, the budget of a key of its of which most is used."""
        found: dict[str, BudgetUse] = {}
        for key in keys:
            if key.budget is not None and key.revoked_at is None:
                use = BudgetUse(key.budget["cost_usd"], self.spent_usd(key), key.budget["window_s"])
                known = found.get(key.tenant)
                if known is None or use.share > known.share:
                    found[key.tenant] = use
        return found

    def rate(self, key: KeyRecord) -> Rate | None:
        """What the key has left now; None: there is no limit."""
        if key.rpm is None:
            return None
        times = self._recent(key.id)
        reset_s = times[-1] + MINUTE_S - self._clock() if times else 0.0
        return Rate(key.rpm, max(0, key.rpm - len(times)), max(0.0, reset_s))

    def _recent(self, id: str) -> deque[float]:
        times = self._times.get(id) or deque()
        while times and times[0] <= self._clock() - MINUTE_S:
            times.popleft()
        if not times:
            self._times.pop(id, None)
        return times
