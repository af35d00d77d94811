"""Stopping, retrying and escalating by expected gain."""

import math
import random

import pytest

from benchmarks.frontier.run import next_attempt
from router.types import Resources
from router.verification.score_reading import ScoreModel
from router.verification.value_of_information import Option

PERFECT = ScoreModel(1.0, 1.0, 0.0, on_right=(20.0,), on_wrong=(-20.0,))
CHEAP, STRONG = Option("cheap", 0.6, 2.0, Resources(0.2)), Option("strong", 0.9, 2.0, Resources(1.0))


def test_the_first_picture_is_always_made() -> None:
    """Even when seconds are worth more than any picture, a request gets one."""
    assert next_attempt([CHEAP, STRONG], {}, PERFECT, 1e6) == "cheap"


def test_a_picture_that_is_surely_right_is_kept() -> None:
    """Nothing is tried after a verdict that no other recipe could beat."""
    assert next_attempt([CHEAP, STRONG], {"cheap": [1.0]}, PERFECT, 0.01) is None


def test_failures_of_a_recipe_lead_to_another() -> None:
    """The more pictures of the cheap recipe fail on a prompt, the sooner the expensive one is tried."""
    stubborn = [Option("cheap", 0.6, 0.5, Resources(0.2)), STRONG]
    tried = [next_attempt(stubborn, {"cheap": [0.0] * n}, PERFECT, 0.3) for n in range(4)]
    assert tried == ["cheap", "cheap", "strong", "strong"]
    assert next_attempt([CHEAP, STRONG], {"cheap": [0.0] * 4}, PERFECT, 0.3, most=4) == "strong"


def test_time_that_is_dear_ends_the_search() -> None:
    """A wrong picture is kept when another try would cost more than it could gain."""
    assert next_attempt([CHEAP, STRONG], {"cheap": [0.2]}, PERFECT, 10.0) is None
    assert next_attempt([CHEAP, STRONG], {"cheap": [0.2]}, PERFECT, 0.01) is not None


def test_a_judge_that_sees_nothing_is_not_asked_twice() -> None:
    """When verdicts do not depend on the picture, the first one is kept."""
    blind = ScoreModel(0.0, 1.0, 0.0, on_right=(1.0,), on_wrong=(-1.0,))
    alike = Option("alike", 0.6, 2.0, Resources(0.2))
    assert next_attempt([CHEAP, alike], {"cheap": [blind.verdict(0.6, 0.99)]}, blind, 0.01) is None


def test_the_rule_beats_fixed_plans_on_average() -> None:
    """Over many prompts, utility is at least that of always-cheap, always-expensive and cheap-then-expensive."""
    rng = random.Random(0)
    price = 0.2
    kept = {"rule": 0.0, "cheap": 0.0, "strong": 0.0, "cascade": 0.0}
    for _ in range(1000):
        options = [
            Option("cheap", rng.random(), 50.0, Resources(0.2)),
            Option("strong", rng.random(), 50.0, Resources(1.0)),
        ]
        by_name = {option.recipe: option for option in options}
        right = {name: [rng.random() < o.chance for _ in range(4)] for name, o in by_name.items()}
        verdicts: dict[str, list[float]] = {}
        spent = 0.0
        while name := next_attempt(options, verdicts, PERFECT, price):
            made = verdicts.setdefault(name, [])
            made.append(float(right[name][len(made)]))
            spent += by_name[name].takes.latency_s
        kept["rule"] += max(v for made in verdicts.values() for v in made) - price * spent
        for name, option in by_name.items():
            kept[name] += right[name][0] - price * option.takes.latency_s
        first = right["cheap"][0]
        kept["cascade"] += (first or right["strong"][0]) - price * (0.2 if first else 1.2)
    assert kept["rule"] == max(kept.values())


@pytest.mark.parametrize("chance", [0.05, 0.3, 0.99])
def test_reservation_values_balance_gain_and_price(chance: float) -> None:
    """At the reservation value, the expected gain over it equals the price of looking."""
    score_model, price = ScoreModel(0.8, 0.7, 0.1, on_right=(1.5,), on_wrong=(-1.0,)), 0.02
    z = score_model.reservation(chance, price)
    right, wrong = (
        score_model.verdict(chance, 1 / (1 + math.exp(-1.5))),
        score_model.verdict(chance, 1 / (1 + math.exp(1.0))),
    )
    gain = chance * max(0.0, right - z) + (1 - chance) * max(0.0, wrong - z)
    assert gain == pytest.approx(price)


def test_a_good_score_counts_for_more_where_the_prompt_is_easy() -> None:
    """The same score means less from a recipe that mostly fails on such prompts."""
    score_model = ScoreModel(0.8, 0.7, 0.1, on_right=(1.5,), on_wrong=(-1.0,))
    assert score_model.verdict(0.9, 0.7) > score_model.verdict(0.2, 0.7) > score_model.verdict(0.2, 0.3)
