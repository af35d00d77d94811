"""What operators see. Plain data, fit for any process; times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deployments.operating.differences import Difference
from deployments.store.records import JobState

Health = Literal["ready", "starting", "broken", "asleep", "out"]


@dataclass(frozen=True)
class ModelState:
    """A model as its worker has it.

    state:   broken: its weights could not be loaded, or its process is not well; out: the breaker holds steps back, or
             the process is gone and another one is being started;   asleep: comes when a step needs it
    age_s:   of what is known of the worker;   memory_gb: of the weights, as the card says
    seconds_per_picture: expected of a picture at the card's settings, made alone; None: it makes none by itself
    batch:   how many pictures are made at once, as far as was learned
    queued_s: seconds of work that wait, by priority class;   queued_steps: how many steps these are
    running: steps that are with a worker;   breaker: of the circuit breaker
    """

    name: str
    worker: str
    state: Health
    detail: str
    replicas: int
    age_s: float
    memory_gb: float
    seconds_per_picture: float | None
    batch: int
    queued_s: Mapping[str, float]
    queued_steps: int
    running: int
    breaker: Literal["closed", "open", "half_open"]


@dataclass(frozen=True)
class RecipeShare:
    """What a policy chose a recipe for, and how that came out.

    share:     of the pictures of all recipes of the policy
    predicted: mean expected quality (0..1) of the pictures that were checked, or of all of them if none was
    verified:  mean quality at the first look, before anything is made again;   checked: pictures that were looked at
    rating:    people's mean (0..1) of the delivered pictures that this recipe made, of which `rated` have one
    seconds:   mean from arrival to answer
    """

    policy: str
    recipe: str
    pictures: int
    share: float
    predicted: float | None
    verified: float | None
    checked: int
    rated: int
    rating: float | None
    seconds: float | None


@dataclass(frozen=True)
class BudgetUse:
    """The budget of a tenant's key that is nearest to its end."""

    limit_usd: float
    spent_usd: float
    window_s: float

    @property
    def share(self) -> float:
        """That is used."""
        return self.spent_usd / self.limit_usd


@dataclass(frozen=True)
class TenantUse:
    """What a tenant was served. seconds: of work"""

    tenant: str
    jobs: int
    pictures: int
    cost_usd: float
    seconds: float
    budget: BudgetUse | None


@dataclass(frozen=True)
class Operations:
    """How everything is. since: when this orchestrator began, from when on refusals count; now: when it was looked at

    jobs: how many are queued and running now, and how many have ended within the window
    """

    since: float
    now: float
    window_s: float
    models: Sequence[ModelState]
    jobs: Mapping[JobState, int]
    recipes: Sequence[RecipeShare]
    tenants: Sequence[TenantUse]
    refusals: Mapping[str, int]


@dataclass(frozen=True)
class PolicyPreview:
    """What a policy would change.

    problems: why it would be refused, as `file:line:column: message`; then nothing else is known
    found:    the latest requests that its predecessor decided, decided by both;   reasons: of the new decisions
    """

    problems: Sequence[str] = ()
    found: Sequence[Difference] = ()
    reasons: Sequence[str] = ()
