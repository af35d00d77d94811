"""What an answer warns of and what it costs: unlikely pictures, unknown words, measured seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.api.errors import headers, status_of
from deployments.api.service import Service
from deployments.api.wire.requests import parse_request
from deployments.api.wire.responses import outcome_report, warnings
from deployments.assembly import catalogue_of
from deployments.in_process import build_local
from deployments.orchestration.orchestrator import Orchestrator
from deployments.orchestration.results import Check, Made, likely, unlikely
from deployments.settings import DEFAULT_CONFIG, AppSettings, load_serve_config
from deployments.store.decision_log import DecisionLog
from router.errors import UnlikelyError
from router.types import GenerationRequest
from tests.deployments.orchestration.test_verification import GOOD, POOR, RECIPES, SHARP
from tests.deployments.support.scripted import Script, jobs_of, scripted

ASK = GenerationRequest("a red circle", seed=3, id="req_1")
LOOKED = (
    "verify: {scorer: alignment, by: expected_gain, quality_per_s: 0, quality_per_usd: 0, escalate_to: [single]%s}\n"
)
DRAFT = "objective: {minimise: cost_usd}\n"


def policy(rest: str = "") -> str:
    """Drafts that are looked at, and tried again as a single."""
    return RECIPES + DRAFT + LOOKED % rest


def sharp(
    settings: AppSettings, folder: Path, text: str, script: Script, log: DecisionLog | None = None
) -> Orchestrator:
    """An orchestrator with one policy and a scorer that sees sharply."""
    orchestrator, _ = scripted(settings, folder, script, {"main": text}, log=log)
    orchestrator._router.knowledge.score_readings["alignment"] = SHARP  # type: ignore[index]
    return orchestrator


# -------------------------------------------------------------------------------------------------- unlikely pictures


async def test_a_picture_that_is_probably_wrong_is_a_warning(settings: AppSettings, tmp_path: Path) -> None:
    """When no checked picture is likely right, the answer says so with the best probability; else it does not."""
    ahead = sharp(settings, tmp_path, policy(), Script(POOR))
    outcome = await ahead.generate(ASK)
    report = outcome_report(outcome, parse_request({"prompt": ASK.prompt}, settings.limits), "req_1")
    best = max(check.probability for check in outcome.made[0].checks)
    assert best < 0.5
    (warning,) = [w for w in report["warnings"] if "probably not what the prompt says" in w]
    assert f"{best:.1g}"[:4] in warning
    (tmp_path / "good").mkdir()
    fine = await sharp(settings, tmp_path / "good", policy(), Script(GOOD)).generate(ASK)
    assert fine.warnings == ()


async def test_a_policy_may_refuse_what_is_probably_wrong(settings: AppSettings, tmp_path: Path) -> None:
    """With `or: refuse` such a request is 422 with the probability and without a retry, and is counted; a good one is
    answered."""
    ahead = sharp(settings, tmp_path, policy(", or: refuse"), Script(POOR))
    with pytest.raises(UnlikelyError, match=r"with a probability of 0\.") as refused:
        await ahead.generate(ASK)
    counted = {"policy": "main", "code": "no_picture_likely_right"}
    assert ahead.metrics.value("triptych_refused_total", **counted) == 1  # type: ignore[attr-defined]
    assert (status_of(refused.value), refused.value.code) == (422, "no_picture_likely_right")
    assert "Retry-After" not in headers(refused.value)
    (tmp_path / "good").mkdir()
    assert (await sharp(settings, tmp_path / "good", policy(", or: refuse"), Script(GOOD)).generate(ASK)).made


async def test_one_likely_picture_of_several_is_answered(settings: AppSettings) -> None:
    """Of several pictures each unlikely one has a warning of its own, with its number."""
    good, poor = (Check("draft", p, (), p >= 0.5, probability=p) for p in (0.9, 0.005))
    pictures = [
        Made(None, seed, "", (), "draft", checks)  # type: ignore[arg-type]
        for seed, checks in enumerate([(good,), (poor, poor), ()])
    ]
    assert [likely(made) for made in pictures] == [True, False, True]
    (warning,) = unlikely(pictures)
    assert warning.startswith("picture 2 ")
    assert "0.005 (the best of 2 checked ones)" in warning


# ------------------------------------------------------------------------------------------------------ measured cost


async def test_cost_is_measured_seconds_at_the_cards_prices(settings: AppSettings, tmp_path: Path) -> None:
    """`cost_usd` in answer, header's report and log is seconds as measured, checks included, times each card's price;
    what was estimated stands beside it."""
    log = DecisionLog(tmp_path / "log.sqlite")
    script = Script(POOR, took_s=3.0)
    (tmp_path / "policies").mkdir()
    outcome = await sharp(settings, tmp_path / "policies", policy(), script, log).generate(ASK)
    catalogue = catalogue_of(settings)
    models = [ran.split()[1] for ran in script.ran]
    assert {"sd15", "alignment"} <= set(models)
    due = sum(3.0 * catalogue[model].usd_per_hour / 3600 for model in models)
    assert outcome.cost_usd == pytest.approx(due)
    report = outcome_report(outcome, parse_request({"prompt": ASK.prompt}, settings.limits), "req_1")
    assert report["cost_usd"] == pytest.approx(due, rel=1e-5)
    assert report["estimated_cost_usd"] == pytest.approx(outcome.estimated_cost_usd, rel=1e-5)
    assert outcome.estimated_cost_usd != pytest.approx(due, rel=0.01)
    log.attach("req_1", "rating", 1.0)
    ((record, _),) = log.rated("rating")
    assert record.cost_usd == pytest.approx(due)


# ------------------------------------------------------------------------------------------------------ unknown words


@pytest.fixture(scope="module")
def shipped() -> Orchestrator:
    """The embedded family as it ships."""
    return build_local(load_serve_config(DEFAULT_CONFIG).settings)


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a white circle and a black square", ["'white circle'", "'black square'"]),
        ("a cat", ["'cat'"]),
        ("a striped red circle", ["'striped'"]),
        ("four red circles", ["'four'"]),
        ("7 blue stars", ["'7'"]),
        ("a pink ring", ["'pink'"]),
        ("a red hexagon above a blue square", ["'hexagon'"]),
        ("a red circle on a green background", ["'green background'"]),
    ],
)
@pytest.mark.shipped_weights
async def test_what_no_caption_said_lowers_familiarity(shipped: Orchestrator, prompt: str, named: list[str]) -> None:
    """Colours, shapes, counts and materials outside the captioned world put a prompt out of range, with a warning."""
    route = await shipped.route(GenerationRequest(prompt))
    assert route.view.out_of_range
    (warning,) = [w for w in warnings(route) if "no caption" in w]
    assert all(word in warning for word in named)


@pytest.mark.shipped_weights
async def test_the_captioned_world_is_familiar(shipped: Orchestrator) -> None:
    """A prompt of the captioned world has no warning."""
    for prompt in ("a red circle", "a green ring above a blue square", "two small yellow stars on a black background"):
        route = await shipped.route(GenerationRequest(prompt))
        assert (route.view.unsaid, warnings(route)) == ((), [])


async def test_a_request_for_the_decision_warns_alike(settings: AppSettings, tmp_path: Path) -> None:
    """`/v1/route` has the warnings about the body that a generation has."""
    orchestrator, _ = scripted(settings, tmp_path, Script(GOOD), {"main": RECIPES + DRAFT})
    service = Service(jobs_of(orchestrator), settings.limits)
    report = await service.route(
        {"prompt": "a (red:1.3)\u200b circle", "model": "sdxl", "quality": "hd", "style": "vivid"}
    )
    assert {warning.split(":")[0] for warning in report["warnings"][:4]} == {"quality", "style", "prompt"}


async def test_steps_and_guidance_that_reach_a_part_of_the_recipe_are_a_warning(
    settings: AppSettings, tmp_path: Path
) -> None:
    """Steps and guidance of a request are for what draws from noise; where a refiner keeps its own, that is said, and
    where it shares the schedule of the base, or nothing is asked for, it is not."""
    chains = """recipes:
  pixels:  {chain: [{generate: {model: sdxl}}, {refine: {model: sdxl-refiner, strength: 0.5, steps: 7}}]}
  latents: {chain: [{generate: {model: sdxl, until: 0.5}}, {refine: {model: sdxl-refiner, from: 0.5}}]}
"""
    made, _ = scripted(settings, tmp_path, Script(GOOD), {"main": chains + DRAFT})

    async def told(recipe: str, **asked: float) -> list[str]:
        request = GenerationRequest("a red circle", recipe=recipe, target="main", **asked)  # type: ignore[arg-type]
        return [w for w in warnings(await made.route(request)) if "drawn from noise" in w]

    (warning,) = await told("pixels", steps=9)
    assert "steps: 9" in warning and "sdxl-refiner refines with 7" in warning
    (warning,) = await told("pixels", guidance_scale=1.5)
    assert warning.startswith("guidance_scale: 1.5")
    assert not await told("pixels") and not await told("pixels", steps=7) and not await told("latents", steps=8)
