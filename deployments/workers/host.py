"""Several models in one process: they take turns on its device, and one that is not there takes out only itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from deployments.workers.worker import ModelWorker, OnProgress, StepEngine, WorkerStatus
from router.errors import LoadError
from router.types import Scalar, Step, StepResult, Value


class ModelHost:
    """Runs the steps of its models, one at a time, in the order of arrival, on one thread.

    loads: by model, what loads its engine;   facts: by model, what its status says beside its state
    """

    def __init__(
        self, loads: Mapping[str, Callable[[], StepEngine]], facts: Mapping[str, Mapping[str, Scalar]] | None = None
    ) -> None:
        turn = asyncio.Lock()
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="models")
        said = facts or {}
        self.workers = {
            model: ModelWorker(model, load, said.get(model), turn=turn, thread=thread) for model, load in loads.items()
        }

    def load(self) -> None:
        """Load all weights. Blocks; never raises: see `statuses`."""
        for worker in self.workers.values():
            worker.load()

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        """Run one step on the model that it names; see `ModelWorker.run`."""
        worker = self.workers.get(str(step.model))
        if worker is None:
            raise LoadError(f"step {step.id!r}: model {step.model!r} is not one of {', '.join(self.workers)}", "model")
        return await worker.run(step, inputs, deadline_s, on_progress)

    def statuses(self) -> dict[str, WorkerStatus]:
        """How each model is, without waiting for a turn."""
        return {model: worker.status() for model, worker in self.workers.items()}

    def check_health(self) -> None:
        """Raise `StepError` if no step of one of the models can succeed in this process any more."""
        for worker in self.workers.values():
            worker.check_health()
