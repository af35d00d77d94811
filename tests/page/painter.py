"""Workers that paint without weights, step by step, and wait, fail or score as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from deployments.workers.worker import OnProgress, WorkerStatus
from router.errors import StepError
from router.types import Latents, Picture, Progress, Scores, Step, StepResult, Value
from tests.deployments.support.scripted import Script

MODELS = ("sd15", "sdxl", "sdxl-turbo", "sdxl-refiner", "flux", "alignment")
TICKS = 12


class Painter(Script):
    """All workers of an application. scores: of the pictures in the order in which they are looked at, then .97;
    broken: models whose steps fail;   gate: a step of a picture stops in its midst until it is set"""

    def __init__(self, tick_s: float = 0.004) -> None:
        super().__init__({})
        self.tick_s = tick_s
        self.looks: list[float] = []
        self.broken: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        self.ran.append(f"{step.kind} {step.model}")
        if step.model in self.broken:
            raise StepError(f"{step.model} ran out of memory; ask for a smaller size")
        if step.kind == "score":
            count = sum(isinstance(value, Picture) for value in inputs)
            return StepResult(Scores(tuple(self.looks.pop(0) if self.looks else 0.97 for _ in range(count))), 0.01)
        size = int(step.settings["height"]), int(step.settings["width"])
        for done in range(1, TICKS + 1):
            await asyncio.sleep(self.tick_s)
            if done == TICKS - 1:
                await self.gate.wait()
            if on_progress is not None:
                preview = painted(size, done / TICKS, step) if done % 3 == 0 else None
                on_progress(Progress(step.id, done, TICKS, preview))
        if step.produces == "latents":
            return StepResult(Latents(np.zeros((4, size[0] // 8, size[1] // 8), np.float32), "sdxl", 0.8), 0.05)
        return StepResult(painted(size, 1.0, step), 0.05)

    async def statuses(self) -> Mapping[str, WorkerStatus]:
        return {name: WorkerStatus(name, "ready") for name in MODELS}


def painted(size: tuple[int, int], share: float, step: Step) -> Picture:
    """Rings around a centre that its seed moves, clearer the further it is."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    seed = int(step.settings.get("seed", 0))
    far = np.hypot(x - width * (0.3 + seed % 5 / 10), y - height * 0.5)
    rings = (np.sin(far / 3) * 127 * share + 128).astype(np.uint8)
    return Picture(np.stack([rings, np.full_like(rings, 120), 255 - rings], axis=-1))
