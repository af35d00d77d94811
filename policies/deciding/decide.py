"""The choice: who may run at all, what the rules say, who is best. Pure; the same inputs give the same decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from policies.deciding.chance import take
from policies.deciding.conditions import Facts, holds
from policies.deciding.gates import Gates
from policies.deciding.objectives import rank
from policies.deciding.reasons import reasons
from policies.deciding.terms import Applied, Terms
from policies.deciding.verification import tightest, verification
from policies.language.schema import BudgetSpec, OverloadSpec, SplitSpec, VerifySpec
from policies.language.schema_choice import ExploreSpec, LicenceSpec, Limits, Objective
from policies.language.schema_rules import Rule
from policies.language.schema_safety import SafetySpec
from router.types import (
    NO_CONTEXT,
    Context,
    Decision,
    GenerationRequest,
    Offers,
    PromptView,
    Provenance,
    Recipe,
    Resources,
)


@dataclass(frozen=True)
class Policy:
    """A validated policy file. Made by `load_policy`; implements `router.types.Policy`.

    digest:  twelve hex digits over everything in the file that can change a decision
    rules:   in the order in which they apply
    origin:  the file it came from, and places: line and column of what refers to other files; for messages
    unchecked: what was not looked for when it was loaded because it would take too long, in words
    """

    name: str
    digest: str
    recipes: Mapping[str, Recipe] = field(repr=False)
    objective: Objective = field(repr=False)
    limits: Limits = field(default_factory=Limits, repr=False)
    rules: tuple[Rule, ...] = field(default=(), repr=False)
    verify: VerifySpec | None = field(default=None, repr=False)
    overload: OverloadSpec | None = field(default=None, repr=False)
    reroute: bool = field(default=False, repr=False)
    explore: ExploreSpec | None = field(default=None, repr=False)
    budgets: tuple[BudgetSpec, ...] = field(default=(), repr=False)
    ignore_negative_prompt: Literal["refuse", "allow"] = field(default="refuse", repr=False)
    provenance: Provenance = field(default="full", repr=False)
    safety: SafetySpec | None = field(default=None, repr=False)
    licence: LicenceSpec | None = field(default=None, repr=False)
    shadow: SplitSpec | None = field(default=None, repr=False)
    canary: SplitSpec | None = field(default=None, repr=False)
    description: str = field(default="", repr=False)
    origin: str = ""
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)
    unchecked: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def asks(self, kind: str) -> bool:
        """Whether any of its conditions, or a part of one, is of that kind, such as `language`."""
        conditions = [rule.when for rule in self.rules]
        if self.verify is not None and self.verify.when is not None:
            conditions.append(self.verify.when)
        return any(condition.asks(kind) for condition in conditions)

    def evaluate(
        self,
        request: GenerationRequest,
        view: PromptView,
        offer: Callable[[Resources], Offers],
        context: Context = NO_CONTEXT,
    ) -> Decision:
        """See `router.types.Policy`. Also raises `NotFoundError` if the request names a recipe that is neither in the
        policy nor planned."""
        facts = Facts(request, view, context)
        applied = self._applied(facts)
        terms = Terms(self.objective, self.limits, self.explore).under(applied)
        bounds = tightest(terms.limits, request, context.allowances)
        gates = Gates(self.name, self.recipes, request, offer(bounds))
        gates.enter(lenient=self.ignore_negative_prompt == "allow")
        gates.hold_licence(self.licence)
        gates.hold_limits(terms.limits)
        gates.hold_budgets(context.allowances)
        gates.apply(applied)
        if not gates.open:
            raise gates.nothing_left(context.allowances)
        ranking = rank(terms.objective, gates.open, gates.preferred)
        taken = take(ranking, gates.open, request, context, self.overload, terms.explore)
        chosen = Facts(request, view, context, gates.open[taken.recipe])
        verify, checks = verification(self.verify, chosen, terms, bounds, gates.open)
        in_words = reasons(terms.objective, taken.recipe, ranking, gates.open)
        return Decision(
            recipe=taken.recipe,
            policy=self.name,
            policy_digest=self.digest,
            ranking=ranking,
            rejected=tuple(gates.rejected.values()),
            reasons=(*in_words, *gates.notes, *terms.notes, *taken.notes, *checks),
            rules=tuple(gates.applied),
            propensity=taken.propensity,
            verify=verify,
            degraded_from=taken.degraded_from,
            explored=taken.explored,
            provenance=self.provenance,
        )

    def _applied(self, facts: Facts) -> list[Applied]:
        """The rules whose conditions hold, in their order."""
        applied = []
        for rule in self.rules:
            if (fact := holds(rule.when, facts)) is not None:
                applied.append(Applied(rule, fact))
        return applied
