"""The answer of the router: all that is needed to run, explain and replay a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.types import Decision, Estimate, GenerationRequest, Plan, PromptView, Turn
from router.verification.score_reading import ScoreReading


@dataclass(frozen=True)
class Route:
    """The answer of `Router.route`: all that is needed to run, explain and replay a request.

    alternatives: plans of the recipes that the decision may escalate to
    turns: what the chosen recipe came to, if it is a search; with them, it is the same plan at another moment
    alternative_turns: the same of those recipes of `alternatives` that are searches
    score_reading: how the scores of the decision's verification are read; None if nothing is verified
    artifact: digest of the predictor's artefact
    """

    request: GenerationRequest
    view: PromptView
    estimates: Mapping[str, Estimate]
    decision: Decision
    plan: Plan
    decided_in_s: float
    alternatives: Mapping[str, Plan] = field(default_factory=dict)
    score_reading: ScoreReading | None = None
    artifact: str = ""
    turns: tuple[Turn, ...] = ()
    alternative_turns: Mapping[str, tuple[Turn, ...]] = field(default_factory=dict)

    def turns_of(self, recipe: str) -> tuple[Turn, ...]:
        """What `recipe` came to, which is the chosen one or an alternative; () if it is no search."""
        return self.turns if recipe == self.decision.recipe else self.alternative_turns.get(recipe, ())
