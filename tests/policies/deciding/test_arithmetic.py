"""What objectives, verification and chance come to, in numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.deciding.objectives import rank
from policies.language.schema_choice import Bounds, Criterion, Objective, Weight
from router.types import Allowance, Context, Estimate, GenerationRequest, Quality
from tests.policies.values import QUALITY, decide, estimate, policy

ASK = GenerationRequest("a red circle")
THREE = (
    estimate("draft", 0.6, 0.1, 0.0001),
    estimate("standard", 0.8, 1.0, 0.001),
    estimate("premium", 0.82, 3.0, 0.004),
)
VERIFY = "verify: {scorer: alignment, accept_above: 0.7, escalate_to: [premium, draft]}\n"


def utilities(objective: Objective, *fleet: Estimate) -> list[tuple[str, float]]:
    return [(r.recipe, round(r.utility, 9)) for r in rank(objective, {e.recipe: e for e in fleet})]


def test_each_weight_is_taken_off_the_quality() -> None:
    """.8 - 2 x .05 (dollars) - .01 x 3 (seconds) - .5 x .1 (standard deviation) = .62; a surer twin has .67."""
    objective = Objective(maximise="quality", weight=Weight(cost_usd=2.0, latency_s=0.01, uncertainty=0.5))
    unsure = Estimate("unsure", Quality(0.8, 0.1), 3.0, 0.0, 3.0, 0.05)
    sure = replace(unsure, recipe="sure", quality=Quality(0.8, 0.0))
    assert utilities(objective, unsure, sure) == [("sure", 0.67), ("unsure", 0.62)]


def test_an_excess_is_relative_to_its_bound() -> None:
    """Under $.002 and 2 s: $.003 for 2 s is over by .5, $.001 for 5 s by 1.5, $.003 for 3 s by .5 + .5; under both, the
    quality counts."""
    objective = Objective(best_under=Bounds(cost_usd=0.002, latency_s=2.0))
    fleet = (
        estimate("dear", 0.9, 2.0, 0.003),
        estimate("slow", 0.9, 5.0, 0.001),
        estimate("both", 0.9, 3.0, 0.003),
        estimate("fits", 0.3, 2.0, 0.002),
    )
    assert utilities(objective, *fleet) == [("fits", 0.3), ("dear", -0.5), ("both", -1.0), ("slow", -1.5)]


def test_ties_go_to_the_cheaper_the_faster_the_better_and_the_first() -> None:
    """Of equal utility, dollars come before seconds, seconds before quality, and quality before the alphabet."""
    objective = Objective(minimise="work_s")
    base = Estimate("x", Quality(0.5, 0.1), 1.0, 0.0, 2.0, 0.002)
    fleet = [
        replace(base, recipe="b"),
        replace(base, recipe="a"),
        replace(base, recipe="better", quality=Quality(0.6, 0.1)),
        replace(base, recipe="faster", latency_s=1.5, quality=Quality(0.1, 0.1)),
        replace(base, recipe="cheaper", cost_usd=0.001, latency_s=9.0),
    ]
    assert [name for name, _ in utilities(objective, *fleet)] == ["cheaper", "faster", "better", "a", "b"]


def test_a_criterion_keeps_what_is_within_its_tolerance() -> None:
    """Within .05 of the best quality, .80 stays beside .85 and .79 does not; then the faster of the two is taken."""
    objective = Objective(lexicographic=[Criterion(by="quality", within=0.05), Criterion(by="latency_s")])
    fleet = (estimate("best", 0.85, 3.0), estimate("edge", 0.8, 1.0), estimate("out", 0.79, 0.1))
    found = rank(objective, {e.recipe: e for e in fleet})
    assert [ranked.recipe for ranked in found] == ["edge", "best", "out"]
    assert found[0].utility == pytest.approx(2.25)  # two criteria, and -1 s squashed to 1/4
    assert [ranked.utility for ranked in found[1:]] == [1.0, 0.0]  # the criteria that the others passed


def test_what_the_choice_costs_is_taken_off_what_may_follow() -> None:
    """Of $.006 and 10 s of work, a chosen recipe of $.001 and 1 s leaves $.005 and 9 s for further tries."""
    made = policy("limits: {cost_usd: 0.006}\nobjective: {best_under: {latency_s: 1}}\n" + VERIFY)
    context = Context(allowances=(Allowance("b", work_s=10.0),))
    verify = decide(made, ASK, *THREE, context=context).verify
    assert verify is not None
    assert (verify.cost_usd, verify.work_s) == (pytest.approx(0.005), pytest.approx(9.0))
    assert verify.within_s is None
    assert verify.escalate_to == ("premium", "draft")


@pytest.mark.parametrize(
    ("dollars", "ladder"),
    [
        (0.0051, ("premium", "draft")),  # .001 + .004 + .0001
        (0.00505, ("premium",)),
        (0.0049, ("draft",)),  # premium alone would be .005
        (0.00105, ()),
    ],
)
def test_a_ladder_is_paid_for_as_a_whole(dollars: float, ladder: tuple[str, ...]) -> None:
    """Whatever may be tried fits beside the choice and all tries before it."""
    made = policy("objective: {best_under: {latency_s: 1}}\n" + VERIFY)
    verify = decide(made, replace(ASK, max_cost_usd=dollars), *THREE).verify
    assert verify is not None and verify.escalate_to == ladder


def test_the_tightest_bound_of_policy_request_and_budget_counts() -> None:
    """Of a limit of 20 s and a budget of 9 s, and of $.05, $.01 and $.02, the search may take 9 s and $.01 in all."""
    made = policy("limits: {latency_s: 20, cost_usd: 0.05}\nobjective: {best_under: {latency_s: 1}}\n" + VERIFY)
    context = Context(allowances=(Allowance("a", cost_usd=0.02), Allowance("b", cost_usd=0.01, work_s=7.0)))
    verify = decide(made, replace(ASK, latency_budget_s=9.0), *THREE, context=context).verify
    assert verify is not None
    assert (verify.within_s, verify.cost_usd, verify.work_s) == (9.0, pytest.approx(0.009), pytest.approx(6.0))
    looser = decide(made, replace(ASK, latency_budget_s=50.0, max_cost_usd=1.0), *THREE).verify
    assert looser is not None
    assert (looser.within_s, looser.cost_usd, looser.work_s) == (20.0, pytest.approx(0.049), None)


def test_nothing_is_left_to_chance_under_load() -> None:
    """While a recipe is degraded, or waits because none may take its place, no draw takes another one."""
    loaded = "overload: {degrade_after_s: 5, degrade_to: [standard]}\nexplore: {rate: 1.0}\n"
    for waits in ({"premium": 9.0}, {"premium": 9.0, "standard": 9.0}):
        fleet = [replace(e, queue_s=waits.get(e.recipe, 0.0)) for e in THREE]
        drawn = [decide(policy(QUALITY + loaded), ASK, *fleet, context=Context(draw=k / 20)) for k in range(20)]
        assert {d.recipe for d in drawn} == {"standard" if len(waits) == 1 else "premium"}
        assert not any(d.explored for d in drawn)
        assert {d.propensity for d in drawn} == {1.0}
