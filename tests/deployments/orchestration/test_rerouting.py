"""Requests that wait and are decided anew: the real router and step queues, workers that wait for the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.orchestration import rerouting
from deployments.orchestration.budgets import TenantBudgets
from deployments.orchestration.metrics import Tally
from deployments.orchestration.orchestrator import Orchestrator
from deployments.orchestration.results import Event, Routed
from deployments.settings import AppSettings
from router.types import GenerationRequest
from tests.deployments.support.scripted import Script, scripted

POLICY = """
recipes:
  draft: {generate: {model: sd15, steps: 8}}
  good:  {generate: {model: sdxl, steps: 8}}
objective: {minimise: latency_s}
reroute: %s
"""


class Busy(Script):
    """sdxl begins nothing before it is let."""

    def __init__(self) -> None:
        super().__init__({})
        self.free = asyncio.Event()

    async def run(self, step: Any, *args: Any) -> Any:
        if step.model == "sdxl":
            self.ran.append("sdxl waits")
            await self.free.wait()
        return await super().run(step, *args)


class Place:
    """An orchestrator whose sdxl is taken, and whose sd15 seems to be, until `sd15_is_free`."""

    def __init__(
        self, settings: AppSettings, folder: Path, reroute: bool, budgets: TenantBudgets | None, further: str
    ) -> None:
        self.script = Busy()
        text = POLICY % str(reroute).lower() + further
        made = scripted(settings, folder, self.script, {"quick": text}, tenant_budgets=budgets)
        self.orchestrator: Orchestrator = made[0]
        self.tally: Tally = made[1]
        self.events: list[Event] = []
        self.running: list[asyncio.Task[Any]] = []

    async def begin(self, **asked: Any) -> asyncio.Task[Any]:
        """A request that waits for sdxl, since sd15 has more to do."""
        queues = self.orchestrator.queues
        plan = (await self.orchestrator.route(GenerationRequest("a red circle", recipe="draft"))).plan
        self.ticket = queues.reserve(plan, 200)
        first = GenerationRequest("a red circle", recipe="good")
        self.running = [asyncio.ensure_future(self.orchestrator.generate(first)) for _ in range(2)]
        await until(lambda: "sdxl waits" in self.script.ran)
        task = asyncio.ensure_future(
            self.orchestrator.generate(GenerationRequest("a blue ring", **asked), self.events.append)
        )
        self.running.append(task)
        await until(lambda: self.recipes == ["good"])
        return task

    @property
    def recipes(self) -> list[str]:
        """The decisions on the request, in their order."""
        return [event.route.decision.recipe for event in self.events if isinstance(event, Routed)]

    def sd15_is_free(self) -> None:
        self.orchestrator.queues.release(self.ticket)

    async def end(self) -> None:
        self.script.free.set()
        await asyncio.gather(*self.running)
        assert self.orchestrator.queued_s("sd15") == self.orchestrator.queued_s("sdxl") == 0.0


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come quickly."""
    monkeypatch.setattr(rerouting, "LOOK_S", 0.01)


@pytest.fixture
def place(settings: AppSettings, tmp_path: Path) -> Callable[..., Place]:
    def made(reroute: bool = True, budgets: TenantBudgets | None = None, further: str = "") -> Place:
        return Place(settings, tmp_path, reroute, budgets, further)

    return made


async def test_a_request_that_waits_goes_where_it_is_done_sooner(place: Callable[..., Place]) -> None:
    """When another worker is free meanwhile, it is taken, the answer says so, and nothing stays reserved."""
    here = place()
    task = await here.begin()
    here.sd15_is_free()
    outcome = await asyncio.wait_for(task, 5.0)
    assert here.recipes == ["good", "draft"] and outcome.route.decision.recipe == "draft"
    assert [made.recipe for made in outcome.made] == ["draft"]
    assert any(
        note.startswith("while it waited (") and "draft was taken instead of good" in note for note in outcome.notes
    )
    assert any(reason.startswith("rerouted: good was chosen") for reason in outcome.route.decision.reasons)
    assert here.tally.value("triptych_rerouted_total", policy="quick") == 1
    await here.end()


@pytest.mark.parametrize(("reroute", "asked"), [(False, {}), (True, {"recipe": "good"})])
async def test_nobody_s_choice_is_overruled(place: Callable[..., Place], reroute: bool, asked: dict[str, Any]) -> None:
    """A policy without `reroute` and a request that names its recipe wait where they are."""
    here = place(reroute)
    task = await here.begin(**asked)
    here.sd15_is_free()
    await asyncio.sleep(0.1)
    assert here.recipes == ["good"] and not task.done()
    await here.end()
    assert task.result().route.decision.recipe == "good"


async def test_what_has_begun_is_not_decided_anew(place: Callable[..., Place]) -> None:
    """A request whose first step is with its worker stays with it."""
    here = place()
    await here.begin()
    here.script.free.set()
    await asyncio.gather(*here.running)
    assert here.recipes == ["good"]
    assert not here.orchestrator._rerouting._waiting
    here.sd15_is_free()
    await here.end()


async def test_nobody_is_pushed_in_front_of(place: Callable[..., Place]) -> None:
    """A request does not go where others, who came later, would wait longer because of it."""
    here = place()
    task = await here.begin()
    route = await here.orchestrator.route(GenerationRequest("a red circle", recipe="draft"))
    later = here.orchestrator.queues.reserve(route.plan)
    here.sd15_is_free()
    await asyncio.sleep(0.1)
    assert here.recipes == ["good"] and not task.done()
    here.orchestrator.queues.release(later)
    assert (await asyncio.wait_for(task, 5.0)).route.decision.recipe == "draft"
    await here.end()


async def test_a_budget_is_not_exceeded_by_going_elsewhere(place: Callable[..., Place]) -> None:
    """A request moves only to what its tenant was charged for when it was admitted."""
    limit = "budgets: [{name: day, window_s: 86400, work_s: 1000}]\n"
    here = place(budgets=TenantBudgets(), further=limit)
    task = await here.begin()
    held = next(iter(here.orchestrator._rerouting._waiting.values()))
    for _, account, entry in held.of.admitted.charge.entries:
        account.change(entry, 1, 1)  # as if it had been admitted for next to nothing
    here.sd15_is_free()
    await asyncio.sleep(0.1)
    assert here.recipes == ["good"] and not task.done()
    await here.end()


async def test_a_request_that_is_given_up_while_it_waits_leaves_nothing(place: Callable[..., Place]) -> None:
    """Cancelled before or after it went elsewhere: nothing runs, nothing is reserved, nothing is looked at any more."""
    here = place()
    task = await here.begin()
    here.running.remove(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert here.orchestrator._rerouting._looking is None  # who comes next begins to look anew
    here.sd15_is_free()
    await here.end()
    assert "generate sd15" not in here.script.ran
    assert not here.orchestrator._rerouting._waiting
