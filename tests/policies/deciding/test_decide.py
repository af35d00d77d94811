"""The choice: gates, rules, objectives, reasons."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from policies import PRESETS, load_policy, load_policy_text
from policies.deciding.reasons import compared
from router.errors import NoRecipeError, NotFoundError
from router.types import Decision, Estimate, GenerationRequest, Quality, Rejection
from tests.policies.values import HEAD, QUALITY, RECIPES, decide, estimate, plan, policy, view

ASK = GenerationRequest("a red circle")
THREE = (
    estimate("draft", 0.6, 0.1, 0.0001),
    estimate("standard", 0.8, 1.0, 0.001),
    estimate("premium", 0.82, 3.0, 0.004),
)


def gates(decision: Decision) -> dict[str, str]:
    return {rejection.recipe: rejection.gate for rejection in decision.rejected}


# ------------------------------------------------------------------------------------------------------- objectives


@pytest.mark.parametrize(
    ("objective", "chosen"),
    [
        ("{maximise: quality}", "premium"),
        ("{maximise: quality, weight: {cost_usd: 20}}", "standard"),
        ("{maximise: quality, weight: {cost_usd: 20, latency_s: 0.3}}", "draft"),
        ("{cheapest_within: 0.05}", "standard"),
        ("{cheapest_within: 0}", "premium"),
        ("{cheapest_within: 0.5}", "draft"),
        ("{fastest_above: 0.7}", "standard"),
        ("{fastest_above: 0.95}", "premium"),
        ("{minimise: cost_usd}", "draft"),
        ("{minimise: latency_s}", "draft"),
    ],
)
def test_objective_chooses(objective: str, chosen: str) -> None:
    """Each objective picks the recipe that its words promise, and ranks all by falling utility."""
    decision = decide(policy(f"objective: {objective}\n"), ASK, *THREE)
    assert decision.recipe == decision.ranking[0].recipe == chosen
    utilities = [ranked.utility for ranked in decision.ranking]
    assert utilities == sorted(utilities, reverse=True)
    assert len(utilities) == 3


def test_weighted_utility_is_the_stated_sum() -> None:
    """The utility is expected quality minus weight times value."""
    decision = decide(policy("objective: {maximise: quality, weight: {cost_usd: 8, latency_s: 0.02}}\n"), ASK, *THREE)
    ranked = {r.recipe: r.utility for r in decision.ranking}
    assert ranked["standard"] == pytest.approx(0.8 - 8 * 0.001 - 0.02 * 1.0)


def test_unreachable_quality_is_admitted() -> None:
    """When no recipe is expected to reach the bar, the best one is taken and the reasons say so."""
    decision = decide(policy("objective: {fastest_above: 0.95}\n"), ASK, *THREE)
    assert decision.recipe == "premium"
    assert any("no recipe is expected to reach it" in reason for reason in decision.reasons)


def test_ties_go_to_the_cheaper_then_the_name() -> None:
    """Equal utility is settled by cost, and equal cost by the alphabet."""
    same = [estimate(name, 0.8, 1.0, 0.001) for name in ("standard", "premium", "draft")]
    assert decide(policy(), ASK, *same).recipe == "draft"
    cheaper = replace(same[0], cost_usd=0.0005)
    assert decide(policy(), ASK, cheaper, *same[1:]).recipe == "standard"


# ------------------------------------------------------------------------------------------------------------ gates


def test_limits_of_policy_and_request_gate() -> None:
    """The tighter of a policy's limit and a request's budget rejects, and is the one that is named."""
    limited = policy("limits: {latency_s: 2, cost_usd: 0.01}\n" + QUALITY)
    by_policy = decide(limited, ASK, *THREE)
    assert gates(by_policy) == {"premium": "limit"}
    assert "3 s, over the limit of policy 'test', 2 s" in by_policy.rejected[0].reason
    tight = replace(ASK, latency_budget_s=0.5)
    by_request = decide(limited, tight, *THREE)
    assert gates(by_request) == {"premium": "request", "standard": "request"}
    assert "the request's latency_budget_s, 0.5 s" in by_request.rejected[0].reason
    loose = replace(ASK, latency_budget_s=50.0)
    assert gates(decide(limited, loose, *THREE)) == {"premium": "limit"}
    cheap = replace(ASK, max_cost_usd=0.0005)
    assert decide(limited, cheap, *THREE).recipe == "draft"


def test_several_broken_limits_are_all_told() -> None:
    """A recipe that breaks two limits says both, so that the remedy works the first time."""
    decision = decide(policy(), replace(ASK, latency_budget_s=0.5, max_cost_usd=0.0005), *THREE)
    reason = next(r.reason for r in decision.rejected if r.recipe == "premium")
    assert "latency_budget_s" in reason
    assert "max_cost_usd" in reason


def test_pixels_gate() -> None:
    """A plan with more pixels than the policy allows is out, whatever it costs."""
    limited = policy("limits: {max_pixels: 1000000}\n" + QUALITY)
    decision = decide(limited, ASK, *THREE, plans={"premium": plan("premium", 1024, 1024)})
    assert gates(decision) == {"premium": "limit"}
    assert "1024x1024 has 1048576 pixels" in decision.rejected[0].reason


def test_refused_recipes_stay_refused() -> None:
    """A recipe that could not be planned keeps the planner's reason, even if estimates for it exist."""
    out = Rejection("premium", "capability", "flux is not deployed")
    decision = decide(policy(), ASK, *THREE, refused=(out,))
    assert out in decision.rejected
    assert decision.recipe == "standard"


def test_missing_and_broken_estimates_are_out() -> None:
    """A plan without an estimate, or with one that is not a number, is rejected and nothing crashes."""
    nan = Estimate("standard", Quality(math.nan, 0.1), 1, 0, 1, 0.001)
    decision = decide(policy(), ASK, THREE[0], nan, plans={"premium": plan("premium")})
    assert decision.recipe == "draft"
    assert gates(decision) == {"standard": "capability", "premium": "capability"}


def test_nothing_left_tells_everything() -> None:
    """If all recipes are out, the error carries each rejection with numbers."""
    with pytest.raises(NoRecipeError, match=r"draft: expected 0.1 s, over the request's latency_budget_s") as caught:
        decide(policy(), replace(ASK, latency_budget_s=0.01), *THREE)
    assert {r.recipe for r in caught.value.rejections} == {"draft", "standard", "premium"}
    with pytest.raises(NoRecipeError, match="none of its recipes was planned"):
        decide(policy(), ASK)


# ----------------------------------------------------------------------------------------------------------- pinned


def test_pinned_recipe_wins() -> None:
    """A recipe asked for by name is taken although others are better, and the others say why they are out."""
    decision = decide(policy(), replace(ASK, recipe="draft"), *THREE)
    assert decision.recipe == "draft"
    assert gates(decision) == {"standard": "pinned", "premium": "pinned"}
    assert "draft was asked for by name" in decision.reasons


def test_pinned_recipe_is_bound_by_limits() -> None:
    """A recipe asked for by name that breaks a limit is refused with the reason, and nothing replaces it."""
    with pytest.raises(NoRecipeError, match=r"recipe 'premium' cannot .* expected 3 s, over the limit of policy"):
        decide(policy("limits: {latency_s: 2}\n" + QUALITY), replace(ASK, recipe="premium"), *THREE)
    out = Rejection("premium", "capability", "flux is not deployed")
    with pytest.raises(NoRecipeError, match="flux is not deployed"):
        decide(policy(), replace(ASK, recipe="premium"), *THREE, refused=(out,))


def test_pinned_recipe_is_not_bound_by_rules() -> None:
    """A rule guides the choice; a recipe asked for by name is made, and the reasons mention the rule."""
    ruled = policy(QUALITY + "rules: [{name: no drafts, when: {tag: print}, never: [draft]}]\n")
    decision = decide(ruled, replace(ASK, recipe="draft", tags=("print",)), *THREE)
    assert decision.recipe == "draft"
    assert decision.rules == ()
    assert any("rule 'no drafts' (tagged 'print') would exclude it" in reason for reason in decision.reasons)


def test_model_from_outside_needs_its_name() -> None:
    """A single model that is no recipe of the policy runs only if the request names it."""
    flux = estimate("flux", 0.99, 0.01, 0.000001)
    assert decide(policy(), ASK, *THREE, flux).recipe == "premium"
    assert decide(policy(), replace(ASK, recipe="flux"), *THREE, flux).recipe == "flux"


def test_unknown_pinned_recipe() -> None:
    """A recipe that nobody knows is not found, with the nearest name."""
    with pytest.raises(NotFoundError, match="no recipe 'premum'; did you mean 'premium'"):
        decide(policy(), replace(ASK, recipe="premum"), *THREE)


# ------------------------------------------------------------------------------------------------------------ rules

HOLDS = [
    ("{tag: print}", True),
    ("{tag: web}", False),
    ("{min_side: 1536}", True),
    ("{min_side: 2000}", False),
    ("{max_side: 1536}", True),
    ("{max_side: 1024}", False),
    ("{signal: counting, above: 0.5}", True),
    ("{signal: counting, above: 0.7}", False),
    ("{signal: counting, below: 0.8}", True),
    ("{signal: counting, above: 0.5, below: 0.6}", False),
    ("{signal: unheard_of, above: 0.1}", False),
    ("{prompt_matches: '\\bPosters?\\b'}", True),
    ("{prompt_matches: '^poster'}", False),
    ("{familiarity_below: 0.5}", True),
    ("{familiarity_below: 0.3}", False),
    ("{not: {tag: web}}", True),
    ("{not: {tag: print}}", False),
    ("{any: [{tag: web}, {tag: print}]}", True),
    ("{any: [{tag: web}, {tag: wall}]}", False),
    ("{all: [{tag: print}, {not: {tag: web}}]}", True),
    ("{all: [{tag: print}, {tag: web}]}", False),
]


@pytest.mark.parametrize(("condition", "expected"), HOLDS)
def test_condition(condition: str, expected: bool) -> None:
    """A condition holds exactly when its fact is true of the request."""
    ruled = policy(QUALITY + f"rules: [{{name: r, when: {condition}, never: [premium]}}]\n")
    request = GenerationRequest("a poster with 3 cats", width=1536, height=640, tags=("print",))
    seen = replace(view(counting=0.7), prompt=request.prompt, familiarity=0.4)
    decision = decide(ruled, request, *THREE, view=seen)
    assert (decision.recipe == "standard") is expected
    assert decision.rules == (("r",) if expected else ())
    assert gates(decision) == ({"premium": "rule"} if expected else {})


def test_unknown_facts_hold_nothing() -> None:
    """A size that was not asked for and a nearness that was not judged make no condition true."""
    rules = (
        "rules: [{name: r, when: {any: [{max_side: 512}, {min_side: 16}, {familiarity_below: 1}]}, never: [premium]}]\n"
    )
    assert decide(policy(QUALITY + rules), ASK, *THREE).rules == ()


def test_rules_apply_in_the_order_of_the_file() -> None:
    """The first rule that puts a recipe out is the one that its rejection names."""
    rules = (
        "rules:\n- {name: b, when: {tag: x}, only: [draft, standard]}\n- {name: a, when: {tag: x}, never: [premium]}\n"
    )
    decision = decide(policy(QUALITY + rules), replace(ASK, tags=("x",)), *THREE)
    assert decision.rules == ("b", "a")
    assert "rule 'b' allows only draft, standard here (tagged 'x')" in decision.rejected[0].reason


def test_rules_that_leave_nothing() -> None:
    """Rules that contradict one another end in an error that names them."""
    rules = "rules:\n- {name: a, when: {tag: x}, only: [draft]}\n- {name: b, when: {tag: y}, never: [draft]}\n"
    with pytest.raises(NoRecipeError, match="rule 'b' excludes draft"):
        decide(policy(QUALITY + rules), replace(ASK, tags=("x", "y")), *THREE)


# ---------------------------------------------------------------------------------------------------------- reasons


def test_reasons_are_for_people() -> None:
    """The reasons tell quality with its uncertainty, seconds, dollars, and what the next best would change."""
    decision = decide(policy("objective: {cheapest_within: 0.05}\n"), ASK, *THREE)
    assert decision.reasons[0] == "standard: expected quality 0.80 ± 0.05, 1 s, $0.001"
    assert "cheapest within 0.05 of the best expected quality, 0.82" in decision.reasons[1]
    assert decision.reasons[2] == (
        "the next best, premium, has 0.02 more quality for 4 times the cost and 3 times the time"
    )


def test_a_difference_that_rounds_to_nothing_is_called_the_same() -> None:
    """What is as good to two digits has "the same quality", never -0.00, and ratios are no powers of ten."""
    chosen = Estimate("a", Quality(0.801, 0.05, "measured"), 1.0, 0.0, 1.0, 0.001)
    other = Estimate("b", Quality(0.799, 0.05, "measured"), 1.0, 0.0, 123.0, 0.25)
    told = "the best, b, has the same quality for 250 times the cost and 123 times the time"
    assert compared(chosen, other, "the best") == told


def test_waiting_and_guesses_are_told() -> None:
    """A queue and an estimate without evidence are part of the reasons."""
    guess = Estimate("draft", Quality(0.5, 0.2, "prior"), 1.0, 12.0, 13.0, 0.0)
    reasons = decide(policy(), ASK, guess).reasons
    assert "a prior, nothing is known yet" in reasons[0]
    assert "of which 12 s waiting" in reasons[0]


# ---------------------------------------------------------------------------------------------------------- presets


def preset_choice(name: str, draft: float, single: float, standard: float, premium: float) -> str:
    costs = {"draft": (0.3, 4e-6), "single": (1.3, 2e-5), "standard": (1.4, 2e-5), "premium": (2.3, 3e-5)}
    means = {"draft": draft, "single": single, "standard": standard, "premium": premium}
    fleet = [estimate(recipe, means[recipe], *costs[recipe]) for recipe in means]
    fleet += [estimate("direct", premium - 0.02, 2.0, 3e-5), estimate("duel", premium + 0.02, 2.5, 6e-5)]
    return decide(load_policy(PRESETS / f"{name}.yaml"), ASK, *fleet).recipe


def test_balanced_spends_where_it_helps() -> None:
    """Balanced takes the cheap recipe on an easy prompt and an expensive one on a hard prompt."""
    assert preset_choice("balanced", 0.93, 0.94, 0.95, 0.95) == "draft"
    assert preset_choice("balanced", 0.35, 0.55, 0.6, 0.8) in ("direct", "premium", "duel")


def test_fast_and_best_keep_their_names() -> None:
    """Fast takes the quickest that is good enough; best begins with the cheapest well placed one, since it looks."""
    assert preset_choice("fast", 0.7, 0.8, 0.85, 0.9) == "draft"
    assert preset_choice("fast", 0.2, 0.7, 0.75, 0.8) == "single"
    assert preset_choice("best", 0.5, 0.7, 0.75, 0.9) == "standard"  # within 0.2 of the duel's .92
    assert preset_choice("best", 0.5, 0.6, 0.93, 0.9) == "standard"


def test_decision_names_its_policy() -> None:
    """A decision carries the name and the digest of the policy that made it, and says that no chance was involved."""
    made = load_policy_text(HEAD + RECIPES + QUALITY)
    decision = decide(made, ASK, *THREE)
    assert (decision.policy, decision.policy_digest, decision.propensity) == ("test", made.digest, 1.0)


# ------------------------------------------------------------------------------------------------------- provenance


def test_a_decision_says_what_the_files_say() -> None:
    """`provenance` of the policy goes with every decision, full by default, and another level is another digest."""
    levels = {level: policy(QUALITY + f"provenance: {level}\n") for level in ("full", "mark", "none")}
    assert {level: decide(made, ASK, *THREE).provenance for level, made in levels.items()} == {n: n for n in levels}
    assert decide(policy(), ASK, *THREE).provenance == "full"
    assert len({made.digest for made in levels.values()}) == 3
