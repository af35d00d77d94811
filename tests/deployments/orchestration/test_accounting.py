"""What a request is expected to take, what is told of it, and what is learned from it, in numbers."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.orchestration import recorder as recorder_module
from deployments.orchestration.metrics import Tally
from deployments.orchestration.orchestrator import Decided, begun
from deployments.orchestration.recorder import Recorder
from deployments.orchestration.results import Finished
from deployments.settings import AppSettings
from router.errors import StepError
from router.types import Estimate, GenerationRequest, Quality, Verification
from tests.deployments.support.scripted import Script, scripted

RECIPES = """recipes:
  draft:   {generate: {model: sd15}}
  single:  {generate: {model: sdxl}}
  mixed:   {fuse: {with: average, of: [draft, single]}}
  chained: {chain: [{generate: {model: sdxl}}, {upscale: {factor: 2}}, {refine: {model: sdxl-refiner, strength: 0.5}}]}
objective: {minimise: cost_usd}
"""
POOR = {60: 0.03, 120: 0.97, 90: 0.5}


def estimate(recipe: str, work_s: float, cost_usd: float) -> Estimate:
    return Estimate(recipe, Quality(0.5, 0.1), work_s, 0.0, work_s, cost_usd)


ESTIMATES = {"a": estimate("a", 2.0, 0.25), "b": estimate("b", 4.0, 0.5), "c": estimate("c", 8.0, 1.0)}


@pytest.mark.parametrize(
    ("verify", "work_s", "cost_usd"),
    [
        (None, 2.0, 0.25),
        ({"escalate_to": ("b", "c")}, 14.0, 1.75),
        ({"escalate_to": ("b",), "retry": 1}, 2 + 2 + 4 + 4, 0.25 + 0.25 + 0.5 + 0.5),
        ({"escalate_to": ("b", "c"), "most": 2}, 10.0, 1.25),  # one other: the dearest that may be
        ({"escalate_to": ("b", "c"), "most": 1}, 2.0, 0.25),
        ({"escalate_to": ("b", "c"), "work_s": 3.0}, 5.0, 1.75),
        ({"escalate_to": ("b", "c"), "cost_usd": 0.75}, 14.0, 1.0),
        ({"escalate_to": ("b", "c"), "work_s": 12.0, "cost_usd": 1.5}, 14.0, 1.75),
    ],
)
def test_what_is_reserved_is_every_try_that_may_be_needed(
    verify: dict[str, Any] | None, work_s: float, cost_usd: float
) -> None:
    """The chosen recipe and all tries that the policy allows, the dearest first where it bounds their number, within
    its seconds and dollars."""
    made = None if verify is None else Verification(scorer="alignment", accept_above=0.5, **verify)
    route = SimpleNamespace(decision=SimpleNamespace(recipe="a", verify=made), estimates=ESTIMATES)
    assert Decided(None, route).expected() == (pytest.approx(work_s), pytest.approx(cost_usd))  # type: ignore[arg-type]


async def test_what_was_estimated_counts_the_recipe_once_and_each_try(settings: AppSettings, tmp_path: Path) -> None:
    """For all pictures of a request what its recipe was expected to cost, and a picture's part for each further try; of
    a picture that is told alone, its own part."""
    looked = "verify: {scorer: alignment, accept_above: 0.9, escalate_to: [single]}\n"
    prefers = "rules: [{name: r, when: {tag: t}, prefer: [draft]}]\n"
    made, _ = scripted(settings, tmp_path, Script(POOR), {"main": RECIPES + prefers + looked})
    alone: list[Finished] = []
    request = GenerationRequest("a red circle", n=2, tags=("t",), target="main")
    outcome = await made.generate(request, lambda event: alone.append(event) if isinstance(event, Finished) else None)
    draft, single = (outcome.route.estimates[name].cost_usd for name in ("draft", "single"))
    assert [[check.recipe for check in picture.checks] for picture in outcome.made] == [["draft", "single"]] * 2
    assert outcome.estimated_cost_usd == pytest.approx(draft + single)
    assert [event.alone.estimated_cost_usd for event in alone] == [pytest.approx((draft + single) / 2)] * 2
    assert sum(event.alone.cost_usd for event in alone) == pytest.approx(outcome.cost_usd)


async def test_shares_of_a_plan_are_its_seconds(settings: AppSettings, tmp_path: Path) -> None:
    """Of a chain each step has its part of the seconds, in all 1."""
    made, _ = scripted(settings, tmp_path, Script(POOR), {"main": RECIPES})
    plan = (await made.route(GenerationRequest("a red circle", recipe="chained", target="main"))).plan
    seconds = {step.id: made._costs.seconds(step, plan.width * plan.height) for step in plan.steps}
    shares = made.shares(plan)
    assert sum(shares.values()) == pytest.approx(1.0) and len(shares) == 3
    assert shares == {step: pytest.approx(one / sum(seconds.values())) for step, one in seconds.items()}


async def test_what_is_learned_of_a_blend_is_by_its_pixels(settings: AppSettings, tmp_path: Path) -> None:
    """A step without a size of its own is measured by the picture's: two pictures of so many megapixels."""
    made, _ = scripted(settings, tmp_path, Script(POOR), {"main": RECIPES})
    await made.generate(GenerationRequest("a red circle", recipe="mixed", target="main"))
    plan = (await made.route(GenerationRequest("a red circle", recipe="mixed", target="main"))).plan
    ((work, seconds),) = made.costs_snapshot()["observations"]["-/blend/*"]
    assert work == pytest.approx(2 * plan.width * plan.height / 1e6)
    assert 0 < seconds < 5


def test_a_request_is_on_its_way_since_it_arrived() -> None:
    """Seconds under way count; a clock that is ahead of ours takes none away, and without a time it begins now."""
    now = time.monotonic()
    assert begun(GenerationRequest("x")) - now == pytest.approx(0.0, abs=1.0)
    assert begun(GenerationRequest("x", arrived_s=time.time() - 40)) - now == pytest.approx(-40.0, abs=1.0)
    assert begun(GenerationRequest("x", arrived_s=time.time() + 40)) - now == pytest.approx(0.0, abs=1.0)


async def test_a_log_that_does_not_answer_holds_up_a_bounded_number_of_writes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As many as may wait, wait; the next is refused at once, until the first of them are done."""
    monkeypatch.setattr(recorder_module, "MOST_WAITING", 2)
    monkeypatch.setattr(recorder_module, "PATIENCE_S", 0.05)
    answers = threading.Event()

    def attach(*_: Any) -> str:
        answers.wait(30)
        return "receipt"

    log = SimpleNamespace(attach=attach, path="log")
    recorder = Recorder(log, {}, Tally())  # type: ignore[arg-type]
    refused = await asyncio.gather(
        *(recorder.attach("req", "rating", 1.0, None) for _ in range(4)), return_exceptions=True
    )
    assert [(type(one), getattr(one, "retry_after_s", 0)) for one in refused] == [(StepError, 5.0)] * 4
    assert ["2 writes wait" in said for said in caplog.messages].count(True) == 2
    answers.set()
    while any(not future.done() for future in recorder._waiting):
        await asyncio.sleep(0.01)
    assert await recorder.attach("req", "rating", 1.0, None) == "receipt"
