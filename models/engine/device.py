"""What both engines need of their accelerator: one thing at a time, what it took, what went wrong, in words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from router.errors import StepError, TriptychError
from router.types import ModelCard, Scalar, Step

Made = TypeVar("Made")


class Device:
    """A device that the model of `card` occupies.

    name: "cpu", "cuda", "cuda:1", ...;   threads: CPU threads of torch (they belong to the process, and a different
    number may change the last bit of a sum); None leaves them as they are.
    """

    def __init__(self, card: ModelCard, name: str, threads: int | None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self._gpu = name.startswith("cuda")
        if self._gpu:
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
        self.card = card
        self.name = name
        self._turn = threading.Lock()

    def alone(self, step: Step, work: Callable[[], Made]) -> tuple[Made, float]:
        """What `work` returns, and its seconds. Further calls wait. A foreign error becomes a `StepError`."""
        with self._turn:
            self._reset_peak()
            started = time.perf_counter()
            try:
                made = work()
            except TriptychError:
                raise
            except Exception as error:
                raise self._step_error(step, error) from error
            return made, time.perf_counter() - started

    def facts(self, revision: str) -> dict[str, Scalar]:
        """Model, its revision, device and, on a GPU, the memory that the last work needed at most (10^9 bytes)."""
        facts: dict[str, Scalar] = {"model": self.card.id, "revision": revision, "device": self.name}
        if self._gpu:
            import torch

            facts["peak_memory_gb"] = torch.cuda.max_memory_allocated(self.name) / 1e9
        return facts

    def _reset_peak(self) -> None:
        if self._gpu:
            import torch

            torch.cuda.reset_peak_memory_stats(self.name)

    def _step_error(self, step: Step, error: Exception) -> StepError:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            return StepError(
                f"step {step.id!r}: {self.card.id!r} ran out of memory on {self.name}; ask for a smaller size", "size"
            )
        first = (str(error).strip().splitlines() or [""])[0]
        return StepError(f"step {step.id!r}: {self.card.id!r} failed: {type(error).__name__}: {first}")
