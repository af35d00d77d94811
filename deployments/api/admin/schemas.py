"""The answers of the admin endpoints, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from deployments.api.openapi import Job


class AdminQueue(BaseModel):
    """Seconds of work that wait for a model, by priority class, and how many steps they are."""

    interactive_s: float
    standard_s: float
    batch_s: float
    steps: int


class AdminModel(BaseModel):
    """A model as its worker has it."""

    name: str
    worker: str
    state: Literal["ready", "starting", "broken", "asleep", "out"]
    detail: str | None = Field(description="Why it is as it is, where that needs saying.")
    replicas: int
    age_s: float = Field(description="Of what is known of the worker.")
    memory_gb: float = Field(description="Of the weights, as the card says.")
    seconds_per_picture: float | None = Field(description="Expected, alone, at the card's settings.")
    batch: int = Field(description="Pictures that are made at once, as far as was learned.")
    queue: AdminQueue
    running_steps: int
    breaker: Literal["closed", "open", "half_open"]


class AdminJobs(BaseModel):
    """Jobs that are open now, and that have ended within the window."""

    queued: int
    running: int
    done: int
    failed: int
    cancelled: int


class AdminRecipe(BaseModel):
    """What a policy chose a recipe for within the window, and how that came out; quality on 0 to 1."""

    policy: str
    recipe: str
    pictures: int
    share: float = Field(description="Of the pictures of all recipes of the policy.")
    predicted: float | None = Field(description="Expected quality of the pictures that were checked, or else of all.")
    verified: float | None = Field(description="Quality at the first look.")
    checked: int
    rated: int
    rating: float | None = Field(description="Of people, for the pictures that this recipe delivered.")
    seconds: float | None = Field(description="From arrival to answer.")


class AdminBudget(BaseModel):
    """The budget of a tenant's key that is nearest to its end."""

    limit_usd: float
    spent_usd: float
    period: str = Field(description="`day`, `30days`, …")


class AdminTenant(BaseModel):
    """What a tenant was served within the window. seconds: of work."""

    tenant: str
    jobs: int
    pictures: int
    cost_usd: float
    seconds: float
    budget: AdminBudget | None


class AdminRefusal(BaseModel):
    """How often requests were refused, by the code of the failure, since the orchestrator began."""

    reason: str
    count: int


class AdminOverview(BaseModel):
    """How everything is. Times are Unix seconds; what was served is exact to ten minutes of the window."""

    object: Literal["overview"]
    version: str
    since: float = Field(description="When this orchestrator began.")
    now: float
    window_s: float
    models: list[AdminModel]
    jobs: AdminJobs
    recipes: list[AdminRecipe]
    tenants: list[AdminTenant] = Field(description="Those that used most first, 200 at most.")
    refusals: list[AdminRefusal]


class AdminJob(Job):
    """A job of any tenant."""

    tenant: str


class AdminJobList(BaseModel):
    """Jobs of all tenants, the latest first."""

    object: Literal["list"]
    data: list[AdminJob]
    has_more: bool
    next_cursor: str | None


class AdminKey(BaseModel):
    """A key without what it is. Times are Unix seconds."""

    id: str
    object: Literal["key"]
    tenant: str
    name: str
    scopes: list[Literal["generate", "feedback", "admin"]]
    rpm: int | None = Field(description="Requests a minute.")
    budget: str | None = Field(description="`5usd/day`.")
    priority: Literal["interactive", "standard", "batch"] = Field(description="The highest class it may ask for.")
    prefix: str | None = Field(description="Its first characters; not of keys that version 0.1 made.")
    created_at: float
    last_used_at: float | None
    revoked_at: float | None


class AdminNewKey(AdminKey):
    """A key that was made."""

    key: str = Field(description="The key. It is shown this once.")


class AdminKeyList(BaseModel):
    """Every key, the oldest first."""

    object: Literal["list"]
    data: list[AdminKey]


class PolicyProblem(BaseModel):
    """What is wrong with a policy; line and column count from 1."""

    line: int
    column: int
    message: str
    proposal: str | None = Field(description="The nearest name that there is.")


class PolicyExample(BaseModel):
    """A request that would get another recipe; null where a policy refuses it."""

    prompt: str | None
    before: str | None
    after: str | None
    why: str


class Change(BaseModel):
    """A mean over the requests that both policies answer."""

    before: float
    after: float


class Refused(BaseModel):
    """How many requests each policy refuses."""

    before: int
    after: int


class PolicyPreviewed(BaseModel):
    """What a policy would change of the latest requests."""

    object: Literal["policy_preview"]
    valid: bool
    problems: list[PolicyProblem]
    decisions: int = Field(description="Requests that were decided again.")
    changed: int
    before: dict[str, int] = Field(description="Requests by the recipe that is chosen now.")
    after: dict[str, int]
    refused: Refused
    seconds: Change
    quality: Change
    cost_usd: Change
    examples: list[PolicyExample]


ANSWERS: tuple[type[BaseModel], ...] = (
    AdminOverview, AdminJobList, AdminKeyList, AdminKey, AdminNewKey, PolicyPreviewed,
)  # fmt: skip


def answer(schema: type[BaseModel], description: str) -> dict[str, Any]:
    """What is documented of an answer."""
    return {"model": schema, "description": description}
