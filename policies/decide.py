"""The choice: who may run at all, what the rules say, who is best. Pure; the same inputs give the same decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policies.objectives import explain, rank
from policies.rules import holds
from policies.schema import Limits, Objective, Rule
from router.errors import NoRecipeError, NotFoundError, did_you_mean
from router.types import Decision, Estimate, GenerationRequest, Plan, PromptView, Ranked, Recipe, Rejection


@dataclass(frozen=True)
class Policy:
    """A validated policy file. Made by `load_policy`; implements `router.types.Policy`.

    digest: twelve hex digits over everything in the file that can change a decision
    origin: the file it came from, for messages
    """

    name: str
    digest: str
    recipes: Mapping[str, Recipe] = field(repr=False)
    objective: Objective = field(repr=False)
    limits: Limits = field(default_factory=Limits, repr=False)
    rules: tuple[Rule, ...] = field(default=(), repr=False)
    description: str = field(default="", repr=False)
    origin: str = ""

    def decide(
        self,
        request: GenerationRequest,
        view: PromptView,
        plans: Mapping[str, Plan],
        estimates: Mapping[str, Estimate],
        refused: Sequence[Rejection] = (),
    ) -> Decision:
        """See `router.types.Policy`. Raises `NoRecipeError` if nothing is left, and `NotFoundError` if the request
        names a recipe that is neither in the policy nor planned."""
        field_ = _Field(self, request, view, plans, estimates)
        field_.enter(refused)
        field_.hold_limits()
        field_.apply_rules()
        if not field_.open:
            raise field_.nothing_left()
        ranking = rank(self.objective, field_.open)
        return Decision(
            recipe=ranking[0].recipe,
            policy=self.name,
            policy_digest=self.digest,
            ranking=ranking,
            rejected=tuple(field_.rejected.values()),
            reasons=(*_reasons(self.objective, ranking, field_.open), *field_.notes),
            rules=tuple(field_.applied),
        )


@dataclass
class _Field:
    """The recipes of one decision, while gates close. `open` can still be chosen; `rejected` says why others cannot."""

    policy: Policy
    request: GenerationRequest
    view: PromptView
    plans: Mapping[str, Plan]
    estimates: Mapping[str, Estimate]
    open: dict[str, Estimate] = field(default_factory=dict)
    rejected: dict[str, Rejection] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def reject(self, recipe: str, gate: str, reason: str) -> None:
        self.open.pop(recipe, None)
        self.rejected[recipe] = Rejection(recipe, gate, reason)

    def enter(self, refused: Sequence[Rejection]) -> None:
        """Let in the policy's recipes, and a model or recipe from outside only if the request names it."""
        pinned = self.request.recipe
        names = {*self.policy.recipes, *([pinned] if pinned else [])}
        for rejection in refused:
            if rejection.recipe in names:
                self.rejected[rejection.recipe] = rejection
        if pinned and pinned not in {*self.policy.recipes, *self.plans, *self.rejected}:
            hint = did_you_mean(pinned, self.policy.recipes)
            raise NotFoundError(f"policy {self.policy.name!r} has no recipe {pinned!r}{hint}", "recipe")
        for name in sorted(names & set(self.plans) - set(self.rejected)):
            if pinned and name != pinned:
                self.reject(name, "pinned", f"the request asks for {pinned!r} by name")
            elif (estimate := self.estimates.get(name)) is None:
                self.reject(name, "capability", "there is no estimate for it")
            elif not _finite(estimate):
                self.reject(name, "capability", "its estimate is not a number")
            else:
                self.open[name] = estimate
        if pinned:
            self.notes.append(f"{pinned} was asked for by name")

    def hold_limits(self) -> None:
        for name, estimate in list(self.open.items()):
            broken = self._broken_limits(self.plans[name], estimate)
            if broken:
                self.reject(name, broken[0][0], "; ".join(reason for _, reason in broken))

    def _broken_limits(self, plan: Plan, estimate: Estimate) -> list[tuple[str, str]]:
        """(gate, reason) of every limit that the recipe would break; the tighter of two limits is the one named."""
        limits, request = self.policy.limits, self.request
        broken = []
        if limits.max_pixels is not None and plan.width * plan.height > limits.max_pixels:
            size = f"{plan.width}x{plan.height} has {plan.width * plan.height} pixels"
            broken.append(("limit", f"{size}, over the limit of {limits.max_pixels} in policy {self.policy.name!r}"))
        for value, limit, budget, key, text in (
            (estimate.latency_s, limits.latency_s, request.latency_budget_s, "latency_budget_s", _seconds),
            (estimate.cost_usd, limits.cost_usd, request.max_cost_usd, "max_cost_usd", _dollars),
        ):
            if limit is not None and (budget is None or limit <= budget):
                bound, gate, whose = limit, "limit", f"the limit of policy {self.policy.name!r}"
            elif budget is not None:
                bound, gate, whose = budget, "request", f"the request's {key}"
            else:
                continue
            if not value <= bound:
                broken.append((gate, f"expected {text(value)}, over {whose}, {text(bound)}"))
        return broken

    def apply_rules(self) -> None:
        """In the order of the file. A recipe asked for by name is bound by limits, not by rules."""
        for rule in self.policy.rules:
            fact = holds(rule.when, self.request, self.view)
            if fact is None:
                continue
            hit = {name for name in self.open if _excludes(rule, name)}
            if self.request.recipe:
                if hit:
                    self.notes.append(f"rule {rule.name!r} ({fact}) would exclude it, were it not asked for by name")
                continue
            self.applied.append(rule.name)
            action = f"allows only {', '.join(rule.only)}" if rule.only else f"excludes {', '.join(rule.never or ())}"
            self.notes.append(f"rule {rule.name!r} applied ({fact}): it {action}")
            for name in sorted(hit):
                self.reject(name, "rule", f"rule {rule.name!r} {action} here ({fact})")

    def nothing_left(self) -> NoRecipeError:
        if pinned := self.request.recipe:
            why = self.rejected[pinned].reason if pinned in self.rejected else "it was not planned"
            message = f"recipe {pinned!r} cannot serve this request under policy {self.policy.name!r}: {why}"
        else:
            listed = [f"{r.recipe}: {r.reason}" for r in self.rejected.values()]
            more = f"; and {len(listed) - 5} more" if len(listed) > 5 else ""
            why = "; ".join(listed[:5]) + more or "none of its recipes was planned"
            message = f"no recipe of policy {self.policy.name!r} can serve this request ({why})"
        return NoRecipeError(message, tuple(self.rejected.values()))


def _finite(estimate: Estimate) -> bool:
    return all(map(math.isfinite, (estimate.quality.mean, estimate.latency_s, estimate.cost_usd)))


def _excludes(rule: Rule, name: str) -> bool:
    return name not in rule.only if rule.only else name in (rule.never or ())


# ------------------------------------------------------------------------------------------------- reasons, in words


def _reasons(objective: Objective, ranking: Sequence[Ranked], estimates: Mapping[str, Estimate]) -> list[str]:
    best = estimates[ranking[0].recipe]
    reasons = [f"{best.recipe}: {_expected(best)}", explain(objective, ranking[0], estimates)]
    if len(ranking) > 1:
        reasons.append(_compared(best, estimates[ranking[1].recipe]))
    return reasons


def _expected(estimate: Estimate) -> str:
    quality = estimate.quality
    basis = {"composed": " (composed from its parts)", "prior": " (a prior, nothing is known yet)"}
    wait = f" of which {_seconds(estimate.queue_s)} waiting" if estimate.queue_s >= 0.05 else ""
    numbers = f"{_seconds(estimate.latency_s)}{wait}, {_dollars(estimate.cost_usd)}"
    return f"expected quality {quality.mean:.2f} ± {quality.std:.2f}{basis.get(quality.basis, '')}, {numbers}"


def _compared(best: Estimate, other: Estimate) -> str:
    """How the next best differs, as in "costs 3.1x, takes 2.0x as long, for +0.01 quality"."""
    parts = []
    if best.cost_usd > 0:
        parts.append(f"costs {other.cost_usd / best.cost_usd:.2g}x")
    if best.latency_s > 0:
        parts.append(f"takes {other.latency_s / best.latency_s:.2g}x as long")
    gain = f"{other.quality.mean - best.quality.mean:+.2f} quality"
    return f"the next best, {other.recipe}, {', '.join([*parts, f'for {gain}' if parts else f'has {gain}'])}"


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def _dollars(value: float) -> str:
    return (
        f"${value:.2g}"
        if 0.0001 <= value < 0.1
        else f"${value:.2f}"
        if value >= 0.1
        else f"${value:.7f}".rstrip("0").rstrip(".")
    )
