"""Where one answer becomes another: every bound at its value, just below and just above, and in words."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from policies.deciding.conditions import describe
from policies.deciding.objectives import priced
from policies.deciding.reasons import compared, dollars, expected, seconds, times
from policies.deciding.splits import falls_in
from policies.language.schema import SplitSpec
from policies.language.schema_choice import Objective
from policies.language.schema_rules import Condition
from router.errors import BudgetError, NoRecipeError, OverloadedError
from router.types import Allowance, Context, Estimate, GenerationRequest, Prices, Quality, Rejection
from tests.policies.values import QUALITY, decide, estimate, plan, policy, view

ASK = GenerationRequest("a red circle")
ONE = Estimate("draft", Quality(0.5, 0.1), 2.0, 0.0, 2.0, 0.01)


def refused(rest: str, request: GenerationRequest, one: Estimate, **more: object) -> str:
    """Why the only recipe is refused."""
    with pytest.raises((NoRecipeError, OverloadedError, BudgetError)) as caught:
        decide(policy(rest + QUALITY), request, one, **more)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0999, "0.1 s"), (9.94, "9.9 s"), (10.0, "10 s"), (12.4, "12 s"), (99.6, "100 s")],
)
def test_seconds_have_two_digits_or_none_after_the_point(value: float, said: str) -> None:
    """Below ten two digits, from ten on whole seconds."""
    assert seconds(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "$0"), (0.00002, "$0.00002"), (0.0000999, "$0.0000999"), (0.0001, "$0.0001"), (0.00123, "$0.0012"),
        (0.0994, "$0.099"), (0.1, "$0.10"), (12.345, "$12.35"), (3.0, "$3.00"),
    ],
)  # fmt: skip
def test_dollars_are_never_written_in_powers(value: float, said: str) -> None:
    """Cents from ten cents on, two digits below, and what is smaller as it is."""
    assert dollars(value) == said


def test_waiting_is_told_from_a_twentieth_of_a_second_on() -> None:
    """A shorter wait is not worth a word; and where an estimate comes from is told if it was not measured."""
    assert "waiting" not in expected(replace(ONE, queue_s=0.0499))
    assert "of which 0.05 s waiting" in expected(replace(ONE, queue_s=0.05))
    assert "composed from its parts" in expected(replace(ONE, quality=Quality(0.5, 0.1, "composed")))
    assert "(" not in expected(ONE)


def test_a_comparison_leaves_out_what_has_no_ratio() -> None:
    """Without cost or seconds of its own there is no multiple to tell; what is gained can be negative."""
    other = Estimate("premium", Quality(0.4, 0.1), 2.0, 0.0, 6.0, 0.03)
    assert compared(ONE, other, "the best") == "the best, premium, has 0.10 less quality for 3 times the cost and time"
    free = replace(ONE, cost_usd=0.0)
    assert compared(free, other, "the best") == "the best, premium, has 0.10 less quality for 3 times the time"
    at_once = replace(free, latency_s=0.0)
    assert compared(at_once, other, "the best") == "the best, premium, has 0.10 less quality"
    assert compared(ONE, ONE, "the best").endswith("has the same quality for the same cost and time")


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (0.0009, "less than 0.1 % of the"),
        (0.001, "0.1 % of the"),
        (0.088, "8.8 % of the"),
        (0.94, "94 % of the"),
        (0.95, "the same"),
        (1.04, "the same"),
        (1.05, "1.1 times the"),
        (99.4, "99 times the"),
        (1234.0, "1234 times the"),
    ],
)
def test_a_ratio_is_told_as_a_person_would(ratio: float, told: str) -> None:
    """A share below one, a multiple above, neither where there is no difference to speak of."""
    assert times(ratio) == told


def test_the_reasons_compare_with_the_best_where_another_was_taken() -> None:
    """The first of the ranking is compared with the next best; what was taken in its place, with the best."""
    fleet = estimate("draft", 0.6, 0.1, 0.0001), estimate("premium", 0.8, 3.0, 0.004)
    assert "the next best, draft, " in " ".join(decide(policy(), ASK, *fleet).reasons)
    explored = policy(QUALITY + "explore: {rate: 0.2, among: [draft]}\n")
    assert "the best, premium, " in " ".join(decide(explored, ASK, *fleet, context=Context(draw=0.1)).reasons)
    assert len(decide(policy(), ASK, fleet[0]).reasons) == 2


@pytest.mark.parametrize("part", ["mean", "std", "latency_s", "work_s", "cost_usd"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_no_part_of_an_estimate_may_be_infinite_or_no_number(part: str, value: float) -> None:
    """One broken number of five is enough to leave a recipe out."""
    broken = replace(ONE, quality=replace(ONE.quality, **{part: value})) if part in ("mean", "std") else (
        replace(ONE, **{part: value})
    )  # fmt: skip
    assert "its estimate is not a number" in refused("", ASK, broken)


@pytest.mark.parametrize(
    ("limits", "request_", "ok"),
    [
        ("latency_s: 2", {}, True),
        ("latency_s: 1.99", {}, False),
        ("work_s: 2", {}, True),
        ("work_s: 1.99", {}, False),
        ("cost_usd: 0.01", {}, True),
        ("cost_usd: 0.0099", {}, False),
        ("max_pixels: 262144", {}, True),
        ("max_pixels: 262143", {}, False),
        ("latency_s: 100", {"latency_budget_s": 2.0}, True),
        ("latency_s: 100", {"latency_budget_s": 1.99}, False),
        ("latency_s: 1.99", {"latency_budget_s": 100.0}, False),
        ("cost_usd: 100", {"max_cost_usd": 0.01}, True),
        ("cost_usd: 100", {"max_cost_usd": 0.0099}, False),
        ("cost_usd: 0.0099", {"max_cost_usd": 100.0}, False),
    ],
)
def test_a_limit_is_kept_at_its_value_and_not_above(limits: str, request_: dict[str, float], ok: bool) -> None:
    """Of the policy's limit and the request's budget the tighter one binds; at the very bound a recipe is in."""
    rest = f"limits: {{{limits}}}\n"
    if ok:
        assert decide(policy(rest + QUALITY), replace(ASK, **request_), ONE).recipe == "draft"  # type: ignore[arg-type]
    else:
        assert "over" in refused(rest, replace(ASK, **request_), ONE)  # type: ignore[arg-type]


def test_of_equal_bounds_the_policy_is_named() -> None:
    """When policy and request allow the same, it is the policy's limit that is told; else the tighter one's owner."""
    rest = "limits: {latency_s: 1, cost_usd: 0.001}\n"
    same = refused(rest, replace(ASK, latency_budget_s=1.0, max_cost_usd=0.001), ONE)
    assert same.count("the limit of policy 'test'") == 2 and "the request's" not in same
    tighter = refused(rest, replace(ASK, latency_budget_s=0.5, max_cost_usd=0.0005), ONE)
    assert "the request's latency_budget_s, 0.5 s" in tighter and "the request's max_cost_usd, $0.0005" in tighter
    assert "expected work of 2 s, over the limit of policy 'test', 1 s" in refused("limits: {work_s: 1}\n", ASK, ONE)


@pytest.mark.parametrize(
    ("queue_s", "limit_s", "crowded"),
    [(1.0, 1.0, True), (1.0, 0.99, False), (0.5, 1.5, True), (0.0, 1.0, False), (2.0, 0.5, True)],
)
def test_what_waiting_alone_makes_too_late_may_come_back(queue_s: float, limit_s: float, crowded: bool) -> None:
    """If the seconds that are too many are at most those of waiting, it is overload, with these seconds to wait."""
    rest, one = f"limits: {{latency_s: {limit_s}}}\n" + QUALITY, replace(ONE, queue_s=queue_s)
    with pytest.raises(OverloadedError if crowded else NoRecipeError) as caught:
        decide(policy(rest), ASK, one)
    if crowded:
        assert caught.value.retry_after_s == pytest.approx(2.0 - limit_s)  # type: ignore[attr-defined]
    with pytest.raises(NoRecipeError):  # no waiting makes it cheaper
        decide(policy(f"limits: {{latency_s: {limit_s}, cost_usd: 0.001}}\n" + QUALITY), ASK, one)


def test_a_budget_pays_up_to_what_is_left_and_tells_the_first_that_is_short() -> None:
    """At exactly what is left a recipe is in; beyond both dollars and seconds, the dollars are told, and when there is
    more."""
    left = Allowance("b", 2.0, 0.01, 30.0, 100.0, 5.0)
    assert decide(policy(), ASK, ONE, context=Context(allowances=(left,))).recipe == "draft"
    short = Context(allowances=(replace(left, work_s=1.0, cost_usd=0.005),))
    told = refused("", replace(ASK, tenant="ann"), ONE, context=short)
    assert "$0.01, but tenant 'ann' has $0.005 left of 'b'; more in 30 s" in told and "2 s, but" not in told
    told = refused("", ASK, ONE, context=Context(allowances=(replace(left, work_s=1.0),)))
    assert "2 s, but the tenant without a name has 1 s left of 'b'; more in 30 s" in told
    told = refused("", ASK, ONE, context=Context(allowances=(replace(left, cost_usd=-1.0, renews_s=0.0),)))
    assert "has $0 left of 'b'" in told and "more in" not in told


@pytest.mark.parametrize(
    ("allowance", "error"),
    [
        (Allowance("b", None, 0.001, 30.0, None, 0.01), BudgetError),  # the whole is just enough
        (Allowance("b", None, 0.001, 30.0, None, 0.0099), NoRecipeError),  # never
        (Allowance("b", 1.0, None, 30.0, 2.0, None), BudgetError),
        (Allowance("b", 1.0, None, 30.0, 1.99, None), NoRecipeError),
        (Allowance("b", None, 0.001, 0.0, None, None), NoRecipeError),  # nothing of it is used, so no more will come
        (Allowance("b", None, 0.001, 30.0, None, None), BudgetError),
    ],
)
def test_a_budget_is_waited_for_only_if_the_whole_of_it_would_do(allowance: Allowance, error: type[Exception]) -> None:
    """Whether it is worth coming back depends on the whole of the budget, at its value."""
    with pytest.raises(error) as caught:
        decide(policy(), ASK, ONE, context=Context(allowances=(allowance,)))
    if error is BudgetError:
        assert caught.value.retry_after_s == 30.0  # type: ignore[attr-defined]


def test_one_comes_back_after_the_budget_that_renews_last() -> None:
    """The longest of the waits, at least a second; of queues, the shortest."""
    allowances = tuple(Allowance("b", None, 0.001, after, None, 5.0) for after in (0.2, 40.0, 7.0))
    with pytest.raises(BudgetError) as caught:
        decide(policy(), ASK, ONE, context=Context(allowances=allowances))
    assert caught.value.retry_after_s == 40.0
    with pytest.raises(BudgetError) as caught:
        decide(policy(), ASK, ONE, context=Context(allowances=allowances[:1]))
    assert caught.value.retry_after_s == 1.0
    late = {"draft": 3.0, "premium": 2.5}
    fleet = [replace(ONE, recipe=name, queue_s=2.0, latency_s=latency_s) for name, latency_s in late.items()]
    with pytest.raises(OverloadedError) as overload:
        decide(policy("limits: {latency_s: 2}\n" + QUALITY), ASK, *fleet)
    assert overload.value.retry_after_s == pytest.approx(0.5)


def test_five_reasons_are_listed_and_the_rest_counted() -> None:
    """Of seven refusals five are told and two counted; of five none is; without any, that nothing was planned."""
    recipes = "recipes:\n" + "".join(f"  r{k}: {{generate: {{model: sd15}}}}\n" for k in range(7))
    for count in (5, 6, 7):
        said = tuple(Rejection(f"r{k}", "capability", f"reason {k}") for k in range(count))
        with pytest.raises(NoRecipeError) as caught:
            decide(policy(recipes=recipes), ASK, refused=said)
        assert str(caught.value).count("reason") == 5
        assert (f"and {count - 5} more" in str(caught.value)) is (count > 5)
    with pytest.raises(NoRecipeError, match="none of its recipes was planned"):
        decide(policy(recipes=recipes), ASK)


def test_a_pinned_recipe_is_alone_and_told_of_rules_that_would_exclude_it() -> None:
    """Asked for by name, no other is in; rules do not apply, but what they would do is told; what they set counts."""
    fleet = estimate("draft", 0.6), estimate("premium", 0.8)
    made = policy(
        QUALITY + "rules:\n- {name: a, when: {tag: x}, never: [draft]}\n- {name: b, when: {tag: x}, only: [premium]}\n"
        "- {name: c, when: {tag: x}, prefer: [premium]}\n- {name: d, when: {tag: x}, set: {limits: {latency_s: 50}}}\n"
    )
    decision = decide(made, replace(ASK, recipe="draft", tags=("x",)), *fleet)
    assert decision.rules == ("d",)
    text = " ".join(decision.reasons)
    assert "rule 'a' (tagged 'x') would exclude it" in text and "rule 'b' (tagged 'x') would exclude it" in text
    assert "rule 'c'" not in text and "draft was asked for by name" in text
    assert [(r.recipe, r.gate) for r in decision.rejected] == [("premium", "pinned")]


@pytest.mark.parametrize(("utility", "words"), [(0.01, False), (0.0099, True)])
def test_best_under_says_so_when_nothing_stays_under(utility: float, words: bool) -> None:
    """At the bound it is under; above, the nearest is taken and that is told."""
    decision = decide(policy(f"objective: {{best_under: {{cost_usd: {utility}}}}}\n"), ASK, ONE)
    assert ("nothing stays under, so the nearest" in " ".join(decision.reasons)) is words
    assert decision.ranking[0].utility == (0.5 if not words else pytest.approx(1 - 0.01 / 0.0099))


def test_the_fastest_above_a_bar_reaches_it_at_its_value() -> None:
    """Who has exactly the quality is fast enough to count; who has less is told not to reach it."""
    fleet = estimate("draft", 0.7, 1.0), estimate("premium", 0.9, 3.0)
    decision = decide(policy("objective: {fastest_above: 0.7}\n"), ASK, *fleet)
    assert decision.recipe == "draft" and "no recipe is expected to reach it" not in " ".join(decision.reasons)
    assert {r.recipe: r.utility for r in decision.ranking} == {"draft": 0.5, "premium": 0.25}
    low = decide(policy("objective: {fastest_above: 0.95}\n"), ASK, *fleet)
    assert low.recipe == "premium" and "no recipe is expected to reach it" in " ".join(low.reasons)
    assert low.ranking[0].utility == pytest.approx(-0.05)


def test_a_lexicographic_utility_counts_what_was_passed() -> None:
    """One for every criterion, and between 0 and 1 for the last one's gain: .5 + gain / 2 (1 + |gain|)."""
    fleet = estimate("draft", 0.7, 1.0), estimate("standard", 0.75, 3.0), estimate("premium", 0.9, 2.0)
    made = policy("objective: {lexicographic: [{by: quality, within: 0.2}, {by: latency_s}]}\n")
    decision = decide(made, ASK, *fleet)
    assert {r.recipe: round(r.utility, 6) for r in decision.ranking} == {
        "draft": round(2 + 0.5 - 1.0 / 4.0, 6), "standard": 1.0, "premium": 1.0,
    }  # fmt: skip
    assert "best by quality (within 0.2), then latency_s" in " ".join(decision.reasons)


def test_prices_are_as_said_or_the_weights_of_the_objective_or_nothing() -> None:
    """What verification says counts before the objective's weight, also when it says 0."""
    weighted = Objective(maximise="quality", weight={"latency_s": 0.1, "cost_usd": 2.0})  # type: ignore[arg-type]
    assert priced(weighted, None, None) == Prices(0.1, 2.0)
    assert priced(weighted, 0.0, 5.0) == Prices(0.0, 5.0)
    assert priced(None, None, 3.0) == Prices(0.0, 3.0)
    assert priced(Objective(maximise="quality"), 1.0, None) == Prices(1.0, 0.0)


@pytest.mark.parametrize(
    ("during", "when", "holds_"),
    [
        ("{from: '09:00', to: '17:00'}", (2, 9, 0), True),
        ("{from: '09:00', to: '17:00'}", (2, 8, 59), False),
        ("{from: '09:00', to: '17:00'}", (2, 16, 59), True),
        ("{from: '09:00', to: '17:00'}", (2, 17, 0), False),
        ("{from: '22:00', to: '06:00'}", (2, 22, 0), True),
        ("{from: '22:00', to: '06:00'}", (2, 5, 59), True),
        ("{from: '22:00', to: '06:00'}", (2, 6, 0), False),
        ("{from: '22:00', to: '06:00'}", (2, 21, 59), False),
        ("{from: '18:00', to: '00:00'}", (2, 23, 59), True),
        ("{from: '18:00', to: '00:00'}", (2, 0, 0), False),
        ("{from: '22:00', to: '06:00', days: [mon]}", (3, 5, 0), True),  # the night of Monday ends on Tuesday
        ("{from: '22:00', to: '06:00', days: [mon]}", (2, 5, 0), False),
        ("{from: '22:00', to: '06:00', days: [mon]}", (2, 23, 0), True),
        ("{from: '09:00', to: '17:00', days: [tue]}", (2, 10, 0), False),
        ("{from: '09:00', to: '17:00', days: [tue]}", (3, 10, 0), True),
    ],
)
def test_hours_begin_at_their_first_minute_and_end_before_their_last(
    during: str, when: tuple[int, int, int], holds_: bool
) -> None:
    """A window holds from its first minute to the one before its end; one over midnight belongs to the day on which it
    began. The second of February 2026 is a Monday."""
    day, hour, minute = when
    made = policy(QUALITY + f"rules: [{{name: r, when: {{during: {during}}}, prefer: [draft]}}]\n")
    now = Context(now=datetime(2026, 2, day, hour, minute, tzinfo=UTC))
    assert decide(made, ASK, ONE, context=now).rules == (("r",) if holds_ else ())
    assert decide(made, ASK, ONE).rules == ()


@pytest.mark.parametrize(
    ("condition", "seen", "holds_"),
    [
        ("{signal: counting, above: 0.5}", 0.5, False),
        ("{signal: counting, below: 0.5}", 0.5, False),
        ("{signal: counting, above: 0.5}", 0.51, True),
        ("{signal: counting, below: 0.5}", 0.49, True),
        ("{signal: counting, below: 0.5}", math.nan, False),
        ("{signal: counting, above: 0.5}", math.nan, False),
    ],
)
def test_a_signal_is_above_or_below_and_never_at(condition: str, seen: float, holds_: bool) -> None:
    """At the bound itself neither holds, and what is no number is on neither side."""
    made = policy(QUALITY + f"rules: [{{name: r, when: {condition}, prefer: [draft]}}]\n")
    assert decide(made, ASK, ONE, view=view(counting=seen)).rules == (("r",) if holds_ else ())


@pytest.mark.parametrize(
    ("condition", "width", "height", "holds_"),
    [
        ("{min_side: 512}", 512, None, True),
        ("{min_side: 512}", None, 512, True),
        ("{min_side: 512}", 511, 100, False),
        ("{max_side: 512}", 512, 100, True),
        ("{max_side: 512}", 100, 513, False),
        ("{max_side: 512}", None, 1, True),
        ("{max_side: 512}", None, None, False),
    ],
)
def test_sides_are_judged_by_the_longer_one(
    condition: str, width: int | None, height: int | None, holds_: bool
) -> None:
    """The bound itself is within; of two sides the longer one counts, of none nothing is said."""
    made = policy(QUALITY + f"rules: [{{name: r, when: {condition}, prefer: [draft]}}]\n")
    assert decide(made, replace(ASK, width=width, height=height), ONE).rules == (("r",) if holds_ else ())


@pytest.mark.parametrize(
    ("when", "quality", "holds_"),
    [
        ("{quality_below: 0.5}", Quality(0.5, 0.1), False),
        ("{quality_below: 0.5}", Quality(0.49, 0.1), True),
        ("{uncertainty_above: 0.1}", Quality(0.5, 0.1), False),
        ("{uncertainty_above: 0.1}", Quality(0.5, 0.11), True),
        ("{familiarity_below: 0.4}", Quality(0.5, 0.1), False),
        ("{familiarity_below: 0.41}", Quality(0.5, 0.1), True),
        ("{quality_below: 0}", Quality(0.0, 0.1), False),  # a bound of nothing is a bound
        ("{familiarity_below: 0}", Quality(0.5, 0.1), False),
        ("{uncertainty_above: 0}", Quality(0.5, 0.01), True),
        ("{uncertainty_above: 0}", Quality(0.5, 0.0), False),
    ],
)
def test_what_is_verified_lies_beyond_the_bound(when: str, quality: Quality, holds_: bool) -> None:
    """A picture is checked below, not at, the quality or the familiarity, and above, not at, the uncertainty."""
    made = policy(QUALITY + f"verify: {{scorer: alignment, accept_above: 0.5, when: {when}, retry: 1}}\n")
    seen = replace(view(), familiarity=0.4)
    assert (decide(made, ASK, replace(ONE, quality=quality), view=seen).verify is not None) is holds_


def test_all_and_any_tell_every_fact_that_holds() -> None:
    """The words of a compound are those of its parts; what it negates is described."""
    both = "{all: [{tag: a}, {any: [{tag: b}, {tag: c}, {tag: d}]}, {not: {any: [{tag: z}, {min_side: 9000}]}}]}"
    made = policy(QUALITY + f"rules: [{{name: r, when: {both}, prefer: [draft]}}]\n")
    reasons = decide(made, replace(ASK, tags=("a", "b", "d")), ONE).reasons
    fact = "tagged 'a' and tagged 'b' and tagged 'd' and not any of (tag z, min_side 9000)"
    assert f"rule 'r' applied ({fact}): it prefers draft" in reasons
    during = Condition.model_validate({"during": {"from": "09:00", "to": "17:00", "days": ["mon", "tue"]}})
    assert describe(during) == "during 09:00 to 17:00 on mon, tue (UTC)"
    assert describe(Condition.model_validate({"not": {"tag": "x"}})) == "(not tag x)"


def test_a_share_is_of_tenants_or_else_of_prompts() -> None:
    """The whole contains everyone, half of it about half, and a tenant is in whatever it asks for."""
    whole, half = SplitSpec(policy="b", share=1.0), SplitSpec(policy="b", share=0.5)
    asks = [GenerationRequest(f"prompt {k}") for k in range(400)]
    assert all(falls_in(whole, "a", ask) for ask in asks)
    assert 160 < sum(falls_in(half, "a", ask) for ask in asks) < 240
    assert sum(falls_in(half, "a", ask) != falls_in(half, "c", ask) for ask in asks) > 100
    assert len({falls_in(half, "a", replace(ask, tenant="ann")) for ask in asks}) == 1
    # Pinned, so that no other version of the program moves clients between policies.
    assert [falls_in(half, "a", ask) for ask in asks[:8]] == [True, False, True, False, False, True, False, False]


def test_what_is_left_out_of_a_policys_digest_does_not_tell_two_apart() -> None:
    """Policies are equal if all that decides is equal, wherever their files say it and whatever was unchecked."""
    one = policy()
    assert one == replace(one, places={"x": (1, 2)}, unchecked=("much",))
    assert one != replace(one, description="another")
    assert decide(one, ASK, ONE, plans={"draft": plan("draft")}).policy_digest == one.digest
