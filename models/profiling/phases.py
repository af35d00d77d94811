"""Where the seconds of a picture go: reading, denoising, decoding. It costs a look at the clock for each step."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Mark = Any
"""A moment: seconds on a CPU, an event on a GPU, whose clock is read when its work is done."""


class Clock:
    """Moments of a device, and the seconds between them."""

    def __init__(self, device: str) -> None:
        self.gpu = device.startswith("cuda")
        self._device = device

    def mark(self) -> Mark:
        """Now; on a GPU, when it has done what it was told so far."""
        if not self.gpu:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        # Of this device: torch's own current one is another where a process has several.
        event.record(torch.cuda.current_stream(torch.device(self._device)))
        return event

    def between(self, begun: Mark, ended: Mark) -> float:
        """Seconds."""
        if not self.gpu:
            return float(ended - begun)
        ended.synchronize()
        return float(begun.elapsed_time(ended)) / 1000.0


class Phases:
    """Seconds of the runs of a pipeline that make one step of a plan (a run for each tile).

    Reading is what `encode_prompt` takes; decoding, what follows the last denoising step; denoising, all else, which
    with a picture to go on from is its encoding, too.
    """

    def __init__(self, device: str) -> None:
        self._clock = Clock(device)
        self._read: list[tuple[Mark, Mark]] = []
        self._runs: list[tuple[Mark, Mark, Mark]] = []
        self._last: Mark = None

    def stepped(self) -> None:
        """A denoising step has ended."""
        self._last = self._clock.mark()

    @contextmanager
    def of(self, pipe: Any) -> Iterator[None]:
        """One run of a pipeline. What fails is not counted."""
        begun = self._last = self._clock.mark()
        with called(pipe, "encode_prompt", self._reads):
            yield
        self._runs.append((begun, self._last, self._clock.mark()))

    def _reads(self, call: Callable[[], Any]) -> Any:
        begun = self._clock.mark()
        made = call()
        self._read.append((begun, self._clock.mark()))
        return made

    def seconds(self, decoded: bool, pictures: int = 1) -> dict[str, float]:
        """Of each of so many pictures: `text_s`, `denoise_s` and, where latents were decoded, `decode_s`."""
        between = self._clock.between
        text = sum(between(*pair) for pair in self._read)
        denoise = sum(between(begun, last) for begun, last, _ in self._runs) - text
        found = {"text_s": text, "denoise_s": denoise}
        if decoded:
            found["decode_s"] = sum(between(last, ended) for _, last, ended in self._runs)
        return {name: round(seconds / pictures, 5) for name, seconds in found.items()}


@contextmanager
def called(owner: Any, name: str, around: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    """While inside, calls of a method of `owner` go through `around`."""
    usual, own = getattr(owner, name), vars(owner).get(name)

    @functools.wraps(usual)  # pipelines look at signatures
    def call(*args: Any, **kwargs: Any) -> Any:
        return around(lambda: usual(*args, **kwargs))

    vars(owner)[name] = call
    try:
        yield
    finally:
        del vars(owner)[name]
        if own is not None:  # somebody else's, which is put back
            vars(owner)[name] = own
