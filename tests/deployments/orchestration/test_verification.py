"""Verification by expected gain, searches and fusions that lose a branch: from the policy to the answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deployments.api.service import Service
from deployments.api.wire.requests import parse_request
from deployments.api.wire.responses import outcome_report, route_report
from deployments.orchestration.runner import seed_again
from deployments.settings import AppSettings
from deployments.workers.worker import ModelWorker, OnProgress
from router.errors import RequestError, StepError
from router.types import GenerationRequest, Picture, Scores, Step, StepResult, Value
from router.verification.score_reading import ScoreModel, ScoreReading
from tests.deployments.support.scripted import Script, jobs_of, scripted

RECIPES = """recipes:
  draft:   {generate: {model: sd15}}
  single:  {generate: {model: sdxl}}
  direct:  {generate: {model: flux}}
"""
DRAFT = "objective: {minimise: cost_usd}\nrules: [{name: start small, when: {not: {tag: never}}, prefer: [draft]}]\n"
ASK = GenerationRequest("a red circle", seed=3)
SHARP = ScoreReading(ScoreModel(1.0, 1.0, 0.0, (3.0, 4.0), (-3.0, -4.0)), 2.0, True, "calibrated for this test")
POOR, GOOD = {60: 0.03, 120: 0.03, 200: 0.97}, {60: 0.97, 120: 0.97, 200: 0.97}


def by_gain(per_s: float, rest: str = "escalate_to: [single, direct]") -> str:
    keys = f"scorer: alignment, by: expected_gain, quality_per_s: {per_s}, quality_per_usd: 0, {rest}"
    return f"{RECIPES}{DRAFT}verify: {{{keys}}}\n"


async def run(settings: AppSettings, folder: Path, text: str, script: Script, request: GenerationRequest = ASK):  # type: ignore[no-untyped-def]
    """(outcome, orchestrator, tally) of one request, with a scorer that sees sharply."""
    orchestrator, tally = scripted(settings, folder, script, {"main": text})
    orchestrator._router.knowledge.score_readings["alignment"] = SHARP
    return await orchestrator.generate(request), orchestrator, tally


# ------------------------------------------------------------------------------------------------------ expected gain


async def test_a_dear_second_leaves_the_picture_unchecked(settings: AppSettings, tmp_path: Path) -> None:
    """When no try could gain what it costs, not even the look is taken, and the answer says why."""
    script = Script(POOR)
    outcome, _, tally = await run(settings, tmp_path, by_gain(1000), script)
    assert script.ran == ["generate sd15"]
    (choice,) = outcome.made[0].choices
    assert (choice.action, outcome.made[0].checks) == ("keep", ())
    assert choice.gain is not None
    assert choice.price is not None
    assert choice.gain <= choice.price
    assert tally.value("triptych_verified_total", policy="main", verdict="not_checked") == 1


async def test_a_good_picture_ends_the_search_after_one_look(settings: AppSettings, tmp_path: Path) -> None:
    """A picture that is right in all likelihood is checked and kept."""
    script = Script(GOOD)
    outcome, _, _ = await run(settings, tmp_path, by_gain(0.02), script)
    assert script.ran == ["generate sd15", "score alignment"]
    assert [choice.action for choice in outcome.made[0].choices] == ["check", "stop"]
    assert outcome.made[0].checks[0].probability > 0.9


async def test_a_poor_picture_leads_to_what_gains_most(settings: AppSettings, tmp_path: Path) -> None:
    """While more is to be gained than it costs, others are tried; each choice tells gain and price; the best stays."""
    outcome, _, _ = await run(settings, tmp_path, by_gain(0.0001), Script(POOR))
    (made,) = outcome.made
    tries = [choice for choice in made.choices if choice.action == "escalate"]
    assert made.recipe == "direct"
    assert tries
    assert all(choice.gain > choice.price for choice in tries)  # type: ignore[operator]
    assert made.choices[-1].action == "stop"
    assert max(check.probability for check in made.checks) > 0.9


async def test_a_retry_has_a_seed_of_its_own_and_always_the_same(settings: AppSettings, tmp_path: Path) -> None:
    """The same request tries the same seeds again, none of them the seed of another picture of the request."""
    text = by_gain(0.0001, "retry: 2")
    runs = [await run(settings, tmp_path, text, Script({60: 0.03})) for _ in range(2)]
    seeds = [[check.seed for check in outcome.made[0].checks] for outcome, _, _ in runs]
    assert seeds[0] == seeds[1] == [3, seed_again(3, 1), seed_again(3, 2)]
    assert not {4, 5} & set(seeds[0])
    assert [choice.action for choice in runs[0][0].made[0].choices] == ["check", "retry", "retry", "stop"]


async def test_a_retry_that_is_kept_can_be_made_again(settings: AppSettings, tmp_path: Path) -> None:
    """The answer has the seed of the picture that was kept, and its replay body asks for that one."""

    class Improving(Script):
        """The second picture of sd15 is the right one."""

        async def run(
            self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
        ) -> StepResult:
            self.scores = {60: 0.03 if self.ran.count("score alignment") == 0 else 0.97}
            return await super().run(step, inputs, deadline_s, on_progress)

    text = RECIPES + DRAFT + "verify: {scorer: alignment, accept_above: 0.9, retry: 3}\n"
    outcome, orchestrator, _ = await run(settings, tmp_path, text, Improving({}))
    (made,) = outcome.made
    assert (made.seed, len(made.checks)) == (seed_again(3, 1), 2)
    report = outcome_report(outcome, parse_request({"prompt": ASK.prompt, "seed": 3}, settings.limits), "r")
    assert report["replay"]["seed"] == made.seed
    again = await orchestrator.generate(GenerationRequest(ASK.prompt, seed=made.seed, recipe="draft", target="main"))
    assert again.made[0].plan_digest == made.plan_digest


async def test_most_bounds_the_pictures(settings: AppSettings, tmp_path: Path) -> None:
    """No more pictures are made than `most`, the first included."""
    script = Script({60: 0.03, 120: 0.03, 200: 0.03})
    outcome, _, _ = await run(
        settings, tmp_path, by_gain(0.0001, "escalate_to: [single, direct], retry: 4, most: 3"), script
    )
    assert sum(step.startswith("generate") for step in script.ran) == 3
    assert "3 pictures are the most" in outcome.made[0].choices[-1].reason


async def test_tries_keep_to_the_cost_limit(settings: AppSettings, tmp_path: Path) -> None:
    """What the tries cost together stays within what the request allows beyond its first picture."""
    script = Script({60: 0.03}, took_s=0.5)
    orchestrator, _ = scripted(settings, tmp_path, script, {"main": by_gain(0.0, "retry: 8")})
    orchestrator._router.knowledge.score_readings["alignment"] = SHARP
    cost = (await orchestrator.route(ASK)).estimates["draft"].cost_usd
    outcome = await orchestrator.generate(GenerationRequest(ASK.prompt, seed=3, max_cost_usd=3.4 * cost))
    assert 1 <= len(outcome.made[0].checks) <= 3
    assert any("beyond a limit or budget" in note for note in outcome.notes)


async def test_an_uncalibrated_scorer_says_so(settings: AppSettings, tmp_path: Path) -> None:
    """Without a judgement the answer says that scores are not calibrated, and the default reads them."""
    orchestrator, _ = scripted(settings, tmp_path, Script(POOR), {"main": by_gain(0.0001)})
    route = await orchestrator.route(ASK)
    assert any("not calibrated" in reason for reason in route.decision.reasons)
    assert route_report(route)["verify"]["calibrated"] is False
    assert any("a look is expected to gain" in reason for reason in route.decision.reasons)


async def test_a_recipe_asked_for_by_name_is_the_one_that_answers(settings: AppSettings, tmp_path: Path) -> None:
    """Who names a recipe gets its first picture: nothing is tried in its place."""
    script = Script(POOR)
    await run(settings, tmp_path, by_gain(0.0001), script, GenerationRequest(ASK.prompt, seed=3, recipe="draft"))
    assert script.ran == ["generate sd15"]


# ------------------------------------------------------------------------------------------------------------- search

SEARCH = "  many: {best_of: {n: auto, most: 5, of: [draft, direct], scorer: alignment, quality_per_s: PRICE}}\n"


def searching(price: float) -> str:
    rule = "rules: [{name: search, when: {not: {tag: never}}, prefer: [many]}]\n"
    return (
        RECIPES + SEARCH.replace("PRICE", f"{price}, quality_per_usd: 0") + "objective: {minimise: cost_usd}\n" + rule
    )


async def test_a_search_ends_at_the_first_picture_that_is_good_enough(settings: AppSettings, tmp_path: Path) -> None:
    """With right pictures one is made of several that were planned, with wrong ones all of them."""
    made = {}
    for name, scores in (("good", {60: 0.99, 200: 0.99}), ("poor", {60: 0.01, 200: 0.01})):
        script = Script(scores)
        outcome, orchestrator, _ = await run(settings, tmp_path, searching(0.0001), script)
        planned = sum(step.kind == "generate" for step in outcome.route.plan.steps)
        made[name] = sum(step.startswith("generate") for step in script.ran), planned
        assert orchestrator.queued_s("sd15") == orchestrator.queued_s("flux") == 0
    assert made["good"][0] < made["good"][1]
    assert made["poor"][0] == made["poor"][1] > 1


async def test_a_search_is_estimated_for_what_it_will_take(settings: AppSettings, tmp_path: Path) -> None:
    """A search is expected to be better than any of its recipes alone, and to cost less than all of its pictures."""
    orchestrator, _ = scripted(settings, tmp_path, Script(GOOD), {"main": searching(0.0001)})
    orchestrator._router.knowledge.score_readings["alignment"] = SHARP
    route = await orchestrator.route(ASK)
    found, parts = route.estimates["many"], [route.estimates[name] for name in ("draft", "direct")]
    assert found.quality.mean > max(part.quality.mean for part in parts)
    assert found.cost_usd < orchestrator._router.queues.estimate(route.plan).cost_usd
    assert any("pictures expected" in note for note in route.plan.notes)
    (step,) = [step for step in route.plan.steps if step.kind == "select"]
    assert len(step.inputs) == 2 * sum(step.kind == "score" for step in route.plan.steps)


async def test_a_search_where_seconds_are_dear_is_one_picture(settings: AppSettings, tmp_path: Path) -> None:
    """When no second picture is worth its price, one is made and nothing is scored."""
    script = Script(POOR)
    outcome, _, _ = await run(settings, tmp_path, searching(1000), script)
    assert [step.split()[0] for step in script.ran] == ["generate"]
    assert outcome.route.decision.recipe == "many"


async def test_a_search_keeps_to_limits_in_the_worst_case(settings: AppSettings, tmp_path: Path) -> None:
    """No more pictures are planned than the request's budget pays for, if all of them should be needed."""
    orchestrator, _ = scripted(settings, tmp_path, Script(POOR), {"main": searching(0.0)})
    orchestrator._router.knowledge.score_readings["alignment"] = SHARP
    draft = (await orchestrator.route(ASK)).estimates["draft"].cost_usd
    route = await orchestrator.route(GenerationRequest(ASK.prompt, seed=3, max_cost_usd=3.9 * draft))
    assert orchestrator._router.queues.estimate(route.plan).cost_usd <= 3.9 * draft


async def test_the_replay_of_a_search_is_the_same_plan_under_other_queues(
    settings: AppSettings, tmp_path: Path
) -> None:
    """When others wait, the search is settled otherwise; the body under `replay` still leads to the very same plan."""
    orchestrator, _ = scripted(settings, tmp_path, Script(POOR), {"main": searching(0.02)})
    orchestrator._router.knowledge.score_readings["alignment"] = SHARP
    service = Service(jobs_of(orchestrator), settings.limits)
    body = {"prompt": ASK.prompt, "model": "main", "seed": 3}
    first = await service.route(body)
    assert len(first["replay"]["turns"]) > 1
    waiting = await orchestrator.route(replace(ASK, recipe="draft"))
    tickets = [orchestrator._router.queues.reserve(waiting.plan) for _ in range(200)]
    anew = await service.route({**body, "recipe": "many"})
    again = await service.route(json.loads(json.dumps(first["replay"])))
    assert again["plan"]["digest"] == first["plan"]["digest"] != anew["plan"]["digest"]
    assert again["replay"] == first["replay"]
    for ticket in tickets:
        orchestrator._router.queues.release(ticket)


async def test_the_replay_of_one_of_two_searches_settles_only_that_one(settings: AppSettings, tmp_path: Path) -> None:
    """Where a policy has two recipes with `n: auto`, the turns of one are not taken for those of the other, which has
    other branches."""
    few = "  few: {best_of: {n: auto, most: 3, of: [single, direct], scorer: alignment, quality_per_s: 0.01}}\n"
    text = searching(0.02).replace("objective:", few + "objective:", 1)
    orchestrator, _ = scripted(settings, tmp_path, Script(POOR), {"main": text})
    orchestrator._router.knowledge.score_readings["alignment"] = SHARP
    service = Service(orchestrator, settings.limits)
    for name in ("many", "few"):
        first = await service.route({"prompt": ASK.prompt, "model": "main", "seed": 3, "recipe": name})
        again = await service.route(json.loads(json.dumps(first["replay"])))
        assert again["plan"]["digest"] == first["plan"]["digest"]
        assert again["replay"] == first["replay"] and again["replay"]["recipe"] == name


async def test_a_search_that_comes_to_one_picture_pays_for_no_look(settings: AppSettings, tmp_path: Path) -> None:
    """Its estimate is that of its one branch, without the scorer's seconds and dollars."""
    orchestrator, _ = scripted(settings, tmp_path, Script(POOR), {"main": searching(1000)})
    route = await orchestrator.route(ASK)
    one = route.estimates[{"sd15": "draft", "flux": "direct"}[str(route.plan.steps[0].model)]]
    assert route.estimates["many"].work_s == pytest.approx(one.work_s, rel=1e-9)
    assert route.estimates["many"].cost_usd == pytest.approx(one.cost_usd, rel=1e-9)
    assert route.estimates["many"].latency_s == pytest.approx(one.latency_s, rel=1e-9)
    assert route.estimates["many"].quality.mean == pytest.approx(one.quality.mean)
    assert [step.kind for step in route.plan.steps] == ["generate"]


@pytest.mark.parametrize(
    ("limit_s", "took_s", "pictures"),
    [
        (50.0, 27.0, 1),  # a picture and a look: within the deadline of 60 s, not within the policy's 50
        (1000.0, 100.0, 1),  # within the policy's limit, not within the deadline
        (None, 100.0, 1),
        (50.0, 20.0, 3),
        (None, 27.0, 3),
    ],
)
async def test_a_try_has_to_end_before_the_deadline_and_the_limit(
    settings: AppSettings, tmp_path: Path, limit_s: float | None, took_s: float, pictures: int
) -> None:
    """Both bind: when steps take longer than was estimated, no other picture is begun that either forbids."""
    limits = f"limits: {{latency_s: {limit_s}}}\n" if limit_s is not None else ""
    verify = "verify: {scorer: alignment, accept_above: 0.9, retry: 2}\n"
    script = Script({60: 0.1}, took_s=took_s)
    outcome, _, _ = await run(settings, tmp_path, RECIPES + DRAFT + limits + verify, script)
    assert sum(step.startswith("generate") for step in script.ran) == pictures
    late = [note for note in outcome.notes if "it would end after the deadline" in note]
    assert bool(late) is (pictures == 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "draft"}, "turns belong to a recipe that is asked for by name"),
        ({"recipe": None}, "turns belong to a recipe that is asked for by name"),
        (
            {"turns": [{"recipe": "sd51", "bar": 1.0, "slope": 1.0, "offset": 0.0, "chance": 0.5}]},
            "did you mean 'sd15'",
        ),
        ({"turns": [{"recipe": "sd15", "bar": 2.0, "slope": 1.0, "offset": 0.0, "chance": 0.5}]}, "turns"),
        ({"turns": [{"recipe": "sd15", "bar": 0.5}]}, "turns"),
    ],
)
async def test_turns_that_do_not_belong_are_refused(
    settings: AppSettings, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    """Turns of another recipe, of a model that is not tried here, or out of range: the request is at fault."""
    orchestrator, _ = scripted(settings, tmp_path, Script(POOR), {"main": searching(0.0)})
    service = Service(jobs_of(orchestrator), settings.limits)
    replay = (await service.route({"prompt": ASK.prompt, "model": "main", "recipe": "many", "seed": 3}))["replay"]
    with pytest.raises(RequestError, match=message):
        await service.route({**replay, **change})


@pytest.mark.parametrize("bound", ["rule", "budget"])
async def test_a_search_keeps_to_rules_and_budgets_in_the_worst_case(
    settings: AppSettings, tmp_path: Path, bound: str
) -> None:
    """What a rule sets and what a tenant's budget has left bound all its pictures together, not only those expected."""
    orchestrator, _ = scripted(settings, tmp_path, Script(POOR), {"main": searching(0.0)})
    orchestrator._router.knowledge.score_readings["alignment"] = SHARP
    free = orchestrator._router.queues.estimate((await orchestrator.route(replace(ASK, recipe="many"))).plan)
    most = 0.9 * free.cost_usd
    text = searching(0.0)
    if bound == "rule":
        text = text.replace("prefer: [many]}", f"prefer: [many], set: {{limits: {{cost_usd: {most:.9f}}}}}}}")
    else:
        text += f"budgets: [{{name: hourly, window_s: 3600, cost_usd: {most:.9f}}}]\n"
    bounded, _ = scripted(settings, tmp_path, Script(POOR), {"main": text})
    bounded._router.knowledge.score_readings["alignment"] = SHARP
    route = await bounded.route(replace(ASK, recipe="many"))
    assert sum(step.kind == "generate" for step in route.plan.steps) >= 2
    assert bounded._router.queues.estimate(route.plan).cost_usd <= most


# ------------------------------------------------------------------------------------------------------ lost branches


class Broken(Script):
    """`broken` models fail."""

    broken: tuple[str, ...] = ("flux",)

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        if step.model in self.broken:
            raise StepError("out of memory")
        return await super().run(step, inputs, deadline_s, on_progress)


def fused(how: str) -> str:
    return RECIPES + f"  both: {{fuse: {{{how}, of: [draft, single, direct]}}}}\nobjective: {{minimise: cost_usd}}\n"


@pytest.mark.parametrize("how", ["with: average", "with: best_of, scorer: alignment", "with: pyramid"])
async def test_a_fusion_goes_on_without_a_lost_branch(settings: AppSettings, tmp_path: Path, how: str) -> None:
    """With `min_successful` a failing branch costs no answer, and the answer says what is missing from it."""
    request = GenerationRequest(ASK.prompt, seed=3, recipe="both")
    script = Broken({60: 0.4, 120: 0.6})
    outcome, orchestrator, _ = await run(settings, tmp_path, fused(f"{how}, min_successful: 2"), script, request)
    assert any("both went on without" in note and "out of memory" in note for note in outcome.notes)
    assert orchestrator.queued_s("flux") == 0
    with pytest.raises(StepError, match="out of memory"):
        await run(settings, tmp_path, fused(how), Broken({60: 0.4, 120: 0.6}), request)


async def test_too_many_lost_branches_fail_the_request(settings: AppSettings, tmp_path: Path) -> None:
    """With fewer pictures than `min_successful` the request fails with the first failure."""
    script = Broken({60: 0.4})
    script.broken = ("flux", "sdxl")
    with pytest.raises(StepError, match="out of memory"):
        await run(
            settings,
            tmp_path,
            fused("with: average, min_successful: 2"),
            script,
            GenerationRequest(ASK.prompt, recipe="both"),
        )


# ------------------------------------------------------------------------------------------------------------- at once


async def test_two_workers_compute_at_once(settings: AppSettings, tmp_path: Path) -> None:
    """Both branches of a fusion are inside their engines at the same time: each waits there for the other."""
    meeting = threading.Barrier(2, timeout=20)

    class Meeting:
        """An engine that only ends when another one is running, too."""

        def __init__(self, grey: int) -> None:
            self.grey = grey

        def run(self, step: Step, inputs: Sequence[Value], **_: object) -> StepResult:
            if step.kind == "score":
                return StepResult(Scores(tuple(0.5 for _ in inputs)), 0.01)
            meeting.wait()
            return StepResult(Picture(np.full((64, 64, 3), self.grey, np.uint8)), 0.01)

    orchestrator, _ = scripted(
        settings, tmp_path, Script({}), {"main": fused("with: average").replace(", direct]", "]")}
    )
    engines = {"sd15": ModelWorker("sd15", lambda: Meeting(60)), "sdxl": ModelWorker("sdxl", lambda: Meeting(120))}
    orchestrator._runner._workers = engines
    outcome = await orchestrator.generate(GenerationRequest(ASK.prompt, recipe="both"))
    first, second = (trace for trace in outcome.made[0].traces if trace.step.kind == "generate")
    assert max(first.started_s, second.started_s) < min(first.ended_s, second.ended_s)
