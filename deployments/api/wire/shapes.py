"""Answers and events as schemas: what the OpenAPI document says of them. Keys may be added."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Open(BaseModel):
    """Further keys may come."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Index(Open):
    """What is here."""

    name: Literal["triptych"]
    endpoints: dict[str, str]


class Health(Open):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Open):
    """Whether the models are loaded."""

    status: Literal["starting", "ready", "degraded"]
    models: dict[str, dict[str, Any]] = Field(description="By catalogue id: state, reason, facts of the worker.")
    policies: dict[str, str] = Field(description="Digests of the policies in force, by name.")
    policy_problems: list[str]
    artifact: str
    artifact_problem: str


class Model(Open):
    """OpenAI's model: something that `model` of a request may be."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    x_triptych: dict[str, Any] = Field(description="kind: policy, recipe, model, style or alias; and its facts.")


class ModelList(Open):
    """All names that `model` may be."""

    object: Literal["list"]
    data: list[Model]


class Estimated(Open):
    """What a recipe is expected to give on this request."""

    recipe: str
    quality: dict[str, Any] = Field(description="mean and std on 0 to 1, and their basis.")
    work_s: float
    queue_s: float
    latency_s: float
    cost_usd: float


class Rejected(Open):
    """A recipe that was out, and why."""

    recipe: str
    gate: str
    reason: str


class SafetyFinding(Open):
    """What a check of a policy's `safety` said."""

    check: str
    stage: Literal["text", "image"]
    action: Literal["block", "blur", "flag"]
    score: float | None = Field(description="0 to 1, where the check has one.")
    found: list[str] = Field(description="Categories, or which list matched.")
    index: int | None = Field(description="Which picture it is about, from 0; null: the prompt.")


class Safety(Open):
    """What was checked, and what was found."""

    checked: list[str] = Field(description="stage:check, of those that ran.")
    skipped: list[str] = Field(description="stage:check, of those that moderation: low left out.")
    findings: list[SafetyFinding]
    notes: list[str] = Field(description="Checks that could not be made, where the policy allows that.")


class Decided(Open):
    """The decision of a policy, and why."""

    request_id: str
    policy: str
    policy_digest: str
    recipe: str
    reasons: list[str]
    rules: list[str]
    warnings: list[str]
    estimates: dict[str, Estimated]
    rejected: list[Rejected]
    plan: dict[str, Any]
    replay: dict[str, Any] = Field(description="A body that makes the same pictures again.")
    safety: Safety | None = Field(description="null: the policy has no safety.")


class Report(Decided):
    """How pictures came to be."""

    job: str
    notes: list[str]
    pictures: list[dict[str, Any]]
    seeds: list[int]
    missing: list[dict[str, Any]]
    latency_s: float
    cost_usd: float


class Usage(Open):
    """Words of the prompt in, patches of 16 x 16 pixels out."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    total_tokens: int


class MadePicture(Open):
    """A picture: its bytes in base64, or its signed address."""

    b64_json: str | None = None
    url: str | None = None
    seed: int


class ImagesAnswer(Open):
    """OpenAI's `ImagesResponse`, with the reasons under `x_triptych`."""

    created: int
    background: Literal["opaque"]
    data: list[MadePicture]
    output_format: Literal["png", "webp", "jpeg"]
    quality: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    size: str
    usage: Usage
    x_triptych: Report


class PartialImageEvent(Open):
    """A preview in a stream."""

    type: Literal["image_generation.partial_image"]
    b64_json: str
    partial_image_index: int
    picture_index: int
    created_at: int
    size: str
    quality: str
    background: Literal["opaque"]
    output_format: Literal["png", "webp", "jpeg"]


class CompletedEvent(Open):
    """A picture in a stream, when it is made."""

    type: Literal["image_generation.completed"]
    b64_json: str
    picture_index: int
    seed: int
    created_at: int
    size: str
    quality: str
    background: Literal["opaque"]
    output_format: Literal["png", "webp", "jpeg"]
    usage: Usage
    x_triptych: Report


class JobEvent(Open):
    """What happens to a job: a decision has its steps, a picture its address, a preview its bytes, an end its error."""

    type: Literal[
        "job.routed", "job.step", "job.check", "job.choice", "job.preview", "job.picture", "job.done", "job.failed",
        "job.cancelled",
    ]  # fmt: skip
    job: str


class FeedbackAnswer(Open):
    """What feedback was attached to."""

    object: Literal["feedback"]
    id: str
    source: str
    value: float
    scale: str
    images: list[int]
    recipes: list[str]
    replaced: bool


class PolicyName(Open):
    """A policy in force."""

    name: str
    digest: str
    description: str


class PolicyList(Open):
    """All policies, the default first."""

    object: Literal["list"]
    data: list[PolicyName]
    problems: list[str]


class PolicyPast(Open):
    """A version that was in force."""

    digest: str
    since: str


class PolicyText(Open):
    """A policy's file with its history."""

    name: str
    digest: str
    text: str
    versions: list[PolicyPast]
