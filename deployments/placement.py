"""Where processes run and how many of them there are: workers with their models, ingresses, the one orchestrator."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from deployments.section import Section
from models.tuning.settings import Tuning


class ReplicaBounds(Section):
    """How many replicas a deployment may have, and how soon that changes; the names are Ray Serve's."""

    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(ge=1)
    upscale_delay_s: float = Field(default=30.0, ge=0)
    downscale_delay_s: float = Field(default=600.0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaBounds:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self


class Autoscaling(ReplicaBounds):
    """Replicas by the requests that each has at once."""

    target_ongoing_requests: float = Field(default=2.0, gt=0)


class WorkerAutoscaling(ReplicaBounds):
    """Replicas of a worker by the work that waits. With `min_replicas: 0` none is there until a step needs one.

    target_queued_s: seconds of work that may wait for each replica
    downscale_to_zero_delay_s: so long nothing is asked of the last replica before it ends; default: downscale_delay_s
    """

    target_queued_s: float = Field(default=20.0, gt=0)
    downscale_to_zero_delay_s: float | None = Field(default=None, ge=0)


def _replicas_kind(value: Any) -> str:
    return "autoscaling" if isinstance(value, dict | ReplicaBounds) else "number"


Replicas = Annotated[
    Annotated[int, Tag("number")] | Annotated[Autoscaling, Tag("autoscaling")], Discriminator(_replicas_kind)
]
WorkerReplicas = Annotated[
    Annotated[int, Tag("number")] | Annotated[WorkerAutoscaling, Tag("autoscaling")], Discriminator(_replicas_kind)
]


def _at_least_one(replicas: int | ReplicaBounds) -> int | ReplicaBounds:
    if isinstance(replicas, int) and replicas < 1:
        raise ValueError("replicas must be 1 or more")
    return replicas


class Placement(Section):
    """Where a worker process runs, and how many of them.

    device:     where the weights go; `auto` takes the accelerator that Ray assigned, or the CPU if there is none
    num_gpus:   accelerators a replica asks for; a fraction shares one. Default: 1 with `device: cuda`, otherwise 0
    threads:    CPU threads of one replica (OMP_NUM_THREADS)
    memory_gib: what the weights of its models and the work on them may take of the device, beside what libraries take;
                beyond, models leave the memory and load again on demand. Default: no limit on a CPU, else what is free
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    num_gpus: float | None = Field(default=None, ge=0)
    num_cpus: float = Field(default=1.0, ge=0)
    accelerator_type: str | None = None
    resources: dict[str, float] = Field(default_factory=dict)
    replicas: WorkerReplicas = 1
    threads: int = Field(default=1, ge=1)
    memory_gib: float | None = Field(default=None, gt=0)
    max_ongoing: int = Field(default=8, ge=1)
    max_queued: int = Field(default=64, ge=1)

    _replicas = field_validator("replicas")(_at_least_one)

    @property
    def gpus(self) -> float:
        """Accelerators that one replica asks Ray for."""
        if self.num_gpus is not None:
            return self.num_gpus
        return 1.0 if self.device == "cuda" else 0.0

    @property
    def scaling(self) -> WorkerAutoscaling | None:
        """By what the number of replicas changes; None if it is fixed."""
        return None if isinstance(self.replicas, int) else self.replicas

    @model_validator(mode="after")
    def _cuda_needs_a_gpu(self) -> Placement:
        if self.device == "cuda" and self.gpus == 0:
            raise ValueError("device: cuda needs num_gpus above 0, otherwise Ray hides every accelerator")
        return self


class WorkerSettings(Placement):
    """A worker process by name, for the models that say `worker: NAME`. Its models take turns on its device."""


class ModelSettings(Placement):
    """One model card, and the worker that holds it.

    card:      which card stands behind the catalogue id, e.g. `embedded/sd15` or `real/sdxl`
    overrides: fields of the card that differ here, e.g. `{source: {local: /weights/sdxl}}`
    guests:    catalogue ids of models of the same latent space that its workers hold, too, so that a recipe may fuse
               both with `denoise`; each replica then needs the memory of all of them, less what they share
    worker:    the process that holds it, by name; models with the same name share it. Default: one of its own. What
               of `Placement` is said by several models of a worker, or under `workers`, must be the same
    tuning:    how its worker runs it: compiled, offloaded, cached, in fewer bits (docs/models-and-gpus.md)
    max_batch: pictures that are made in one call of the model at most; how many is learned. They differ from those made
               alone by rounding (docs/operations.md)
    """

    card: str
    overrides: dict[str, Any] = Field(default_factory=dict)
    guests: tuple[str, ...] = ()
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    tuning: Tuning = Field(default_factory=Tuning)
    max_batch: int = Field(default=8, ge=1)
    worker: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class ReplicaSettings(Section):
    """Replicas of a deployment without an accelerator.

    max_ongoing: requests that each has at the same time. What waits before it waits in the order in which it came,
    whoever's it is, so it is more than a proxy lets in (`limits.max_inside`)
    """

    replicas: Replicas = 1
    max_ongoing: int = Field(default=256, ge=1)
    max_queued: int = Field(default=256, ge=1)

    _replicas = field_validator("replicas")(_at_least_one)


class OrchestratorSettings(ReplicaSettings):
    """The one process that admits, orders and runs: with a second one queues and budgets would not be exact. What it
    knows is in the store, so that its successor goes on where it died."""

    max_ongoing: int = Field(default=4096, ge=1)
    max_queued: int = Field(default=4096, ge=1)

    @field_validator("replicas")
    @classmethod
    def _exactly_one(cls, replicas: int | Autoscaling) -> int | Autoscaling:
        if replicas != 1:
            raise ValueError("there is exactly one orchestrator, which keeps queues and budgets exact; scale `ingress`")
        return replicas
