"""A pipeline's run, part by part: each text encoder, each call of the network, the scheduler, the VAE.

The parts are wrapped while they are looked at, not hooked into, so that compiled networks run as they were compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from models.profiling.phases import Clock, Mark, called


@dataclass(frozen=True)
class Span:
    """One call of a part. begun_s: since the run began;   seconds: on a GPU, of its work"""

    part: str
    begun_s: float
    seconds: float


class Parts:
    """What the parts of one run took. denoiser: the component that predicts"""

    def __init__(self, device: str, denoiser: str) -> None:
        self._clock = Clock(device)
        self._denoiser = denoiser
        self._marks: list[tuple[str, Mark, Mark]] = []

    @contextmanager
    def of(self, pipe: Any) -> Iterator[None]:
        """The run of a pipeline that begins now."""
        networks = [name for name in pipe.components if name.startswith("text_encoder")] + [self._denoiser]
        usual = {name: getattr(pipe, name) for name in networks if getattr(pipe, name) is not None}
        self._marks = []
        with ExitStack() as stack:
            for owner, name, part in (
                (pipe.scheduler, "step", "scheduler"),
                (pipe.vae, "encode", "vae encode"),
                (pipe.vae, "decode", "vae decode"),
            ):
                stack.enter_context(called(owner, name, partial(self._timed, part)))
            # Past the pipeline's own `__setattr__`, which would take the stand-ins for components and note them.
            vars(pipe).update({name: _Watched(network, name, self._timed) for name, network in usual.items()})
            stack.callback(vars(pipe).update, usual)
            begun = self._clock.mark()
            yield
            self._marks.append(("run", begun, self._clock.mark()))

    def spans(self) -> list[Span]:
        """All calls in the order in which they began; the first is the whole, `run`. Waits for the device."""
        between = self._clock.between
        _, start, _ = next(mark for mark in self._marks if mark[0] == "run")
        found = [Span(part, between(start, begun), between(begun, ended)) for part, begun, ended in self._marks]
        return sorted(found, key=lambda span: (span.part != "run", span.begun_s))

    def _timed(self, part: str, call: Callable[[], Any]) -> Any:
        if self._clock.gpu:
            import torch

            torch.cuda.nvtx.range_push(part)
        begun = self._clock.mark()
        try:
            return call()
        finally:
            self._marks.append((part, begun, self._clock.mark()))
            if self._clock.gpu:
                torch.cuda.nvtx.range_pop()


class _Watched:
    """Stands in for a network: its calls are timed, all else is its own."""

    def __init__(self, network: Any, part: str, timed: Callable[[str, Callable[[], Any]], Any]) -> None:
        self._network, self._part, self._timed = network, part, timed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._timed(self._part, lambda: self._network(*args, **kwargs))
