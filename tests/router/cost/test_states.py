"""Queues from one state to the next, at loads of less than a second, and batches at the very share that pays."""

from __future__ import annotations

import pytest

from router.cost.batches import BatchSizes
from router.cost.model import CostModel
from router.cost.order import Claim, Order
from router.cost.queues import Queues
from router.planning.plan import make_plan
from router.types import Fuse, Generate, GenerationRequest, Plan, Recipe, Step
from tests.router.cards import CATALOGUE


def plan(recipe: Recipe) -> Plan:
    return make_plan("r", recipe, GenerationRequest("a red circle"), CATALOGUE, {})


SHORT = plan(Generate("sd15", steps=3))  # .3 s
TWICE = plan(Fuse("average", (Generate("sd15", steps=3), Generate("sd15", steps=3))))


def test_no_state_comes_back_while_something_waits() -> None:
    """Reserving, each step that ends, moving and the end of the rest are each a state of their own; what changes
    nothing is none."""
    queues = Queues(CostModel(CATALOGUE))
    states = [queues.state]
    ticket = queues.reserve(TWICE)
    states.append(queues.state)
    queues.release(ticket, TWICE.steps[0].id)
    states.append(queues.state)
    queues.move(ticket, SHORT)
    states.append(queues.state)
    other = queues.reserve(SHORT)
    states.append(queues.state)
    queues.release(other)
    states.append(queues.state)
    assert len(set(states)) == len(states)
    queues.release(other)
    queues.release(ticket, "no such step")
    queues.release(999)
    assert queues.state == states[-1]


def test_less_than_a_second_of_work_is_so_much() -> None:
    """Of two steps of .3 s one that ended leaves .3 s, both nothing; and a short plan alone takes .3 s."""
    queues = Queues(CostModel(CATALOGUE))
    assert queues.estimate(SHORT).latency_s == pytest.approx(0.3)
    ticket = queues.reserve(TWICE)
    assert queues.outstanding_s("sd15") == pytest.approx(0.6)
    assert queues.estimate(SHORT).queue_s == pytest.approx(0.6)
    queues.release(ticket, TWICE.steps[0].id)
    assert queues.outstanding_s("sd15") == pytest.approx(0.3)
    queues.release(ticket, TWICE.steps[1].id)
    assert queues.outstanding_s("sd15") == 0.0
    queues.release(ticket)
    assert queues.estimate(SHORT).queue_s == 0.0


def test_replicas_come_and_go_one_by_one() -> None:
    """What is told counts, down to the one that will come; told again, it is no change."""
    queues = Queues(CostModel(CATALOGUE), {"sd15": 2})
    seen = []
    for count in (2, 1, 1, 2, 3, 2, 0, 1):
        before = queues.state
        queues.set_replicas("sd15", count)
        seen.append((queues.replicas("sd15"), queues.state != before))
    assert seen == [(2, False), (1, True), (1, False), (2, True), (3, True), (2, True), (1, True), (1, False)]


def test_loading_is_told_by_its_changes() -> None:
    """Seconds below nothing are none, and what is told again, or of a model that is there, is no change."""
    queues = Queues(CostModel(CATALOGUE))
    seen = []
    for seconds in ({"sd15": 0.0}, {"sd15": -3.0}, {"sd15": 0.5}, {"sd15": 0.5}, {"flux": 1.0}, {"sd15": 0.0}, {}):
        before = queues.state
        queues.set_loading(seconds)
        waits = queues.estimate(SHORT).queue_s, queues.estimate(plan(Generate("flux"))).queue_s
        seen.append((*(round(wait_s, 6) for wait_s in waits), queues.state != before))
    assert seen == [
        (0.0, 0.0, False), (0.0, 0.0, False), (0.5, 0.0, True), (0.5, 0.0, False), (0.5, 1.0, True), (0.0, 1.0, True),
        (0.0, 1.0, False),
    ]  # fmt: skip


def test_a_plan_delays_nobody_that_asks_for_no_more_where_others_wait() -> None:
    """As much as before at a worker where somebody waits behind, or more where nobody does, delays no one."""
    queues = Queues(CostModel(CATALOGUE))
    before, ticket = queues.reserve(TWICE), queues.reserve(SHORT)
    longer, flux = plan(Generate("sd15", steps=4)), plan(Generate("flux"))
    assert queues.delays_nobody(ticket, longer) and queues.delays_nobody(ticket, flux)
    after = queues.reserve(SHORT)
    assert queues.delays_nobody(ticket, SHORT) and not queues.delays_nobody(ticket, longer)
    assert not queues.delays_nobody(ticket, SHORT, 2) and queues.delays_nobody(ticket, flux)
    assert queues.delays_nobody(after, flux) and queues.delays_nobody(before, TWICE)
    queues.reserve(flux)
    assert not queues.delays_nobody(ticket, flux) and queues.delays_nobody(ticket, plan(Generate("sd15", steps=2)))


class Told(CostModel):
    """Measured often at each size, at which a picture takes what is told."""

    def __init__(self, seconds: dict[int, float], often: int = 3) -> None:
        super().__init__(CATALOGUE)
        self._told, self._often = seconds, often

    def measured(self, step: Step, batch: int = 1, engine: str = "") -> int:
        return self._often if batch in self._told else 0

    def seconds(self, step: Step, pixels: int | None = None, batch: int = 1, engine: str = "") -> float:
        return self._told[batch]


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 1.0, 2: 0.95}, 4),  # it pays at exactly .95, so that the next is tried
        ({1: 1.0, 2: 0.951}, 1),
        ({1: 1.0, 2: 0.5, 4: 0.475, 8: 0.475}, 4),
        ({1: 1.0, 2: 0.5, 4: 0.476}, 2),
        ({}, 1),
    ],
)
def test_twice_as_many_pay_up_to_nineteen_twentieths(seconds: dict[int, float], best: int) -> None:
    """Of the seconds of a picture in half of the batch; what was not measured three times is tried next."""
    assert BatchSizes(Told(seconds), lambda model: 8).best(SHORT.steps[0]) == best
    assert BatchSizes(Told(seconds, often=2), lambda model: 8).best(SHORT.steps[0]) == 1


def test_a_step_goes_along_in_the_order_of_turns_of_many_tenants() -> None:
    """Whoever was served least comes first, however long ago its first step came."""
    order: Order[str] = Order()
    for tenant, served in (("a", 9.0), ("b", 5.0), ("c", 7.0), ("d", 1.0), ("e", 3.0)):
        order.add(f"{tenant}0", Claim("j", tenant, "standard", 100.0, served), 0.0)
        order.add(f"{tenant}1", Claim("j", tenant, "standard", 101.0, 1.0), 0.0)
    for tenant, served in (("a", 9.0), ("b", 5.0), ("c", 7.0), ("d", 1.0), ("e", 3.0)):
        order.take(f"{tenant}0", served, 0.0, along=True)
    assert order.first(0.0) == "d1"
    assert order.along("d1", 9, lambda item: True) == ["e1", "b1", "c1", "a1"]
    assert order.along("d1", 3, lambda item: item != "b1") == ["e1", "c1", "a1"]
    assert order.remove("d1") and not order.remove("d1") and order.first(0.0) == "e1"
