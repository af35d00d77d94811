"""Bounds of nothing, draws at the edges of their parts, and every aim and check in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.deciding.objectives import rank
from policies.deciding.reasons import compared, times
from policies.language.schema_choice import Objective, Weight
from router.types import Allowance, Context, Estimate, GenerationRequest, Quality
from tests.policies.values import QUALITY, decide, estimate, policy, view

ASK = GenerationRequest("a red circle")
FLEET = (estimate("draft", 0.6, 0.1, 0.0001), estimate("standard", 0.8, 1.0, 0.001), estimate("premium", 0.82, 3.0))


def ranked(objective: Objective, *fleet: Estimate) -> dict[str, float]:
    return {one.recipe: round(one.utility, 9) for one in rank(objective, {e.recipe: e for e in fleet})}


def test_within_nothing_of_the_best_only_the_best_is_cheap_enough() -> None:
    """At a tolerance of 0 the best counts by its price, and every other by the quality that it lacks."""
    assert ranked(Objective(cheapest_within=0.0), *FLEET) == {"premium": 0.999000999, "standard": -0.02, "draft": -0.22}


def test_above_nothing_everybody_counts_by_seconds() -> None:
    """A bar of 0 is reached by all, so that the fastest is taken; the utility is one over one and the seconds."""
    assert ranked(Objective(fastest_above=0.0), *FLEET) == {"draft": 0.909090909, "standard": 0.5, "premium": 0.25}


def test_an_objective_is_told_with_each_price_that_it_has() -> None:
    """Weights of nothing are not said; without any, it is the highest quality alone, and what that came to."""
    weighted = Objective(maximise="quality", weight=Weight(cost_usd=2.0, latency_s=0.0, uncertainty=0.5))
    told = "objective: highest quality − 2 × cost_usd − 0.5 × uncertainty, which is 0.773 here"
    made = replace(policy(), objective=weighted)
    assert told in decide(made, ASK, *FLEET[:2]).reasons
    assert "objective: highest quality, which is 0.800 here" in decide(policy(), ASK, *FLEET[:2]).reasons


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ("{cheapest_within: 0.05}", "cheapest within 0.05 of the best expected quality, 0.82"),
        ("{fastest_above: 0.8}", "fastest with quality 0.8 or more"),
        ("{best_under: {cost_usd: 0.5, latency_s: 9}}", "best under cost_usd 0.5 and latency_s 9"),
        (
            "{lexicographic: [{by: quality}, {by: cost_usd, within: 0.1}]}",
            "best by quality, then cost_usd (within 0.1)",
        ),
        ("{minimise: latency_s}", "lowest latency_s"),
    ],
)
def test_every_objective_is_told_as_it_is_written(objective: str, told: str) -> None:
    """The second reason names the aim with its numbers, and nothing else where it was reached."""
    assert decide(policy(f"objective: {objective}\n"), ASK, *FLEET).reasons[1] == f"objective: {told}"


@pytest.mark.parametrize("condition", ["{min_side: 16}", "{max_side: 16}"])
def test_no_size_has_no_side(condition: str) -> None:
    """Where no size was asked for, no bound on sides holds, not even the least that there is."""
    made = policy(QUALITY + f"rules: [{{name: r, when: {condition}, prefer: [draft]}}]\n")
    assert decide(made, ASK, FLEET[0]).rules == ()


@pytest.mark.parametrize(("bound", "holds"), [("below: 0.01", True), ("above: 0.99", False), ("above: 0", False)])
def test_a_signal_that_was_not_measured_is_nothing(bound: str, holds: bool) -> None:
    """A skill of which nothing is known is not asked for: it is below every bound and above none."""
    made = policy(QUALITY + f"rules: [{{name: r, when: {{signal: counting, {bound}}}, prefer: [draft]}}]\n")
    assert decide(made, ASK, FLEET[0]).rules == (("r",) if holds else ())
    assert decide(made, ASK, FLEET[0], view=view(complexity=0.995)).rules == (("r",) if holds else ())


def test_waiting_of_nothing_is_refused_by_no_bound_of_waiting() -> None:
    """At exactly the bound a recipe is neither replaced nor refused; right above it is, by as much as is too much."""
    rest = "overload: {degrade_after_s: 5, degrade_to: [standard, draft], reject_after_s: 9}\n"
    made = policy(QUALITY + rest)
    at = decide(made, ASK, replace(FLEET[2], queue_s=5.0), FLEET[1])
    assert (at.recipe, at.degraded_from) == ("premium", None)
    over = decide(made, ASK, replace(FLEET[2], queue_s=5.01), replace(FLEET[1], queue_s=5.0), FLEET[0])
    assert (over.recipe, over.degraded_from) == ("standard", "premium")
    both = decide(made, ASK, replace(FLEET[2], queue_s=8.0), replace(FLEET[1], queue_s=7.0))
    assert (both.recipe, both.degraded_from) == ("standard", "premium")
    same = decide(made, ASK, replace(FLEET[2], queue_s=9.0))
    assert same.recipe == "premium" and "nothing that waits less may take its place" in " ".join(same.reasons)
    kept = decide(made, replace(ASK, degradable=False), replace(FLEET[2], queue_s=8.0), FLEET[1])
    assert kept.recipe == "premium" and "because the request forbids it" in " ".join(kept.reasons)


@pytest.mark.parametrize(
    ("draw", "recipe", "explored"),
    [(0.0, "draft", True), (0.0999, "draft", True), (0.1, "premium", True), (0.1999, "premium", True),
     (0.2, "premium", False), (0.99, "premium", False)],
)  # fmt: skip
def test_a_draw_falls_into_equal_parts_of_the_rate(draw: float, recipe: str, explored: bool) -> None:
    """A rate of .2 over two recipes is a tenth for each; from .2 on the best is taken; both ways count."""
    made = policy(QUALITY + "explore: {rate: 0.2, among: [draft, premium, standard]}\n")
    decision = decide(made, ASK, FLEET[0], FLEET[2], context=Context(draw=draw))
    assert (decision.recipe, decision.explored) == (recipe, explored)
    assert decision.propensity == pytest.approx(0.1 if recipe == "draft" else 0.9)
    assert any(reason.startswith("exploration: ") for reason in decision.reasons) is explored
    pinned = decide(made, replace(ASK, recipe="premium"), *FLEET, context=Context(draw=draw))
    assert (pinned.recipe, pinned.explored, pinned.propensity) == ("premium", False, 1.0)


def test_exploring_at_no_rate_or_among_nobody_takes_the_best_for_sure() -> None:
    """A rate of 0, or a pool of which nothing may run, leaves the first of the ranking with probability 1."""
    for explore in ("{rate: 0}", "{rate: 0.9, among: [standard]}"):
        decision = decide(policy(QUALITY + f"explore: {explore}\n"), ASK, FLEET[0], FLEET[2], context=Context(draw=0.0))
        assert (decision.recipe, decision.propensity, decision.explored) == ("premium", 1.0, False)
    sure = decide(policy(QUALITY + "explore: {rate: 1, among: [draft]}\n"), ASK, *FLEET, context=Context(draw=0.999))
    assert (sure.recipe, sure.propensity) == ("draft", 1.0)
    undrawn = decide(policy(QUALITY + "explore: {rate: 1, among: [draft]}\n"), ASK, *FLEET)
    assert (undrawn.recipe, undrawn.propensity) == ("premium", 1.0)


def test_a_try_is_priced_by_its_share_of_the_work() -> None:
    """At .01 of quality a try, a second of two pictures of 3 s of work together is worth .01 / 1.5; of no work, a
    number all the same. What is left after the choice is told, never below nothing."""
    search = (
        "verify: {scorer: alignment, by: expected_gain, quality_per_try: 0.01, retry: 2, escalate_to: [standard]}\n"
    )
    made = policy(QUALITY + search)
    found = decide(made, replace(ASK, n=2, latency_budget_s=4.0), *FLEET).verify
    assert found is not None and found.prices.per_s == pytest.approx(0.01 / 1.5)
    assert (found.within_s, found.escalate_to, found.retry) == (4.0, ("standard",), 2)
    free = decide(made, ASK, Estimate("premium", Quality(0.9, 0.1), 0.0, 0.0, 0.0, 0.0)).verify
    assert free is not None and free.prices.per_s == pytest.approx(1e4)
    pinned = decide(made, replace(ASK, recipe="premium"), *FLEET)
    assert pinned.verify is None and not any("verified" in reason for reason in pinned.reasons)


@pytest.mark.parametrize(
    ("verify", "told"),
    [
        ("accept_above: 0.7, escalate_to: [standard, draft]",
         "accepted from 0.7 by alignment; below, standard, then draft is tried"),
        ("accept_above: 0.7, retry: 2", "accepted from 0.7 by alignment; each up to 2 times again"),
        ("accept_above: 0.7", "accepted from 0.7 by alignment; nothing is tried below"),
        ("by: expected_gain, quality_per_s: 0.1, quality_per_usd: 3, escalate_to: [draft]",
         "by alignment, tries of draft are made while they are expected to gain more than 0.1 a second and 3 a dollar"),
        ("by: expected_gain, quality_per_s: 0, retry: 3",
         "by alignment, tries are made while they are expected to gain more than nothing; each up to 3 times again"),
    ],
)  # fmt: skip
def test_what_is_checked_and_tried_is_told(verify: str, told: str) -> None:
    """The last reason says the bar, what may follow in which order, how often, and what it is to gain."""
    decision = decide(policy(QUALITY + f"verify: {{scorer: alignment, {verify}}}\n"), ASK, *FLEET)
    assert decision.reasons[-1] == f"verified (always): {told}"


def test_what_differs_by_less_than_a_hundredth_is_the_same() -> None:
    """Two digits of quality are told, and what they do not show is no difference; a ratio from 99.5 on is whole."""
    one = estimate("a", 0.6)
    assert compared(one, replace(one, quality=Quality(0.6049, 0.05)), "b").startswith("b, a, has the same quality")
    assert compared(one, replace(one, quality=Quality(0.6051, 0.05)), "b").startswith("b, a, has 0.01 more quality")
    assert times(99.5) == "100 times the"


def test_a_ladder_stays_within_seconds_and_work_as_well() -> None:
    """After 1 s of the choice, 3 s more fit into 4 s and not into 3.99 s; the same of the work that a budget has."""
    made = policy(
        "objective: {minimise: latency_s}\nverify: {scorer: alignment, accept_above: 0.7, escalate_to: [premium]}\n"
    )
    fleet = FLEET[1:]
    for most, ladder in ((4.0, ("premium",)), (3.99, ())):
        by_time = decide(made, replace(ASK, latency_budget_s=most), *fleet).verify
        by_work = decide(made, ASK, *fleet, context=Context(allowances=(Allowance("b", work_s=most),))).verify
        assert by_time is not None and by_work is not None
        assert by_time.escalate_to == by_work.escalate_to == ladder
