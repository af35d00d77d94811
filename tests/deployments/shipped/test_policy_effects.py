"""Whatever a policy file says really happens: each key of the language, from the file to the picture."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.orchestration.budgets import TenantBudgets
from deployments.settings import AppSettings
from router.errors import BudgetError, OverloadedError, StepError
from router.types import GenerationRequest, Step, StepResult
from tests.deployments.support.scripted import GREY, Script, scripted

RECIPES = """recipes:
  draft:   {generate: {model: sd15}}
  single:  {generate: {model: sdxl}}
  direct:  {generate: {model: flux}}
"""
CHEAP = "objective: {lexicographic: [{by: cost_usd}]}\n"
ONLY_DRAFT = "rules: [{name: start small, when: {not: {tag: never}}, prefer: [draft]}]\n"
ASK = GenerationRequest("a red circle", seed=3)
POOR, FAIR, GOOD = {60: 0.2, 120: 0.5, 200: 0.9}, {60: 0.2, 120: 0.7, 200: 0.9}, {60: 0.8, 120: 0.9, 200: 0.9}


def shade(outcome: object) -> int:
    return int(outcome.made[0].picture.pixels[0, 0, 0])  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------------------- verification

VERIFY = "verify: {scorer: alignment, accept_above: 0.6, escalate_to: [single, direct]}\n"


@pytest.mark.parametrize(("scores", "recipe", "tries"), [(GOOD, "draft", 1), (FAIR, "single", 2), (POOR, "direct", 3)])
async def test_verification_escalates_until_a_picture_is_good(
    settings: AppSettings, tmp_path: Path, scores: dict[int, float], recipe: str, tries: int
) -> None:
    """Each recipe of the ladder is tried until one scores enough; its picture is the answer and the checks are told."""
    script = Script(scores)
    orchestrator, tally = scripted(settings, tmp_path, script, {"main": RECIPES + CHEAP + ONLY_DRAFT + VERIFY})
    outcome = await orchestrator.generate(ASK)
    (made,) = outcome.made
    assert (made.recipe, len(made.checks)) == (recipe, tries)
    assert [check.accepted for check in made.checks] == [False] * (tries - 1) + [True]
    assert outcome.route.decision.recipe == "draft"
    expected = outcome.route.estimates["draft"].cost_usd * (1 if tries == 1 else 1.5)
    assert outcome.estimated_cost_usd is not None and outcome.estimated_cost_usd >= expected
    assert len(script.ran) == 2 * tries
    assert (recipe in " ".join(outcome.notes)) is (tries > 1)
    assert tally.value("triptych_verified_total", policy="main", verdict="accepted" if tries == 1 else "escalated") == 1


async def test_the_best_picture_is_kept_when_none_is_good(settings: AppSettings, tmp_path: Path) -> None:
    """If no picture reaches the bar, the best of all is the answer, and a note says so."""
    orchestrator, tally = scripted(
        settings, tmp_path, Script({60: 0.2, 120: 0.5, 200: 0.4}), {"main": RECIPES + CHEAP + ONLY_DRAFT + VERIFY}
    )
    outcome = await orchestrator.generate(ASK)
    assert (outcome.made[0].recipe, shade(outcome)) == ("single", GREY["sdxl"])
    assert outcome.notes == ("no picture reached 0.6; the best has 0.50, by single",)
    assert tally.value("triptych_verified_total", policy="main", verdict="not_accepted") == 1


async def test_escalation_keeps_to_the_deadline(settings: AppSettings, tmp_path: Path) -> None:
    """What would end after the deadline is not begun: the first picture comes back, with a note."""
    orchestrator, _ = scripted(settings, tmp_path, Script(POOR), {"main": RECIPES + CHEAP + ONLY_DRAFT + VERIFY})
    orchestrator._runner.timeout_s = 0.05
    outcome = await orchestrator.generate(ASK)
    assert outcome.made[0].recipe == "draft"
    assert any("would end after the deadline" in note for note in outcome.notes)


async def test_a_failed_escalation_or_scorer_costs_no_picture(settings: AppSettings, tmp_path: Path) -> None:
    """An escalation that breaks, or a scorer that does, leaves the picture that is there."""

    class Breaking(Script):
        broken = "flux"

        async def run(self, step: Step, *rest: object) -> StepResult:  # type: ignore[override]
            if step.model == self.broken:
                raise StepError("out of memory")
            return await super().run(step, *rest)  # type: ignore[arg-type]

    script = Breaking(POOR)
    orchestrator, _ = scripted(settings, tmp_path, script, {"main": RECIPES + CHEAP + ONLY_DRAFT + VERIFY})
    outcome = await orchestrator.generate(ASK)
    assert outcome.made[0].recipe == "single"
    assert any("direct was tried and failed" in note for note in outcome.notes)
    script.broken = "alignment"
    outcome = await orchestrator.generate(ASK)
    assert outcome.made[0].recipe == "draft"
    assert outcome.notes == ("the picture could not be verified: out of memory",)


async def test_each_picture_is_verified_on_its_own(settings: AppSettings, tmp_path: Path) -> None:
    """With several pictures each escalates for itself, keeping its seed."""
    orchestrator, _ = scripted(settings, tmp_path, Script(FAIR), {"main": RECIPES + CHEAP + ONLY_DRAFT + VERIFY})
    outcome = await orchestrator.generate(GenerationRequest("a red circle", seed=3, n=2))
    assert [(made.recipe, made.seed) for made in outcome.made] == [("single", 3), ("single", 4)]
    assert {t.step.settings["seed"] for made in outcome.made for t in made.traces} == {3, 4}
    assert orchestrator.queued_s("sdxl") == orchestrator.queued_s("sd15") == 0


# -------------------------------------------------------------------------------------------------------- best of n


@pytest.mark.parametrize(("bar", "pictures"), [("", 4), (", accept_above: 0.7", 1), (", accept_above: 0.85", 4)])
async def test_best_of_n_stops_early(settings: AppSettings, tmp_path: Path, bar: str, pictures: int) -> None:
    """Best-of-n makes n pictures with n seeds; with a bar it stops at the first picture that reaches it."""
    recipe = f"  four: {{best_of: {{n: 4, of: draft, scorer: alignment{bar}}}}}\n"
    script = Script(GOOD)
    orchestrator, _ = scripted(settings, tmp_path, script, {"main": RECIPES + recipe + CHEAP})
    outcome = await orchestrator.generate(GenerationRequest("a red circle", seed=3, target="four"))
    assert script.ran.count("generate sd15") == pictures
    made = outcome.made[0]
    assert {trace.step.settings.get("seed") for trace in made.traces if trace.step.kind == "generate"} == {
        3 + k for k in range(pictures)
    }
    assert orchestrator.queued_s("sd15") == 0


# ------------------------------------------------------------------------------------------------ chance, load, money


async def test_pictures_that_disagree_are_not_blended_and_the_answer_says_so(
    settings: AppSettings, tmp_path: Path
) -> None:
    """With a scorer, two flat pictures of different greys blend; one that is drawn and one that is flat do not."""

    class Drawn(Script):
        async def run(self, step: Step, *args: object) -> StepResult:  # type: ignore[override]
            result = await super().run(step, *args)  # type: ignore[arg-type]
            if step.model == "flux":
                result.value.pixels[4:20, 4:20] = 0  # type: ignore[union-attr]
            return result

    fused = RECIPES + "  both: {fuse: {with: frequency, low: draft, high: %s, scorer: alignment}}\n" + CHEAP
    texts = {"alike": fused % "single", "unlike": fused % "direct"}
    orchestrator, _ = scripted(settings, tmp_path, Drawn(FAIR), texts)
    blended = await orchestrator.generate(replace(ASK, target="alike", recipe="both"))
    assert blended.notes == ()
    assert shade(blended) == GREY["sd15"]  # the low frequencies of the first, and nothing of the second
    kept = await orchestrator.generate(replace(ASK, target="unlike", recipe="both"))
    assert shade(kept) == GREY["flux"]
    (note,) = kept.notes
    assert note.startswith("both: the pictures disagree (1.00, more than 0.05), so they were not blended")


async def test_exploration_draws_on_requests_only(settings: AppSettings, tmp_path: Path) -> None:
    """A drawn request takes the drawn recipe with its propensity; explaining a request leaves nothing to chance."""
    text = RECIPES + CHEAP + ONLY_DRAFT + "explore: {rate: 0.5, among: [direct]}\n"
    orchestrator, tally = scripted(settings, tmp_path, Script(GOOD), {"main": text}, draw=lambda: 0.1)
    outcome = await orchestrator.generate(ASK)
    assert (outcome.made[0].recipe, outcome.route.decision.propensity) == ("direct", 0.5)
    assert tally.value("triptych_explored_total", policy="main") == 1
    assert (await orchestrator.route(ASK)).decision.recipe == "draft"


async def test_load_degrades_and_then_refuses(settings: AppSettings, tmp_path: Path) -> None:
    """While a model is busy the lesser recipe answers; when all wait too long, the request is refused."""
    text = RECIPES + "objective: {minimise: cost_usd}\n"
    text += "rules: [{name: r, when: {not: {tag: never}}, prefer: [single]}]\n"
    text += "overload: {degrade_after_s: 0.01, degrade_to: [draft], reject_after_s: 0.02}\n"
    script = Script(GOOD, delay_s=0.3)
    orchestrator, tally = scripted(settings, tmp_path, script, {"main": text})
    busy = [asyncio.create_task(orchestrator.generate(ASK))]
    while "generate sdxl" not in script.ran:
        await asyncio.sleep(0.01)
    lesser = asyncio.create_task(orchestrator.generate(ASK))
    busy.append(lesser)
    while "generate sd15" not in script.ran:
        await asyncio.sleep(0.01)
    with pytest.raises(OverloadedError, match="over the policy's"):
        await orchestrator.generate(ASK)
    await asyncio.gather(*busy)
    assert lesser.result().route.decision.degraded_from == "single"
    assert tally.value("triptych_degraded_total", policy="main") == 1
    assert tally.value("triptych_refused_total", policy="main", code="overloaded") == 1


async def test_budgets_count_what_was_used(settings: AppSettings, tmp_path: Path) -> None:
    """A tenant is served until its budget is used up, by what the steps took; another tenant is not concerned."""
    clock = [0.0]
    text = RECIPES + CHEAP + "budgets: [{name: hourly, window_s: 3600, work_s: 30}]\n"
    orchestrator, _ = scripted(
        settings,
        tmp_path,
        Script(GOOD, took_s=14.0),
        {"main": text},
        tenant_budgets=TenantBudgets(clock=lambda: clock[0]),
    )
    mine = GenerationRequest("a red circle", seed=3, tenant="acme", target="main", recipe="draft")
    await orchestrator.generate(mine)
    clock[0] = 100.0
    await orchestrator.generate(mine)
    with pytest.raises(BudgetError, match=r"tenant 'acme' has 2 s left of 'hourly'; more in 3500 s") as caught:
        await orchestrator.generate(mine)
    assert caught.value.retry_after_s == 3500
    await orchestrator.generate(GenerationRequest("a red circle", seed=3, tenant="other", recipe="draft"))
    clock[0] = 3601.0
    await orchestrator.generate(mine)


async def test_a_budget_is_not_overdrawn_by_requests_at_once(settings: AppSettings, tmp_path: Path) -> None:
    """Requests that arrive together cannot each spend what is left: the expected cost is taken when they begin."""
    text = RECIPES + CHEAP + "budgets: [{name: b, window_s: 60, cost_usd: 1, tenants: [acme]}]\n"
    script = Script(GOOD, delay_s=0.05)
    orchestrator, _ = scripted(settings, tmp_path, script, {"main": text})
    mine = GenerationRequest("a red circle", seed=3, tenant="acme", recipe="draft")
    price = (await orchestrator.route(mine)).estimates["draft"].cost_usd
    text = text.replace("cost_usd: 1", f"cost_usd: {2.5 * price}")
    (tmp_path / "main.yaml").write_text("version: 1\nname: main\n" + text)
    assert orchestrator.policies.refresh()  # while one of them reads it, the others go by what was in force
    results = await asyncio.gather(*(orchestrator.generate(mine) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, BudgetError) for result in results) == 3
    assert script.ran == ["generate sd15"] * 2


# --------------------------------------------------------------------------------------------------- shadow, canary


async def test_a_shadow_is_compared_and_never_run(settings: AppSettings, tmp_path: Path) -> None:
    """The other policy decides on the same request; only counts and log lines come of it."""
    script = Script(GOOD)
    orchestrator, tally = scripted(
        settings,
        tmp_path,
        script,
        {
            "main": RECIPES + CHEAP + ONLY_DRAFT + "shadow: {policy: next, share: 1}\n",
            "next": RECIPES + CHEAP + ONLY_DRAFT.replace("draft", "direct"),
        },
    )
    estimates = (await orchestrator.generate(ASK)).route.estimates
    await orchestrator._shadows.settle()
    assert script.ran == ["generate sd15"]
    assert tally.value("triptych_shadow_total", policy="main", shadow="next", same="no") == 1
    own, other = (tally.value("triptych_shadow_cost_usd_total", policy="main", by=by) for by in ("own", "shadow"))
    assert own > 0 < other
    for by, recipe in (("own", "draft"), ("shadow", "direct")):
        found = tally.value("triptych_shadow_quality_total", policy="main", by=by)
        assert found == pytest.approx(estimates[recipe].quality.mean)


async def test_a_canary_answers_its_share(settings: AppSettings, tmp_path: Path) -> None:
    """About the stated share of tenants is answered by the canary, each always by the same policy, and told so."""
    texts = {
        "main": RECIPES + CHEAP + ONLY_DRAFT + "canary: {policy: next, share: 0.5}\n",
        "next": RECIPES + CHEAP + ONLY_DRAFT.replace("draft", "direct"),
    }
    orchestrator, tally = scripted(settings, tmp_path, Script(GOOD), texts)
    sides = {}
    for tenant in map(str, range(40)):
        seen = [await orchestrator.route(GenerationRequest(prompt, tenant=tenant)) for prompt in ("a cat", "a dog")]
        assert len({route.decision.policy for route in seen}) == 1
        sides[tenant] = seen[0].decision
    served = [decision for decision in sides.values() if decision.policy == "next"]
    assert 8 < len(served) < 32
    assert {decision.recipe for decision in served} == {"direct"}
    assert all("canary: next answers" in decision.reasons[-1] for decision in served)
    assert tally.value("triptych_canary_total", policy="main", canary="next") == 2 * len(served)
    pinned = await orchestrator.route(GenerationRequest("a cat", target="main", recipe="draft", tenant="1"))
    assert pinned.decision.policy == "main"
