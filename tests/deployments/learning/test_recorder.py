"""What is remembered of an answer, a log that cannot be written to, what is known of workers, and bounds of metrics."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.orchestration import availability, recorder
from deployments.orchestration.availability import Availability, load_error
from deployments.orchestration.breaker import Breaker
from deployments.orchestration.metrics import DURATIONS, METRICS, MOMENTS, Tally
from deployments.orchestration.recorder import Recorder, kept, verdicts
from deployments.orchestration.results import Check, Made
from deployments.orchestration.shadows import _words
from deployments.store.errors import StoreError
from deployments.workers.worker import WorkerStatus
from router.errors import NoRecipeError, NotFoundError, RequestError, StepError
from router.learning.feedback import Feedback
from router.types import Estimate, GenerationRequest, Picture, Quality, Rejection, Verification
from tests.router.cards import CATALOGUE


def made(recipe: str, seed: int, *tries: tuple[str, int, float]) -> Made:
    checks = tuple(Check(name, score, (), seed=of) for name, of, score in tries)
    return Made(Picture(np.zeros((1, 1, 3), np.uint8)), seed, "", (), recipe, checks)


def test_which_try_was_kept_is_counted_among_those_of_its_recipe() -> None:
    """By its seed, from 0; without a look it is the first."""
    tries = (("draft", 7, 0.1), ("fine", 7, 0.2), ("draft", 8, 0.3), ("draft", 9, 0.4))
    assert [kept(made("draft", seed, *tries)) for seed in (7, 8, 9)] == [0, 1, 2]
    assert kept(made("fine", 7, *tries)) == 0 == kept(made("draft", 7))
    assert kept(made("fine", 9, *tries)) == 0


def outcome_of(*pictures: Made, verify: Verification | None) -> Any:
    return SimpleNamespace(route=SimpleNamespace(decision=SimpleNamespace(verify=verify)), made=pictures)


def test_what_the_scorer_said_is_feedback_of_each_try() -> None:
    """Under its name, on 0 to 1, each picture's tries of a recipe counted from 0."""
    first = made("fine", 7, ("draft", 7, -0.5), ("draft", 8, 0.25), ("fine", 7, 1.5))
    second = made("draft", 8, ("draft", 8, 0.75))
    assert verdicts(outcome_of(first, second, verify=Verification("alignment"))) == [
        Feedback("scorer:alignment", 0, "draft", 0.0, attempt=0),
        Feedback("scorer:alignment", 0, "draft", 0.25, attempt=1),
        Feedback("scorer:alignment", 0, "fine", 1.0, attempt=0),
        Feedback("scorer:alignment", 1, "draft", 0.75, attempt=0),
    ]
    assert verdicts(outcome_of(first, verify=None)) == []


class Log:
    """A log that says what it is told to."""

    path = Path("log.sqlite")

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.attached = error, list[Any]()

    def attach(self, *said: Any) -> str:
        self.attached.append(said)
        if self.error is not None:
            raise self.error
        return "receipt"


async def test_feedback_is_stored_and_counted_by_its_kind() -> None:
    """A person's as a rating, a program's as a score; a scorer of the catalogue speaks for itself."""
    tally, log = Tally(), Log()
    taken: Any = log
    record = Recorder(taken, CATALOGUE, tally)
    assert [await record.attach("r", source, 0.5, 1) for source in ("rating", "scorer:mine", "scorer:sdxl")] == [
        "receipt"
    ] * 3
    assert [tally.value("triptych_feedback_total", kind=kind) for kind in ("rating", "score")] == [1, 2]
    with pytest.raises(RequestError, match="what 'alignment' says is recorded when it is asked"):
        await record.attach("r", "scorer:alignment", 0.5, None)
    assert log.attached == [("r", source, 0.5, 1) for source in ("rating", "scorer:mine", "scorer:sdxl")]
    with pytest.raises(NotFoundError, match="not logged here"):
        await Recorder(None, CATALOGUE, tally).attach("r", "rating", 0.5, None)


@pytest.mark.parametrize("error", [StoreError("away"), OSError("no disk")])
async def test_feedback_that_cannot_be_stored_may_come_again(error: Exception) -> None:
    """In five seconds, and what is wrong stands in the server's log alone; nothing is counted."""
    tally = Tally()
    log: Any = Log(error)
    with pytest.raises(StepError, match="could not be stored") as refused:
        await Recorder(log, CATALOGUE, tally).attach("r", "rating", 0.5, None)
    assert refused.value.retry_after_s == 5.0
    assert tally.value("triptych_feedback_total", kind="rating") == 0


async def test_no_more_writes_wait_than_sixty_four() -> None:
    """For a log that does not respond; when one is through, the next may wait."""
    log: Any = Log()
    record, go = Recorder(log, CATALOGUE, Tally()), threading.Event()
    waiting = [record._begun(go.wait) for _ in range(64)]
    with pytest.raises(TimeoutError, match="64 writes wait"):
        record._begun(go.wait)
    go.set()
    waiting[-1].result(10)
    assert record._begun(lambda: "done").result(10) == "done" and len(record._waiting) == 1


def test_a_log_that_fails_is_complained_of_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every failure is counted; what was written is none."""
    now, tally = [1000.0], Tally()
    log: Any = Log()
    monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=lambda: now[0]))
    record = Recorder(log, CATALOGUE, tally)
    for at in (1000.0, 1030.0, 1060.0, 1060.5, 1100.0, 1121.0):
        now[0] = at
        record._failed(log, OSError(f"at {at:g}"))
        record._failed(log, None)
    assert [line.split("at ")[1] for line in caplog.messages] == ["1000", "1060.5", "1121"]
    assert tally.value("triptych_log_failures_total") == 6
    record._failed(log, TimeoutError())
    now[0] = 1200.0
    record._failed(log, TimeoutError())
    assert caplog.messages[-1].endswith("log.sqlite: TimeoutError")


async def test_what_cannot_wait_any_more_is_counted_and_fails_nothing() -> None:
    """And what no request asked for is not remembered."""
    tally = Tally()
    log: Any = Log()
    record = Recorder(log, CATALOGUE, tally)
    full = Future[Any]()
    record._waiting = [full] * 64
    asked: Any = SimpleNamespace(route=SimpleNamespace(request=SimpleNamespace(id="req_1")))
    predictor: Any = None
    await record.remember(asked, {}, predictor)
    assert tally.value("triptych_log_failures_total") == 1
    asked.route.request.id = ""
    await record.remember(asked, {}, predictor)
    assert tally.value("triptych_log_failures_total") == 1


# --------------------------------------------------------------------------------------------------------- the workers


class Monitor:
    """Workers who answer when they are let."""

    def __init__(self) -> None:
        self.go, self.asked, self.error = asyncio.Event(), 0, False
        self.go.set()

    async def statuses(self) -> Mapping[str, WorkerStatus]:
        self.asked += 1
        await self.go.wait()
        if self.error:
            raise StepError("no workers")
        return {"m": WorkerStatus("m", "ready", f"look {self.asked}", {"node": "a"})}


async def test_workers_are_asked_when_what_is_known_is_older_than_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the background: nobody waits for it once something is known; who wants to know now waits a moment."""
    now, monitor = [100.0], Monitor()
    monkeypatch.setattr(availability, "time", SimpleNamespace(monotonic=lambda: now[0]))
    known = Availability(monitor)
    assert (await known.refresh())["m"].reason == "look 1"
    now[0] = 102.0
    await known.refresh()
    await asyncio.sleep(0)
    assert monitor.asked == 1
    now[0] = 102.001
    assert (await known.refresh())["m"].reason == "look 1"
    await asyncio.sleep(0.001)
    assert (await known.refresh())["m"].reason == "look 2"
    assert (await known.refresh(now=True))["m"].reason == "look 3"
    monitor.go.clear()
    assert (await known.refresh(now=True))["m"].reason == "look 3"
    assert (await known.refresh(now=True))["m"].reason == "look 3" and monitor.asked == 4
    monitor.go.set()
    await asyncio.sleep(0.001)
    assert known.statuses["m"].reason == "look 4"


async def test_why_nothing_is_known_is_raised_and_later_failures_are_not() -> None:
    """A look that fails leaves what was known."""
    monitor = Monitor()
    monitor.error = True
    known = Availability(monitor)
    with pytest.raises(StepError, match="no workers"):
        await known.refresh()
    monitor.error = False
    await known.refresh()
    monitor.error = True
    assert (await known.refresh(now=True))["m"].reason == "look 2"


async def test_what_the_breaker_took_out_counts_as_failed_with_the_facts_that_are_known() -> None:
    """Also a model of which nothing is known; a model that is marked is out until it is heard of again."""
    breaker = Breaker(lambda: 0.0)
    known = Availability(Monitor(), breaker)
    await known.refresh()
    assert known.unavailable == {}
    for model in ("m", "other"):
        for job in "abc":
            breaker.failed(model, {job}, "it broke", 0.0)
    assert set(known.unavailable) == {"m", "other"} and "it broke" in known.unavailable["m"]
    assert [known.statuses[model].facts for model in ("m", "other")] == [{"node": "a"}, {}]
    breaker.succeeded("m")
    breaker.succeeded("other")
    known.mark_failed("m", "no weights")
    assert known.unavailable == {"m": "no weights"}
    await known.refresh(now=True)
    assert known.unavailable == {}


def test_lost_weights_are_the_reason_only_for_the_recipe_that_was_asked_for() -> None:
    """What stands in the way of others does not count."""
    gone = Rejection("a", "capability", "model 'm' is not available: gone")
    error = NoRecipeError("none", (gone, Rejection("b", "limit", "too slow")))
    assert load_error(error, GenerationRequest("x", recipe="a"), {"m": "gone"}) is not None
    assert load_error(error, GenerationRequest("x", recipe="b"), {"m": "gone"}) is None
    assert load_error(error, GenerationRequest("x"), {"m": "gone"}) is None
    assert load_error(error, GenerationRequest("x", recipe="a"), {"m": "other"}) is None
    other = NoRecipeError("none", (Rejection("a", "limit", gone.reason),))
    assert load_error(other, GenerationRequest("x"), {"m": "gone"}) is None


# --------------------------------------------------------------------------------------------------- shadows, metrics


def test_what_a_shadow_would_change_is_told_in_words() -> None:
    """The recipe in the place of the other, with what it gains and what it costs."""
    own = Estimate("draft", Quality(0.5, 0.1), 1.0, 0.0, 1.0, 0.001)
    other = replace(own, recipe="fine", quality=Quality(0.75, 0.1), cost_usd=0.0035)
    assert _words(own, other) == "fine instead of draft, +0.250 quality, +0.002500 USD"
    assert _words(own, own) == "the same recipe, draft"


@pytest.mark.parametrize("bounds", [MOMENTS, DURATIONS])
def test_bounds_of_histograms_are_evenly_apart(bounds: tuple[float, ...]) -> None:
    """Each is twice or two and a half times the one before."""
    assert {round(high / low, 3) for low, high in pairwise(bounds)} == {2.0, 2.5}
    assert (MOMENTS[0], DURATIONS[0]) == (0.0005, 0.01)
    assert {metric.kind for metric in METRICS.values() if metric.buckets} == {"histogram"}


def test_a_tally_adds_up_counters_and_keeps_the_last_of_gauges() -> None:
    """A metric has all of its labels and no others."""
    tally = Tally()
    for value in (2.0, 3.0):
        tally.record("triptych_jobs_open", value, state="queued")
        tally.record("triptych_decide_seconds", value, policy="main")
    tally.record("triptych_explored_total", policy="main")
    assert tally.value("triptych_jobs_open", state="queued") == 3.0
    assert tally.value("triptych_decide_seconds", policy="main") == 5.0
    assert (tally.value("triptych_explored_total", policy="main"), tally.value("triptych_explored_total")) == (1.0, 0.0)
    with pytest.raises(ValueError, match="has the tags policy, not"):
        tally.record("triptych_explored_total")
