"""What both engines need of their accelerator: one thing at a time, what it took, what went wrong, in words."""

from __future__ import annotations

import gc
import logging
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from models.tuning.smaller import OUT_OF_MEMORY
from router.errors import Cancelled, StepError, TriptychError
from router.types import ModelCard, Scalar, Step, StepResult

Made = TypeVar("Made")

logger = logging.getLogger("triptych.engine")

LOST = ("CUDA error", "cuDNN error", "CUBLAS error")
"""How errors begin after which CUDA refuses everything else in the same process."""


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
        self.broken = ""
        """Why no step can succeed in this process any more; empty while all is well."""
        self._turn = threading.Lock()
        self._too_many: dict[Hashable, int] = {}

    def alone(self, step: Step, work: Callable[[], Made]) -> tuple[Made, float]:
        """What `work` returns, and its seconds. Further calls wait. A foreign error becomes a `StepError`.

        Of a foreign error only words are kept (and its traceback in the log): its frames hold on to the memory of what
        was being made, which is freed before the `StepError` is raised.
        """
        failure: StepError | None = None
        with self._turn:
            self._reset_peak()
            started = time.perf_counter()
            try:
                return work(), time.perf_counter() - started
            except TriptychError:
                raise
            except Exception as error:
                logger.error("step %s of %s failed\n%s", step.id, self.card.id, traceback.format_exc())
                failure = self._step_error(step, error)
            free()  # out here, where the exception and its frames are gone
        raise failure

    def together(
        self, numbers: Sequence[int], kind: Hashable, draw: Callable[[Sequence[int]], list[StepResult]]
    ) -> dict[int, StepResult | TriptychError]:
        """What became of each of the steps with these numbers, by number. `draw` runs several in one call, or one.

        Steps of one kind need the same memory. A number of them that ran out of it is halved, and not tried again. If
        several fail together for another reason, they are run one by one, so that only those fail that have to.
        Raises `Cancelled`.
        """
        if len(numbers) >= self._too_many.get(kind, len(numbers) + 1) > 1:
            return self._halves(numbers, kind, draw)
        try:
            made = draw(numbers)
        except Cancelled:
            raise
        except TriptychError as error:
            if len(numbers) == 1 or self.broken:
                return dict.fromkeys(numbers, error)
            ran_out = error.code == OUT_OF_MEMORY
        else:
            return dict(zip(numbers, made, strict=True))
        if ran_out:
            self._too_many[kind] = len(numbers)
            logger.warning("%s ran out of memory with %d pictures at once; it makes fewer", self.card.id, len(numbers))
            return self._halves(numbers, kind, draw)
        return {n: result for number in numbers for n, result in self.together([number], kind, draw).items()}

    def _halves(
        self, numbers: Sequence[int], kind: Hashable, draw: Callable[[Sequence[int]], list[StepResult]]
    ) -> dict[int, StepResult | TriptychError]:
        middle = (len(numbers) + 1) // 2
        parts = {**self.together(numbers[:middle], kind, draw), **self.together(numbers[middle:], kind, draw)}
        told = {"batch_too_large": self._too_many[kind]}
        return {
            number: replace(result, facts={**result.facts, **told}) if isinstance(result, StepResult) else result
            for number, result in parts.items()
        }

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
            return StepError(
                f"step {step.id!r}: {self.card.id!r} ran out of memory on {self.name}; ask for a smaller size",
                "size",
                OUT_OF_MEMORY,
            )
        first = (str(error).strip().splitlines() or [""])[0]
        if isinstance(error, torch.AcceleratorError) or first.startswith(LOST):
            self.broken = f"{self.name} failed: {first}"
        return StepError(f"step {step.id!r}: {self.card.id!r} failed: {type(error).__name__}: {first}")


def free() -> None:
    """Give back what nothing refers to any more."""
    import torch

    gc.collect()  # exceptions and frames often refer to one another
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def as_before(networks: Sequence[Any]) -> Iterator[None]:
    """If an exception leaves the block, parameters and buffers that changed their dtype get the former one back.

    Pipelines change networks on the way and change them back without `finally`: SDXL decodes half-precision latents by
    its VAE in float32. (Half precision survives the way there and back to the bit.)
    """
    former = [(tensor, tensor.dtype) for network in networks for tensor in (*network.parameters(), *network.buffers())]
    try:
        yield
    except BaseException:
        for tensor, dtype in former:
            if tensor.dtype != dtype:
                tensor.data = tensor.data.to(dtype)
        raise
