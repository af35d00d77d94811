"""Walking a plan."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest

from router.errors import DeadlineError, PlanError, StepError
from router.execution import execute
from router.planning import make_plan
from router.types import (
    Fuse,
    Generate,
    GenerationRequest,
    Picture,
    Plan,
    Scores,
    Step,
    StepResult,
    StepTrace,
    Value,
)
from tests.router.cards import CATALOGUE

PAUSE = 0.05


def fusion() -> Plan:
    recipe = Fuse("best_of", (Generate("sd15"), Generate("flux")), "alignment")
    return make_plan("duel", recipe, GenerationRequest("a dog"), CATALOGUE, {})


def grey(level: int) -> Picture:
    return Picture(np.full((2, 2, 3), level, np.uint8))


async def perform(step: Step, inputs: Sequence[Value]) -> StepResult:
    """Pictures grey by model, the brighter one scores better."""
    await asyncio.sleep(PAUSE)
    value: Value
    if step.kind == "generate":
        value = grey(200 if step.model == "flux" else 100)
    elif step.kind == "score":
        value = Scores(tuple(float(p.pixels.mean()) / 255 for p in inputs if isinstance(p, Picture)))
    else:
        *pictures, scores = inputs
        assert isinstance(scores, Scores)
        value = pictures[int(np.argmax(scores.values))]
    return StepResult(value, PAUSE, {"by": step.model})


async def test_values_flow_along_the_graph() -> None:
    """The output is the picture with the best score, and every step leaves a trace in the order of ending."""
    seen: list[StepTrace] = []
    done = await execute(fusion(), perform, seen.append)
    assert isinstance(done.output, Picture)
    assert done.output.pixels[0, 0, 0] == 200
    assert list(done.values) == [step.id for step in fusion().steps]
    assert tuple(seen) == done.traces
    assert [trace.step.kind for trace in done.traces] == ["generate", "generate", "score", "select"]
    assert all(trace.started_s <= trace.ended_s for trace in done.traces)


async def test_independent_steps_overlap() -> None:
    """Both generates run at the same time, so that three steps' time is enough for four steps."""
    began = time.perf_counter()
    done = await execute(fusion(), perform)
    first, second = done.traces[:2]
    assert first.started_s < second.ended_s
    assert second.started_s < first.ended_s
    assert time.perf_counter() - began < 3.8 * PAUSE


async def test_a_failing_step_is_named_and_the_others_are_cancelled() -> None:
    """When FLUX breaks, the picture that SD1.5 was painting is cancelled, and no scorer is asked."""
    ended: list[str] = []

    async def breaking(step: Step, inputs: Sequence[Value]) -> StepResult:
        if step.model == "flux":
            await asyncio.sleep(0.01)
            raise RuntimeError("out of memory")
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # awaited, not only told
            ended.append(step.id)
            raise
        raise AssertionError

    with pytest.raises(
        StepError, match=r"step '2-generate-flux' on 'flux' failed: RuntimeError: out of memory"
    ) as caught:
        await execute(fusion(), breaking)
    assert ended == ["1-generate-sd15"]
    assert isinstance(caught.value.__cause__, RuntimeError)


async def test_expected_failures_keep_their_class() -> None:
    """A deadline stays a deadline."""

    async def late(step: Step, inputs: Sequence[Value]) -> StepResult:
        raise DeadlineError("too late")

    with pytest.raises(DeadlineError, match="too late"):
        await execute(fusion(), late)


async def test_cancelling_the_walk_cancels_its_steps() -> None:
    """A cancelled request leaves no step running."""
    running: set[str] = set()

    async def slow(step: Step, inputs: Sequence[Value]) -> StepResult:
        running.add(step.id)
        try:
            await asyncio.sleep(10)
        finally:
            running.discard(step.id)
        raise AssertionError

    task = asyncio.create_task(execute(fusion(), slow))
    await asyncio.sleep(0.02)
    assert len(running) == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not running


async def test_a_step_that_its_worker_cancelled_is_a_failure() -> None:
    """A cancellation that nobody here asked for does not pass as ours."""

    async def dropped(step: Step, inputs: Sequence[Value]) -> StepResult:
        raise asyncio.CancelledError

    with pytest.raises(StepError, match="was cancelled by its worker"):
        await execute(fusion(), dropped)


async def test_a_wrong_product_is_refused() -> None:
    """A worker that returns scores where a picture is due fails at once, by name."""

    async def confused(step: Step, inputs: Sequence[Value]) -> StepResult:
        return StepResult(Scores((1.0,)), 0.0)

    with pytest.raises(StepError, match=r"'1-generate-sd15'.*returned Scores where image was due"):
        await execute(fusion(), confused)


async def test_a_plan_out_of_order_is_refused() -> None:
    """A step before its input is found before anything runs."""
    plan = fusion()
    with pytest.raises(PlanError, match="does not come before it"):
        await execute(Plan("r", plan.steps[::-1], plan.output, 8, 8), perform)


@pytest.mark.parametrize(("bar", "made"), [(0.3, 1), (0.7, 2), (0.9, 3)])
async def test_a_good_enough_picture_spares_the_rest(bar: float, made: int) -> None:
    """With `accept_above` branches run in turn, none runs after a score that is high enough, and the best is kept."""
    recipe = Fuse("best_of", (Generate("sd15"), Generate("flux"), Generate("sdxl")), "alignment", bar)
    plan = make_plan("careful", recipe, GenerationRequest("a dog"), CATALOGUE, {})

    async def in_turn(step: Step, inputs: Sequence[Value]) -> StepResult:
        if step.kind != "select":
            return await perform(step, inputs)
        pictures = [value for value in inputs if isinstance(value, Picture)]
        scores = [score for value in inputs if isinstance(value, Scores) for score in value.values]
        assert len(pictures) == len(scores)
        return StepResult(pictures[int(np.argmax(scores))], 0.0)

    done = await execute(plan, in_turn)
    assert [trace.step.kind for trace in done.traces] == ["generate", "score"] * made + ["select"]
    assert isinstance(done.output, Picture)
    assert done.output.pixels[0, 0, 0] == (100 if made == 1 else 200)
    assert len(done.values) == 2 * made + 1
