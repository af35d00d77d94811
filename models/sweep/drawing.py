"""One way of running a model, loaded: prompts in, looks out."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.engine.device import free
from models.engine.engine import Engine, load_engine
from models.exporting.export import export, smaller
from models.sweep.journal import Journal
from models.sweep.similarity import SAME_DB, psnr, ssim
from models.sweep.standings import Look
from models.sweep.ways import Build, Way
from router.types import ModelCard, Picture, Scalar, Scores, Step, StepResult


class Studio:
    """Draws the prompts of a sweep, one build of the model in memory at a time.

    folder: where graphs are exported to;   seed: of the first prompt, the others count up from it
    """

    def __init__(
        self,
        card: ModelCard,
        scorer: Engine,
        prompts: Sequence[str],
        folder: Path,
        device: str = "cpu",
        dtype: str | None = None,
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.card = card
        self.prompts = prompts
        self._scorer = scorer
        self._folder = folder
        self._device, self._dtype, self._threads = device, dtype, threads
        self._seed = seed
        self._build: Build | None = None
        self._engine: Engine | None = None
        self._before_gb = 0.0
        # What else runs on a CPU changes the clock's seconds, but not those of the one thread that draws.
        self.clock = "processor" if device == "cpu" and threads == 1 else "wall"

    def enter(self, build: Build) -> None:
        """Load a build in the place of the one before. Raises `LoadError`."""
        if build == self._build:
            return
        self.leave()
        self._before_gb = _resident_gb()
        folder = self.graphs(build)
        if folder is not None and not folder.is_dir():
            exact = self._folder / "onnx-fp32"
            if build.exported == "int8" and exact.is_dir():
                smaller(self.card, exact, folder)
            else:
                export(self.card, folder, build.exported)
            free()
        card = build.card(self.card, folder)
        self._engine = load_engine(card, self._device, None if build.exported else self._dtype, self._threads)
        self._engine.warm_up()
        self._build = build

    def leave(self) -> None:
        """Give the build's memory back."""
        self._build = self._engine = None
        gc.collect()
        free()

    def graphs(self, build: Build) -> Path | None:
        """The folder of a build's graphs; None for one of torch."""
        return self._folder / f"onnx-{build.exported}" if build.exported else None

    def look(self, way: Way, number: int, journal: Journal, present: bool) -> Look:
        """Draw one prompt in a way whose build is loaded, and look at it."""
        pixels, seconds, facts = self._draw(way, number)
        if present:
            journal.keep(number, pixels)
        alike = (1.0, SAME_DB) if present else (ssim(pixels, kept := journal.kept(number)), psnr(pixels, kept))
        memory = facts.get("peak_memory_gb", max(0.0, _resident_gb() - self._before_gb))
        return Look(seconds, self._score(number, pixels), *alike, float(memory))

    def _draw(self, way: Way, number: int) -> tuple[NDArray[np.uint8], float, Any]:
        assert self._engine is not None, "enter a build first"
        settings: dict[str, Scalar] = {
            "prompt": self.prompts[number],
            "seed": self._seed + number,
            "steps": way.steps,
            "scheduler": way.scheduler,
        }
        begun = time.thread_time()
        result = self._engine.run(Step(f"prompt-{number}", "generate", self.card.id, (), "image", settings))
        spent = time.thread_time() - begun
        assert isinstance(result.value, Picture)
        return result.value.pixels, spent if self.clock == "processor" else result.seconds, result.facts

    def _score(self, number: int, pixels: NDArray[np.uint8]) -> float:
        settings = {"prompt": self.prompts[number]}
        step = Step(f"score-{number}", "score", self._scorer.card.id, ("picture",), "scores", settings)
        made = self._scorer.run(step, (Picture(pixels),))
        assert isinstance(made, StepResult) and isinstance(made.value, Scores)
        (score,) = made.value.values
        return float(score)


def _resident_gb() -> float:
    """Memory that the process holds now, 10^9 bytes; where that is not told, the most that it has held."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e9
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
