"""What verifying a picture may lead to: recipes that could be tried, at their price now, and what a look would gain."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from router.cost.queues import Queues, Timing
from router.planning.planner import with_check
from router.types import Decision, Estimate, Plan, Prices
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
    timings: Mapping[str, Timing]
    look: Timing

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
    """The prospects of one picture of a decision that verifies, with the queues of this moment.

    plans: of the chosen recipe and of those that it may escalate to
    """
    verify = decision.verify
    assert verify is not None
    further = dict.fromkeys(verify.tries(decision.recipe))
    names = dict.fromkeys((decision.recipe, *further))
    timings = {name: queues.estimate(with_check(plans[name], verify.scorer)) for name in names}
    options = {
        name: Option(
            name, estimates[name].quality.mean, score_reading.strength, timings[name].latency_s, timings[name].cost_usd
        )
        for name in names
    }
    tries = tuple(options[name] for name in further)
    whole, bare = timings[decision.recipe], queues.estimate(plans[decision.recipe])
    look = Timing(
        max(0.0, whole.work_s - bare.work_s),
        max(0.0, whole.queue_s - bare.queue_s),
        max(0.0, whole.latency_s - bare.latency_s),
        max(0.0, whole.cost_usd - bare.cost_usd),
    )
    return Options(options[decision.recipe], tries, timings, look)
