"""`build`: settings to a Ray Serve application. Validates, then wires; nothing else.

ingress ──▶ orchestrator ──▶ worker-sd15, worker-flux, ...   (one deployment for the models that share a process)
"""

# Serve looks at the annotation of `build` to validate its argument, so annotations are not postponed here.

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from deployments.assembly import catalogue_of, credentials_of, held_by, policies_of, slots_of
from deployments.cluster.replicas import IngressReplica, OrchestratorReplica, WorkerReplica
from deployments.placement import Autoscaling, ReplicaSettings, WorkerSettings
from deployments.settings import AppSettings
from models.catalogue import Catalogue

# Quickly noticed when a replica dies; a running picture may finish when one is told to stop.
HEALTH = {"health_check_period_s": 1.0, "health_check_timeout_s": 30.0, "graceful_shutdown_wait_loop_s": 0.5}

SPARE = 3
"""Calls that a replica may have at once for each step that it runs: the step, the next one, and questions."""


def build(args: AppSettings) -> Application:
    """The application of these settings. Raises `CatalogueError`, `PolicyError` or `ConfigError` first."""
    catalogue = catalogue_of(args)
    policies_of(args, catalogue)
    credentials_of(args)
    workers = {name: _worker(name, catalogue, placed, args) for name, placed in args.workers.items()}
    settings = args.model_dump(mode="json")
    orchestrator = serve.deployment(OrchestratorReplica, name="orchestrator", **_light(args.orchestrator, args))
    ingress = serve.deployment(IngressReplica, name="ingress", **_light(args.ingress, args))
    return ingress.bind(settings, orchestrator.bind(settings, workers))


def _worker(name: str, catalogue: Catalogue, placed: WorkerSettings, args: AppSettings) -> Application:
    slots = slots_of(name, args, catalogue)
    if slots is not None:  # it only waits, and is asked how it is beside its steps and those about to begin
        waits = {"num_cpus": placed.num_cpus if "num_cpus" in placed.model_fields_set else 0.0}
        placed = placed.model_copy(update={**waits, "max_ongoing": slots})
    deployment = serve.deployment(
        WorkerReplica,
        name=f"worker-{name}",
        ray_actor_options=_place(placed, args),
        max_ongoing_requests=placed.max_ongoing if slots is None else SPARE * slots,
        max_queued_requests=placed.max_queued,
        graceful_shutdown_timeout_s=args.limits.request_timeout_s,
        **_worker_replicas(placed),
        **HEALTH,
    )
    return deployment.bind(name, held_by(name, args, catalogue), placed, args.logs, args.tracing)


def _worker_replicas(placed: WorkerSettings) -> dict[str, Any]:
    if (scaling := placed.scaling) is None:
        return {"num_replicas": placed.replicas}
    bounds = scaling.model_dump(exclude={"target_queued_s"})
    policy = AutoscalingPolicy(
        policy_function="deployments.cluster.scaling:SecondsQueued", policy_kwargs={"target_s": scaling.target_queued_s}
    )
    return {"autoscaling_config": AutoscalingConfig(**bounds, policy=policy)}


def _place(placed: WorkerSettings, args: AppSettings) -> dict[str, Any]:
    """What a worker asks of Ray. OMP_NUM_THREADS is said here because Ray derives it from num_cpus otherwise."""
    options: dict[str, Any] = {
        "num_cpus": placed.num_cpus,
        "num_gpus": placed.gpus,
        "resources": placed.resources,
        "runtime_env": {"env_vars": {**args.env_vars, "OMP_NUM_THREADS": str(placed.threads)}},
    }
    if placed.accelerator_type is not None:
        options["accelerator_type"] = placed.accelerator_type
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
