"""Ending in order: what runs may finish, nothing new is begun, and nobody waits for ever."""

import asyncio

import pytest

from deployments.cluster.draining import Gate
from router.errors import OverloadedError


async def test_a_closed_gate_waits_for_what_is_inside_and_lets_nothing_in() -> None:
    """Closing says how many were inside and returns when they are out; whoever comes meanwhile is told to come
    again."""
    gate, go_on, done = Gate(), asyncio.Event(), []

    async def work() -> None:
        with gate.inside():
            await go_on.wait()
            done.append(1)

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(gate.close(60))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="shutting down") as refused, gate.inside():
        pass
    assert refused.value.retry_after_s == 10
    assert not closing.done()
    go_on.set()
    assert await closing == (3, 0)
    assert len(done) == 3
    await asyncio.gather(*tasks)


async def test_an_empty_gate_closes_at_once_and_a_stuck_one_at_its_limit() -> None:
    """Nobody waits for nothing, nor for what does not end."""
    assert await Gate().close(60) == (0, 0)
    gate = Gate()
    with gate.inside():
        assert await gate.close(0.01) == (1, 1)
