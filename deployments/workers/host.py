"""Several models in one process: they take turns on its device, and one that is not there takes out only itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

from deployments.workers.memory import MemoryPlan
from deployments.workers.turns import Turn
from deployments.workers.worker import ModelWorker, OnBatchProgress, OnProgress, StepEngine, WorkerStatus
from router.errors import LoadError, StepError, TriptychError
from router.types import Scalar, Step, StepResult, Value

logger = logging.getLogger("triptych.worker")

FAILURES = 3
"""So many unexpected failures in a row, and the process is taken for broken."""


class _NoneMade(StepError):
    """All steps of a batch failed: counted like a step that does."""


class ModelHost:
    """Runs the steps of its models, one at a time, in the order of arrival, on one thread (`elsewhere`: several).

    loads: by model, what loads its engine;   facts: by model, what its status says beside its state
    memory: which models stay when not all of them fit; None: all stay. A model that is given up loads again on demand
    prepare: what is imported before the first model is loaded, so that nobody's seconds of loading count it
    release: gives memory that nothing refers to any more back to the device
    elsewhere: how many steps run at once, where servers elsewhere draw; None: one, on the device of this process, which
             is judged by what fails on it
    """

    def __init__(
        self,
        loads: Mapping[str, Callable[[], StepEngine]],
        facts: Mapping[str, Mapping[str, Scalar]] | None = None,
        memory: MemoryPlan | None = None,
        prepare: Callable[[], None] = lambda: None,
        release: Callable[[], None] = lambda: None,
        elsewhere: int | None = None,
    ) -> None:
        self._memory = memory
        self._prepare = prepare
        self._release = release
        self._failures: list[tuple[str, str]] = []
        self._elsewhere = elsewhere is not None
        turn = Turn(elsewhere or 1)
        thread = ThreadPoolExecutor(max_workers=elsewhere or 1, thread_name_prefix="models")
        self.workers = {
            model: ModelWorker(model, self._within_memory(model, load), (facts or {}).get(model), turn, thread)
            for model, load in loads.items()
        }

    def load(self) -> None:
        """Load all weights that fit; the others wait until they are needed. Blocks; never raises: see `statuses`."""
        for model, worker in self.workers.items():
            if self._fits(model):
                worker.load()
            else:
                worker.unload()

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        """Run one step on the model that it names; see `ModelWorker.run`."""
        worker = self._worker_of(step)
        with self._watched([step]):
            return await worker.run(step, inputs, deadline_s, on_progress)

    async def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        deadline_s: float,
        on_progress: OnBatchProgress | None = None,
    ) -> list[StepResult | TriptychError]:
        """Run steps that are alike in one turn of their model; see `ModelWorker.run_batch`."""
        worker = self._worker_of(steps[0])
        results: list[StepResult | TriptychError] = []
        with suppress(_NoneMade), self._watched(steps):
            results = await worker.run_batch(steps, inputs, deadline_s, on_progress)
            failed = [result for result in results if isinstance(result, StepError)]
            if len(failed) == len(steps):
                raise _NoneMade(failed[0].message, failed[0].param)
        return results

    def _worker_of(self, step: Step) -> ModelWorker:
        """The model of a step, which is counted as used. Raises `LoadError`."""
        worker = self.workers.get(str(step.model))
        if worker is None:
            raise LoadError(f"step {step.id!r}: model {step.model!r} is not one of {', '.join(self.workers)}", "model")
        if self._memory is not None:
            self._memory.used(str(step.model))
        return worker

    def statuses(self) -> dict[str, WorkerStatus]:
        """How each model is, without waiting for a turn. A device that is lost to one of them is lost to all."""
        statuses = {model: worker.status() for model, worker in self.workers.items()}
        if reason := next(filter(None, (worker.broken for worker in self.workers.values())), ""):
            statuses = {model: replace(status, state="failed", reason=reason) for model, status in statuses.items()}
        return statuses

    def check_health(self) -> None:
        """Raise `StepError` if this process should be replaced: no step of one of the models can succeed in it any
        more, or `FAILURES` steps in a row failed for reasons of its own, whatever their models."""
        for worker in self.workers.values():
            worker.check_health()
        steps = {step for step, _ in self._failures}
        if len(self._failures) >= FAILURES and len(steps) > 1:
            last = self._failures[-1][1]
            raise StepError(f"{len(self._failures)} steps in a row failed here, and a new process may help: {last}")

    @contextmanager
    def _watched(self, steps: Sequence[Step]) -> Iterator[None]:
        """Counts failures in a row that are not what the steps asked for. The same step again says nothing new."""
        try:
            yield
        except StepError as error:
            if error.param is None and not self._elsewhere:  # else it names what was wrong with the request
                self._failures.append((repr(steps), error.message))
            raise
        else:
            self._failures.clear()

    def _fits(self, model: str) -> bool:
        if self._memory is None:
            return True
        self._prepare()
        self._release()
        return self._memory.fits(model, self._held())

    def _held(self) -> list[str]:
        return [model for model, worker in self.workers.items() if worker.loaded]

    def _within_memory(self, model: str, load: Callable[[], StepEngine]) -> Callable[[], StepEngine]:
        """`load`, with room made before. It runs in the turn of the model that needs it, so none that is given up is
        running."""

        def work() -> StepEngine:
            self._prepare()
            if self._memory is None:
                return load()
            self._make_room(model, self._memory)
            began = time.perf_counter()
            engine = load()
            self._memory.loaded(model, time.perf_counter() - began)
            return engine

        return work

    def _make_room(self, model: str, memory: MemoryPlan) -> None:
        memory.check(model)
        self._release()
        while not memory.fits(model, held := self._held()) and (victim := memory.victim(held)) is not None:
            logger.info("model %s leaves the memory to %s", victim, model)
            self.workers[victim].unload()
            self._release()
