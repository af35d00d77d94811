"""The recipes of one decision, while gates close one after the other: capability, limits, budgets, rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from policies.deciding.reasons import dollars, seconds
from policies.deciding.terms import Applied
from policies.language.schema_choice import LicenceSpec, Limits
from policies.language.schema_rules import Rule
from router.errors import BudgetError, NoRecipeError, NotFoundError, OverloadedError, did_you_mean
from router.types import Allowance, Estimate, GenerationRequest, Offers, Recipe, Rejection

_LATENCY, _WORK, _COST = (attrgetter(name) for name in ("latency_s", "work_s", "cost_usd"))


@dataclass(frozen=True, slots=True)
class _Bound:
    """value: what of an estimate may be `most`; key: of the request, "" if it is the policy's; the rest are words."""

    value: Callable[[Estimate], float]
    most: float
    gate: str
    what: str
    key: str
    text: Callable[[float], str]


@dataclass
class Gates:
    """`open` can still be chosen; `rejected` says why others cannot. policy: its name, for messages.

    crowded: recipes that are out only because of waiting, with the seconds that are too many
    spent: recipes that are out only because of what the tenant used of a budget
    barred: recipes that rules exclude, whatever else they are out for: no waiting lets these in
    """

    policy: str
    recipes: Mapping[str, Recipe]
    request: GenerationRequest
    offers: Offers
    open: dict[str, Estimate] = field(default_factory=dict)
    rejected: dict[str, Rejection] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    preferred: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    crowded: dict[str, float] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)
    barred: set[str] = field(default_factory=set)

    def reject(self, recipe: str, gate: str, reason: str) -> None:
        self.open.pop(recipe, None)
        self.rejected[recipe] = Rejection(recipe, gate, reason)

    def enter(self, *, lenient: bool = False) -> None:
        """Let in the policy's recipes, and a model or recipe from outside only if the request names it. lenient: also
        those on which a part of the request has no effect."""
        pinned, plans, estimates = self.request.recipe, self.offers.plans, self.offers.estimates
        names = {*self.recipes, pinned} if pinned else set(self.recipes)
        for rejection in self.offers.refused:
            if rejection.recipe in names:
                self.rejected[rejection.recipe] = rejection
        if pinned and pinned not in {*self.recipes, *plans, *self.rejected}:
            hint = did_you_mean(pinned, self.recipes)
            raise NotFoundError(f"policy {self.policy!r} has no recipe {pinned!r}{hint}", "recipe")
        for name in sorted(names & plans.keys() - self.rejected.keys()):
            estimate = estimates.get(name)
            if pinned and name != pinned:
                self.reject(name, "pinned", f"the request asks for {pinned!r} by name")
            elif plans[name].ignores and not lenient:
                ignored = "; ".join(plans[name].ignores)
                self.reject(
                    name, "capability", f"{ignored}; drop it, or set ignore_negative_prompt: allow in the policy"
                )
            elif estimate is None:
                self.reject(name, "capability", "there is no estimate for it")
            # A sum is finite only if all its terms are.
            elif not math.isfinite(
                estimate.quality.mean + estimate.quality.std + estimate.latency_s + estimate.work_s + estimate.cost_usd
            ):
                self.reject(name, "capability", "its estimate is not a number")
            else:
                self.open[name] = estimate
        if pinned:
            self.notes.append(f"{pinned} was asked for by name")
        self._prefer_what_overlooks_nothing()

    def _prefer_what_overlooks_nothing(self) -> None:
        """Reject what leaves out given pictures, where another recipe takes all of them."""
        plans = self.offers.plans
        whole = [name for name in self.open if not plans[name].overlooks]
        for name in list(self.open) if whole else ():
            if plans[name].overlooks:
                self.reject(name, "capability", f"{'; '.join(plans[name].overlooks)}; {whole[0]} takes all of them")

    def hold_licence(self, licence: LicenceSpec | None) -> None:
        """Reject what would be drawn by a model whose terms the policy does not allow."""
        if licence is None:
            return
        for name in list(self.open):
            models = dict.fromkeys(model for step in self.offers.plans[name].steps for model in step.models)
            for model in models:
                if model in self.offers.licences and (why := licence.excludes(model, self.offers.licences[model])):
                    self.reject(name, "licence", f"{why}; see `licence` in policy {self.policy!r}")
                    break

    def hold_limits(self, limits: Limits) -> None:
        """Reject what would be over a limit of the policy or of the request, with every limit that it is over."""
        bounds = self._bounds(limits)
        pixels = limits.max_pixels if limits.max_pixels is not None else math.inf
        for name, estimate in list(self.open.items()):
            plan = self.offers.plans[name]
            broken = []
            if plan.width * plan.height > pixels:
                size = f"{plan.width}x{plan.height} has {plan.width * plan.height} pixels"
                broken.append(("limit", f"{size}, over the limit of {pixels} in policy {self.policy!r}"))
            for bound in bounds:
                if not (value := bound.value(estimate)) <= bound.most:
                    broken.append((bound.gate, f"{bound.what} {bound.text(value)}, over {self._whose(bound)}"))
            if broken:
                self.reject(name, broken[0][0], "; ".join([reason for _, reason in broken]))
                latency_s = next((bound.most for bound in bounds if bound.value is _LATENCY), math.inf)
                excess = estimate.latency_s - latency_s
                if len(broken) == 1 and 0 < excess <= estimate.queue_s:
                    self.crowded[name] = excess

    def _bounds(self, limits: Limits) -> list[_Bound]:
        """Of the policy's limit and the request's budget for the same thing the tighter one."""
        request, bounds = self.request, []
        for value, limit, budget, key, text in (
            (_LATENCY, limits.latency_s, request.latency_budget_s, "latency_budget_s", seconds),
            (_WORK, limits.work_s, None, "", seconds),
            (_COST, limits.cost_usd, request.max_cost_usd, "max_cost_usd", dollars),
        ):
            what = "expected" if key else "expected work of"
            if limit is not None and (budget is None or limit <= budget):
                bounds.append(_Bound(value, limit, "limit", what, "", text))
            elif budget is not None:
                bounds.append(_Bound(value, budget, "request", what, key, text))
        return bounds

    def _whose(self, bound: _Bound) -> str:
        whose = f"the request's {bound.key}" if bound.key else f"the limit of policy {self.policy!r}"
        return f"{whose}, {bound.text(bound.most)}"

    def hold_budgets(self, allowances: Sequence[Allowance]) -> None:
        """Reject what would use more than is left of a budget.

        What would use more than the whole of it is no matter of waiting, whether it also waits for others or not.
        """
        who = f"tenant {self.request.tenant!r}" if self.request.tenant else "the tenant without a name"
        for allowance in allowances:
            for name, estimate in list(self.open.items()):
                for value, left, text in (
                    (estimate.cost_usd, allowance.cost_usd, dollars),
                    (estimate.work_s, allowance.work_s, seconds),
                ):
                    if left is not None and not value <= left:
                        reason = f"{text(value)}, but {who} has {text(max(0.0, left))} left of {allowance.budget!r}"
                        patience = f"; more in {seconds(allowance.renews_s)}" if allowance.renews_s else ""
                        self.reject(name, "budget", reason + patience)
                        self.spent.add(name)
                        break
        for name in [*self.spent, *self.crowded]:
            estimate = self.offers.estimates[name]
            if not all(_ever(estimate, allowance) for allowance in allowances):
                self.spent.discard(name)
                self.crowded.pop(name, None)

    def apply(self, rules: Sequence[Applied]) -> None:
        """In the visible order. A recipe asked for by name is bound by limits and budgets, not by rules."""
        for rule, fact in [(applied.rule, applied.fact) for applied in rules]:
            if not self.request.recipe:
                self.barred |= {name for name in self.rejected if _excludes(rule, name)}
            hit = [name for name in self.open if _excludes(rule, name)] if rule.only or rule.never else []
            if self.request.recipe:
                if hit:
                    self.notes.append(f"rule {rule.name!r} ({fact}) would exclude it, were it not asked for by name")
                if rule.set_ is not None:
                    self.applied.append(rule.name)
                continue
            self.applied.append(rule.name)
            if actions := _actions(rule):
                self.notes.append(f"rule {rule.name!r} applied ({fact}): it {actions}")
            for name in hit:
                self.reject(name, "rule", f"rule {rule.name!r} {actions} here ({fact})")
            if rule.prefer:
                self.preferred.append(rule.prefer)

    def nothing_left(self, allowances: Sequence[Allowance]) -> NoRecipeError | OverloadedError:
        """The error that carries every reason; an `OverloadedError` if a later request might be served by a recipe
        that the rules allow."""
        if pinned := self.request.recipe:
            why = self.rejected[pinned].reason if pinned in self.rejected else "it was not planned"
            message = f"recipe {pinned!r} cannot serve this request under policy {self.policy!r}: {why}"
        else:
            listed = [f"{r.recipe}: {r.reason}" for r in self.rejected.values()]
            more = f"; and {len(listed) - 5} more" if len(listed) > 5 else ""
            why = "; ".join(listed[:5]) + more or "none of its recipes was planned"
            message = f"no recipe of policy {self.policy!r} can serve this request ({why})"
        if waits := [wait_s for name, wait_s in self.crowded.items() if name not in self.barred]:
            return OverloadedError(message, min(waits))
        if self.spent - self.barred:
            return BudgetError(message, max(1.0, *(allowance.renews_s for allowance in allowances)))
        return NoRecipeError(message, tuple(self.rejected.values()))


def _ever(estimate: Estimate, allowance: Allowance) -> bool:
    """Whether the whole of a budget is enough for a recipe. A budget of which nothing is used has no more to give."""
    pairs = (
        (estimate.cost_usd, allowance.cost_usd, allowance.whole_usd),
        (estimate.work_s, allowance.work_s, allowance.whole_work_s),
    )
    for value, left, whole in pairs:
        most = left if whole is None and not allowance.renews_s else whole
        if most is not None and not value <= most:
            return False
    return True


def _excludes(rule: Rule, name: str) -> bool:
    return bool(rule.only and name not in rule.only) or name in (rule.never or ())


def _actions(rule: Rule) -> str:
    """What the rule does to recipes, in words; what it sets is told elsewhere."""
    words = (("allows only", rule.only), ("excludes", rule.never), ("prefers", rule.prefer))
    return " and ".join(f"{verb} {', '.join(names)}" for verb, names in words if names)
