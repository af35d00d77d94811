"""The order of what waits: classes with ageing, fairness between tenants, the earliest deadline within one."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.cost.order import CLASSES, PATIENCE, Claim, Order

FAR = 1e6


def claim(
    tenant: str = "a", priority: str = "standard", deadline: float = FAR, seconds: float = 1.0, job: str = "j"
) -> Claim:
    return Claim(job, tenant, priority, deadline, seconds)


def drained(order: Order[int], now: float = 0.0) -> Iterator[int]:
    """Everything that waits in the order of its turns, while the clock stands still."""
    while (item := order.first(now)) is not None:
        order.take(item, order.claim(item).seconds, now)
        yield item


claims = st.builds(
    claim,
    tenant=st.sampled_from("abc"),
    priority=st.sampled_from(CLASSES),
    deadline=st.floats(1, 1000),
    seconds=st.floats(0.01, 10),
)


def test_what_has_aged_meanwhile_is_ahead() -> None:
    """What waits in a lower class is behind a claim until it is old enough to go up, and before it from then on."""
    order: Order[int] = Order(ageing_s=10.0)
    order.add(0, claim(tenant="a", priority="batch", seconds=3.0), now=0.0)
    mine = claim(tenant="b", priority="standard")
    assert [order.ahead_s(mine, now) for now in (0.0, 9.9, 20.0)] == [0.0, 0.0, 3.0]


def test_whoever_has_nothing_left_is_forgotten() -> None:
    """A thousand tenants whose steps are taken back, or go up a class, leave nothing behind."""
    order: Order[int] = Order(ageing_s=10.0)
    for number in range(1000):
        order.add(number, claim(tenant=f"t{number}", priority="batch"), now=0.0)
        if number % 2:
            order.remove(number)
    assert order.first(now=25.0) is not None
    for number in range(0, 1000, 2):
        order.remove(number)
    assert [len(place.flows) for place in order._classes] == [0, 0, 0]


@given(st.lists(claims, max_size=40))
def test_classes_are_strict(asked: list[Claim]) -> None:
    """Of what waits at the same time, everything of a better class comes first, whoever asks."""
    order: Order[int] = Order()
    for number, one in enumerate(asked):
        order.add(number, one, now=0.0)
    ranks = [CLASSES.index(asked[item].priority) for item in drained(order)]
    assert ranks == sorted(ranks)
    assert len(ranks) == len(asked)


@given(st.lists(claims, max_size=40))
def test_within_a_tenant_the_earliest_deadline_is_first(asked: list[Claim]) -> None:
    """Steps of one class and tenant run by deadline; those of the same deadline by arrival."""
    order: Order[int] = Order(ageing_s=1000.0)
    for number, one in enumerate(asked):
        order.add(number, one, now=0.0)
    turns = list(drained(order))
    for priority, tenant in itertools.product(CLASSES, "abc"):
        own = [item for item in turns if (asked[item].priority, asked[item].tenant) == (priority, tenant)]
        assert own == sorted(own, key=lambda item: (asked[item].deadline, item))


@given(st.lists(claims, min_size=1, max_size=40), st.data())
def test_what_is_removed_never_gets_a_turn(asked: list[Claim], data: st.DataObject) -> None:
    """An item that was taken out is not returned any more, the others all are, and it can be taken out once only."""
    order: Order[int] = Order()
    for number, one in enumerate(asked):
        order.add(number, one, now=0.0)
    gone = data.draw(st.sets(st.sampled_from(range(len(asked)))))
    assert all(order.remove(item) for item in gone)
    assert not any(order.remove(item) for item in gone)
    assert sorted(drained(order)) == sorted(set(range(len(asked))) - gone)
    assert len(order) == 0


@dataclass
class Load:
    """A tenant that always has `waiting` steps of so many seconds."""

    waiting: int
    seconds: float
    weight: float = 1.0


def shares(loads: Mapping[str, Load], until: float, slots: int = 1) -> Counter[str]:
    """Seconds that each tenant was served by a worker in a simulated time."""
    order: Order[int] = Order(weights={name: load.weight for name, load in loads.items()})
    numbers, served, now = itertools.count(), Counter[str](), 0.0
    running: list[tuple[float, str]] = []

    def more(name: str) -> None:
        order.add(next(numbers), claim(name, deadline=now + 600, seconds=loads[name].seconds), now)

    for name, load in loads.items():
        for _ in range(load.waiting):
            more(name)
    while now < until:
        while len(running) < slots and (item := order.first(now)) is not None:
            asked = order.claim(item)
            order.take(item, asked.seconds, now)
            running.append((now + asked.seconds, asked.tenant))
        running.sort()
        now, name = running.pop(0)
        served[name] += loads[name].seconds
        more(name)
    return served


@given(
    greedy=st.builds(Load, st.just(100), st.floats(0.05, 2)),
    modest=st.builds(Load, st.integers(2, 4), st.floats(0.05, 2)),
    slots=st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
def test_a_greedy_tenant_takes_no_more_than_its_share(greedy: Load, modest: Load, slots: int) -> None:
    """A tenant with a hundred steps in the queue lowers the half of one that always has a few by 5 % at most, however
    long the steps of either are."""
    served = shares({"greedy": greedy, "modest": modest}, until=400.0, slots=slots)
    assert served["modest"] >= 0.95 * 0.5 * sum(served.values())


@given(st.lists(st.builds(Load, st.integers(3, 30), st.floats(0.1, 2), st.floats(0.5, 4)), min_size=2, max_size=5))
@settings(max_examples=40, deadline=None)
def test_shares_follow_weights(loads: list[Load]) -> None:
    """Tenants that always have work are served in proportion to their weights, up to a step or two."""
    named = {str(number): load for number, load in enumerate(loads)}
    served = shares(named, until=600.0)
    whole = sum(load.weight for load in loads)
    for name, load in named.items():
        due = load.weight / whole * sum(served.values())
        assert served[name] == pytest.approx(due, rel=0.05, abs=2 * max(load.seconds for load in loads))


def test_what_a_tenant_leaves_unused_is_not_saved_up() -> None:
    """After an hour alone, one tenant shares evenly with another that comes: neither is owed the past."""
    order: Order[int] = Order(ageing_s=1e9)
    for number in range(3600):
        order.add(number, claim("early"), 0.0)
    for _ in range(3590):
        item = order.first(0.0)
        assert item is not None
        order.take(item, 1.0, 0.0)
    for number in range(10):
        order.add(10_000 + number, claim("late"), 0.0)
    turns = ["late" if item >= 10_000 else "early" for item in drained(order)]
    assert all(turns[n : n + 2].count("late") == 1 for n in range(0, 20, 2))


@given(priority=st.sampled_from(CLASSES), same=st.booleans(), budget_s=st.floats(1, 500), seconds=st.floats(0.1, 5))
@settings(max_examples=60, deadline=None)
def test_nothing_waits_for_ever(priority: str, same: bool, budget_s: float, seconds: float) -> None:
    """However many urgent interactive steps keep coming, of its own tenant or another, a step has its turn once it is
    old enough."""
    ageing_s = 20.0
    order: Order[int] = Order(ageing_s=ageing_s)
    order.add(0, claim("patient", priority, deadline=FAR, seconds=seconds), 0.0)
    numbers, now = itertools.count(1), 0.0

    def press() -> None:
        urgent = claim("patient" if same else "other", "interactive", now + budget_s, seconds)
        order.add(next(numbers), urgent, now)

    for _ in range(3):
        press()
    while (item := order.first(now)) != 0:
        assert item is not None
        order.take(item, seconds, now)
        now += seconds
        press()
        assert now <= PATIENCE * ageing_s + 5 * seconds
    assert now == 0 or priority != "interactive" or same or now <= 2 * seconds


def test_waiting_moves_a_step_up_one_class_at_a_time() -> None:
    """A step of the last class is standard after `ageing_s` and interactive after twice that, and no better."""
    order: Order[str] = Order(ageing_s=10.0)
    order.add("old", claim(priority="batch"), now=0.0)
    for now, rank in ((9.9, 2), (10.0, 1), (19.9, 1), (20.0, 0), (500.0, 0)):
        order.first(now)
        assert order.rank("old") == rank
    late: Order[str] = Order(ageing_s=10.0)
    late.add("old", claim(priority="batch"), now=30.0, since=0.0)
    assert late.first(30.0) == "old" and late.rank("old") == 0


def test_who_may_not_is_passed_over() -> None:
    """If what is first cannot run now, the next one's turn it is, and the first keeps its place."""
    order: Order[str] = Order()
    order.add("first", claim(deadline=1), 0.0)
    order.add("second", claim(deadline=2), 0.0)
    assert order.first(0.0, lambda item: item != "first") == "second"
    order.take("second", 1.0, 0.0)
    assert order.first(0.0) == "first"
    assert order.first(0.0, lambda item: False) is None


def test_only_what_is_alike_and_of_the_same_class_goes_along() -> None:
    """Along with the first go those of its class that are alike, the tenants in turn, up to the number wanted."""
    order: Order[str] = Order()
    for name in ("a1", "a2", "a3", "a4", "a-other"):
        order.add(name, claim("a"), 0.0)
    for name in ("b1", "b2"):
        order.add(name, claim("b"), 0.0)
    order.add("lower", claim("c", "batch"), 0.0)
    first = order.first(0.0)
    assert first == "a1"
    assert order.along(first, 9, lambda item: "other" not in item) == ["b1", "a2", "b2", "a3", "a4"]
    assert order.along(first, 2, lambda item: "other" not in item) == ["b1", "a2"]
    assert order.along(first, 2, lambda item: False) == []


def test_going_along_is_charged() -> None:
    """A tenant whose steps went along with another's waits the longer for its next turn."""
    order: Order[str] = Order()
    for name in ("a1", "a2", "a3", "a4"):
        order.add(name, claim("a"), 0.0)
    order.add("b1", claim("b"), 0.0)
    order.take("a1", 1.0, 0.0)
    for name in ("a2", "a3"):
        order.take(name, 1.0, 0.0, along=True)
    for number in range(2, 6):
        order.add(f"b{number}", claim("b"), 0.0)
    turns = []
    while (item := order.first(0.0)) is not None:
        order.take(item, 1.0, 0.0)
        turns.append(item)
    assert turns == ["b1", "b2", "b3", "a4", "b4", "b5"]


@pytest.mark.parametrize(("weight", "turns"), [(1.0, "b1 b2 b3 a4"), (2.0, "b1 b2 a4 b3"), (0.5, "b1 b2 b3 b4")])
def test_going_along_is_charged_by_the_weight_of_whom_it_is(weight: float, turns: str) -> None:
    """Three steps of a second, two of them along with the first, are three seconds for a tenant of weight 1, half as
    many for one that counts twice, and twice as many for one that counts half."""
    order: Order[str] = Order(weights={"a": weight})
    for name in ("a1", "a2", "a3", "a4"):
        order.add(name, claim("a"), 0.0)
    for number in range(1, 6):
        order.add(f"b{number}", claim("b"), 0.0)
    order.take("a1", 1.0, 0.0)
    for name in ("a2", "a3"):
        order.take(name, 1.0, 0.0, along=True)
    seen = []
    while len(seen) < 4 and (item := order.first(0.0)) is not None:
        order.take(item, 1.0, 0.0)
        seen.append(item)
    assert seen == turns.split()


def test_tenants_that_need_not_be_remembered_are_not() -> None:
    """A thousand tenants that had less than another has had since are forgotten."""
    order: Order[int] = Order()
    for number in range(1000):
        order.add(number, claim(f"t{number}", seconds=0.001), 0.0)
    assert len(list(drained(order))) == 1000
    for number in range(2):
        order.add(number, claim("busy"), 0.0)
        order.take(number, 1.0, 0.0)
    assert list(order._classes[1].flows) == ["busy"]


# Powers of two, by which sums are divided exactly.
weights = st.fixed_dictionaries({tenant: st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]) for tenant in "abc"})


@given(st.lists(claims, max_size=25), claims, weights)
@settings(deadline=None)
def test_what_is_ahead_is_what_has_its_turn_before(asked: list[Claim], mine: Claim, weights: dict[str, float]) -> None:
    """The seconds said to be ahead of a claim are those of all that is served before it, if nothing else comes."""
    order: Order[int] = Order(ageing_s=1000.0, weights=weights)
    for number, one in enumerate(asked):
        order.add(number, one, 0.0)
    told = order.ahead_s(mine, 0.0)
    order.add(-1, mine, 0.0)
    before = itertools.takewhile(lambda item: item != -1, drained(order))
    assert told == pytest.approx(sum(asked[item].seconds for item in before))


def test_a_wrong_order_is_refused() -> None:
    """Ages and weights are above zero, and nothing waits twice."""
    with pytest.raises(ValueError, match="above 0"):
        Order(ageing_s=0)
    with pytest.raises(ValueError, match="above 0"):
        Order(weights={"a": 0.0})
    order: Order[str] = Order()
    order.add("x", claim(), 0.0)
    with pytest.raises(ValueError, match="already"):
        order.add("x", replace(claim(), tenant="b"), 0.0)
