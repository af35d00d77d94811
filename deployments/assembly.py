"""Settings to objects: the catalogue, the orchestrator with its router, the loader of an engine."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deployments.known_names import known_of
from deployments.orchestration.availability import Monitor
from deployments.orchestration.budgets import TenantBudgets
from deployments.orchestration.metrics import Metrics, Tally
from deployments.orchestration.orchestrator import Orchestrator
from deployments.orchestration.recorder import Recorder
from deployments.orchestration.runner import WorkerClient
from deployments.served_recipes import served_recipes, stranger
from deployments.settings import AppSettings, ConfigError, FeedbackSettings, Placement, WorkerSettings
from deployments.workers.host import ModelHost
from deployments.workers.memory import GIB, MemoryPlan
from deployments.workers.worker import StepEngine
from models.catalogue import Catalogue, load_catalogue
from models.weights.footprints import Footprint, footprint
from models.weights.memory import GB, RESERVE_GB, free_memory_gb
from models.weights.revisions import revision
from models.weights.sharing import SharedNetworks
from policies import PolicyBook
from router.cost.model import CostModel
from router.cost.queues import Queues
from router.errors import LoadError
from router.learning.decision_log import DecisionLog
from router.learning.feedback import Retention
from router.prompts.embedding import MiniLMEmbedder
from router.quality.live import LivePredictor
from router.quality.predictor import QualityPredictor
from router.registry.artifact import load_artifact
from router.routing import Router
from router.types import ModelCard, Scalar
from router.verification.score_calibration import load_score_reading, score_reading_file
from router.verification.score_reading import ScoreReading

logger = logging.getLogger("triptych.router")

LOG_KEY = "TRIPTYCH_LOG_KEY"
"""The environment variable with the key of the hash of prompts; without it, a random one lies beside the log."""

# transformers and accelerate patch torch for the whole process while they load, so two loads would corrupt each other.
_LOADING = threading.Lock()


def catalogue_of(settings: AppSettings) -> Catalogue:
    """The model cards behind the configured ids. Raises `CatalogueError`."""
    return load_catalogue(
        {m: {"card": s.card, "overrides": s.overrides, "guests": s.guests} for m, s in settings.models.items()}
    )


def policies_of(settings: AppSettings, catalogue: Catalogue) -> PolicyBook:
    """The policies, checked against the models that are here. Raises `PolicyError` with every problem."""
    if not settings.policies.path.is_dir():
        raise ConfigError(f"policies.directory: there is no folder {settings.policies.path}", "policies.directory")
    return PolicyBook(settings.policies.path, settings.policies.default, known=known_of(catalogue))


def build_orchestrator(
    settings: AppSettings, workers: Mapping[str, WorkerClient], monitor: Monitor, metrics: Metrics | None = None
) -> Orchestrator:
    """An orchestrator over `workers`. Raises what loading cards, policies and the artefact may raise."""
    catalogue = catalogue_of(settings)
    policies = policies_of(settings, catalogue)
    costs = CostModel(catalogue)

    def look_at(predictor: QualityPredictor) -> None:
        if warning := stranger(predictor.columns, served_recipes(policies, catalogue, predictor)):
            logger.warning("artefact %s: %s", settings.artifact_path, warning)

    live = LivePredictor(settings.artifact_path, catalogue, look_at)
    router = router_of(settings, catalogue, costs, live.predictor)
    replicas = settings.orchestrator.replicas
    tenant_budgets = TenantBudgets(1 / (replicas if isinstance(replicas, int) else replicas.max_replicas))
    timeout_s = settings.limits.request_timeout_s
    metrics = metrics or Tally()
    recorder = Recorder(log_of(settings.feedback) if settings.feedback.log else None, catalogue, metrics)
    return Orchestrator(
        catalogue,
        policies,
        router,
        costs,
        workers,
        monitor,
        timeout_s,
        tenant_budgets,
        metrics,
        recorder=recorder,
        live=live,
        score_readings=lambda digest: score_readings_of(settings, catalogue, digest),
    )


def log_of(settings: FeedbackSettings) -> DecisionLog:
    """The log of decisions. Nothing is opened or made yet."""
    key = os.environ.get(LOG_KEY)
    retention = Retention(settings.max_age_days * 86_400, settings.max_rows)
    return DecisionLog(settings.file, settings.store_prompts, retention, key.encode() if key else None)


def score_readings_of(settings: AppSettings, catalogue: Catalogue, digest: str) -> dict[str, ScoreReading]:
    """How the scores of calibrated scorers are read beside the artefact with this digest, by catalogue id."""
    folder = settings.artifact_path
    return {
        model: load_score_reading(folder, digest, catalogue[model], revision(catalogue[model]))
        for model in catalogue.ids()
        if catalogue[model].role == "scorer" and score_reading_file(folder, model).is_file()
    }


def router_of(
    settings: AppSettings, catalogue: Catalogue, costs: CostModel, predictor: QualityPredictor | None = None
) -> Router:
    """The router with the configured predictor (or a given one), and queues that ask `costs`."""
    predictor = predictor or QualityPredictor(load_artifact(settings.artifact_path), catalogue)
    score_readings = score_readings_of(settings, catalogue, predictor.digest)
    places = {model: str(chosen.worker) for model, chosen in settings.models.items()}
    queues = Queues(costs, {name: least_replicas(placed) for name, placed in settings.workers.items()}, places)
    return Router(catalogue, MiniLMEmbedder(), predictor, queues, score_readings)


def least_replicas(placed: Placement) -> int:
    """How many replicas a worker has at least while something is asked of it."""
    return placed.replicas if isinstance(placed.replicas, int) else max(1, placed.replicas.min_replicas)


def guests_of(model: str, catalogue: Catalogue) -> tuple[ModelCard, ...]:
    """The cards of the models whose networks the worker of `model` holds, too."""
    return tuple(catalogue[guest] for guest in catalogue[model].guests)


@dataclass(frozen=True)
class Held:
    """A model as its worker holds it: its card, the dtype of its weights, the cards of its guests."""

    card: ModelCard
    dtype: str | None = None
    guests: tuple[ModelCard, ...] = ()


def held_by(worker: str, settings: AppSettings, catalogue: Catalogue) -> tuple[Held, ...]:
    """What a worker holds."""
    return tuple(
        Held(catalogue[model], settings.models[model].dtype, guests_of(model, catalogue))
        for model in settings.models_of(worker)
    )


def host_of(
    held: Sequence[Held], placed: WorkerSettings, facts: Callable[[ModelCard], Mapping[str, Scalar]]
) -> ModelHost:
    """The models of one process, which load what they have in common once. Nothing is loaded yet.

    facts: what the status of a model says beside its state
    """
    networks = SharedNetworks()
    loads = {h.card.id: engine_loader(h.card, placed.device, h.dtype, placed.threads, h.guests, networks) for h in held}
    said = {h.card.id: facts(h.card) for h in held}
    memory = _memory_plan(held, placed, networks)
    return ModelHost(loads, said, memory, lambda: _import_pipelines(held), _release)


def _memory_plan(held: Sequence[Held], placed: WorkerSettings, networks: SharedNetworks) -> MemoryPlan | None:
    """None if there is nothing to plan: one model, or several without a limit on a device without one."""
    by_model = {h.card.id: h for h in held}

    def occupied(model: str) -> Footprint:
        h = by_model[model]
        return footprint(h.card, _device(placed.device), h.dtype, h.guests, networks)

    def free_bytes() -> float:
        device = _device(placed.device)
        free = free_memory_gb(device) if device != "cpu" else None
        return math.inf if free is None else (free - RESERVE_GB) * GB

    limit = None if placed.memory_gib is None else placed.memory_gib * GIB
    if limit is None and (placed.device == "cpu" or len(held) == 1):
        return None
    return MemoryPlan(occupied, limit, None if placed.device == "cpu" else free_bytes)


def _import_pipelines(held: Sequence[Held]) -> None:
    """Import what takes seconds before anybody looks at the clock."""
    from models.weights.loading import pipeline_class, quieten

    quieten()
    for h in held:
        if h.card.role != "scorer":
            with contextlib.suppress(LoadError):  # the load says it, and whose it is
                pipeline_class(h.card)


def _release() -> None:
    from models.engine.device import free

    free()


def _device(name: str) -> str:
    """Where the weights go: `auto` is the accelerator if there is one. Loads torch."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def engine_loader(
    card: ModelCard,
    device: str,
    dtype: str | None,
    threads: int,
    guests: Sequence[ModelCard] = (),
    networks: SharedNetworks | None = None,
) -> Callable[[], StepEngine]:
    """A function that loads the engine of `card`, and with it torch. Nothing heavy is imported before it is called."""

    def load() -> StepEngine:
        from models.engine.engine import load_engine

        with _LOADING:
            engine = load_engine(card, _device(device), dtype, threads, guests, networks)
        engine.warm_up()
        return engine

    return load
