"""A past decision made again with other expectations, by the code that serves: which recipe, with which probability?

Gates and conditions of rules do not depend on what a predictor expects, so what could be chosen then, and which rules
applied, are taken from the past; ranking, overload and chance are decided again, and searches (`n: auto`) are settled
again by the `Searches` that serve.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from policies.deciding.chance import calm_ones, drawing, take
from policies.deciding.decide import Policy
from policies.deciding.objectives import rank
from policies.deciding.terms import Applied, Terms
from policies.deciding.verification import tightest
from policies.language.schema_choice import Objective, Weight
from router.cost.model import CostModel
from router.cost.queues import Queues
from router.errors import OverloadedError
from router.planning.planner import Planner
from router.quality.predictor import QualityPredictor
from router.types import NO_CONTEXT, Catalogue, Estimate, GenerationRequest, PromptView, Quality, Recipe
from router.verification.case import Case, Knowledge
from router.verification.n_auto import Searches
from router.verification.score_reading import ScoreReading

Array = NDArray[np.float64]


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
    if not calm:
        return drawing(taken.recipe, estimates, None)
    found = drawing(taken.recipe, calm_ones(estimates, policy.overload), terms.explore)
    return {name: found.get(name, 0.0) for name in estimates}


def chance_of_each(policy: Policy, rules: Collection[str], estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """With which probability chance alone takes each recipe, whatever ranks first."""
    return drawing("", estimates, _terms(policy, rules).explore)


def worth(policy: Policy, rules: Collection[str], quality: float, cost_usd: float, latency_s: float) -> float:
    """What pictures of that quality (0..1) are worth under the policy: with `maximise`, less what its weights say of
    cost and latency; with every other objective, the quality alone."""
    objective: Objective = _terms(policy, rules).objective
    weight = (objective.weight or Weight()) if objective.maximise is not None else Weight()
    return quality - weight.cost_usd * cost_usd - weight.latency_s * latency_s


class Replay:
    """Settles the searches among a policy's recipes as serving does, for prompts and expectations of the past. Queues
    are taken as empty and costs as on the cards; what is not in a log (size, steps, budgets) as not asked for."""

    def __init__(self, policy: Policy, catalogue: Catalogue, readings: Mapping[str, ScoreReading]) -> None:
        self._policy = policy
        self._readings = readings
        self._searches = Searches(catalogue, Queues(CostModel(catalogue)))
        self._asked = itertools.count()
        self.names = frozenset(Planner(catalogue).searches(GenerationRequest("-"), policy.recipes))

    def qualities(
        self,
        predictor: QualityPredictor,
        view: PromptView,
        base: Array,
        rules: Collection[str],
        names: Collection[str],
    ) -> dict[str, Quality]:
        """What a predictor expects of recipes of the policy, from the `base` means (c,) of its columns."""
        known = predictor.adapted(view, base)
        found = predictor.predict(view, self._policy.recipes, names, known)
        settled = self._settled(predictor, view, known, rules, names)
        return {**found, **{name: one.quality for name, one in settled.items()}}

    def estimates(
        self,
        predictor: QualityPredictor,
        view: PromptView,
        base: Array,
        rules: Collection[str],
        logged: Mapping[str, Estimate],
        incumbent: QualityPredictor,
    ) -> dict[str, Estimate]:
        """The `logged` estimates with what `predictor` expects. A search that it would end elsewhere than the
        `incumbent` takes seconds and dollars in the proportion of the two, beside what was logged."""
        qualities = self.qualities(predictor, view, base, rules, logged)
        found = {name: replace(estimate, quality=qualities[name]) for name, estimate in logged.items()}
        if predictor is incumbent or not self.names & logged.keys():
            return found
        ours = self._settled(incumbent, view, incumbent.adapted(view, base), rules, logged)
        theirs = self._settled(predictor, view, predictor.adapted(view, base), rules, logged)
        for name in ours.keys() & theirs.keys():
            shares = {
                key: getattr(logged[name], key) * getattr(theirs[name], key) / (getattr(ours[name], key) or 1.0)
                for key in ("work_s", "latency_s", "cost_usd")
            }
            found[name] = replace(found[name], **shares)
        return found

    def _settled(
        self,
        predictor: QualityPredictor,
        view: PromptView,
        known: Mapping[str, Quality],
        rules: Collection[str],
        names: Collection[str],
    ) -> dict[str, Estimate]:
        if not self.names & set(names):
            return {}
        # A prompt may be known by its embedding only, so nothing that was settled before is what is asked for now.
        asked = _Expecting(predictor, known, f"replayed {next(self._asked)}")
        knowledge = Knowledge(cast(QualityPredictor, asked), self._readings)
        request = GenerationRequest(view.prompt or "-")
        case = Case(request, view, self._policy.recipes, knowledge)
        bounds = tightest(_terms(self._policy, rules).limits, request, ())
        settled = {name: self._searches.resolve(name, case, bounds) for name in sorted(self.names & set(names))}
        return {name: one.estimate for name, one in settled.items() if one is not None}


@dataclass(frozen=True)
class _Expecting:
    """A predictor that expects something else of its columns, for `Searches`."""

    predictor: QualityPredictor
    known: Mapping[str, Quality]
    digest: str

    def predict(
        self, view: PromptView, recipes: Mapping[str, Recipe], *, apart: Mapping[str, float] | None = None
    ) -> dict[str, Quality]:
        return self.predictor.predict(view, recipes, None, self.known, apart)


def _terms(policy: Policy, rules: Collection[str]) -> Terms:
    applied = [Applied(rule, "as then") for rule in policy.rules if rule.name in rules]
    return Terms(policy.objective, policy.limits, policy.explore).under(applied)
