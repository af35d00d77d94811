"""Walking a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from router.errors import DeadlineError, PlanError, StepError
from router.planning.execution import execute
from router.planning.plan import make_plan
from router.types import (
    Fuse,
    Generate,
    GenerationRequest,
    Picture,
    Plan,
    Scores,
    Step,
    StepResult,
    Turn,
    Value,
)
from tests.router.cards import CATALOGUE

PAUSE = 0.01


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
    done = await execute(fusion(), perform)
    assert isinstance(done.output, Picture)
    assert done.output.pixels[0, 0, 0] == 200
    assert list(done.values) == [step.id for step in fusion().steps]
    assert [trace.step.kind for trace in done.traces] == ["generate", "generate", "score", "select"]
    assert all(trace.started_s <= trace.ended_s for trace in done.traces)


async def test_independent_steps_overlap() -> None:
    """Both generates run at the same time: each waits for the other inside its worker, and both end."""
    meeting = asyncio.Barrier(2)

    async def together(step: Step, inputs: Sequence[Value]) -> StepResult:
        if step.kind == "generate":
            await meeting.wait()
        return await perform(step, inputs)

    async with asyncio.timeout(30):
        done = await execute(fusion(), together)
    first, second = done.traces[:2]
    assert {first.step.model, second.step.model} == {"sd15", "flux"}
    assert max(first.started_s, second.started_s) <= min(first.ended_s, second.ended_s)


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
    async with asyncio.timeout(30):
        while len(running) < 2:
            await asyncio.sleep(0)
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


async def run_in_turn(scores: Sequence[float | None], bars: Sequence[float]) -> list[str]:
    """Which models drew, when pictures score so (None: the score is lost), and each but the first has such a bar."""
    models = ("sd15", "flux", "sdxl")
    turns = tuple(Turn(model, bar, 1.0, 0.0, 0.5) for model, bar in zip(models, (1.0, *bars), strict=True))
    recipe = Fuse("best_of", tuple(map(Generate, models)), "alignment", min_successful=1, turns=turns)
    plan = make_plan("careful", recipe, GenerationRequest("a dog"), CATALOGUE, {})
    drew: list[str] = []

    async def in_turn(step: Step, inputs: Sequence[Value]) -> StepResult:
        if step.kind == "generate":
            drew.append(str(step.model))
            return StepResult(grey(100), 0.0)
        if step.kind == "score":
            if (score := scores[len(drew) - 1]) is None:
                raise StepError("no score")
            return StepResult(Scores((score / 2, score)), 0.0)  # of several, the best counts
        return StepResult(next(value for value in inputs if isinstance(value, Picture)), 0.0)

    await execute(plan, in_turn)
    return drew


@pytest.mark.parametrize(
    ("scores", "bars", "drew"),
    [
        ((0.7, 0.3, 0.0), (0.9, 0.5), 2),  # the first is good enough for the lower bar of the third
        ((0.7, None, 0.0), (0.9, 0.5), 2),  # also when the score between them was lost
        ((0.4, 0.3, 0.0), (0.9, 0.5), 3),
        ((0.4, None, 0.0), (0.9, 0.5), 3),
        ((0.95, 0.0, 0.0), (0.9, 0.99), 1),  # what follows a picture that was left out is left out
        ((0.9, 0.0, 0.0), (0.9, 0.5), 1),  # the bar itself is enough
        ((0.3, 0.5, 0.0), (0.9, 0.5), 2),
    ],
)
async def test_a_picture_is_spared_by_any_earlier_one_that_is_good_enough(
    scores: tuple[float | None, ...], bars: tuple[float, float], drew: int
) -> None:
    """Not only by the one just before it, and a lost score spares nothing."""
    assert await run_in_turn(scores, bars) == ["sd15", "flux", "sdxl"][:drew]


# ------------------------------------------------------------------------------------------------------- lost branches


def lenient(needs: int, method: str = "best_of", bar: float | None = None) -> Plan:
    branches = (Generate("sd15"), Generate("flux"), Generate("sdxl"))
    scorer = "alignment" if method == "best_of" else None
    recipe = Fuse(method, branches, scorer, bar, min_successful=needs)
    return make_plan("lenient", recipe, GenerationRequest("a dog"), CATALOGUE, {})


def losing(*lost: str, error: Exception | None = None):  # type: ignore[no-untyped-def]
    """`perform`, except that the steps of `lost` models or kinds fail."""

    async def run(step: Step, inputs: Sequence[Value]) -> StepResult:
        if step.model in lost or step.kind in lost:
            await asyncio.sleep(PAUSE / 5)
            raise error or StepError("out of memory")
        pictures = [value for value in inputs if isinstance(value, Picture)]
        if step.kind in ("select", "blend"):
            scores = [score for value in inputs if isinstance(value, Scores) for score in value.values]
            assert step.kind == "blend" or len(pictures) == len(scores)
            return StepResult(pictures[int(np.argmax(scores)) if scores else 0], 0.0)
        return await perform(step, inputs)

    return run


@pytest.mark.parametrize("method", ["best_of", "average", "pyramid"])
@pytest.mark.parametrize("bar", [None, 0.99])
async def test_a_fusion_does_with_the_branches_that_it_needs(method: str, bar: float | None) -> None:
    """A lost branch is left out, in turn or side by side; pictures and scores still belong together."""
    if method != "best_of" and bar is not None:
        return
    done = await execute(lenient(2, method, bar), losing("sdxl"))
    assert [loss.origin.model for loss in done.losses] == ["sdxl"]
    assert isinstance(done.output, Picture)
    assert done.output.pixels[0, 0, 0] == (200 if method == "best_of" else 100)


async def test_a_lost_branch_in_turn_is_followed_by_the_next() -> None:
    """A failure is not good enough: the next branch runs, and a good picture still ends the search."""
    done = await execute(lenient(1, bar=0.7), losing("sd15"))
    assert [trace.step.model for trace in done.traces] == ["flux", "alignment", None]


@pytest.mark.parametrize("lost", [("flux", "sdxl"), ("flux", "sdxl", "sd15"), ("score",), ("select",)])
async def test_too_few_branches_fail_the_fusion(lost: tuple[str, ...]) -> None:
    """With fewer pictures than needed, or without the scorer or the choice itself, the failure passes through."""
    with pytest.raises(StepError, match="out of memory"):
        await execute(lenient(2), losing(*lost))


async def test_a_branch_that_is_too_late_is_a_lost_branch() -> None:
    """A branch whose step could not begin before the deadline counts as failed, and the others answer."""
    done = await execute(lenient(2), losing("flux", error=DeadlineError("the deadline passed")))
    assert isinstance(done.losses[0].error, DeadlineError)
    with pytest.raises(DeadlineError):
        await execute(lenient(3), losing("flux", error=DeadlineError("the deadline passed")))


async def test_cancelling_ends_every_branch() -> None:
    """A cancelled fusion leaves no branch running, whatever it could do without."""
    running: set[str] = set()

    async def slow(step: Step, inputs: Sequence[Value]) -> StepResult:
        running.add(step.id)
        try:
            await asyncio.sleep(60)
        finally:
            running.discard(step.id)
        raise AssertionError("it should have been cancelled")

    task = asyncio.create_task(execute(lenient(1), slow))
    async with asyncio.timeout(30):
        while len(running) < 3:
            await asyncio.sleep(0)
    assert len(running) == 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not running


async def test_a_chain_in_a_branch_is_lost_as_a_whole() -> None:
    """When a stage of a branch fails, its later stages are not run, and the fusion goes on."""
    from router.types import Chain, Refine

    chain = Chain((Generate("sdxl"), Refine("sdxl-refiner", strength=0.3)))
    recipe = Fuse("average", (Generate("sd15"), chain), min_successful=1)
    plan = make_plan("lenient", recipe, GenerationRequest("a dog"), CATALOGUE, {})
    done = await execute(plan, losing("sdxl"))
    assert [trace.step.model for trace in done.traces] == ["sd15", None]
    assert [loss.origin.model for loss in done.losses] == ["sdxl"]
