"""One model on one accelerator: turns, deadlines, cancellation, and weights that are not there."""

import asyncio
import contextlib
import functools
import gc
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from deployments.workers.host import ModelHost
from deployments.workers.streams import stream
from deployments.workers.worker import ModelWorker
from router.errors import DeadlineError, LoadError, StepError
from router.types import Picture, Progress, Step, StepResult, Value

STEP = Step("s", "generate", "m", (), "image", {})


class SlowEngine:
    """Counts how many steps run at once; a step takes `ticks` hundredths of a second and can be stopped."""

    def __init__(self, ticks: int = 5) -> None:
        self.ticks = ticks
        self.broken = ""
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

    def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        *,
        on_progress: Any = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[StepResult]:
        """As many results, in the time of one."""
        told = None if on_progress is None else lambda p: [on_progress(n, p) for n in range(len(steps))]
        return [self.run(steps[0], inputs[0], on_progress=told, should_stop=should_stop)] * len(steps)


async def test_steps_take_turns() -> None:
    """However many steps arrive at once, the accelerator runs one at a time, and all finish."""
    engine = SlowEngine()
    worker = ModelWorker("m", lambda: engine)
    await asyncio.gather(*(worker.run(STEP, (), 60) for _ in range(5)))
    assert (engine.most, engine.finished) == (1, 5)


async def test_a_batch_is_one_turn() -> None:
    """Steps that come as one have one turn, in order with the others, and each has its progress, throttled."""
    engine, told = SlowEngine(ticks=40), []
    worker = ModelWorker("m", lambda: engine)
    batch = worker.run_batch([STEP] * 3, [()] * 3, 60, lambda number, progress: told.append((number, progress.done)))
    made, _ = await asyncio.gather(batch, worker.run(STEP, (), 60))
    assert len(made) == 3
    assert (engine.most, engine.finished) == (1, 2)
    for number in range(3):
        own = [done for n, done in told if n == number]
        assert 1 < len(own) < 20 and own[-1] == 40
    with pytest.raises(DeadlineError):
        await worker.run_batch([STEP] * 3, [()] * 3, 0)


async def test_a_cancelled_batch_stops() -> None:
    """Cancelling a batch ends all of it early and has waited for its thread."""
    engine = SlowEngine(ticks=500)
    task = asyncio.create_task(ModelWorker("m", lambda: engine).run_batch([STEP] * 3, [()] * 3, 60))
    while not engine.running:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (engine.running, engine.stopped) == (0, 1)


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
    worker, before = ModelWorker("m", lambda: engine), threading.active_count()
    items = stream(lambda emit: worker.run(STEP, (), 60, emit))
    async for _ in items:
        break
    await items.aclose()  # type: ignore[attr-defined]
    assert (engine.running, engine.stopped) == (0, 1)
    assert threading.active_count() <= before + 1  # the worker's own


async def test_a_step_waits_for_its_turn_until_the_deadline_and_no_longer() -> None:
    """Behind a step that takes long, another one is refused at its deadline, while the first still runs."""
    engine = SlowEngine(ticks=500)
    worker = ModelWorker("m", lambda: engine)
    first = asyncio.create_task(worker.run(STEP, (), 60))
    while not engine.running:
        await asyncio.sleep(0.01)
    with pytest.raises(DeadlineError, match="while it waited for model m"):
        await worker.run(STEP, (), 0.05)
    assert (engine.running, engine.finished) == (1, 0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    engine.ticks = 1
    assert (await worker.run(STEP, (), 60)).seconds == 0.01


async def test_a_step_waits_for_weights_until_the_deadline_and_they_go_on_loading() -> None:
    """A step whose deadline passes while weights load is refused; who comes later finds them, loaded once."""
    go_on, engine, loads = threading.Event(), SlowEngine(ticks=1), []

    def load() -> Any:
        loads.append(1)
        assert go_on.wait(60)
        return engine

    worker = ModelWorker("m", load)
    with pytest.raises(DeadlineError):
        await worker.run(STEP, (), 0.05)
    go_on.set()
    assert isinstance(await worker.run(STEP, (), 60), StepResult)
    assert len(loads) == 1


async def test_weights_that_failed_are_tried_again_after_ever_longer_times() -> None:
    """Attempts begin 10, 20, 40, ... seconds after the one before, 600 at most; one that succeeds serves."""
    now, tries = [0.0], []
    engine = SlowEngine(ticks=1)

    def load() -> Any:
        tries.append(now[0])
        if len(tries) < 9:
            raise LoadError("m: no room", "model")
        return engine

    worker = ModelWorker("m", load, clock=lambda: now[0])
    worker.load()
    for wait_s in (10, 20, 40, 80, 160, 320, 600, 600):
        for share in (0.25, 0.7499, 0.0001):  # some way into it, a moment before its end, at its end
            now[0] = round(now[0] + share * wait_s, 4)
            with contextlib.suppress(LoadError):
                await worker.run(STEP, (), 60)
    assert [later - earlier for earlier, later in itertools.pairwise(tries)] == [10, 20, 40, 80, 160, 320, 600, 600]
    assert worker.status().state == "ready"
    assert isinstance(await worker.run(STEP, (), 60), StepResult)


async def test_asking_how_a_worker_is_brings_its_weights_back() -> None:
    """A failed model, to which no step is sent any more, is tried again in the background when it is asked about."""
    now, there = [0.0], []

    def load() -> Any:
        if not there:
            raise LoadError("m: no room", "model")
        return SlowEngine(ticks=1)

    worker = ModelWorker("m", load, clock=lambda: now[0])
    worker.load()
    there.append(1)
    now[0] = 9.9
    assert worker.status().state == "failed"
    await asyncio.get_running_loop().run_in_executor(worker._thread, lambda: None)  # whatever was begun has ended
    assert worker.status().state == "failed"
    now[0] = 10.0
    assert worker.status().state == "failed"
    await asyncio.get_running_loop().run_in_executor(worker._thread, lambda: None)
    assert worker.status().state == "ready"


async def test_a_failed_load_keeps_nothing_of_what_it_loaded() -> None:
    """While a worker remembers why its weights are not there, those that were loaded before it failed are gone."""

    class Weights:
        pass

    kept: list[weakref.ref[Weights]] = []

    def load(make: Callable[[], Exception]) -> Any:
        weights = Weights()
        kept.append(weakref.ref(weights))
        raise make()

    for make in (lambda: LoadError("m: a file is missing", "model"), lambda: MemoryError("no room")):
        worker = ModelWorker("m", functools.partial(load, make))
        worker.load()
        with pytest.raises(LoadError):
            await worker.run(STEP, (), 60)
        assert worker.status().state == "failed"
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


async def test_a_broken_engine_fails_its_check_of_health() -> None:
    """A worker whose engine says that nothing can succeed any more asks for a new process and counts as failed; one
    whose weights are missing does not ask."""
    engine = SlowEngine(ticks=1)
    worker = ModelWorker("m", lambda: engine)
    worker.check_health()
    worker.load()
    worker.check_health()
    engine.broken = "cuda failed: CUDA error: unspecified launch failure"
    with pytest.raises(StepError, match="'m' needs a new process: cuda failed"):
        worker.check_health()
    assert (worker.status().state, worker.status().reason) == ("failed", engine.broken)

    def missing() -> Any:
        raise LoadError("m: there is no folder", "model")

    lost = ModelWorker("m", missing)
    lost.load()
    lost.check_health()


async def test_a_replica_asks_for_a_new_process_when_its_engine_is_broken() -> None:
    """Ray Serve's check of health is the worker's."""
    from deployments.cluster.replicas import WorkerReplica

    replica = WorkerReplica.__new__(WorkerReplica)
    engine = SlowEngine(ticks=1)
    replica._host = ModelHost({"m": lambda: engine})
    replica._host.load()
    replica.check_health()
    engine.broken = "cuda failed"
    with pytest.raises(StepError):
        replica.check_health()
