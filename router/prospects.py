"""What verifying a picture may lead to: recipes that could be tried, at their price now, and what a look would gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from router.escalation import Option, worth_a_look
from router.judge import Judge, Judgement
from router.planning import with_check
from router.queues import Queues, Timing
from router.types import Decision, Estimate, Plan, Worth


@dataclass(frozen=True)
class Prospects:
    """made: the chosen recipe, whose seconds and dollars are those of another picture of it;
    tries: what may be tried, each with its price now;   timings: of one picture and its check, by recipe;
    look: of the check alone
    """

    made: Option
    tries: tuple[Option, ...]
    timings: Mapping[str, Timing]
    look: Timing

    def gain(self, judge: Judge, worth: Worth) -> float:
        """Expected gain of looking at the first picture, in quality."""
        return worth_a_look(self.made, self.tries, judge, worth)


def prospects(
    decision: Decision,
    plans: Mapping[str, Plan],
    estimates: Mapping[str, Estimate],
    judgement: Judgement,
    queues: Queues,
) -> Prospects:
    """The prospects of one picture of a decision that verifies, with the queues of this moment.

    plans: of the chosen recipe and of those that it may escalate to
    """
    verify = decision.verify
    assert verify is not None
    names = dict.fromkeys((decision.recipe, *verify.tries(decision.recipe)))
    timings = {name: queues.estimate(with_check(plans[name], verify.scorer)) for name in names}
    options = {
        name: Option(
            name, estimates[name].quality.mean, judgement.strength, timings[name].latency_s, timings[name].cost_usd
        )
        for name in names
    }
    tries = tuple(options[name] for name in dict.fromkeys(verify.tries(decision.recipe)))
    whole, bare = timings[decision.recipe], queues.estimate(plans[decision.recipe])
    look = Timing(*(max(0.0, getattr(whole, key) - getattr(bare, key)) for key in Timing.__slots__))
    return Prospects(options[decision.recipe], tries, timings, look)
