"""The circuit breaker: what counts, when it opens, and how a model comes back."""

import pytest

from deployments.orchestration.availability import Availability
from deployments.orchestration.breaker import FIRST_S, MOST_S, Breaker, unexpected
from deployments.orchestration.results import WorkerLostError
from deployments.workers.worker import WorkerStatus
from router.errors import DeadlineError, LoadError, OverloadedError, StepError

NOW = 100.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for number in range(3):
        breaker.failed("m", [f"job {number}"], "it broke", NOW)
    return breaker


def test_three_failures_in_a_row_take_a_model_out_for_a_while() -> None:
    """After the third failure nothing is sent for five seconds, and the reason is told."""
    clock = Clock()
    breaker = Breaker(clock)
    for number in range(3):
        assert breaker.may_run("m") and not breaker.reasons
        breaker.failed("m", [f"job {number}"], "it broke", NOW)
    assert not breaker.may_run("m")
    assert breaker.reasons == {"m": "taken out for a while after 3 failures in a row, the last: it broke"}
    assert breaker.may_run("other")
    clock.now += FIRST_S
    assert breaker.may_run("m") and not breaker.reasons


def test_a_success_in_between_starts_the_count_anew() -> None:
    """Two failures, a success and two failures do not open it."""
    breaker = Breaker(Clock())
    for number in range(2):
        breaker.failed("m", [f"job {number}"], "it broke", NOW)
    breaker.succeeded("m")
    for number in range(2):
        breaker.failed("m", [f"job {number}"], "it broke", NOW)
    assert breaker.may_run("m")


def test_one_job_alone_takes_no_model_from_the_others() -> None:
    """However often one job breaks its worker, the next job may try; only if that fails, too, the model is out."""
    breaker = Breaker(Clock())
    for _ in range(9):
        breaker.failed("m", ["poison"], "it broke", NOW)
    assert breaker.may_run("m")
    breaker.failed("m", ["another"], "it broke", NOW)
    assert not breaker.may_run("m")


def test_what_was_under_way_when_another_failed_is_the_same_incident() -> None:
    """A machine that goes away with six batches is one failure; only what was sent afterwards is another."""
    clock = Clock()
    breaker = Breaker(clock)
    for number in range(6):
        clock.now += 0.01
        breaker.failed("m", [f"job {number}"], "it went away", sent_at=NOW)
    assert breaker.may_run("m")
    for _ in range(2):
        sent_at, clock.now = clock.now, clock.now + 1
        assert breaker.may_run("m")
        breaker.failed("m", ["job"], "it broke", sent_at)
    assert not breaker.may_run("m")


def test_one_probe_decides() -> None:
    """When its time is over, one step is sent and no other until that has ended: if it fails, the model is out for
    twice as long, five minutes at most; if it succeeds, all is as before."""
    clock = Clock()
    breaker, wait_s = opened(clock), FIRST_S
    for _ in range(9):
        assert breaker.opens_at("m") == clock.now + wait_s
        clock.now += wait_s
        assert breaker.sent("m")
        assert not breaker.may_run("m")
        assert breaker.opens_at("m") is None
        breaker.failed("m", ["job"], "it broke again", clock.now, probe=True)
        assert "it broke again" in breaker.given_up("m")
        wait_s = min(MOST_S, 2 * wait_s)
    clock.now += MOST_S
    assert not breaker.given_up("m")
    breaker.sent("m")
    breaker.succeeded("m")
    assert breaker.may_run("m") and not breaker.sent("m")


def test_a_probe_that_says_nothing_is_followed_by_another() -> None:
    """A probe that was cancelled or late neither closes nor opens; nor does a failure of what was sent before it."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += FIRST_S
    breaker.sent("m")
    breaker.failed("m", ["job"], "sent long ago", 0.0)
    assert not breaker.may_run("m") and not breaker.reasons
    breaker.undecided("m")
    assert breaker.may_run("m")


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (WorkerLostError("gone"), True),
        (StepError("a bug in the pipeline"), True),
        (RuntimeError("a bug of ours"), True),
        (StepError("out of memory", "size"), False),
        (DeadlineError("late"), False),
        (OverloadedError("full"), False),
        (LoadError("no weights", "model"), False),
    ],
)
def test_only_what_the_worker_is_to_blame_for_counts(error: Exception, counts: bool) -> None:
    """What a step asked for, deadlines, load and missing weights say nothing about whether a worker is well."""
    assert unexpected(error) is counts


async def test_what_is_out_counts_as_failed_with_its_reason() -> None:
    """Decisions and `/readyz` see a model that the breaker took out as failed, although its worker says it is ready."""

    class Fine:
        async def statuses(self) -> dict[str, WorkerStatus]:
            return {name: WorkerStatus(name, "ready", "", {"device": "cpu"}) for name in "mn"}

    clock = Clock()
    availability = Availability(Fine(), breaker := opened(clock))
    statuses = await availability.refresh(now=True)
    assert (statuses["m"].state, statuses["n"].state) == ("failed", "ready")
    assert statuses["m"].facts == {"device": "cpu"}
    assert availability.unavailable == dict(breaker.reasons)
    clock.now += FIRST_S
    assert not availability.unavailable
