"""A request while it is decided: what was asked, what is known of its prompt, and by whose knowledge it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.quality.predictor import QualityPredictor
from router.types import GenerationRequest, PromptView, Recipe
from router.verification.score_reading import ScoreReading


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What was trained: one predictor, and how the scores of each scorer (by catalogue id) are read beside it.

    The two belong together, so they are published together; a request is decided by one `Knowledge` from start to end.
    """

    predictor: QualityPredictor
    score_readings: Mapping[str, ScoreReading] = field(default_factory=dict)

    def reading(self, scorer: str) -> ScoreReading:
        """How the scores of `scorer` are read; the default if it is not calibrated."""
        return self.score_readings.get(scorer) or ScoreReading()


@dataclass(frozen=True, slots=True)
class Case:
    """recipes: those of the policy, and a model that the request names instead."""

    request: GenerationRequest
    view: PromptView
    recipes: Mapping[str, Recipe]
    knowledge: Knowledge
