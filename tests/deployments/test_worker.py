"""One model on one accelerator: turns, deadlines, cancellation, and weights that are not there."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from deployments.workers.streams import stream
from deployments.workers.worker import ModelWorker
from router.errors import DeadlineError, LoadError
from router.types import Picture, Progress, Step, StepResult, Value

STEP = Step("s", "generate", "m", (), "image", {})


class SlowEngine:
    """Counts how many steps run at once; a step takes `ticks` hundredths of a second and can be stopped."""

    def __init__(self, ticks: int = 5) -> None:
        self.ticks = ticks
        self.running = self.most = self.finished = self.stopped = 0

    def run(
        self,
        step: Step,
        inputs: Sequence[Value],
        *,
        on_progress: Any = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> StepResult:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for tick in range(self.ticks):
                time.sleep(0.01)
                if should_stop is not None and should_stop():
                    self.stopped += 1
                    raise RuntimeError("stopped")
                if on_progress is not None:
                    on_progress(Progress(step.id, tick + 1, self.ticks))
            self.finished += 1
        finally:
            self.running -= 1
        return StepResult(Picture(np.zeros((8, 8, 3), np.uint8)), 0.01 * self.ticks)


async def test_steps_take_turns() -> None:
    """However many steps arrive at once, the accelerator runs one at a time, and all finish."""
    engine = SlowEngine()
    worker = ModelWorker("m", lambda: engine)
    await asyncio.gather(*(worker.run(STEP, (), 60) for _ in range(5)))
    assert (engine.most, engine.finished) == (1, 5)


async def test_a_cancelled_step_stops_before_the_next_begins() -> None:
    """Cancelling a running step ends it early, and the next step never shares the accelerator with it."""
    engine = SlowEngine(ticks=200)
    worker = ModelWorker("m", lambda: engine)
    first = asyncio.create_task(worker.run(STEP, (), 60))
    await asyncio.sleep(0.1)
    engine.ticks = 3
    second = asyncio.create_task(worker.run(STEP, (), 60))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert engine.stopped == 1
    await second
    assert (engine.most, engine.finished) == (1, 1)


async def test_a_step_past_its_deadline_is_refused() -> None:
    """A step whose turn comes too late is not begun."""
    engine = SlowEngine(ticks=10)
    worker = ModelWorker("m", lambda: engine)
    first = asyncio.create_task(worker.run(STEP, (), 60))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineError):
        await worker.run(STEP, (), 0.01)
    await first
    assert engine.finished == 1


async def test_weights_that_are_missing_fail_the_step_and_not_the_worker() -> None:
    """A worker whose weights cannot be loaded lives on, says so, and raises the reason at once."""
    tried = []

    def load() -> Any:
        tried.append(1)
        raise LoadError("m: there is no folder /nowhere; download it", "model")

    worker = ModelWorker("m", load)
    worker.load()
    for _ in range(2):
        with pytest.raises(LoadError, match="/nowhere"):
            await worker.run(STEP, (), 60)
    assert worker.status().state == "failed"
    assert "/nowhere" in worker.status().reason
    assert len(tried) == 1


async def test_a_surprise_while_loading_becomes_a_load_error() -> None:
    """Whatever a library raises while weights load, the router sees a `LoadError` with its text."""

    def load() -> Any:
        raise MemoryError("no room")

    worker = ModelWorker("m", load)
    with pytest.raises(LoadError, match="MemoryError: no room"):
        await worker.run(STEP, (), 60)


async def test_progress_is_throttled_and_ends_with_the_result() -> None:
    """A fast step reports a few times, its last denoising step among them, and then its result."""
    engine = SlowEngine(ticks=40)
    worker = ModelWorker("m", lambda: engine)
    items = [item async for item in stream(lambda emit: worker.run(STEP, (), 60, emit))]
    assert isinstance(items[-1], StepResult)
    reports = [item for item in items[:-1] if isinstance(item, Progress)]
    assert 1 < len(reports) < 20
    assert reports[-1].done == 40


async def test_leaving_a_stream_stops_the_work_behind_it() -> None:
    """Whoever stops reading a stream cancels the step, and has waited for its thread when the stream is closed."""
    engine = SlowEngine(ticks=500)
    worker = ModelWorker("m", lambda: engine)
    items = stream(lambda emit: worker.run(STEP, (), 60, emit))
    async for _ in items:
        break
    await items.aclose()  # type: ignore[attr-defined]
    assert (engine.running, engine.stopped) == (0, 1)
    assert threading.active_count() < 50
