"""Queues in seconds of work, and what a plan would cost and take if it were run now."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cachetools import LRUCache

from router.cost.model import CostModel, plan_seconds
from router.types import Plan, Resources

ESTIMATES = 512  # plans whose estimates are kept until costs or queues change


class Queues:
    """Outstanding seconds of work per worker, over all replicas. Safe to use from several threads.

    places: by model, the worker that holds it; models with the same one wait for each other. Default: one each
    replicas: by worker, how many of it there are (1 is assumed until told otherwise)
    slots: by worker, how many steps each replica runs at once; 1 where nothing is said, as of one accelerator

    `reserve` when a plan is admitted, `release` each step as it ends and the ticket when the request ends, however it
    ended (releasing twice is harmless).
    """

    def __init__(
        self,
        costs: CostModel,
        replicas: Mapping[str, int] | None = None,
        places: Mapping[str, str] | None = None,
        slots: Mapping[str, int] | None = None,
    ) -> None:
        self._costs = costs
        self._places = dict(places or {})
        self._replicas = dict(replicas or {})
        self._slots = dict(slots or {})
        self._tickets: dict[int, dict[tuple[int, str], tuple[str, float]]] = {}
        self._loads: dict[str, _Load] = {}
        self._loading: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._version = 0
        # Plans are known by identity: an entry keeps its plan, so that its number is not given to another meanwhile.
        self._alone: LRUCache[tuple[int, int], _Alone] = LRUCache(ESTIMATES)
        self._estimates: LRUCache[tuple[int, int], tuple[_Alone, tuple[float, ...], Resources]] = LRUCache(ESTIMATES)
        self._priced_at = -1

    def empty(self) -> Queues:
        """The same workers with nothing to do, for decisions that nobody waits for."""
        with self._lock:
            return self._alike()

    def _alike(self) -> Queues:
        """The same workers, with the same models in memory, and nothing reserved."""
        found = Queues(self._costs, self._replicas, self._places, self._slots)
        found._loading = dict(self._loading)
        return found

    def set_replicas(self, worker: str, count: int) -> None:
        """Tell how many replicas of a worker there are now; without any, one is counted on that will come."""
        with self._lock:
            if self._replicas.get(worker) != max(1, int(count)):
                self._replicas[worker] = max(1, int(count))
                self._priced_at = -1
                self._version += 1

    def set_loading(self, seconds: Mapping[str, float]) -> None:
        """Tell, by model, how long the first step waits for weights that are not in memory; 0: they are."""
        with self._lock:
            changed = {model: max(0.0, wait_s) for model, wait_s in seconds.items()}
            changed = {model: wait_s for model, wait_s in changed.items() if self._loading.get(model, 0.0) != wait_s}
            if changed:
                self._loading = {model: wait_s for model, wait_s in {**self._loading, **changed}.items() if wait_s}
                self._version += 1

    def reserve(self, plan: Plan, n: int = 1) -> int:
        """Add the work of `n` pictures of `plan` to the queues of its models; returns a ticket."""
        work = self._work(plan, n)
        with self._lock:
            ticket = next(self._numbers)
            self._add(ticket, work)
            return ticket

    def _work(self, plan: Plan, n: int) -> dict[tuple[int, str], tuple[str, float]]:
        """Worker and seconds of each step of each picture."""
        seconds = plan_seconds(plan, self._costs)
        return {(k, s.id): (self._place(s.model), seconds[s.id]) for k in range(n) for s in plan.steps if s.model}

    def _add(self, ticket: int, work: dict[tuple[int, str], tuple[str, float]]) -> None:
        self._tickets[ticket] = work
        for place, step_s in work.values():
            self._loads.setdefault(place, _Load()).add(step_s)
        self._version += 1

    def release(self, ticket: int, step: str | None = None, picture: int | None = None) -> None:
        """Take a finished step (of one picture, or of the next unreleased one) off the queues; all without `step`."""
        with self._lock:
            work = self._tickets.get(ticket)
            if work is None:
                return
            if step is None:
                ended = list(self._tickets.pop(ticket).values())
            else:
                found = next((k for k in work if k[1] == step and picture in (None, k[0])), None)
                ended = [work.pop(found)] if found is not None else []
            for place, step_s in ended:
                if self._loads[place].remove(step_s):
                    del self._loads[place]
            self._version += bool(ended)

    def move(self, ticket: int, plan: Plan, n: int = 1) -> None:
        """What is reserved under a ticket becomes that of another plan, in the place that the ticket has."""
        work = self._work(plan, n)
        with self._lock:
            for place, step_s in self._tickets.get(ticket, {}).values():
                if self._loads[place].remove(step_s):
                    del self._loads[place]
            self._add(ticket, work)

    def delays_nobody(self, ticket: int, plan: Plan, n: int = 1) -> bool:
        """Whether nothing that was reserved after the ticket would wait longer if it were `plan`'s: at every worker it
        asks for no more than now, or nothing waits there behind it."""
        with self._lock:
            now, then = _by_place(self._tickets.get(ticket, {})), _by_place(self._work(plan, n))
            more = {place for place, step_s in then.items() if step_s > now.get(place, 0.0)}
            later = (work for number, work in self._tickets.items() if number > ticket)
            return not any(place in more for work in later for place, _ in work.values())

    def before(self, ticket: int) -> Queues:
        """The queues as they are now, without what was reserved with this ticket or later: a copy."""
        with self._lock:
            found = self._alike()
            for number, work in self._tickets.items():
                if number < ticket:
                    found._add(number, dict(work))
            return found

    def outstanding_s(self, model: str) -> float:
        """Seconds of work reserved on the worker of `model` and not yet released."""
        return self.outstanding_at_s(self._place(model))

    def outstanding_at_s(self, worker: str) -> float:
        """The same by the name of the worker."""
        load = self._loads.get(worker)
        return load.seconds if load is not None else 0.0

    def replicas(self, model: str) -> int:
        """How many replicas the worker of `model` has."""
        return self._replicas.get(self._place(model), 1)

    def at_once(self, model: str) -> int:
        """How many steps the worker of `model` runs at the same time, on all of its replicas."""
        return self._runs_at_once(self._place(model))

    def _runs_at_once(self, worker: str) -> int:
        return self._replicas.get(worker, 1) * self._slots.get(worker, 1)

    def _place(self, model: str) -> str:
        """The worker of a model."""
        return self._places.get(model, model)

    @property
    def state(self) -> tuple[int, int]:
        """As long as it stays, so does every estimate."""
        return self._costs.version, self._version

    def estimate(self, plan: Plan, n: int = 1) -> Resources:
        """What `n` pictures of `plan` would take if they were admitted now, behind all that is reserved."""
        return self.estimates({"": plan}, n)[""]

    def estimates(self, plans: Mapping[str, Plan], n: int = 1) -> dict[str, Resources]:
        """The same for several plans, each as if it alone were admitted."""
        found: dict[str, Resources] = {}
        with self._lock:
            if (version := self._costs.version) != self._priced_at:
                self._alone.clear()
                self._estimates.clear()
                self._priced_at = version
            for name, plan in plans.items():
                kept = self._alone.get((id(plan), n))
                if kept is None:
                    kept = self._alone[id(plan), n] = self._taken_alone(plan, n)
                # Only the loads of its own workers matter to a plan, and whether its own models are there.
                waiting = self._waiting(kept) if self._loads or self._loading else ()
                found[name] = self._behind(kept, n, waiting) if any(waiting) else kept.takes
        return found

    def _taken_alone(self, plan: Plan, n: int) -> _Alone:
        seconds = plan_seconds(plan, self._costs)
        on_models = [step for step in plan.steps if step.model is not None]
        work = n * sum(seconds[step.id] for step in on_models)
        cost = n * sum(self._costs.cost_usd(step, seconds[step.id]) for step in on_models)
        takes = Resources(_makespan(plan, n, seconds, self._places, self._runs_at_once, {}), work, cost)
        models = tuple({str(step.model) for step in on_models})
        return _Alone(plan, models, tuple({self._place(model) for model in models}), seconds, takes)

    def _waiting(self, alone: _Alone) -> tuple[float, ...]:
        """Seconds ahead of a plan at each of its workers, over all of its replicas: reserved work, and the weights that
        one of them has to load first."""
        waiting = {place: load.seconds if (load := self._loads.get(place)) else 0.0 for place in alone.places}
        if self._loading:
            for model in alone.models:
                place = self._place(model)
                waiting[place] += self._loading.get(model, 0.0) * self._runs_at_once(place)
        return tuple(waiting.values())

    def _behind(self, alone: _Alone, n: int, waiting: tuple[float, ...]) -> Resources:
        kept = self._estimates.get((id(alone.plan), n))
        if kept is None or kept[1] != waiting:
            ahead = dict(zip(alone.places, waiting, strict=True))
            latency_s = _makespan(alone.plan, n, alone.seconds, self._places, self._runs_at_once, ahead)
            takes = replace(alone.takes, latency_s=latency_s, queue_s=max(0.0, latency_s - alone.takes.latency_s))
            kept = self._estimates[id(alone.plan), n] = (alone, waiting, takes)
        return kept[2]


def _by_place(work: Mapping[tuple[int, str], tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for place, step_s in work.values():
        found[place] = found.get(place, 0.0) + step_s
    return found


@dataclass(frozen=True, slots=True)
class _Alone:
    """What a plan takes when nothing waits: kept until prices or replicas change, since all else follows from it."""

    plan: Plan
    models: tuple[str, ...]
    places: tuple[str, ...]
    seconds: Mapping[str, float]
    takes: Resources


class _Load:
    """Seconds that wait for one worker, and of how many steps they are: without steps they are exactly none, however
    the sums were rounded on the way."""

    __slots__ = ("seconds", "steps")

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0

    def add(self, seconds: float) -> None:
        self.seconds, self.steps = self.seconds + seconds, self.steps + 1

    def remove(self, seconds: float) -> bool:
        """Take a step off; True if it was the last one."""
        self.seconds, self.steps = max(0.0, self.seconds - seconds), self.steps - 1
        return self.steps == 0


def _makespan(
    plan: Plan,
    n: int,
    seconds: Mapping[str, float],
    places: Mapping[str, str],
    at_once: Callable[[str], int],
    loads: Mapping[str, float],
) -> float:
    """Seconds until the last of `n` pictures: steps run in the order in which they become ready.

    Steps on different workers overlap, as do `at_once` of the same one; steps without a model run at once.
    """
    at = {step.id: places.get(step.model, step.model) for step in plan.steps if step.model is not None}
    count = {place: at_once(place) for place in at.values()}
    free = {place: [loads.get(place, 0.0) / number] * number for place, number in count.items()}
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
        place = at.get(name)
        if place is not None:
            begin = max(begin, heapq.heappop(free[place]))
        end = begin + seconds[name]
        if place is not None:
            heapq.heappush(free[place], end)
        last = max(last, end)
        for follower in followers[name]:
            key = (picture, follower)
            arrived[key] = max(arrived.get(key, 0.0), end)
            missing[key] -= 1
            if not missing[key]:
                heapq.heappush(ready, (arrived[key], picture, order[follower], follower))
    return last
