"""Queues in seconds of work, and what a plan would cost and take if it were run now."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from router.cost.model import CostModel, plan_seconds
from router.types import Plan

ESTIMATES = 512  # plans whose estimates are kept until costs or queues change


@dataclass(frozen=True, slots=True)
class Timing:
    """work_s: accelerator seconds over all pictures; latency_s: until the last picture, waiting included;
    queue_s: the part of latency_s that is due to other requests; cost_usd: work at the cards' prices."""

    work_s: float
    queue_s: float
    latency_s: float
    cost_usd: float


class Queues:
    """Outstanding seconds of work per model, over all replicas. Safe to use from several threads.

    `reserve` when a plan is admitted, `release` each step as it ends and the ticket when the request ends, however it
    ended (releasing twice is harmless).
    """

    def __init__(self, costs: CostModel, replicas: Mapping[str, int] | None = None) -> None:
        self._costs = costs
        self._replicas = dict(replicas or {})
        self._tickets: dict[int, dict[tuple[int, str], tuple[str, float]]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._version = 0
        self._estimates: dict[tuple[int, int], tuple[Plan, tuple[int, int], Timing]] = {}

    def set_replicas(self, model: str, count: int) -> None:
        """Tell how many workers hold `model` now (1 is assumed until told otherwise)."""
        with self._lock:
            if self._replicas.get(model) != max(1, int(count)):
                self._replicas[model] = max(1, int(count))
                self._version += 1

    def reserve(self, plan: Plan, n: int = 1) -> int:
        """Add the work of `n` pictures of `plan` to the queues of its models; returns a ticket."""
        seconds = plan_seconds(plan, self._costs)
        work = {(k, s.id): (s.model, seconds[s.id]) for k in range(n) for s in plan.steps if s.model is not None}
        with self._lock:
            ticket = next(self._numbers)
            self._tickets[ticket] = work
            self._version += 1
            return ticket

    def release(self, ticket: int, step: str | None = None, picture: int | None = None) -> None:
        """Take a finished step (of one picture, or of the next unreleased one) off the queues; all without `step`."""
        with self._lock:
            self._version += 1
            if step is None:
                self._tickets.pop(ticket, None)
            elif work := self._tickets.get(ticket):
                found = next((k for k in work if k[1] == step and picture in (None, k[0])), None)
                if found is not None:
                    del work[found]

    def outstanding_s(self, model: str) -> float:
        """Seconds of work reserved on `model` and not yet released."""
        return self.loads().get(model, 0.0)

    def loads(self) -> dict[str, float]:
        """Outstanding seconds of every model that has any."""
        total: dict[str, float] = {}
        with self._lock:
            for work in self._tickets.values():
                for model, seconds in work.values():
                    total[model] = total.get(model, 0.0) + seconds
        return total

    @property
    def state(self) -> tuple[int, int]:
        """As long as it stays, so does every estimate."""
        return self._costs.version, self._version

    def estimate(self, plan: Plan, n: int = 1) -> Timing:
        """What `n` pictures of `plan` would take if they were admitted now, behind all that is reserved."""
        key, state = (id(plan), n), self.state
        kept = self._estimates.get(key)
        if kept is None or kept[0] is not plan or kept[1] != state:
            if len(self._estimates) >= ESTIMATES:
                self._estimates.clear()
            # The state was read first: what changes meanwhile makes this estimate old at once.
            kept = self._estimates[key] = (plan, state, self._estimated(plan, n))
        return kept[2]

    def _estimated(self, plan: Plan, n: int) -> Timing:
        seconds = plan_seconds(plan, self._costs)
        loads, replicas = self.loads(), dict(self._replicas)
        latency = _makespan(plan, n, seconds, replicas, loads)
        alone = _makespan(plan, n, seconds, replicas, {}) if loads else latency
        on_models = [step for step in plan.steps if step.model is not None]
        work = n * sum(seconds[step.id] for step in on_models)
        cost = n * sum(self._costs.cost_usd(step, seconds[step.id]) for step in on_models)
        return Timing(work, max(0.0, latency - alone), latency, cost)


def _makespan(
    plan: Plan, n: int, seconds: Mapping[str, float], replicas: Mapping[str, int], loads: Mapping[str, float]
) -> float:
    """Seconds until the last of `n` pictures: steps run in the order in which they become ready, one per replica.

    Steps on different models overlap, steps on the same replica follow one another, steps without a model run at once.
    """
    models = {step.model for step in plan.steps if step.model is not None}
    count = {model: replicas.get(model, 1) for model in models}
    free = {model: [loads.get(model, 0.0) / count[model]] * count[model] for model in models}
    steps = {step.id: step for step in plan.steps}
    followers: dict[str, list[str]] = {name: [] for name in steps}
    missing: dict[tuple[int, str], int] = {}
    for step in plan.steps:
        for name in step.after:
            followers[name].append(step.id)
    ready: list[tuple[float, int, int, str]] = []
    order = {name: k for k, name in enumerate(steps)}
    for picture in range(n):
        for step in plan.steps:
            missing[picture, step.id] = len(step.after)
            if not step.after:
                heapq.heappush(ready, (0.0, picture, order[step.id], step.id))
    arrived: dict[tuple[int, str], float] = {}
    last = 0.0
    while ready:
        begin, picture, _, name = heapq.heappop(ready)
        model = steps[name].model
        if model is not None:
            begin = max(begin, heapq.heappop(free[model]))
        end = begin + seconds[name]
        if model is not None:
            heapq.heappush(free[model], end)
        last = max(last, end)
        for follower in followers[name]:
            key = (picture, follower)
            arrived[key] = max(arrived.get(key, 0.0), end)
            missing[key] -= 1
            if not missing[key]:
                heapq.heappush(ready, (arrived[key], picture, order[follower], follower))
    return last
