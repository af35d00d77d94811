"""Workers for tests that need no weights: pictures of one grey per model, scores as scripted."""

from __future__ import annotations

import asyncio
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from deployments.api.wire.rendering import Rendering
from deployments.assembly import catalogue_of, known_of
from deployments.jobs.jobs import Jobs
from deployments.jobs.values import Identity
from deployments.orchestration.budgets import TenantBudgets
from deployments.orchestration.metrics import Tally
from deployments.orchestration.orchestrator import Orchestrator
from deployments.orchestration.recorder import Recorder
from deployments.settings import AppSettings, StoreSettings
from deployments.store import open_store
from deployments.store.decision_log import DecisionLog
from deployments.workers.worker import OnProgress, WorkerStatus
from policies import PolicyBook
from router.cost.model import CostModel
from router.cost.queues import Queues
from router.prompts.embedding import MiniLMEmbedder
from router.quality.predictor import QualityPredictor
from router.registry.artifact import load_artifact
from router.routing import Router
from router.types import Picture, Scores, Step, StepResult, Value
from tests.conftest import store_in

GREY = {"sd15": 60, "sdxl-turbo": 90, "sdxl": 120, "sdxl-refiner": 130, "flux": 200, "kontext": 210}
EMBEDDER = MiniLMEmbedder()


def jobs_of(orchestrator: Orchestrator) -> Jobs:
    """The jobs of an orchestrator in a store of their own, which is gone when they are."""
    folder = tempfile.TemporaryDirectory(prefix="triptych-store-")
    jobs = Jobs(orchestrator, open_store(StoreSettings(**store_in(Path(folder.name)))), Rendering())
    weakref.finalize(jobs, folder.cleanup)
    return jobs


class Keyless:
    """What a made-up backend says of keys: there are none."""

    async def authenticate(self, hash: str | None) -> Identity:
        return Identity(None, False)


class Script:
    """All workers of an application. scores: of pictures by their grey; took_s: what each step says that it took."""

    def __init__(self, scores: Mapping[int, float], took_s: float = 0.01, delay_s: float = 0.0) -> None:
        self.scores = scores
        self.took_s = took_s
        self.delay_s = delay_s
        self.ran: list[str] = []

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        self.ran.append(f"{step.kind} {step.model}")
        await asyncio.sleep(self.delay_s)
        if step.kind == "score":
            pictures = [value for value in inputs if isinstance(value, Picture)]
            values = tuple(self.scores[int(picture.pixels[0, 0, 0])] for picture in pictures)
            return StepResult(Scores(values), self.took_s)
        pixels = np.full(
            (int(step.settings["height"]), int(step.settings["width"]), 3), GREY[str(step.model)], np.uint8
        )  # type: ignore[arg-type]
        return StepResult(Picture(pixels), self.took_s)

    async def statuses(self) -> Mapping[str, WorkerStatus]:
        return {"sd15": WorkerStatus("sd15", "ready")}


def scripted(
    settings: AppSettings,
    folder: Path,
    script: Script,
    policies: Mapping[str, str],
    draw: Callable[[], float] = lambda: 0.999,
    tenant_budgets: TenantBudgets | None = None,
    log: DecisionLog | None = None,
) -> tuple[Orchestrator, Tally]:
    """An orchestrator with the policies (name -> text without version and name; the first is the default)."""
    for name, text in policies.items():
        (folder / f"{name}.yaml").write_text(f"version: 1\nname: {name}\n{text}")
    catalogue = catalogue_of(settings)
    book = PolicyBook(folder, next(iter(policies)), known=known_of(catalogue))
    costs, tally = CostModel(catalogue), Tally()
    router = Router(
        catalogue, EMBEDDER, QualityPredictor(load_artifact(settings.artifact_path), catalogue), Queues(costs)
    )
    workers = dict.fromkeys(catalogue.ids(), script)
    recorder = Recorder(log, catalogue, tally)
    return Orchestrator(
        catalogue, book, router, costs, workers, script, 60.0, tenant_budgets, tally, draw, recorder
    ), tally
