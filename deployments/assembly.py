"""Settings to objects: the catalogue, the orchestrator with its router, the loader of an engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deployments.api.urls import URL_SECRET, UrlSigner
from deployments.api.wire.jobs import job_report
from deployments.api.wire.rendering import Rendering
from deployments.jobs.jobs import Jobs
from deployments.jobs.secret_files import secret_from
from deployments.jobs.views import view_of
from deployments.jobs.webhooks import WEBHOOK_SECRET, Webhooks
from deployments.known_names import known_of
from deployments.orchestration.availability import Monitor
from deployments.orchestration.budgets import TenantBudgets
from deployments.orchestration.metrics import Metrics, Tally
from deployments.orchestration.orchestrator import Orchestrator
from deployments.orchestration.recorder import Recorder
from deployments.orchestration.step_queues import WorkerClient
from deployments.placement import Placement, WorkerSettings
from deployments.safety.guard import Guard
from deployments.served_recipes import served_recipes, stranger
from deployments.settings import AppSettings, ConfigError
from deployments.store import Store, open_store
from deployments.store.decision_log import DecisionLog
from deployments.store.records import JobRecord
from deployments.store.store import decision_log
from deployments.workers.host import ModelHost
from deployments.workers.memory import GIB, MemoryPlan
from deployments.workers.worker import StepEngine
from models.catalogue import PACKAGE, Catalogue, load_catalogue
from models.provenance.credentials import Credentials
from models.styles.cards import load_styles
from models.weights.needs.footprints import Footprint, footprint
from models.weights.needs.memory import GB, RESERVE_GB, device_memory_gb, free_memory_gb, guest_memory_gb, most_pixels
from models.weights.needs.networks import countable
from models.weights.revisions import revision
from models.weights.sharing import SharedNetworks
from policies import PolicyBook
from router.cost.batches import BatchSizes
from router.cost.model import CostModel
from router.cost.queues import Queues
from router.errors import LoadError
from router.prompts.embedding import MiniLMEmbedder
from router.quality.live import LivePredictor
from router.quality.predictor import QualityPredictor
from router.registry.artifact import load_artifact
from router.routing import Router
from router.types import ModelCard, Scalar
from router.verification.score_calibration import load_score_reading, score_reading_file
from router.verification.score_reading import ScoreReading

logger = logging.getLogger("triptych.router")

# transformers and accelerate patch torch for the whole process while they load, so two loads would corrupt each other.
_LOADING = threading.Lock()


def catalogue_of(settings: AppSettings) -> Catalogue:
    """The model cards behind the configured ids. Raises `CatalogueError`, and `ConfigError` for a worker that makes no
    sense with them."""
    catalogue = load_catalogue(
        {
            m: {"card": s.card, "overrides": s.overrides, "guests": s.guests, "tuning": s.tuning}
            for m, s in settings.models.items()
        },
        load_styles(settings.styles.paths),
    )
    for worker in settings.workers:
        _check_elsewhere(worker, settings, catalogue)
    if settings.weights.paths:
        _check_places(catalogue, (*settings.weights.paths, PACKAGE))
    return catalogue


def _check_places(catalogue: Catalogue, allowed: Sequence[Path]) -> None:
    """Raise `ConfigError` for a card that reads from elsewhere than the allowed folders, links followed."""
    for card in catalogue.cards.values():
        sources = {"source": card.source, **{f"components.{name}": spec for name, spec in card.components.items()}}
        for where, source in sources.items():
            for key in ("local", "file", "config"):
                place = Path(str(source[key])).resolve() if source.get(key) else None
                if place is not None and not any(place.is_relative_to(folder) for folder in allowed):
                    listed = ", ".join(map(str, allowed[:-1]))
                    raise ConfigError(
                        f"model {card.id!r}: {where}.{key}: {place} lies outside of weights.directories ({listed}); "
                        "move it there, or add its folder",
                        f"models.{card.id}",
                    )


def slots_of(worker: str, settings: AppSettings, catalogue: Catalogue) -> int | None:
    """How many steps each replica of a worker runs at once, where servers elsewhere draw for its models; None if they
    are drawn on its device, one at a time."""
    away = all(catalogue[model].remote is not None for model in settings.models_of(worker))
    return settings.workers[worker].max_ongoing if away else None


def _check_elsewhere(worker: str, settings: AppSettings, catalogue: Catalogue) -> None:
    """Raise `ConfigError` if a worker has both remote models and others, or an accelerator for remote ones."""
    models, placed = settings.models_of(worker), settings.workers[worker]
    away = [model for model in models if catalogue[model].remote is not None]
    here = [model for model in models if catalogue[model].remote is None]
    if away and here:
        raise ConfigError(
            f"worker {worker!r}: {away[0]!r} is drawn elsewhere and {here[0]!r} in its process; give them two workers",
            f"models.{away[0]}.worker",
        )
    if away and (placed.device == "cuda" or placed.gpus or placed.memory_gib is not None):
        raise ConfigError(
            f"worker {worker!r}: {away[0]!r} is drawn elsewhere and needs no accelerator here; leave out device, "
            "num_gpus and memory_gib",
            f"models.{away[0]}",
        )
    if typed := next((model for model in away if settings.models[model].dtype is not None), None):
        raise ConfigError(f"models.{typed}.dtype: {typed!r} is drawn elsewhere, in whatever precision; leave it out")


def policies_of(settings: AppSettings, catalogue: Catalogue) -> PolicyBook:
    """The policies, checked against the models that are here. Raises `PolicyError` with every problem."""
    if not settings.policies.path.is_dir():
        raise ConfigError(f"policies.directory: there is no folder {settings.policies.path}", "policies.directory")
    return PolicyBook(
        settings.policies.path, settings.policies.default, known=known_of(catalogue, settings.safety.moderators)
    )


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
    timeout_s = settings.limits.request_timeout_s
    metrics = metrics or Tally()
    recorder = Recorder(log_of(settings) if settings.feedback.log else None, catalogue, metrics)
    return Orchestrator(
        catalogue,
        policies,
        router,
        costs,
        workers,
        monitor,
        timeout_s,
        TenantBudgets(),
        metrics,
        recorder=recorder,
        live=live,
        score_readings=lambda digest: score_readings_of(settings, catalogue, digest),
        queue_settings=settings.queues,
        worker_of={model: str(chosen.worker) for model, chosen in settings.models.items()},
        batch_sizes=BatchSizes(costs, lambda model: 1 if catalogue[model].remote else settings.models[model].max_batch),
        guard=Guard.of(settings.safety.moderators),
    )


def build_jobs(settings: AppSettings, orchestrator: Orchestrator) -> Jobs:
    """The jobs of an orchestrator, in the configured store. Raises `StoreError`; call `start` before anything else."""
    return jobs_in(open_store(settings.store), settings, orchestrator)


def jobs_in(store: Store, settings: AppSettings, orchestrator: Orchestrator) -> Jobs:
    """The jobs of an orchestrator in a store that is open."""
    secret = url_secret(settings)
    sign = UrlSigner(b"", settings.urls.expire_s, settings.urls.base or "")

    async def report(record: JobRecord) -> dict[str, Any]:
        view = view_of(record, await asyncio.to_thread(store.pictures, record.id))
        signer = replace(sign, secret=await asyncio.to_thread(secret))
        base = str((record.webhook or {}).get("base", ""))
        return job_report(view, lambda picture: signer.sign(picture, base))

    webhooks = Webhooks(store, settings.webhooks, report, webhook_secret(settings))
    return Jobs(orchestrator, store, Rendering(credentials_of(settings)), webhooks, secret)


def credentials_of(settings: AppSettings) -> Credentials | None:
    """What pictures are signed with, None if nothing is configured. Raises `ConfigError`."""
    if (chosen := settings.provenance.c2pa) is None:
        return None
    try:
        return Credentials(chosen.certificate_path, chosen.key_path)
    except LoadError as error:
        raise ConfigError(f"provenance.c2pa: {error.message}", "provenance.c2pa") from None


def url_secret(settings: AppSettings) -> Callable[[], bytes]:
    """Reads what addresses of pictures are signed with."""
    return secret_from(URL_SECRET, settings.store.folder_path / "url-secret")


def webhook_secret(settings: AppSettings) -> Callable[[], bytes]:
    """Reads what the secrets of tenants' webhooks derive from."""
    return secret_from(WEBHOOK_SECRET, settings.store.folder_path / "webhook-secret")


def log_of(settings: AppSettings) -> DecisionLog:
    """The log of decisions by itself. Nothing is opened or made yet."""
    return decision_log(settings.store, settings.feedback)


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
    replicas = {name: least_replicas(placed) for name, placed in settings.workers.items()}
    slots = {name: slots_of(name, settings, catalogue) or 1 for name in settings.workers}
    queues = Queues(costs, replicas, places, slots)
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
    if all(h.card.remote is not None for h in held):
        servers = {h.card.id: engine_loader(h.card, placed.device, h.dtype, placed.threads) for h in held}
        named = {h.card.id: {**facts(h.card), "remote": h.card.remote.name if h.card.remote else ""} for h in held}
        return ModelHost(servers, named, elsewhere=placed.max_ongoing)
    networks = SharedNetworks()
    limit_gb = None if placed.memory_gib is None else placed.memory_gib * GIB / GB
    loads = {
        h.card.id: engine_loader(h.card, placed.device, h.dtype, placed.threads, h.guests, networks, limit_gb)
        for h in held
    }
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
    limit_gb: float | None = None,
) -> Callable[[], StepEngine]:
    """A function that loads the engine of `card`, and with it torch. Nothing heavy is imported before it is called.

    limit_gb: what its worker may take of its device, in 10^9 bytes; None: all of it
    """

    def load() -> StepEngine:
        from models.engine.diffusion import DiffusionEngine
        from models.engine.engine import load_engine

        if card.remote is not None:  # neither torch nor a device is needed
            return load_engine(card)
        with _LOADING:
            engine = load_engine(card, _device(device), dtype, threads, guests, networks)
        engine.warm_up()
        if isinstance(engine, DiffusionEngine):
            engine.bounds = _bounds(card, _device(device), dtype, guests, limit_gb)
        return engine

    return load


def _bounds(
    card: ModelCard, device: str, dtype: str | None, guests: Sequence[ModelCard], limit_gb: float | None
) -> Mapping[str, Scalar]:
    """The largest area that a device has memory for, if that is less than the card says. A CPU without a limit has as
    much as the machine swaps for it."""
    from models.weights.loading import resolve_dtype

    whole = device_memory_gb(device) if device != "cpu" else None
    room = [limit_gb] if limit_gb is not None else []
    room += [whole - RESERVE_GB] if whole is not None else []
    if not room or not countable(card):
        return {}
    precision = str(resolve_dtype(card, device, dtype)).removeprefix("torch.")
    beside = sum(guest_memory_gb(guest, precision) for guest in guests)
    pixels = most_pixels(card, precision, min(room) - beside)
    return {"most_pixels": pixels} if pixels < card.max_pixels else {}
