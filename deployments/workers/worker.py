"""One model on one accelerator: takes steps one after the other and can be stopped between two denoising steps.

A plain asyncio class, used in two places: in a Serve replica (cluster/replicas.py) and in the process itself
(in_process.py).
Neither torch nor Ray is imported here; the engine comes from the `load` function.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from deployments.workers.streams import ended
from router.errors import DeadlineError, LoadError, TriptychError
from router.types import Progress, Scalar, Step, StepResult, Value

logger = logging.getLogger("triptych.worker")

PROGRESS_INTERVAL_S = 0.1  # an item of a stream costs CPU on every hop, so most steps of a fast model are not reported

OnProgress = Callable[[Progress], None]


class StepEngine(Protocol):
    """What a worker needs of an engine (`models.Engine`)."""

    def run(
        self,
        step: Step,
        inputs: Sequence[Value],
        *,
        on_progress: OnProgress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> StepResult: ...


@dataclass(frozen=True)
class WorkerStatus:
    """One worker as `/readyz` shows it. facts: builtins (revision, device, accelerator ids, node, ...)."""

    model: str
    state: Literal["starting", "ready", "failed"]
    reason: str = ""
    facts: Mapping[str, Scalar] = field(default_factory=dict)


class ModelWorker:
    """Runs steps of one model, one at a time, in the order of arrival.

    Weights that cannot be loaded do not stop the process: the worker reports `failed`, and every step raises the
    `LoadError`, so that the router can use the recipes that do not need this model.
    """

    def __init__(self, model: str, load: Callable[[], StepEngine], facts: Mapping[str, Scalar] | None = None) -> None:
        self._model = model
        self._load = load
        self._facts = dict(facts or {})
        self._engine: StepEngine | None = None
        self._failure: LoadError | None = None
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"model-{model}")

    def load(self) -> None:
        """Load the weights, once. Blocks; never raises: see `status`."""
        if self._engine is not None or self._failure is not None:
            return
        started = time.perf_counter()
        try:
            self._engine = self._load()
            self._facts["loaded_in_s"] = round(time.perf_counter() - started, 3)
        except TriptychError as error:
            self._failure = error if isinstance(error, LoadError) else LoadError(str(error), error.param)
        except Exception as error:
            # Out of memory, a broken driver, a bug of a library: this model is out, the others need not be.
            logger.exception("model %s could not be loaded", self._model)
            self._failure = LoadError(f"{self._model}: could not be loaded: {type(error).__name__}: {error}", "model")

    def status(self) -> WorkerStatus:
        """How this worker is, without waiting for its turn."""
        if self._failure is not None:
            return WorkerStatus(self._model, "failed", self._failure.message, self._facts)
        return WorkerStatus(self._model, "ready" if self._engine else "starting", "", self._facts)

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        """Run one step. Raises `LoadError`, `StepError`, or `DeadlineError` if its turn is later than in `deadline_s`.

        When the caller is cancelled, the pipeline is told to stop, and its thread is waited for: the accelerator is
        never shared by two steps.
        """
        due = time.monotonic() + deadline_s
        async with self._turn:
            engine = await self._loaded()
            if time.monotonic() >= due:
                raise DeadlineError(f"{step.id}: the deadline passed while it waited for model {self._model}")
            return await self._on_thread(engine, step, inputs, on_progress)

    async def _loaded(self) -> StepEngine:
        if self._engine is None and self._failure is None:
            await self._in_thread(self.load)
        if self._failure is not None:
            raise self._failure
        assert self._engine is not None
        return self._engine

    async def _on_thread(
        self, engine: StepEngine, step: Step, inputs: Sequence[Value], on_progress: OnProgress | None
    ) -> StepResult:
        stop = threading.Event()
        report = None if on_progress is None else _throttled(on_progress, asyncio.get_running_loop())

        def work() -> StepResult:
            return engine.run(step, inputs, on_progress=report, should_stop=stop.is_set)

        return await self._in_thread(work, stop)

    async def _in_thread(self, work: Callable[[], Any], stop: threading.Event | None = None) -> Any:
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if stop is not None:
                stop.set()
            await ended(future)
            raise


def _throttled(on_progress: OnProgress, loop: asyncio.AbstractEventLoop) -> OnProgress:
    """Reports from the pipeline's thread, at most one in `PROGRESS_INTERVAL_S`; previews and last steps always pass."""
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.preview is None and progress.done < progress.total and now - last < PROGRESS_INTERVAL_S:
            return
        last = now
        loop.call_soon_threadsafe(on_progress, progress)

    return report
