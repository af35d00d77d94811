"""Watching a pipeline while it runs: progress, previews, and stopping within one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from models.engine.previews import clean, paint
from models.profiling.phases import Phases
from models.schedulers import VARIANCE_EXPLODING
from router.errors import Cancelled
from router.types import Progress

OnProgress = Callable[[Progress], None]
OnBatchProgress = Callable[[int, Progress], None]
"""(number of the step in its batch, how far it is)"""

ShouldStop = Callable[[], bool]

PREVIEWS = 4
"""Previews per run, the last step excluded: it is followed by the picture itself."""


class Watch:
    """A diffusers `callback_on_step_end`. `done` counts the denoising steps that were run.

    steps:  ids of the plan's steps that are made together, in the order of their latents
    unpack: latents as the pipeline holds them to (N, C, h, w);   colours: see `models.previews.fit_colours`
    last:   number of the denoising step of a run after which the pipeline leaves out the others; None: all are run
    rounds: how many runs of the pipeline make up the step (one for each tile)
    phases: where the seconds go; default: of a CPU
    """

    def __init__(
        self,
        steps: Sequence[str],
        on_progress: OnBatchProgress | None,
        should_stop: ShouldStop | None,
        unpack: Any,
        colours: Any,
        last: int | None = None,
        rounds: int = 1,
        phases: Phases | None = None,
    ) -> None:
        self.phases = phases or Phases("cpu")
        self.steps = tuple(steps)
        self.done = 0
        self._report = on_progress
        self._should_stop = should_stop
        self._unpack = unpack
        self._colours = colours
        self._last: Any = None
        self._stop_after = last
        self._rounds = rounds
        self._before = 0

    def check(self) -> None:
        """Raise `Cancelled` if the caller has gone."""
        if self._should_stop is not None and self._should_stop():
            raise Cancelled(f"step {self.steps[0]!r} was cancelled after {self.done} denoising steps")

    def next_round(self) -> None:
        """The next run of the pipeline begins; its steps are added to those before."""
        self._before = self.done

    def __call__(self, pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self.done = self._before + index + 1
        self.phases.stepped()
        self.check()
        if index + 1 == self._stop_after:
            pipe._interrupt = True
        if self._report is not None:
            total = pipe.num_timesteps if self._stop_after is None else self._stop_after
            previews = self._previews(pipe, tensors["latents"])
            for number, step in enumerate(self.steps):
                self._report(number, Progress(step, self.done, total * self._rounds, previews[number]))
            self._last = tensors["latents"]
        return tensors

    def _previews(self, pipe: Any, latents: Any) -> Sequence[Any]:
        every = max(1, pipe.num_timesteps // PREVIEWS)
        if self._colours is None or self.done % every or self.done == pipe.num_timesteps:
            return [None] * len(self.steps)
        explodes = type(pipe.scheduler).__name__ in VARIANCE_EXPLODING
        cells = self._unpack(clean(self._last, latents, pipe.scheduler, explodes))
        return [paint(cells[number : number + 1], self._colours) for number in range(len(self.steps))]
