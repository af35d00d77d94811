"""`build`: settings to a Ray Serve application. Validates, then wires; nothing else.

ingress ──▶ orchestrator ──▶ model-sd15, model-sdxl, model-flux, ...   (one deployment per model card)
"""

# Serve looks at the annotation of `build` to validate its argument, so annotations are not postponed here.

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from deployments.assembly import catalogue_of, guests_of, policies_of
from deployments.cluster.replicas import IngressReplica, OrchestratorReplica, WorkerReplica
from deployments.settings import AppSettings, Autoscaling, ModelSettings, ReplicaSettings
from models.catalogue import Catalogue

# Quickly noticed when a replica dies; a running picture may finish when one is told to stop.
HEALTH = {"health_check_period_s": 1.0, "health_check_timeout_s": 30.0, "graceful_shutdown_wait_loop_s": 0.5}


def build(args: AppSettings) -> Application:
    """The application of these settings. Raises `CatalogueError`, `PolicyError` or `ConfigError` first."""
    catalogue = catalogue_of(args)
    policies_of(args, catalogue)
    workers = {model: _worker(model, catalogue, chosen, args) for model, chosen in args.models.items()}
    settings = args.model_dump(mode="json")
    orchestrator = serve.deployment(OrchestratorReplica, name="orchestrator", **_light(args.orchestrator, args))
    ingress = serve.deployment(IngressReplica, name="ingress", **_light(args.ingress, args))
    return ingress.bind(settings, orchestrator.bind(settings, workers))


def _worker(model: str, catalogue: Catalogue, chosen: ModelSettings, args: AppSettings) -> Application:
    deployment = serve.deployment(
        WorkerReplica,
        name=f"model-{model}",
        ray_actor_options=_place(chosen, args),
        max_ongoing_requests=chosen.max_ongoing,
        max_queued_requests=chosen.max_queued,
        graceful_shutdown_timeout_s=args.limits.request_timeout_s,
        **_replicas(chosen.replicas),
        **HEALTH,
    )
    return deployment.bind(catalogue[model], chosen.device, chosen.dtype, chosen.threads, guests_of(model, catalogue))


def _place(chosen: ModelSettings, args: AppSettings) -> dict[str, Any]:
    """What a worker asks of Ray. OMP_NUM_THREADS is said here because Ray derives it from num_cpus otherwise."""
    options: dict[str, Any] = {
        "num_cpus": chosen.num_cpus,
        "num_gpus": chosen.gpus,
        "resources": chosen.resources,
        "runtime_env": {"env_vars": {**args.env_vars, "OMP_NUM_THREADS": str(chosen.threads)}},
    }
    if chosen.accelerator_type is not None:
        options["accelerator_type"] = chosen.accelerator_type
    return options


def _light(chosen: ReplicaSettings, args: AppSettings) -> dict[str, Any]:
    """Options of a deployment that only waits for others: it takes no CPU from the workers."""
    return {
        "ray_actor_options": {
            "num_cpus": 0,
            "runtime_env": {"env_vars": {**args.env_vars, "OMP_NUM_THREADS": "1"}},
        },
        "max_ongoing_requests": chosen.max_ongoing,
        "max_queued_requests": chosen.max_queued,
        "graceful_shutdown_timeout_s": args.limits.request_timeout_s,
        **_replicas(chosen.replicas),
        **HEALTH,
    }


def _replicas(replicas: int | Autoscaling) -> dict[str, Any]:
    if isinstance(replicas, int):
        return {"num_replicas": replicas}
    return {"autoscaling_config": AutoscalingConfig(**replicas.model_dump())}
