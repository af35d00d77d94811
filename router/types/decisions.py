"""Estimates, and the decision of a policy on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from router.types.cards import Licence
from router.types.plans import Plan
from router.types.recipes import Prices, Recipe
from router.types.requests import NO_CONTEXT, Context, GenerationRequest, PromptView
from router.types.resources import Resources
from router.types.safety import SafetyReport


@dataclass(frozen=True, slots=True)
class Quality:
    """Predicted quality of one recipe on one prompt: mean and standard deviation on 0..1, and where it comes from.

    basis: "learned" (this recipe was in the training table), "rule" (its level was; what sets it apart on this prompt
    is a hand-written rule), "composed" (from its parts), "prior" (nothing known)
    """

    mean: float
    std: float
    basis: Literal["learned", "rule", "composed", "prior"] = "learned"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one recipe would give on this request now (all n pictures).

    work_s:    accelerator seconds, summed over steps;   latency_s: critical path, waiting included
    queue_s:   the waiting part of latency_s;            cost_usd: work at the cards' prices
    """

    recipe: str
    quality: Quality
    work_s: float
    queue_s: float
    latency_s: float
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a recipe was out. gate: "capability", "licence", "limit", "request", "budget", "rule" or "pinned"."""

    recipe: str
    gate: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """An eligible recipe and its utility under the objective; higher is better."""

    recipe: str
    utility: float


@dataclass(frozen=True, slots=True)
class Verification:
    """How each picture is checked by `scorer`, and what may be tried while it is not good enough; the best is kept.

    by:           "ladder": the recipes in turn, until a score reaches `accept_above`; "expected_gain": whatever is
                  expected to gain more than it costs at the prices of `worth`, or nothing, not even the look
    accept_above: score from which a picture is good enough in any case
    retry:        how often a recipe may be tried again, with other seeds;   most: pictures at most, with the first
    or_refuse:    whether the request fails if no picture of it is likely right
    within_s:     seconds from the start of the request by which a try must be expected to end
    cost_usd, work_s: what the tries for all pictures of the request may use; None: no such limit
    """

    scorer: str
    accept_above: float | None = None
    escalate_to: tuple[str, ...] = ()
    by: Literal["ladder", "expected_gain"] = "ladder"
    retry: int = 0
    most: int | None = None
    prices: Prices = Prices()
    within_s: float | None = None
    cost_usd: float | None = None
    work_s: float | None = None
    or_refuse: bool = False

    def tries(self, chosen: str) -> tuple[str, ...]:
        """Every picture that may be made after the first of `chosen`, in the order of the ladder."""
        every = [chosen] * self.retry + [name for name in self.escalate_to for _ in range(1 + self.retry)]
        return tuple(every)


Provenance = Literal["full", "mark", "none"]
"""What the files of pictures say: how they were made, only that a model made them, or nothing."""


@dataclass(frozen=True)
class Decision:
    """What was chosen and why.

    ranking:  eligible recipes, best first by preference and objective;   rejected: the others, each with a reason
    reasons:  the choice in words, for a person;   rules: names of the rules that applied
    propensity: probability with which this recipe was chosen (1.0 when no chance was involved)
    verify:   how the picture is checked once it is made; None: it is not
    degraded_from: the recipe that would have been taken, were there less waiting; explored: whether chance chose
    safety: what was found of the prompt; None: the policy checks nothing
    """

    recipe: str
    policy: str
    policy_digest: str
    ranking: tuple[Ranked, ...]
    rejected: tuple[Rejection, ...]
    reasons: tuple[str, ...]
    rules: tuple[str, ...] = ()
    propensity: float = 1.0
    verify: Verification | None = None
    degraded_from: str | None = None
    explored: bool = False
    provenance: Provenance = "full"
    safety: SafetyReport | None = None


@dataclass(frozen=True, slots=True)
class Offers:
    """The recipes that a request could be answered with.

    plans, estimates: by recipe, as if each alone were admitted now;   refused: those that could not even be planned
    licences: the terms of the models, by catalogue id
    """

    plans: Mapping[str, Plan]
    estimates: Mapping[str, Estimate]
    refused: Sequence[Rejection] = ()
    licences: Mapping[str, Licence] = field(default_factory=dict)


class Policy(Protocol):
    """Named recipes and the choice between them. Pure: same inputs, same decision."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def recipes(self) -> Mapping[str, Recipe]: ...

    def evaluate(
        self,
        request: GenerationRequest,
        view: PromptView,
        offer: Callable[[Resources], Offers],
        context: Context = NO_CONTEXT,
    ) -> Decision:
        """Apply rules, gate, rank; once. `offer` is called once, with what the request may take: the tightest of limits
        (with those that rules set), its own, and budgets.

        Raises `NoRecipeError`, carrying every rejection, if nothing is left; `BudgetError` if only the tenant's
        budgets stand in the way; `OverloadedError` if the policy would rather refuse than let the request wait.
        """
        ...
