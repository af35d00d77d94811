"""What follows the ranking: overload, exploration, budgets, verification, shadow and canary."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.offline.replay import chances
from policies import Policy
from policies.deciding.splits import falls_in
from policies.language.schema import SplitSpec
from router.errors import BudgetError, NoRecipeError, OverloadedError
from router.types import Allowance, Context, Estimate, GenerationRequest, Quality
from tests.policies.values import QUALITY, decide, estimate, policy

ASK = GenerationRequest("a red circle")
THREE = (
    estimate("draft", 0.6, 0.1, 0.0001),
    estimate("standard", 0.8, 1.0, 0.001),
    estimate("premium", 0.82, 3.0, 0.004),
)


def waiting(draft: float, standard: float, premium: float) -> tuple[Estimate, ...]:
    waits = {"draft": draft, "standard": standard, "premium": premium}
    return tuple(replace(e, queue_s=waits[e.recipe]) for e in THREE)


# --------------------------------------------------------------------------------------------------------- overload

LADDER = policy(QUALITY + "overload: {degrade_after_s: 5, degrade_to: [standard, draft], reject_after_s: 60}\n")


@pytest.mark.parametrize(
    ("waits", "recipe"),
    [((9, 9, 1), "premium"), ((9, 1, 9), "standard"), ((1, 9, 9), "draft"), ((7, 6, 9), "standard")],
)
def test_overload_degrades_by_the_ladder(waits: tuple[float, float, float], recipe: str) -> None:
    """The mildest recipe that waits less than the bound is taken, or the one that waits least, and it is said."""
    decision = decide(LADDER, ASK, *waiting(*waits))
    assert decision.recipe == recipe
    assert decision.ranking[0].recipe == "premium"
    assert decision.degraded_from == (None if recipe == "premium" else "premium")
    if recipe != "premium":
        assert f"overload: premium would wait 9 s, so {recipe} was taken" in " ".join(decision.reasons)


@pytest.mark.parametrize(
    ("waits", "recipe"),
    [((0, 0, 5), "premium"), ((0, 5, 5.1), "standard"), ((5, 5.1, 5.1), "draft"), ((6, 6, 6), "premium")],
)
def test_what_waits_exactly_the_bound_waits(waits: tuple[float, float, float], recipe: str) -> None:
    """The bound itself is not over the bound; where all wait alike, the first of the ranking stays."""
    assert decide(LADDER, ASK, *waiting(*waits)).recipe == recipe


def test_a_wait_of_exactly_the_last_bound_is_not_refused() -> None:
    """At 60 s of at most 60 s the request is served, above it is not."""
    assert decide(LADDER, ASK, *waiting(60, 70, 70)).recipe == "draft"
    with pytest.raises(OverloadedError):
        decide(LADDER, ASK, *waiting(60.1, 70, 70))


def test_exploration_takes_no_recipe_that_overload_would_replace() -> None:
    """Among recipes, those that wait exactly the lower bound may be drawn, those beyond it never, whatever is drawn."""
    file = policy(
        QUALITY + "overload: {degrade_after_s: 5, degrade_to: [draft], reject_after_s: 60}\nexplore: {rate: 0.2}\n"
    )
    for draw in (0.0, 0.05, 0.0999, 0.1, 0.15, 0.1999):
        decision = decide(file, ASK, *waiting(5.01, 5, 1), context=Context(draw=draw))
        assert decision.recipe == ("premium" if draw < 0.1 else "standard")
        assert decision.propensity == pytest.approx(0.9 if draw < 0.1 else 0.1)
    beyond = decide(file, ASK, *waiting(5.01, 5, 1), context=Context(draw=0.2))
    assert (beyond.recipe, beyond.explored) == ("premium", False)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (replace(ASK, degradable=False), "standard was not taken instead, because the request forbids it"),
        (replace(ASK, recipe="premium"), "premium would wait 9 s, and nothing that waits less may take its place"),
    ],
)
def test_degrading_can_be_forbidden(request_: GenerationRequest, why: str) -> None:
    """A request that forbids it, or names its recipe, waits instead, and the reasons tell it."""
    decision = decide(LADDER, request_, *waiting(1, 1, 9))
    assert decision.recipe == "premium"
    assert any(why in reason for reason in decision.reasons)


def test_overload_refuses_what_would_wait_too_long() -> None:
    """Beyond the last bound the request is refused, with the time after which trying again makes sense."""
    with pytest.raises(OverloadedError, match=r"draft would wait 61 s, over the policy's 60 s") as caught:
        decide(LADDER, ASK, *waiting(61, 70, 80))
    assert caught.value.retry_after_s == pytest.approx(1)


def test_a_limit_that_only_waiting_breaks_is_overload() -> None:
    """If a later request would be within the limits, the error says when, and is no refusal for good."""
    limited = policy("limits: {latency_s: 4}\n" + QUALITY)
    late = tuple(replace(e, queue_s=5.0, latency_s=e.latency_s + 5.0) for e in THREE)
    with pytest.raises(OverloadedError, match=r"draft: expected 5\.1 s, over the limit") as caught:
        decide(limited, ASK, *late)
    assert caught.value.retry_after_s == pytest.approx(1.1)
    with pytest.raises(NoRecipeError):
        decide(policy("limits: {latency_s: 0.05}\n" + QUALITY), ASK, *late)


ONLY = "rules: [{name: r, when: {tag: x}, only: [premium]}]\n"


@pytest.mark.parametrize("ask", [replace(ASK, tags=("x",)), replace(ASK, tags=("x",), tenant="acme")])
def test_rules_come_before_waiting_in_the_verdict(ask: GenerationRequest) -> None:
    """With premium alone allowed and over a limit for good, a draft that only waits too long is no reason to come
    again; without the rule it is."""
    limited = policy("limits: {latency_s: 2}\n" + QUALITY + ONLY)
    late = [replace(e, queue_s=2.0, latency_s=e.latency_s + 2.0) for e in THREE]
    with pytest.raises(NoRecipeError):
        decide(limited, ask, *late)
    with pytest.raises(OverloadedError):
        decide(limited, replace(ask, tags=()), *late)


def test_rules_come_before_budgets_in_the_verdict() -> None:
    """With premium alone allowed and over a limit for good, a draft that a spent budget keeps out is no reason to come
    again; without the rule it is."""
    limited = policy("limits: {latency_s: 2}\n" + QUALITY + ONLY)
    spent = Context(allowances=(Allowance("daily", cost_usd=0.0, renews_s=42.0, whole_usd=1.0),))
    with pytest.raises(NoRecipeError):
        decide(limited, replace(ASK, tags=("x",)), *THREE, context=spent)
    with pytest.raises(BudgetError):
        decide(limited, ASK, *THREE, context=spent)


@pytest.mark.parametrize(
    ("allowance", "error"),
    [
        (Allowance("daily", cost_usd=0.0, renews_s=42.0, whole_usd=0.0001), BudgetError),
        (Allowance("daily", cost_usd=0.0, renews_s=42.0, whole_usd=0.00009), NoRecipeError),
        (Allowance("daily", work_s=0.0, renews_s=42.0, whole_work_s=0.1), BudgetError),
        (Allowance("daily", work_s=0.0, renews_s=42.0, whole_work_s=0.09), NoRecipeError),
        (Allowance("daily", cost_usd=0.00009), NoRecipeError),
    ],
)
def test_what_no_whole_budget_pays_is_refused_for_good(allowance: Allowance, error: type[Exception]) -> None:
    """A budget that is too small even when unused (the cheapest recipe takes $0.0001 and .1 s) is nothing to wait for,
    also where the queue is too long, too."""
    made = policy("limits: {latency_s: 5}\n" + QUALITY)
    for queue_s, wanted in ((0.0, error), (10.0, OverloadedError if error is BudgetError else NoRecipeError)):
        fleet = [replace(e, queue_s=queue_s, latency_s=e.latency_s + queue_s) for e in THREE]
        with pytest.raises(wanted) as caught:
            decide(made, ASK, *fleet, context=Context(allowances=(allowance,)))
        assert type(caught.value) is wanted


# ---------------------------------------------------------------------------------------------------------- explore

CURIOUS = policy(QUALITY + "explore: {rate: 0.3}\n")


def test_exploration_draws_with_the_stated_propensity() -> None:
    """Over a fine grid of draws every recipe comes up as often as its propensity says."""
    grid = 3000
    decisions = [decide(CURIOUS, ASK, *THREE, context=Context(draw=(k + 0.5) / grid)) for k in range(grid)]
    for name in ("draft", "standard", "premium"):
        of_it = [decision for decision in decisions if decision.recipe == name]
        assert {round(decision.propensity, 9) for decision in of_it} == {0.8 if name == "premium" else 0.1}
        assert len(of_it) / grid == pytest.approx(of_it[0].propensity, abs=0.001)
    assert sum(decision.explored for decision in decisions) / grid == pytest.approx(0.3, abs=0.001)


def test_exploration_keeps_to_its_pool_and_to_the_gates() -> None:
    """Only recipes of the pool that may run are drawn; with none of them, nothing is left to chance."""
    made = policy("limits: {latency_s: 2}\n" + QUALITY + "explore: {rate: 1, among: [draft, premium]}\n")
    drawn = [decide(made, ASK, *THREE, context=Context(draw=k / 10)) for k in range(10)]
    assert {decision.recipe for decision in drawn} == {"draft"}
    only = decide(made, ASK, THREE[1], context=Context(draw=0.0))
    assert (only.recipe, only.propensity) == ("standard", 1.0)


@pytest.mark.parametrize(
    ("request_", "context"), [(ASK, Context()), (replace(ASK, recipe="premium"), Context(draw=0.0))]
)
def test_no_chance_where_none_is_wanted(request_: GenerationRequest, context: Context) -> None:
    """Without a draw, or with a recipe asked for by name, the decision is certain."""
    decision = decide(CURIOUS, request_, *THREE, context=context)
    assert (decision.recipe, decision.propensity, decision.explored) == ("premium", 1.0, False)


@pytest.mark.parametrize("bound", ["reject_after_s: 15", "degrade_after_s: 15, degrade_to: [draft]"])
def test_nothing_is_explored_that_overload_would_not_let_wait(bound: str) -> None:
    """Chance never takes a recipe that waits longer than overload allows; the others share its part of the rate."""
    made = policy(QUALITY + f"explore: {{rate: 0.5}}\noverload: {{{bound}}}\n")
    fleet = waiting(15, 190, 0)
    drawn = [decide(made, ASK, *fleet, context=Context(draw=(k + 0.5) / 100)) for k in range(100)]
    assert {(d.recipe, round(d.propensity, 9)) for d in drawn} == {("draft", 0.25), ("premium", 0.75)}
    assert chances(made, (), {e.recipe: e for e in fleet}) == {"draft": 0.25, "standard": 0.0, "premium": 0.75}


# ---------------------------------------------------------------------------------------------------------- budgets


def test_budget_rejects_what_it_cannot_pay() -> None:
    """A recipe beyond what the tenant has left is out, with the amounts and the time of renewal."""
    context = Context(allowances=(Allowance("daily", cost_usd=0.002, renews_s=30.0),))
    decision = decide(policy(), replace(ASK, tenant="acme"), *THREE, context=context)
    assert decision.recipe == "standard"
    (out,) = decision.rejected
    assert out.gate == "budget"
    assert out.reason == "$0.004, but tenant 'acme' has $0.002 left of 'daily'; more in 30 s"


def test_an_exhausted_budget_is_its_own_error() -> None:
    """If only the budget stands in the way, the error says when to come back."""
    context = Context(allowances=(Allowance("daily", work_s=0.0, renews_s=42.0),))
    with pytest.raises(BudgetError, match="the tenant without a name has 0 s left of 'daily'") as caught:
        decide(policy(), ASK, *THREE, context=context)
    assert caught.value.retry_after_s == 42.0
    with pytest.raises(BudgetError):
        decide(policy(), replace(ASK, recipe="draft"), *THREE, context=context)
    with pytest.raises(NoRecipeError):
        decide(policy(), replace(ASK, max_cost_usd=0.0), *THREE)


# ----------------------------------------------------------------------------------------------------- verification


def checked(rest: str) -> Policy:
    return policy("objective: {minimise: cost_usd}\nverify: {scorer: alignment, accept_above: 0.6, " + rest + "}\n")


def test_verification_is_part_of_the_decision() -> None:
    """The scorer, the bar and the recipes to try are decided before anything runs, and told."""
    decision = decide(checked("escalate_to: [standard, premium]"), ASK, *THREE)
    assert decision.recipe == "draft"
    assert decision.verify is not None
    assert decision.verify.escalate_to == ("standard", "premium")
    assert "below, standard, then premium is tried" in decision.reasons[-1]


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("retry: 2", "accepted from 0.6 by alignment; each up to 2 times again"),
        ("escalate_to: [premium], retry: 1", "below, premium is tried; each up to 1 times again"),
        ("escalate_to: [premium]", "accepted from 0.6 by alignment; below, premium is tried"),
    ],
)
def test_what_is_tried_is_told(rest: str, says: str) -> None:
    """The bar, then the recipes, then how often again; what there is none of is not mentioned."""
    words = decide(checked(rest), ASK, *THREE).reasons[-1]
    assert words.endswith(says) and "nothing is tried" not in words


def test_if_nothing_else_fits_it_is_told_that_nothing_is_tried() -> None:
    """A recipe asked for by name is only looked at."""
    words = decide(checked("retry: 2"), replace(ASK, recipe="draft"), *THREE).reasons[-1]
    assert words.endswith("accepted from 0.6 by alignment; nothing is tried below")


@pytest.mark.parametrize("faster", [1.0, 10.0, 1000.0])
def test_a_price_per_try_is_the_same_on_fast_and_slow_models(faster: float) -> None:
    """With `quality_per_try` another picture of the chosen recipe costs so much quality, however long it takes."""
    keys = "scorer: alignment, by: expected_gain, retry: 1, quality_per_try: 0.04"
    text = f"objective: {{cheapest_within: 1}}\nverify: {{{keys}}}\n"
    fleet = [replace(e, work_s=e.work_s / faster, latency_s=e.latency_s / faster) for e in THREE]
    verify = decide(policy(text), replace(ASK, n=2), *[replace(e, work_s=2 * e.work_s) for e in fleet]).verify
    assert verify is not None
    assert verify.prices.per_s * fleet[0].work_s == pytest.approx(0.04)
    assert verify.prices.per_usd == 0


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("{uncertainty_above: 0.1}", True),
        ("{uncertainty_above: 0.3}", False),
        ("{quality_below: 0.7}", True),
        ("{quality_below: 0.5}", False),
        ("{all: [{tag: x}, {uncertainty_above: 0.1}]}", False),
        ("{not: {tag: x}}", True),
    ],
)
def test_verification_where_it_is_wanted(when: str, expected: bool) -> None:
    """Conditions of verify may ask about the chosen recipe's estimate."""
    unsure = replace(THREE[0], quality=Quality(0.6, 0.2))
    decision = decide(checked(f"when: {when}"), ASK, unsure, *THREE[1:])
    assert (decision.verify is not None) is expected


def test_escalation_stays_within_limits_and_budgets() -> None:
    """What would go over a limit together with what ran before is not tried; nor is what rules or limits reject."""
    made = checked("escalate_to: [premium, standard]")
    assert _ladder(made, replace(ASK, max_cost_usd=0.0012)) == ("standard",)
    assert _ladder(made, replace(ASK, max_cost_usd=0.0041)) == ("premium",)
    assert _ladder(made, replace(ASK, latency_budget_s=3.5)) == ("premium",)
    left = Context(allowances=(Allowance("b", cost_usd=0.0043),))
    assert _ladder(made, ASK, left) == ("premium",)
    assert _ladder(made, replace(ASK, recipe="draft")) == ()


def _ladder(made: Policy, request: GenerationRequest, context: Context | None = None) -> tuple[str, ...]:
    decision = decide(made, request, *THREE, **({"context": context} if context else {}))
    assert decision.verify is not None
    return decision.verify.escalate_to


# ----------------------------------------------------------------------------------------------------------- shares


def test_shares_are_stable_and_about_right() -> None:
    """The same tenant is always on one side, a larger share contains a smaller one, and shares are about kept."""
    small, large = SplitSpec(policy="next", share=0.1), SplitSpec(policy="next", share=0.4)
    requests = [GenerationRequest("a red circle", seed=k, tenant=f"t{k}") for k in range(2000)]
    inside = [falls_in(small, "main", request) for request in requests]
    assert 0.07 < sum(inside) / len(inside) < 0.13
    assert all(falls_in(large, "main", r) for r, is_in in zip(requests, inside, strict=True) if is_in)
    assert inside == [falls_in(small, "main", replace(r, prompt="another", seed=1)) for r in requests]
    assert all(falls_in(SplitSpec(policy="next", share=1), "main", request) for request in requests)
