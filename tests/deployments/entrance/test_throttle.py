"""The edge's throttle: whoever is refused for want of room is let in more slowly, and nobody else is."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deployments.api import errors as failures
from deployments.api.edge.middleware import Edge
from deployments.api.edge.throttle import AHEAD, BURST, HOLD_S, LEAST_PER_S, Throttle
from router.errors import OverloadedError, RequestError


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def beyond(capacity: float, offered: float, seconds: float) -> tuple[float, float]:
    """Requests a second that a throttle lets in and that an application takes, which has room for `capacity` a second
    and refuses the rest; of the second half of the time."""
    clock, entered, taken, room = Clock(), 0, 0, 0.0
    throttle = Throttle(clock)
    while clock.s < seconds:
        clock.s += 1 / offered
        room = min(2.0, room + capacity / offered)
        if throttle.refuses("one") is not None:
            continue
        throttle.leaves("one", done=True)
        counts = clock.s > seconds / 2
        entered += counts
        if room >= 1:
            room -= 1
            taken += counts
            throttle.took("one")
        else:
            throttle.refused("one", 3.0)
    return entered / (seconds / 2), taken / (seconds / 2)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.1, 60), st.floats(1.1, 12))
def test_what_is_let_in_follows_what_is_taken(capacity: float, times: float) -> None:
    """Offered more than it can take, an application takes nearly all that it can, and refuses little beside."""
    entered, taken = beyond(capacity, times * capacity, 60.0)
    assert taken >= 0.8 * min(capacity, times * capacity) - 0.2
    assert entered <= AHEAD * 1.25 * capacity + LEAST_PER_S + BURST / 30 + 0.5


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=40))
def test_who_was_not_refused_is_never_held_up(others: list[tuple[bool, float]]) -> None:
    """Whatever another client meets, one that the application never refused is let in, and so is everybody a while
    after the last refusal."""
    clock = Clock()
    throttle = Throttle(clock)
    for refused, seconds in others:
        clock.s += seconds
        if refused:
            throttle.refused("greedy", 5.0)
        if throttle.refuses("greedy") is None:
            throttle.leaves("greedy", done=True)
        assert throttle.refuses("modest") is None
        throttle.took("modest")
        throttle.leaves("modest", done=True)
    clock.s += HOLD_S + 0.001
    assert throttle.refuses("greedy") is None


def test_a_refusal_at_the_edge_says_what_the_application_said() -> None:
    """The seconds until to come back count down from what the application told, and are never below one."""
    clock = Clock()
    throttle = Throttle(clock)
    throttle.refused("one", 2.0)
    told = [seconds for _ in range(20) if (seconds := throttle.refuses("one")) is not None]
    assert told and all(seconds == pytest.approx(2.0) for seconds in told)
    clock.s += 1.9
    while (seconds := throttle.refuses("one")) is None:
        pass
    assert seconds == 1.0


def entered(throttle: Throttle, client: str = "one") -> int:
    """How many enter now, until one is refused."""
    count = 0
    while throttle.refuses(client) is None:
        throttle.leaves(client, done=True)
        count += 1
        assert count < 1000
    return count


def test_who_was_refused_enters_by_what_was_taken() -> None:
    """Eight at first; then two a second, and one and a half times what was taken, which counts half after five seconds;
    more than two seconds after a refusal, as many as come. Worked out by hand."""
    clock = Clock()
    throttle = Throttle(clock)
    throttle.refused("one", 5.0)
    assert entered(throttle) == 8
    clock.s = 1.0
    assert entered(throttle) == 2
    clock.s = 2.0  # two seconds are not more than two
    assert (entered(throttle), throttle.refuses("one")) == (2, 3.0)
    clock.s = 2.001
    assert [throttle.refuses("one") for _ in range(9)] == [None] * 9
    throttle, clock.s = Throttle(clock), 0.0
    for _ in range(10):
        throttle.took("one")
    throttle.refused("one", 5.0)
    assert entered(throttle) == 8
    clock.s = 1.0  # 2 and 1.5 * 10 * ln 2 / 5
    assert entered(throttle) == math.floor(2 + 1.5 * 10 * math.log(2) / 5) == 4
    clock.s = 5.0
    throttle.refused("one", 5.0)  # 5 are left of those that were taken, and there is room for 8 again
    assert entered(throttle) == 8
    clock.s = 6.0
    assert entered(throttle) == math.floor(2 + 1.5 * 5 * math.log(2) / 5)


def test_turns_follow_one_another_by_the_requests_that_are_done() -> None:
    """128 are inside at once; the next are told to come back one after the other, four a second as long as nothing was
    done, two minutes at most; what was done counts half after five seconds."""
    clock = Clock()
    throttle = Throttle(clock)
    assert [throttle.refuses("one") for _ in range(128)] == [None] * 128
    assert [throttle.refuses("one") for _ in range(3)] == [32.0, 32.25, 32.5]
    assert max(throttle.refuses("one") or 0.0 for _ in range(400)) == 120.0
    few = Throttle(clock, most=2)
    assert [few.refuses("one") for _ in range(3)] == [None, None, 1.0]  # never less than a second
    some = Throttle(clock, most=12)
    assert [some.refuses("one") for _ in range(12)] == [None] * 12
    clock.s = 5.0
    some.leaves("one", done=True)
    some.leaves("one", done=False)
    assert [some.refuses("one") for _ in range(2)] == [None] * 2
    assert some.refuses("one") == pytest.approx(12 * (1 * 0.5 + 5) / (4 * 0.5 + 1))


def test_so_many_at_once_come_back_in_turn_and_find_room() -> None:
    """Of four hundred at once a bounded number enters; the others are told times at which there is room for them."""
    clock = Clock()
    throttle = Throttle(clock, most=32)
    per_s, inside, waiting, done = 10.0, 0, [], 0
    for _ in range(400):
        seconds = throttle.refuses("one")
        inside += seconds is None
        waiting += [] if seconds is None else [math.ceil(seconds)]
    assert inside == 32
    refused_again, free = 0, 0.0
    for second in range(1, 141):
        for _ in range(10):
            clock.s += 0.1
            free = min(1.0, free + per_s / 10)
            if inside and free >= 1:
                throttle.leaves("one", done=True)
                inside, free, done = inside - 1, free - 1, done + 1
        for _ in range(waiting.count(second)):
            entered = throttle.refuses("one") is None
            inside += entered
            refused_again += not entered
    assert refused_again <= 0.15 * 400
    assert done >= 0.9 * 400


@given(st.integers(1, 40))
def test_a_client_with_few_inside_enters_beside_one_with_many(most: int) -> None:
    """Whoever fills the place leaves the others their share of it."""
    throttle = Throttle(Clock(), most=2 * most)
    for _ in range(4 * most):
        throttle.refuses("greedy")
    entered = sum(throttle.refuses("modest") is None for _ in range(4 * most))
    assert entered == most


async def test_whoever_leaves_makes_room() -> None:
    """A request is inside until it is answered, fails or is given up: none of these takes a place for ever."""
    ways = iter(("answer", "fail", "wait") * 5)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        way = next(ways)
        if way == "fail":
            raise RuntimeError("broken")
        if way == "wait":
            await asyncio.sleep(60)
        await JSONResponse({})(scope, receive, send)

    edge = Edge(app, 1000, 5.0, inside=2)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        pass

    for _ in range(15):
        task = asyncio.ensure_future(
            edge({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
        )
        await asyncio.wait([task], timeout=0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert not edge._throttle._inside


async def test_the_edge_refuses_in_the_envelope_and_only_for_want_of_room() -> None:
    """Refused for want of room, a client's next requests are mostly answered by the edge: 429, an envelope,
    Retry-After. Reading goes on, and neither refusals of another kind nor those of another key count."""
    came: list[str] = []

    async def answer(request: Request) -> JSONResponse:
        key = request.headers.get("authorization", "")
        came.append(key)
        error = OverloadedError("no room", 7.0) if key == "Bearer full" else RequestError("not this", "n")
        if request.method == "GET":
            return JSONResponse({})
        return JSONResponse(failures.envelope(error), failures.status_of(error), failures.headers(error))

    app = Edge(Starlette(routes=[Route("/v1/x", answer, methods=["GET", "POST"])]), 1000, 5.0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here") as client:

        async def ask(method: str, key: str) -> httpx.Response:
            return await client.request(method, "/v1/x", headers={"authorization": f"Bearer {key}"})

        refused = await asyncio.gather(*(ask("POST", "full") for _ in range(40)))
        assert {one.status_code for one in refused} == {429}
        assert {json.loads(one.text)["error"]["code"] for one in refused} == {"overloaded"}
        assert all(one.headers["retry-after"] == "7" and one.headers["x-request-id"] for one in refused[10:])
        assert BURST <= came.count("Bearer full") <= BURST + 2
        came.clear()
        for _ in range(20):
            assert (await ask("GET", "full")).status_code == 200
            assert (await ask("POST", "wrong")).status_code == 400
        assert len(came) == 40
