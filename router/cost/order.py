"""Whose turn it is: the order of what waits for one worker. Pure: the time comes in, and nothing happens by itself.

1. Priority classes, strictly: `interactive` before `standard` before `batch`. Ageing: when none of a tenant's steps in
   a class had its turn for `ageing_s`, the first of them goes up one class, so nothing waits for ever behind a stream
   of better ones. (If the age of each step counted, whoever queues a hundred would be promoted for its own queue.)
2. Within a class, tenants by start-time fair queueing (https://doi.org/10.1145/248157.248171) in expected seconds: the
   one that was served least, for its weight, since it has work here. What it leaves unused is not saved up.
3. Within a tenant, the earliest deadline. One that is further away than `PATIENCE` times `ageing_s` counts as that far
   away, so that no stream of urgent steps keeps one waiting for ever.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

CLASSES = ("interactive", "standard", "batch")
AGEING_S = 120.0
PATIENCE = len(CLASSES)

Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a step's place in the order depends on.

    priority: one of `CLASSES`;   deadline: on the clock of the order;   seconds: expected, made alone
    alone: it must not be made in one batch with others
    """

    job: str
    tenant: str
    priority: str
    deadline: float
    seconds: float
    alone: bool = False


class Order(Generic[Item]):
    """What waits for one worker. weights: what a tenant's share counts against others in its class; default 1."""

    def __init__(self, ageing_s: float = AGEING_S, weights: Mapping[str, float] | None = None) -> None:
        if ageing_s <= 0 or any(weight <= 0 for weight in (weights or {}).values()):
            raise ValueError("ageing_s and weights must be above 0")
        self._ageing_s = ageing_s
        self._weights = dict(weights or {})
        self._classes: list[_Class[Item]] = [_Class() for _ in CLASSES]
        self._waiting: dict[Item, _Waiting[Item]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, item: object) -> bool:
        return item in self._waiting

    def __iter__(self) -> Iterator[Item]:
        return iter(self._waiting)

    def add(self, item: Item, claim: Claim, now: float, since: float | None = None) -> None:
        """Let an item wait. since: from when on its age counts; default: now"""
        if item in self._waiting:
            raise ValueError("it waits already")
        since = now if since is None else since
        urgency = min(claim.deadline, since + PATIENCE * self._ageing_s)
        number = next(self._numbers)
        waiting = _Waiting((urgency, claim.deadline, number), item, claim, since, CLASSES.index(claim.priority))
        self._waiting[item] = waiting
        self._enter(waiting, since)

    def remove(self, item: Item) -> bool:
        """Take an item out that nobody waits for any more; False if it did not wait."""
        if (waiting := self._waiting.pop(item, None)) is None:
            return False
        self._leave(waiting)
        self._classes[waiting.rank].forget_idle()
        return True

    def take(self, item: Item, seconds: float, now: float, along: bool = False) -> None:
        """It is the item's turn, or it goes along with another's: its tenant is charged `seconds`."""
        waiting = self._waiting.pop(item)
        flow, place = self._leave(waiting), self._classes[waiting.rank]
        if along:  # it may begin ahead of the time
            flow.start += max(0.0, seconds) / self._weight(waiting.claim.tenant)
        else:
            # What was held up by other things than the order has no claim to catch up.
            place.time = max(place.time, flow.start)
            flow.start = place.time + max(0.0, seconds) / self._weight(waiting.claim.tenant)
        flow.served = now
        place.forget_idle()

    def rank(self, item: Item) -> int:
        """The class in which an item waits now, 0 the best."""
        return self._waiting[item].rank

    def since(self, item: Item) -> float:
        """From when on its age counts."""
        return self._waiting[item].since

    def claim(self, item: Item) -> Claim:
        return self._waiting[item].claim

    def first(self, now: float, may: Callable[[Item], bool] = lambda item: True) -> Item | None:
        """Whose turn it is among those that `may`; None if there is none."""
        self._age(now)
        for place in self._classes:
            for flow in sorted(place.busy(), key=lambda flow: (flow.start, flow.number)):
                for waiting in flow.waiting:
                    if may(waiting.item):
                        return waiting.item
        return None

    def along(self, first: Item, most: int, alike: Callable[[Item], bool]) -> list[Item]:
        """Up to `most` others of the class of `first` that are `alike`, in the order of their turns, if each tenant is
        charged for its own."""
        head = self._waiting[first]
        flows = {flow.number: flow for flow in self._classes[head.rank].busy()}
        starts = [
            (flow.start + (head.claim.seconds / self._weight(head.claim.tenant) if head in flow.waiting else 0.0), n, 0)
            for n, flow in flows.items()
        ]
        heapq.heapify(starts)
        found: list[Item] = []
        while starts and len(found) < most:
            start, number, place = heapq.heappop(starts)
            waiting = flows[number].waiting
            while place < len(waiting) and (waiting[place] is head or not alike(waiting[place].item)):
                place += 1
            if place < len(waiting):
                claim = waiting[place].claim
                found.append(waiting[place].item)
                heapq.heappush(starts, (start + claim.seconds / self._weight(claim.tenant), number, place + 1))
        return found

    def ahead_s(self, claim: Claim, now: float) -> float:
        """Seconds of waiting work whose turn would come before that of a claim that came now, ageing aside."""
        self._age(now)
        rank = CLASSES.index(claim.priority)
        before = sum(waiting.claim.seconds for waiting in self._waiting.values() if waiting.rank < rank)
        place = self._classes[rank]
        urgency = (min(claim.deadline, now + PATIENCE * self._ageing_s), claim.deadline, next(self._numbers))
        own = place.flows.get(claim.tenant)
        mine = sum(w.claim.seconds for w in own.waiting if w.urgency < urgency) if own is not None else 0.0
        start = max(place.time, own.start if own is not None else 0.0) + mine / self._weight(claim.tenant)
        turn = (start, own.number if own is not None and own.waiting else math.inf)
        for flow in place.busy():
            if flow is own:
                continue
            theirs, weight = flow.start, self._weight(flow.tenant)
            for waiting in flow.waiting:
                if (theirs, flow.number) > turn:
                    break
                before += waiting.claim.seconds
                theirs += waiting.claim.seconds / weight
        return before + mine

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)

    def _enter(self, waiting: _Waiting[Item], now: float) -> None:
        place, tenant = self._classes[waiting.rank], waiting.claim.tenant
        flow = place.flows.get(tenant)
        if flow is None:
            flow = place.flows[tenant] = _Flow(tenant, 0, place.time, now)
        if not flow.waiting:  # what it did not use while it had nothing is not owed to it
            flow.start, flow.number, flow.served = max(flow.start, place.time), next(self._numbers), now
        bisect.insort(flow.waiting, waiting)

    def _leave(self, waiting: _Waiting[Item]) -> _Flow[Item]:
        flow = self._classes[waiting.rank].flows[waiting.claim.tenant]
        del flow.waiting[bisect.bisect_left(flow.waiting, waiting)]
        return flow

    def _age(self, now: float) -> None:
        """Move up what is due, one after the other, as if somebody had looked at the time of each."""
        while True:
            flows = (
                (flow.served, rank, flow) for rank in range(1, len(CLASSES)) for flow in self._classes[rank].busy()
            )
            served, rank, flow = min(flows, key=lambda found: found[:2], default=(now, 0, None))
            if flow is None or (due := served + self._ageing_s) > now:
                return
            waiting = flow.waiting.pop(0)
            waiting.rank, flow.served = rank - 1, due
            self._enter(waiting, due)
            self._classes[rank].forget_idle()


@dataclass(slots=True, order=True)
class _Waiting(Generic[Item]):
    urgency: tuple[float, float, int]
    item: Item = field(compare=False)
    claim: Claim = field(compare=False)
    since: float = field(compare=False)
    rank: int = field(compare=False)


@dataclass(slots=True)
class _Flow(Generic[Item]):
    """A tenant in a class. number: of those with the same start, the lower one is first; start: the virtual time at
    which its next item begins; served: when one of it had its turn, or went up, or since when it has any; waiting: by
    urgency"""

    tenant: str
    number: int
    start: float
    served: float
    waiting: list[_Waiting[Item]] = field(default_factory=list)


class _Class(Generic[Item]):
    """time: virtual, the start of what was served last"""

    def __init__(self) -> None:
        self.time = 0.0
        self.flows: dict[str, _Flow[Item]] = {}

    def busy(self) -> list[_Flow[Item]]:
        return [flow for flow in self.flows.values() if flow.waiting]

    def forget_idle(self) -> None:
        """Drop the tenants of whom nothing has to be remembered."""
        for tenant in [name for name, flow in self.flows.items() if not flow.waiting and flow.start <= self.time]:
            del self.flows[tenant]
