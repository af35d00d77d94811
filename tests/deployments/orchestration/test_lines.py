"""The line of one worker by itself: when there is room for another batch, and which begins when one has ended."""

from __future__ import annotations

import math
from typing import Any

import pytest

from deployments.orchestration.step_queues import _Batch, _Line
from deployments.settings import QueueSettings

SETTINGS = QueueSettings(at_worker=2, soon_s=0.25)


def batch(seconds: float = 4.0, sent_at: float = 0.0) -> _Batch:
    return _Batch("m", (), seconds, sent_at, False)


def line(replicas: int = 1) -> _Line:
    order: Any = None
    made = _Line("m", order)
    made.replicas = replicas
    return made


def test_an_idle_replica_has_room_at_once() -> None:
    """As many begin as there are replicas; each is due when its seconds are over."""
    one = line(2)
    for number in range(2):
        assert one.room(10.0, SETTINGS) == 0.0
        one.out(batch(4.0 + number), 10.0)
    assert [running.due for running in one.running] == [14.0, 15.0] and not one.sent


@pytest.mark.parametrize(("now", "wait_s"), [(10.0, 3.75), (13.0, 0.75), (13.75, 0.0), (13.8, 0.0), (20.0, 0.0)])
def test_the_next_is_sent_shortly_before_the_first_is_due(now: float, wait_s: float) -> None:
    """A quarter of a second, as is set; what is late has room now."""
    one = line()
    one.out(batch(), 10.0)
    assert one.room(now, SETTINGS) == pytest.approx(wait_s)


def test_behind_each_running_batch_waits_one_less_than_a_worker_may_have() -> None:
    """Then there is room only when one comes back; the second waits for the second to end."""
    one = line(2)
    for seconds in (4.0, 6.0):
        one.out(batch(seconds), 10.0)
    assert one.room(10.0, SETTINGS) == pytest.approx(3.75)
    one.out(batch(), 13.75)
    assert len(one.sent) == 1 and one.room(13.75, SETTINGS) == pytest.approx(2.0)
    one.out(batch(), 15.75)
    assert len(one.sent) == 2 and one.room(15.75, SETTINGS) == math.inf
    alone = line()
    alone.out(batch(), 10.0)
    assert alone.room(10.0, QueueSettings(at_worker=1)) == math.inf
    deep = line()
    for _ in range(2):
        deep.out(batch(), 10.0)
    assert deep.room(99.0, QueueSettings(at_worker=3)) == math.inf  # one is behind the only one that runs
    fewer = line(3)
    for _ in range(3):
        fewer.out(batch(), 10.0)
    fewer.replicas = 1  # others are gone: what they have still runs
    assert fewer.room(99.0, SETTINGS) == 0.0
    fewer.out(batch(), 99.0)
    assert len(fewer.sent) == 1 and fewer.room(99.0, SETTINGS) == math.inf


def test_what_was_sent_first_begins_when_one_has_ended() -> None:
    """In its place, and is due from then on; a batch that had not begun may end, too."""
    one = line()
    first, second, third = batch(), batch(5.0), batch(6.0)
    for sent in (first, second, third):
        one.out(sent, 10.0)
    one.back(second, 11.0)
    assert one.running == [first] and list(one.sent) == [third]
    one.back(first, 12.5)
    assert one.running == [third] and third.due == 18.5 and not one.sent
    one.back(third, 20.0)
    assert one.running == [] and one.room(20.0, SETTINGS) == 0.0
