"""The choice: who may run at all, what the rules say, who is best. Pure; the same inputs give the same decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policies.deciding.chance import take
from policies.deciding.conditions import Facts, holds
from policies.deciding.gates import Gates
from policies.deciding.objectives import rank
from policies.deciding.reasons import reasons
from policies.deciding.terms import Applied, Terms
from policies.deciding.verification import tightest, verification
from policies.language.schema import BudgetSpec, OverloadSpec, SplitSpec, VerifySpec
from policies.language.schema_choice import ExploreSpec, Limits, Objective
from policies.language.schema_rules import Rule
from router.types import (
    NO_CONTEXT,
    Bounds,
    Context,
    Decision,
    Estimate,
    GenerationRequest,
    Plan,
    PromptView,
    Recipe,
    Rejection,
)


@dataclass(frozen=True)
class Policy:
    """A validated policy file. Made by `load_policy`; implements `router.types.Policy`.

    digest:  twelve hex digits over everything in the file that can change a decision
    rules:   in the order in which they apply
    origin:  the file it came from, and places: line and column of what refers to other files; for messages
    """

    name: str
    digest: str
    recipes: Mapping[str, Recipe] = field(repr=False)
    objective: Objective = field(repr=False)
    limits: Limits = field(default_factory=Limits, repr=False)
    rules: tuple[Rule, ...] = field(default=(), repr=False)
    verify: VerifySpec | None = field(default=None, repr=False)
    overload: OverloadSpec | None = field(default=None, repr=False)
    explore: ExploreSpec | None = field(default=None, repr=False)
    budgets: tuple[BudgetSpec, ...] = field(default=(), repr=False)
    shadow: SplitSpec | None = field(default=None, repr=False)
    canary: SplitSpec | None = field(default=None, repr=False)
    description: str = field(default="", repr=False)
    origin: str = ""
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    def bounds(self, request: GenerationRequest, view: PromptView, context: Context = NO_CONTEXT) -> Bounds:
        """See `router.types.Policy`."""
        applied = self._applied(Facts(request, view, context))
        return tightest(Terms(self.objective, self.limits).under(applied).limits, request, context.allowances)

    def decide(
        self,
        request: GenerationRequest,
        view: PromptView,
        plans: Mapping[str, Plan],
        estimates: Mapping[str, Estimate],
        refused: Sequence[Rejection] = (),
        context: Context = NO_CONTEXT,
    ) -> Decision:
        """See `router.types.Policy`. Also raises `NotFoundError` if the request names a recipe that is neither in the
        policy nor planned."""
        facts = Facts(request, view, context)
        applied = self._applied(facts)
        terms = Terms(self.objective, self.limits, self.explore).under(applied)
        gates = Gates(self.name, self.recipes, request, plans, estimates)
        gates.enter(refused)
        gates.hold_limits(terms.limits)
        gates.hold_budgets(context.allowances)
        gates.apply(applied)
        if not gates.open:
            raise gates.nothing_left(context.allowances)
        ranking = rank(terms.objective, gates.open, gates.preferred)
        taken = take(ranking, gates.open, request, context, self.overload, terms.explore)
        verify, checks = verification(self.verify, facts, terms.objective, terms.limits, gates.open, taken.recipe)
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
        )

    def _applied(self, facts: Facts) -> tuple[Applied, ...]:
        found = ((rule, holds(rule.when, facts)) for rule in self.rules)
        return tuple(Applied(rule, fact) for rule, fact in found if fact is not None)
