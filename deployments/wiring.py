"""Settings to objects: the catalogue, the orchestrator with its router, the loader of an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from deployments.availability import Monitor
from deployments.knowledge import known_of
from deployments.ledger import Ledger
from deployments.metrics import Metrics
from deployments.orchestrator import Orchestrator
from deployments.running import WorkerClient
from deployments.settings import AppSettings, ConfigError
from deployments.worker import StepEngine
from models.catalog import Catalog, load_catalogue
from models.weights import revision
from policies import PolicyBook
from router.artifact import load_artifact
from router.costs import CostModel
from router.embedding import MiniLMEmbedder
from router.judging import judgement_file, load_judgement
from router.predictors import QualityPredictor
from router.queues import Queues
from router.routing import Router
from router.types import ModelCard

# transformers and accelerate patch torch for the whole process while they load, so two loads would corrupt each other.
_LOADING = threading.Lock()


def catalogue_of(settings: AppSettings) -> Catalog:
    """The model cards behind the configured ids. Raises `CatalogError`."""
    return load_catalogue({m: {"card": s.card, "overrides": s.overrides} for m, s in settings.models.items()})


def policies_of(settings: AppSettings, catalogue: Catalog) -> PolicyBook:
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
    router = router_of(settings, catalogue, costs)
    replicas = settings.orchestrator.replicas
    ledger = Ledger(1 / (replicas if isinstance(replicas, int) else replicas.max_replicas))
    timeout_s = settings.limits.request_timeout_s
    return Orchestrator(catalogue, policies, router, costs, workers, monitor, timeout_s, ledger, metrics)


def router_of(settings: AppSettings, catalogue: Catalog, costs: CostModel) -> Router:
    """The router with the configured predictor, and queues that ask `costs`."""
    artifact = load_artifact(settings.artifact_path)
    predictor = QualityPredictor(artifact, catalogue)
    judgements = {
        model: load_judgement(settings.artifact_path, artifact.digest, catalogue[model], revision(catalogue[model]))
        for model in catalogue.ids()
        if catalogue[model].role == "scorer" and judgement_file(settings.artifact_path, model).is_file()
    }
    queues = Queues(costs, {model: replicas_of(settings, model) for model in settings.models})
    return Router(catalogue, MiniLMEmbedder(), predictor, queues, judgements)


def replicas_of(settings: AppSettings, model: str) -> int:
    """How many workers are there at least."""
    replicas = settings.models[model].replicas
    return replicas if isinstance(replicas, int) else max(1, replicas.min_replicas)


def engine_loader(card: ModelCard, device: str, dtype: str | None, threads: int) -> Callable[[], StepEngine]:
    """A function that loads the engine of `card`, and with it torch. Nothing heavy is imported before it is called."""

    def load() -> StepEngine:
        import torch

        from models.engine import Engine

        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        with _LOADING:
            engine = Engine(card, chosen, dtype, threads)
        engine.warm_up()
        return engine

    return load
