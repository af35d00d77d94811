"""What verifying a picture may lead to: recipes that could be tried, at their price now, and what a look would gain."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from router.cost.queues import Queues
from router.planning.planner import with_check
from router.types import Decision, Estimate, Plan, Prices, Resources
from router.verification.score_reading import ScoreModel, ScoreReading
from router.verification.value_of_information import Option, value_of_a_look


@dataclass(frozen=True)
class Options:
    """made: the chosen recipe, whose seconds and dollars are those of another picture of it;
    tries: what may be tried, each with its price now;   timings: of one picture and its check, by recipe;
    look: of the check alone
    """

    made: Option
    tries: tuple[Option, ...]
    timings: Mapping[str, Resources]
    look: Resources

    def gain(self, score_model: ScoreModel, prices: Prices) -> float:
        """Expected gain of looking at the first picture, in quality."""
        return _gain(self.made, self.tries, score_model, prices)


@functools.lru_cache(maxsize=1024)  # the same for a prompt as long as queues and prices stay
def _gain(made: Option, tries: tuple[Option, ...], score_model: ScoreModel, prices: Prices) -> float:
    return value_of_a_look(made, tries, score_model, prices)


def next_options(
    decision: Decision,
    plans: Mapping[str, Plan],
    estimates: Mapping[str, Estimate],
    score_reading: ScoreReading,
    queues: Queues,
) -> Options:
    """What may be tried after one picture of a decision that verifies, with the queues of this moment.

    plans: of the chosen recipe and of those that it may escalate to
    """
    verify = decision.verify
    assert verify is not None
    chosen, further = decision.recipe, dict.fromkeys(verify.tries(decision.recipe))
    checked = {name: with_check(plans[name], verify.scorer) for name in (chosen, *further)}
    takes = queues.estimates(checked)
    options = {
        name: Option(name, estimates[name].quality.mean, score_reading.strength, takes[name]) for name in checked
    }
    look = takes[chosen].beyond(queues.estimate(plans[chosen]))
    return Options(options[chosen], tuple(options[name] for name in further), takes, look)
