"""A past decision made again with other estimates, by the code that serves: which recipe, with which probability?

Gates and conditions of rules do not depend on what a predictor expects, so what could be chosen then, and which rules
applied, are taken from the past; ranking, overload and chance are decided again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from policies.deciding.chance import drawing, take
from policies.deciding.decide import Policy
from policies.deciding.objectives import rank
from policies.deciding.terms import Applied, Terms
from policies.language.schema_choice import Objective, Weight
from router.errors import OverloadedError
from router.types import NO_CONTEXT, Estimate, GenerationRequest


def chances(
    policy: Policy, rules: Collection[str], estimates: Mapping[str, Estimate], degradable: bool = True
) -> dict[str, float]:
    """The probability of each recipe of `estimates`: those that were eligible. rules: names of those that applied."""
    terms = _terms(policy, rules)
    preferred = [rule.prefer for rule in policy.rules if rule.name in rules and rule.prefer]
    ranking = rank(terms.objective, estimates, preferred)
    request = GenerationRequest("-", degradable=degradable)
    try:
        taken = take(ranking, estimates, request, NO_CONTEXT, policy.overload, None)
    except OverloadedError:  # it would not have been answered; what it would have got counts
        return drawing(ranking[0].recipe, estimates, None)
    # Under load nothing is left to chance, as in `take`.
    calm = taken.recipe == ranking[0].recipe and not taken.notes
    return drawing(taken.recipe, estimates, terms.explore if calm else None)


def prices(policy: Policy, rules: Sequence[str], estimate: Estimate, quality: float) -> float:
    """What a picture of that quality (0..1) is worth under the policy: with `maximise`, less what its weights say of
    the expected cost and latency; with every other objective, the quality alone."""
    objective: Objective = _terms(policy, rules).objective
    weight = (objective.weight or Weight()) if objective.maximise is not None else Weight()
    return quality - weight.cost_usd * estimate.cost_usd - weight.latency_s * estimate.latency_s


def _terms(policy: Policy, rules: Collection[str]) -> Terms:
    applied = [Applied(rule, "as then") for rule in policy.rules if rule.name in rules]
    return Terms(policy.objective, policy.limits, policy.explore).under(applied)
