"""What becomes of the pictures of a request: which are there, which are missing and why, and what was used."""

from __future__ import annotations

import asyncio
import hashlib
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.orchestration import runner as module
from deployments.orchestration.results import (
    Advanced,
    Check,
    Checked,
    Chosen,
    Failure,
    Made,
    StepBegun,
    VerificationChoice,
)
from deployments.orchestration.runner import Runner, _PictureBench, _Run, _sorted_out, seed_again, unblended, within
from router.errors import DeadlineError, StepError, TriptychError
from router.types import GenerationRequest, Picture, Progress, Resources, Step, StepResult, StepTrace, Verification

STEP = Step("1-generate", "generate", "sd15", (), "image", {"width": 8})
ROUTE: Any = SimpleNamespace(request=GenerationRequest("x", seed=5, id="req_1"))


def made(index: int = 0) -> Made:
    return Made(Picture(np.zeros((1, 1, 3), np.uint8)), 5 + index, "", (), "draft", index=index)


async def tasks_of(*outcomes: Any) -> list[asyncio.Task[Any]]:
    """Tasks that returned, raised, or were cancelled."""

    async def come(outcome: Any) -> Any:
        if outcome is None:
            await asyncio.sleep(60)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    tasks = [asyncio.ensure_future(come(outcome)) for outcome in outcomes]
    await asyncio.sleep(0)
    for task, outcome in zip(tasks, outcomes, strict=True):
        if outcome is None:
            task.cancel()
    await asyncio.wait(tasks)
    return tasks


async def test_pictures_that_are_missing_are_named_with_their_seed(caplog: pytest.LogCaptureFixture) -> None:
    """An expected failure by its words, a cancelled worker as one, a bug without its words, which the log has."""
    tasks = await tasks_of(made(), StepError("no paint"), None, ValueError("a secret"), made(6))
    batch = _sorted_out(tasks, {0: 5, 2: 7, 3: 8, 4: 9, 6: 11}, ROUTE)
    assert [one.index for one in batch.made] == [0, 6]
    assert batch.failed == (
        Failure(2, 7, "no paint", "step_failed"),
        Failure(3, 8, "it was cancelled on its worker", "step_failed"),
        Failure(4, 9, "an internal error; the server's log has the details", TriptychError.code),
    )
    assert [record.getMessage() for record in caplog.records] == ["picture 5 of request req_1 failed"]


async def test_if_none_is_there_the_first_failure_is_raised() -> None:
    """Whatever the others were."""
    tasks = await tasks_of(DeadlineError("late"), StepError("no paint"))
    with pytest.raises(DeadlineError, match="late"):
        _sorted_out(tasks, {0: 5, 1: 6}, ROUTE)


def test_a_blend_that_kept_one_picture_says_how_far_they_were_apart() -> None:
    """With the bound of the recipe."""
    step = Step("b", "blend", None, ("x", "y"), "image", {"blend_within": 0.25})
    traces = [StepTrace(step, 0, 1, 1, {"kept": 1, "disagreement": 0.456}), StepTrace(step, 0, 1, 1, {})]
    plan: Any = SimpleNamespace(recipe="both")
    (note,) = unblended(plan, traces)
    assert note.startswith("both: the pictures disagree (0.46, more than 0.25), so they were not blended")


def test_seeds_of_further_pictures_are_their_own() -> None:
    """The first keeps its own; of others four bytes of a digest, always the same, none of which is the next number."""
    assert seed_again(7, 0) == 7
    found = [seed_again(7, again) for again in range(1, 50)]
    assert found == [seed_again(7, again) for again in range(1, 50)] and len(set(found)) == 49
    digests = [hashlib.sha256(f"7/{again}".encode()).digest() for again in (1, 2)]
    assert found[:2] == [int.from_bytes(digest[:4], "big") for digest in digests]
    assert max(found) > 2**31 and not {8, 9} & set(found)


async def test_work_ends_with_its_deadline_and_with_its_caller() -> None:
    """Late work is stopped without being waited for; if the caller goes, it has stopped by then."""
    stopped = list[str]()

    async def work(name: str, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
            return name
        except asyncio.CancelledError:
            stopped.append(name)
            raise

    assert await within(5.0, work("quick", 0.0), STEP) == "quick"
    with pytest.raises(DeadlineError, match="'1-generate' was not done when the deadline passed"):
        await within(0.01, work("late", 60), STEP)
    await asyncio.sleep(0.01)
    assert stopped == ["late"] and not module._STOPPING
    caller = asyncio.ensure_future(within(60.0, work("left", 60), STEP))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert stopped == ["late", "left"]


class Costs:
    """A dollar for a second of sd15, two of others; what was observed is noted."""

    def __init__(self) -> None:
        self.observed = list[Any]()

    def cost_usd(self, step: Step, seconds: float) -> float:
        return seconds * (1 if step.model == "sd15" else 2)

    def observe(self, *told: Any) -> None:
        self.observed.append(told)


def runner(timeout_s: float = 60.0) -> tuple[Runner, Costs]:
    costs, none = Costs(), SimpleNamespace()
    given: Any = (none, costs, none, none, none)
    return Runner(*given, timeout_s), costs


def test_a_picture_costs_all_that_was_made_for_it() -> None:
    """With looks, those of every try and of every look; else its own steps."""
    one, _ = runner()
    score = Step("v", "score", "alignment", (), "scores", {})
    own = (StepTrace(STEP, 0, 2, 2.0, {}),)
    plain = Made(made().picture, 5, "", own, "draft")
    assert one.cost_usd(plain) == 2.0
    checks = tuple(Check("draft", 0.5, (*own, StepTrace(score, 0, 1, 0.5, {}))) for _ in range(3))
    assert one.cost_usd(Made(made().picture, 5, "", own, "draft", checks)) == 3 * (2.0 + 1.0)


def test_what_a_step_took_is_learned_of_its_batch() -> None:
    """As many as were made at once; one if nothing is said."""
    one, costs = runner()
    one.observe(STEP, StepResult(made().picture, 1.5, {"batch": 4}), 64)
    one.observe(STEP, StepResult(made().picture, 2.5))
    assert costs.observed == [(STEP, 1.5, 64, 4), (STEP, 2.5, None, 1)]


def test_the_deadline_is_the_request_s_or_the_server_s() -> None:
    """From its arrival on."""
    one, _ = runner(60.0)
    assert one.due(GenerationRequest("x"), 100.0) == 160.0
    assert one.due(GenerationRequest("x", latency_budget_s=2.5), 100.0) == 102.5


def run_of(followed: bool = True, on_event: Any = None, deadline: float | None = None, **decision: Any) -> _Run:
    route: Any = SimpleNamespace(
        request=GenerationRequest("x", seed=5), decision=SimpleNamespace(recipe="draft", **decision),
        plan="plan of draft", alternatives={"fine": "plan of fine"},
    )  # fmt: skip
    charge: Any = None
    due = time.monotonic() + 10.0 if deadline is None else deadline
    return _Run(route, due, on_event, charge, time.monotonic(), "job", lambda: followed)


def test_nobody_is_told_who_does_not_listen() -> None:
    """Progress goes to whoever follows when a step begins, its beginning to whoever listens at all."""
    told = list[Any]()
    run = run_of(on_event=told.append)
    listener, begins = run.listener(1), run.begins(1, STEP)
    assert listener is not None and begins is not None
    begins()
    listener(Progress("1-generate", 1, 4))
    assert told == [StepBegun(1, "1-generate"), Advanced(1, Progress("1-generate", 1, 4))]
    assert run_of(followed=False, on_event=told.append).listener(1) is None
    assert run_of().listener(1) is None is run_of().begins(1, STEP)
    assert 9.0 < run.left(STEP) <= 10.0
    with pytest.raises(DeadlineError, match="'1-generate' was not begun"):
        run_of(deadline=time.monotonic() - 0.001).left(STEP)


def bench(run: _Run) -> _PictureBench:
    return _PictureBench(runner()[0], run, 1, 6)


@pytest.mark.parametrize(
    ("within_s", "latency_s", "in_time"),
    [(None, 9.0, True), (None, 10.5, False), (5.0, 4.5, True), (5.0, 5.5, False), (99.0, 10.5, False)],
)
def test_a_try_must_end_by_the_deadline_and_by_the_policy_s_limit(
    within_s: float | None, latency_s: float, in_time: bool
) -> None:
    """The earlier of the two binds."""
    run = run_of(verify=Verification("alignment", within_s=within_s))
    assert bench(run).in_time(Resources(latency_s, 1.0, 0.0)) is in_time
    assert bench(run_of(verify=None)).in_time(Resources(9.0, 1.0, 0.0))


def test_a_choice_is_told_with_the_plan_of_what_is_made_now() -> None:
    """Of another recipe its own; of a look or an end none."""
    told = list[Any]()
    one = bench(run_of(on_event=told.append, verify=None))
    check = Check("draft", 0.5, ())
    one.tell(check)
    actions = ("retry", "escalate", "stop", "check", "keep")
    for action, recipe in zip(actions, ("draft", "fine", "draft", "draft", "draft"), strict=True):
        one.tell(VerificationChoice(action, recipe, "why"))  # type: ignore[arg-type]
    assert told[0] == Checked(1, check)
    assert [(event.index, event.plan) for event in told[1:] if isinstance(event, Chosen)] == [
        (1, "plan of draft"), (1, "plan of fine"), (1, None), (1, None), (1, None),
    ]  # fmt: skip
    bench(run_of(verify=None)).tell(check)
