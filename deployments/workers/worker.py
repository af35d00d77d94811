"""One model on one accelerator: takes steps one after the other and can be stopped between two denoising steps.

A plain asyncio class, used in two places: in a Serve replica (cluster/replicas.py) and in the process itself
(in_process.py).
Neither torch nor Ray is imported here; the engine comes from the `load` function.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from deployments.observing import tracing
from deployments.workers.streams import ended
from deployments.workers.turns import Turn
from router.errors import DeadlineError, LoadError, StepError, TriptychError
from router.types import Progress, Scalar, Step, StepResult, Value

logger = logging.getLogger("triptych.worker")

PROGRESS_INTERVAL_S = 0.1  # an item of a stream costs CPU on every hop, so most steps of a fast model are not reported

RETRY_FIRST_S = 10.0  # after which weights that could not be loaded are tried again; twice as long each time
RETRY_MOST_S = 600.0

Result = TypeVar("Result")

OnProgress = Callable[[Progress], None]
OnBatchProgress = Callable[[int, Progress], None]
"""(number of the step in its batch, how far it is)"""


class StepEngine(Protocol):
    """What a worker needs of an engine (`models.Engine`)."""

    def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        *,
        on_progress: OnBatchProgress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[StepResult | TriptychError]: ...

    def run(
        self,
        step: Step,
        inputs: Sequence[Value],
        *,
        on_progress: OnProgress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> StepResult: ...


class Standing(Protocol):
    """How a server is that draws for a model (`models.remote.standing.Standing`): why it cannot, "" while all is well,
    and when that was seen, in Unix s."""

    @property
    def reason(self) -> str: ...

    @property
    def seen_at(self) -> float: ...


State = Literal["starting", "ready", "idle", "failed", "lost"]


@dataclass(frozen=True)
class WorkerStatus:
    """One model as `/readyz` shows it. facts: builtins (revision, device, accelerator ids, node, ...).

    state:   `idle` is not in memory at the moment, and loads when a step needs it; `lost` was there, and its process
             ended: another one is being started
    seen_at: when that was known, in Unix s; None: now
    each:    how it is on each replica of its worker, if that was asked
    """

    model: str
    state: State
    reason: str = ""
    facts: Mapping[str, Scalar] = field(default_factory=dict)
    seen_at: float | None = None
    each: tuple[WorkerStatus, ...] = ()


@dataclass(frozen=True)
class _Failure:
    """Why the weights are not there, after how many tries, and when they may be tried again (on the worker's clock)."""

    message: str
    param: str
    tries: int
    again_at: float


class ModelWorker:
    """Runs steps of one model, one at a time, in the order of arrival.

    Weights that cannot be loaded do not stop the process: the worker reports `failed`, and every step raises a
    `LoadError`, so that the router can use the recipes that do not need this model. They are tried again after
    `RETRY_FIRST_S` seconds, then after twice as long each time, at most `RETRY_MOST_S`.

    turn, thread: those of the process, if several models share it (`ModelHost`); otherwise its own
    """

    def __init__(
        self,
        model: str,
        load: Callable[[], StepEngine],
        facts: Mapping[str, Scalar] | None = None,
        turn: Turn | None = None,
        thread: ThreadPoolExecutor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._load = load
        self._facts = dict(facts or {})
        self._clock = clock
        self._engine: StepEngine | None = None
        self._failure: _Failure | None = None
        self._idle = False
        self._loading = threading.Lock()
        self._turn = turn or Turn()
        self._thread = thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"model-{model}")

    def load(self) -> None:
        """Load the weights, if they are not there and no attempt failed a short time ago. Blocks; never raises: see
        `status`."""
        with self._loading:
            if self._engine is None and self._due():
                self._try()

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._engine is not None

    def unload(self) -> None:
        """Let the weights go, if they are there, until a step needs them."""
        self._engine, self._idle = None, True

    def _due(self) -> bool:
        """Whether the weights may be loaded (again) now."""
        return self._failure is None or self._clock() >= self._failure.again_at

    def _try(self) -> None:
        started = time.perf_counter()
        message, param = "", "model"
        try:
            self._engine = self._load()
        except TriptychError as error:
            message, param = str(error), error.param or "model"
        except Exception as error:
            # Out of memory, a broken driver, a bug of a library: this model is out, the others need not be.
            logger.error("model %s could not be loaded\n%s", self._model, traceback.format_exc())
            message = f"{self._model}: could not be loaded: {type(error).__name__}: {error}"
        # Only words are kept: an exception would hold on to the weights that were loaded before it, by its traceback.
        if self._engine is None:
            gc.collect()
            tries = self._failure.tries + 1 if self._failure is not None else 1
            wait_s = min(RETRY_MOST_S, RETRY_FIRST_S * 2 ** (tries - 1))
            self._failure = _Failure(message, param, tries, self._clock() + wait_s)
        else:
            self._failure = None
            self._facts |= getattr(self._engine, "bounds", {})
            self._facts["loaded_in_s"] = round(time.perf_counter() - started, 3)

    def status(self) -> WorkerStatus:
        """How this worker is, without waiting for its turn. Weights that could not be loaded are tried again in the
        background when it is time for that; until they are there, the worker counts as failed."""
        if (failure := self._failure) is not None:
            if self._due() and not self._loading.locked():
                self._thread.submit(self.load)
            return WorkerStatus(self._model, "failed", failure.message, self._facts)
        if reason := self.broken:
            return WorkerStatus(self._model, "failed", reason, self._facts)
        if (standing := self._standing()) is not None:
            state: State = "failed" if standing.reason else "ready"
            return WorkerStatus(self._model, state, standing.reason, self._facts, standing.seen_at)
        absent: State = "idle" if self._idle else "starting"
        return WorkerStatus(self._model, "ready" if self._engine else absent, "", self._facts)

    def _standing(self) -> Standing | None:
        """How the server is that draws for this model; None if it is drawn here, or if nothing is known yet."""
        ask: Callable[[], Standing] | None = getattr(self._engine, "standing", None)
        return None if ask is None else ask()

    def check_health(self) -> None:
        """Raise `StepError` if no step can succeed in this process any more; only a new process helps then.

        Weights that are missing are none of that: they are tried again here.
        """
        if reason := self.broken:
            raise StepError(f"model {self._model!r} needs a new process: {reason}")

    @property
    def broken(self) -> str:
        """Why no step can succeed in this process any more; empty while all is well."""
        return str(getattr(self._engine, "broken", ""))

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        """Run one step. Raises `LoadError`, `StepError`, or `DeadlineError` if its turn is later than in `deadline_s`.

        When the caller is cancelled, the pipeline is told to stop, and its thread is waited for: the accelerator is
        never shared by two steps.
        """
        listen: OnBatchProgress | None = None if on_progress is None else (lambda _, told: on_progress(told))
        drawing = self._drawing(step)
        async with self._in_turn(step, deadline_s) as engine:

            def work(report: OnBatchProgress | None, should_stop: Callable[[], bool]) -> StepResult:
                report_one = None if report is None else partial(report, 0)
                return engine.run(step, inputs, on_progress=report_one, should_stop=should_stop)

            return await self._on_thread(work, listen, drawing)

    async def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        deadline_s: float,
        on_progress: OnBatchProgress | None = None,
    ) -> list[StepResult | TriptychError]:
        """Run steps that are alike in one turn, as one where that is possible. A step that fails is an error in its
        place. What concerns all of them is raised as by `run`; so is a cancellation, which stops all."""
        drawing = self._drawing(steps[0])
        async with self._in_turn(steps[0], deadline_s) as engine:

            def work(
                report: OnBatchProgress | None, should_stop: Callable[[], bool]
            ) -> list[StepResult | TriptychError]:
                return engine.run_batch(steps, inputs, on_progress=report, should_stop=should_stop)

            return await self._on_thread(work, on_progress, drawing)

    def _drawing(self, step: Step) -> tracing.Drawing | None:
        """What makes spans of the work on the model, if somebody wants them."""
        return tracing.Drawing(model=self._model, kind=step.kind) if tracing.active() else None

    @asynccontextmanager
    async def _in_turn(self, step: Step, deadline_s: float) -> AsyncIterator[StepEngine]:
        """The engine, which nobody else uses meanwhile."""
        due = time.monotonic() + deadline_s
        try:
            async with asyncio.timeout(max(0.0, deadline_s)):  # `wait_for` may lose a cancellation
                await self._turn.acquire()
        except TimeoutError:
            raise self._late(step) from None
        try:
            engine = await self._loaded(step, due)
            if time.monotonic() >= due:
                raise self._late(step)
            yield engine
        finally:
            self._turn.release()

    def _late(self, step: Step) -> DeadlineError:
        return DeadlineError(f"{step.id}: the deadline passed while it waited for model {self._model}")

    async def _loaded(self, step: Step, due: float) -> StepEngine:
        """The engine. Raises `LoadError`, or `DeadlineError`; then the weights go on loading for later ones."""
        if self._engine is None and self._due():
            loading = asyncio.get_running_loop().run_in_executor(self._thread, self.load)
            done, _ = await asyncio.wait({loading}, timeout=max(0.0, due - time.monotonic()))
            if not done:
                raise self._late(step)
        if self._engine is None:
            assert self._failure is not None
            raise LoadError(self._failure.message, self._failure.param)
        return self._engine

    async def _on_thread(
        self,
        work: Callable[[OnBatchProgress | None, Callable[[], bool]], Result],
        on_progress: OnBatchProgress | None,
        drawing: tracing.Drawing | None,
    ) -> Result:
        stop = threading.Event()
        report = None if on_progress is None else _throttled(on_progress, asyncio.get_running_loop())

        def drawn() -> Result:
            began = time.perf_counter()
            try:
                return work(report, stop.is_set) if drawing is None else _watched(drawing, work, report, stop.is_set)
            finally:
                logger.info("model %s worked for %.3f s", self._model, time.perf_counter() - began)

        return await self._in_thread(drawn, stop)

    async def _in_thread(self, work: Callable[[], Any], stop: threading.Event | None = None) -> Any:
        within = contextvars.copy_context()  # what is logged there has the request's id, too
        future = asyncio.get_running_loop().run_in_executor(self._thread, within.run, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if stop is not None:
                stop.set()
            await ended(future)
            raise


def _watched(
    drawing: tracing.Drawing,
    work: Callable[[OnBatchProgress | None, Callable[[], bool]], Result],
    report: OnBatchProgress | None,
    should_stop: Callable[[], bool],
) -> Result:
    """`work`, with every denoising step noted, also those that nobody is told of."""

    def heard(number: int, progress: Progress) -> None:
        drawing.denoised(number, progress.done, progress.total)
        if report is not None:
            report(number, progress)

    drawing.begin()
    try:
        return work(heard, should_stop)
    finally:
        drawing.end()


def _throttled(on_progress: OnBatchProgress, loop: asyncio.AbstractEventLoop) -> OnBatchProgress:
    """Reports from the pipeline's thread, of each step at most one in `PROGRESS_INTERVAL_S`; previews and last steps
    always pass."""
    last: dict[int, float] = {}

    def report(number: int, progress: Progress) -> None:
        now = time.monotonic()
        soon = now - last.get(number, 0.0) < PROGRESS_INTERVAL_S
        if progress.preview is None and progress.done < progress.total and soon:
            return
        last[number] = now
        loop.call_soon_threadsafe(on_progress, number, progress)

    return report
