"""What is known of a worker that has several replicas, or none at the moment, and since when."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from deployments.workers.worker import State, WorkerStatus

BEST: tuple[State, ...] = ("ready", "idle", "starting", "failed", "lost")
"""A model is as well as it is on its best replica."""


class Sightings:
    """The last answers of the replicas of one worker.

    wakes: whether it may have no replica while nothing is asked of it
    clock: in Unix s
    """

    def __init__(
        self, worker: str, models: Sequence[str], wakes: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._worker = worker
        self._models = tuple(models)
        self._wakes = wakes
        self._clock = clock
        self._last: tuple[Mapping[str, WorkerStatus], ...] = ()
        self._seen_at: float | None = None
        self._was_there = False
        self._load_s: dict[str, float] = {}

    @property
    def replicas(self) -> int:
        """How many answered last."""
        return len(self._last)

    def answered(self, answers: Sequence[Mapping[str, WorkerStatus]]) -> None:
        """All replicas that there are have answered, or there is none."""
        self._last = tuple(answers)
        self._seen_at = self._clock()
        self._was_there = self._was_there or bool(answers)
        for answer in answers:
            for model, status in answer.items():
                if isinstance(seconds := status.facts.get("loaded_in_s"), int | float):
                    self._load_s[model] = float(seconds)

    def loading_s(self) -> dict[str, float]:
        """By model, how long its next step waits for its weights: 0 where they are in memory. One that was never
        loaded is taken to load as long as the slowest of its worker did."""
        slowest = max(self._load_s.values(), default=0.0)
        return {
            model: self._load_s.get(model, slowest) if status.state == "idle" else 0.0
            for model, status in self.statuses().items()
        }

    def statuses(self) -> dict[str, WorkerStatus]:
        """How each model is, as far as it is known: an answer that is not there yet leaves the last one, with its
        age."""
        return {model: self._status(model) for model in self._models}

    def _status(self, model: str) -> WorkerStatus:
        if self._last:
            return together([replace(answer[model], seen_at=self._seen_at) for answer in self._last if model in answer])
        if self._wakes:
            return WorkerStatus(model, "idle", f"worker {self._worker!r} has no replica until a step needs one")
        if self._was_there:
            reason = f"the process of worker {self._worker!r} ended; another one is being started"
            return WorkerStatus(model, "lost", reason, seen_at=self._seen_at)
        reason = f"no replica of worker {self._worker!r} has answered yet; is there a place for it?"
        return WorkerStatus(model, "starting", reason, seen_at=self._seen_at)


def together(each: Sequence[WorkerStatus]) -> WorkerStatus:
    """How a model is on all replicas of its worker: as on the best of them, with what is wrong on others."""
    best = min(each, key=lambda status: BEST.index(status.state))
    if areas := [most for status in each if isinstance(most := status.facts.get("most_pixels"), int)]:
        best = replace(best, facts={**best.facts, "most_pixels": min(areas)})  # a step may go to any of them
    wrong = [status for status in each if status.state == "failed"]
    if best.state == "failed" or not wrong:
        return replace(best, each=tuple(each) if len(each) > 1 else ())
    reason = f"{len(wrong)} of {len(each)} replicas failed: {wrong[0].reason}"
    return replace(best, reason=reason, each=tuple(each))
