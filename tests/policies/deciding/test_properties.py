"""What holds for every decision, whatever the policy, the request, the estimates and the circumstances."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import Policy, load_policy_text
from policies.language.schema_choice import Bounds, Objective
from router.errors import BudgetError, NoRecipeError
from router.types import NO_CONTEXT, Allowance, Context, Decision, Estimate, GenerationRequest
from tests.policies.values import HEAD, decide, estimate, view

ASK = GenerationRequest("a red circle")

OBJECTIVES = (
    "{maximise: quality}",
    "{maximise: quality, weight: {cost_usd: 8, latency_s: 0.02}}",
    "{cheapest_within: 0.05}",
    "{fastest_above: 0.6}",
    "{best_under: {cost_usd: 0.01, latency_s: 10}}",
    "{lexicographic: [{by: quality, within: 0.05}, {by: latency_s, within: 0.5}, {by: cost_usd}]}",
    "{maximise: quality, weight: {uncertainty: 1}}",
    "{minimise: cost_usd}",
    "{minimise: latency_s}",
)
NAMES = [f"r{i:02}" for i in range(30)]
MANY = "recipes:\n" + "".join(
    f"  {name}: {{generate: {{model: sd15, steps: {i + 1}}}}}\n" for i, name in enumerate(NAMES)
)
RULES = """explore: {rate: 0.3}
rules:
  - {name: night, when: {tag: night}, prefer: [r07, r03], set: {limits: {latency_s: 10}}}
  - {name: counted, when: {signal: counting, above: 0.5}, never: [r00, r01, r02]}
  - {name: printed, when: {tag: print}, only: [r00, r01, r02, r03, r04, r05]}
"""
VERIFY = "verify: {scorer: alignment, accept_above: 0.5, escalate_to: [r03, r05, r01]}\n"
POLICIES = [
    load_policy_text(f"{HEAD}{MANY}limits: {{latency_s: 20, cost_usd: 0.02}}\nobjective: {objective}\n{RULES}{VERIFY}")
    for objective in OBJECTIVES
]

numbers = st.floats(0, 40, allow_nan=False)
shares = st.floats(0, 1, allow_nan=False)
fields = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(shares, numbers, st.floats(0, 0.03)), min_size=1, max_size=30
).map(lambda found: [estimate(name, *values) for name, values in found.items()])
requests = st.builds(
    GenerationRequest,
    prompt=st.just("a red circle"),
    recipe=st.none() | st.sampled_from(NAMES),
    latency_budget_s=st.none() | numbers,
    max_cost_usd=st.none() | st.floats(0, 0.03),
    tags=st.sampled_from([(), ("print",), ("night",)]),
)
policies = st.sampled_from(POLICIES)


contexts = st.builds(
    Context,
    draw=st.none() | st.floats(0, 1, exclude_max=True),
    allowances=st.lists(
        st.builds(Allowance, st.just("b"), st.none() | numbers, st.none() | st.floats(0, 0.03)), max_size=2
    )
    .map(tuple),
)  # fmt: skip


def outcome(
    policy: Policy, request: GenerationRequest, field: list[Estimate], counting: float, context: Context = NO_CONTEXT
) -> Decision | NoRecipeError | BudgetError:
    try:
        return decide(policy, request, *field, view=view(counting=counting), context=context)
    except (NoRecipeError, BudgetError) as error:
        return error


LADDER = ("r03", "r05", "r01")  # what `VERIFY` escalates to
FIRST = "r20"


@st.composite
def checked(draw: st.DrawFn) -> tuple[GenerationRequest, list[Estimate], Context]:
    """A cheap recipe that is better than all others, and its escalations; each bound lies among the sums of what the
    first few of them need, so that now none of them, now some and now all can be afforded."""
    steps = [draw(st.tuples(st.floats(0.2, 6), st.floats(0.0005, 0.008))) for _ in range(1 + len(LADDER))]
    names = (FIRST, *draw(st.permutations(LADDER)))
    field = [
        estimate(name, 0.99 if name == FIRST else draw(st.floats(0, 0.9)), *step)
        for name, step in zip(names, steps, strict=True)
    ]
    share = st.floats(0.6, 1.6)
    chosen = draw(st.integers(1, len(steps)))
    seconds, dollars = (sum(step[k] for step in steps[:chosen]) for k in range(2))
    request = GenerationRequest(
        "a red circle",
        latency_budget_s=draw(st.none() | share.map(lambda s: s * seconds)),
        max_cost_usd=draw(st.none() | share.map(lambda s: s * dollars)),
    )
    left = st.builds(
        Allowance,
        st.just("b"),
        st.none() | share.map(lambda s: s * seconds),
        st.none() | share.map(lambda s: s * dollars),
    )
    return request, field, Context(allowances=tuple(draw(st.lists(left, max_size=2))))


def holds_every_limit(
    result: Decision, request: GenerationRequest, field: list[Estimate], context: Context, slack: float = 1e-9
) -> None:
    by_name = {e.recipe: e for e in field}
    latency_s = min(10 if "night" in request.tags else 20, *_given(request.latency_budget_s))
    cost_usd = min(0.02, *_given(request.max_cost_usd, *(a.cost_usd for a in context.allowances)))
    work_s = min(_given(*(a.work_s for a in context.allowances)))
    for name in (result.recipe, *(ranked.recipe for ranked in result.ranking)):
        found = by_name[name]
        assert found.latency_s <= latency_s
        assert found.cost_usd <= cost_usd
        assert found.work_s <= work_s
        assert request.recipe in (None, name)
    assert result.verify is not None
    tried = [by_name[name] for name in (result.recipe, *result.verify.escalate_to)]
    assert sum(e.cost_usd for e in tried) <= cost_usd * (1 + slack)
    assert sum(e.latency_s for e in tried) <= latency_s * (1 + slack)
    assert sum(e.work_s for e in tried) <= work_s * (1 + slack)


def test_no_hard_limit_is_ever_broken() -> None:
    """Nothing in a ranking, and nothing that chance draws, exceeds a limit of the policy or of a rule, a budget of the
    request or of the tenant."""
    reached: Counter[str] = Counter()

    @settings(max_examples=150, deadline=None)
    @given(policies, requests, fields, shares, contexts)
    def holds(
        policy: Policy, request: GenerationRequest, field: list[Estimate], counting: float, context: Context
    ) -> None:
        result = outcome(policy, request, field, counting, context)
        if isinstance(result, Decision):
            holds_every_limit(result, request, field, context)
        reached["decided" if isinstance(result, Decision) else "refused"] += 1

    holds()
    assert min(reached["decided"], reached["refused"]) >= 15, reached


def test_escalations_stay_within_every_limit_when_added_up() -> None:
    """The chosen recipe and all that may follow it stay, added up, within every limit and budget, and the ladder ends
    only where its next step would not."""
    reached: Counter[str] = Counter()
    usual = [policy for policy in POLICIES if policy.objective.minimise is None]

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(usual), checked())
    def holds(policy: Policy, case: tuple[GenerationRequest, list[Estimate], Context]) -> None:
        request, field, context = case
        result = outcome(policy, request, field, 0.0, context)
        if not isinstance(result, Decision):
            reached["refused"] += 1
            return
        holds_every_limit(result, request, field, context)
        assert result.verify is not None
        able = [name for name in LADDER if name in {r.recipe for r in result.ranking} and name != result.recipe]
        reached[f"{len(result.verify.escalate_to)} escalations"] += 1
        reached["escalated"] += bool(result.verify.escalate_to)
        reached["cut short"] += len(result.verify.escalate_to) < len(able)

    holds()
    assert reached["escalated"] >= 50, reached
    assert reached["cut short"] >= 20, reached


def _given(*values: float | None) -> list[float]:
    return [math.inf, *(value for value in values if value is not None)]


@settings(max_examples=150, deadline=None)
@given(policies, requests, fields, shares)
def test_every_recipe_is_ranked_or_rejected_with_a_reason(
    policy: Policy, request: GenerationRequest, field: list[Estimate], counting: float
) -> None:
    """Every planned recipe is either in the ranking or rejected, never both, and each rejection has gate and reason."""
    result = outcome(policy, request, field, counting)
    ranked = {r.recipe for r in result.ranking} if isinstance(result, Decision) else set()
    assert not isinstance(result, BudgetError), "no budget was given"
    rejections = result.rejected if isinstance(result, Decision) else result.rejections
    assert ranked | {r.recipe for r in rejections} == {e.recipe for e in field}
    assert len(ranked) + len(rejections) == len(field)
    assert all(
        r.reason and r.gate in ("capability", "licence", "limit", "request", "budget", "rule", "pinned")
        for r in rejections
    )
    if isinstance(result, Decision):
        assert result.recipe == result.ranking[0].recipe
        assert all(result.reasons)


@settings(max_examples=100, deadline=None)
@given(policies, requests, fields, shares, st.randoms(use_true_random=False))
def test_same_inputs_same_decision(
    policy: Policy, request: GenerationRequest, field: list[Estimate], counting: float, random: object
) -> None:
    """The decision follows from the values alone, not from the order in which they come."""
    shuffled = list(field)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, again = (outcome(policy, request, f, counting) for f in (field, shuffled))
    assert first == again if isinstance(first, Decision) else str(first) == str(again)


@settings(max_examples=150, deadline=None)
@given(policies, requests, fields, st.tuples(shares, shares, shares))
def test_a_dominated_recipe_changes_nothing(
    policy: Policy, request: GenerationRequest, field: list[Estimate], worse: tuple[float, float, float]
) -> None:
    """A further recipe that is no better, no cheaper and no faster than the chosen one never changes the choice."""
    first = outcome(policy, request, field, 0.0)
    spare = sorted(set(NAMES) - {e.recipe for e in field})
    if not isinstance(first, Decision) or not spare:
        return
    best = next(e for e in field if e.recipe == first.recipe)
    bounds = policy.objective.best_under
    if bounds is not None and (best.cost_usd > bounds.cost_usd or best.latency_s > bounds.latency_s):
        return  # nothing stays under, so the nearest to the bounds is taken: a cheaper recipe may be nearer
    added = estimate(
        spare[-1], best.quality.mean * (1 - worse[0]), best.latency_s + worse[1], best.cost_usd + 1e-9 + worse[2] / 100
    )
    assert decide(policy, request, *field, added).recipe == first.recipe


@settings(max_examples=100, deadline=None)
@given(policies, fields, st.sampled_from(NAMES))
def test_pinned_is_that_or_nothing(policy: Policy, field: list[Estimate], name: str) -> None:
    """A recipe asked for by name is chosen, or there is an error; another is never put in its place."""
    result = outcome(policy, replace(ASK, recipe=name), field, 0.9)
    assert not isinstance(result, Decision) or result.recipe == name


AIMED_AT_QUALITY = [
    load_policy_text(f"{HEAD}{MANY}objective: {objective}\n")
    for objective in (
        "{maximise: quality}",
        "{maximise: quality, weight: {cost_usd: 8}}",
        "{cheapest_within: 0.05}",
        "{lexicographic: [{by: quality}, {by: latency_s}]}",
    )
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(AIMED_AT_QUALITY), fields, st.floats(0, 0.03), st.floats(0, 0.03))
def test_a_larger_budget_never_lowers_the_expected_quality(
    policy: Policy, field: list[Estimate], budget: float, more: float
) -> None:
    """Raising the money a request may cost never leads to a recipe of lower expected quality, for every objective in
    which nothing but money is weighed against quality. (Where time is, a more expensive and faster recipe may win.)"""
    before = outcome(policy, replace(ASK, max_cost_usd=budget), field, 0.0)
    after = outcome(policy, replace(ASK, max_cost_usd=budget + more), field, 0.0)
    if isinstance(before, Decision):
        assert isinstance(after, Decision)
        quality = {e.recipe: e.quality.mean for e in field}
        assert quality[after.recipe] >= quality[before.recipe]


@settings(max_examples=300, deadline=None)
@given(fields, st.floats(0.0001, 0.03), st.floats(0, 0.03))
def test_a_larger_soft_bound_never_lowers_the_expected_quality(
    field: list[Estimate], bound: float, more: float
) -> None:
    """Raising the bound of `best_under` never leads to a recipe of lower quality, once anything stays under it."""
    small, large = (
        replace(AIMED_AT_QUALITY[0], objective=Objective(best_under=Bounds(cost_usd=value)))
        for value in (bound, bound + more)
    )
    if not any(e.cost_usd <= bound for e in field):
        return
    quality = {e.recipe: e.quality.mean for e in field}
    before, after = (outcome(policy, ASK, field, 0.0) for policy in (small, large))
    assert isinstance(before, Decision) and isinstance(after, Decision)
    assert quality[after.recipe] >= quality[before.recipe]


@settings(max_examples=150, deadline=None)
@given(policies, requests, fields, shares)
def test_a_cheaper_recipe_of_no_more_utility_changes_nothing(
    policy: Policy, request: GenerationRequest, field: list[Estimate], cheaper: float
) -> None:
    """A further recipe that is cheaper, but worse by more than any objective forgives and no faster, is not chosen."""
    if policy.objective.minimise is not None:
        return
    first = outcome(policy, request, field, 0.0)
    spare = sorted(set(NAMES) - {e.recipe for e in field})
    if not isinstance(first, Decision) or not spare:
        return
    best = next(e for e in field if e.recipe == first.recipe)
    bounds = policy.objective.best_under
    if bounds is not None and (best.cost_usd > bounds.cost_usd or best.latency_s > bounds.latency_s):
        return  # nothing stays under, so the nearest to the bounds is taken: a cheaper recipe may be nearer
    added = estimate(spare[-1], best.quality.mean - 0.9, best.latency_s + 1.0, best.cost_usd * cheaper)
    assert decide(policy, request, *field, added).recipe == first.recipe


def test_propensities_are_probabilities() -> None:
    """Over an even grid of draws, each recipe comes up exactly as often as its propensity says, and the propensities
    sum to one."""
    made = load_policy_text(f"{HEAD}{MANY}objective: {{maximise: quality}}\nexplore: {{rate: 0.4}}\n")
    reached: Counter[int] = Counter()

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=8, unique=True), st.integers(1, 3), st.data())
    def holds(names: list[str], times: int, data: st.DataObject) -> None:
        field = [estimate(name, data.draw(shares)) for name in names]
        draws = 5 * times * len(field)  # so that each recipe has as many points of the grid to itself as any other
        found: dict[str, list[float]] = {}
        for k in range(draws):
            decision = decide(made, ASK, *field, context=Context(draw=(k + 0.5) / draws))
            found.setdefault(decision.recipe, []).append(decision.propensity)
        assert set(found) == set(names)
        assert sum(values[0] for values in found.values()) == pytest.approx(1)
        for values in found.values():
            assert len(set(values)) == 1
            assert len(values) / draws == pytest.approx(values[0])
        reached[len(names)] += 1

    holds()
    assert sum(count for size, count in reached.items() if size > 1) >= 15, reached
