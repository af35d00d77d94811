"""The flow of a request when something goes wrong: the real router, with workers that can be made to fail."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from deployments.assembly import build_orchestrator
from deployments.in_process import LocalWorkers
from deployments.orchestration import runner
from deployments.orchestration.availability import Availability, load_error
from deployments.orchestration.orchestrator import Orchestrator
from deployments.orchestration.results import Advanced, Finished, Outcome, Routed, WorkerLostError
from deployments.settings import AppSettings
from deployments.workers.worker import OnProgress, WorkerStatus
from policies.store import book
from router.cost.batches import BatchSizes
from router.cost.order import Claim
from router.errors import DeadlineError, LoadError, NoRecipeError, StepError
from router.types import GenerationRequest, Rejection, Step, StepResult, Value


class Flaky:
    """A worker that raises the given exceptions first and then does its work; it remembers what it was asked."""

    def __init__(self, inner: Any, *failures: Exception, delay_s: float = 0.0) -> None:
        self.inner = inner
        self.failures = list(failures)
        self.delay_s = delay_s
        self.seeds: list[Any] = []
        self.cancelled = 0

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        self.seeds.append(step.settings.get("seed"))
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failures:
            raise self.failures.pop(0)
        return await self.inner.run(step, inputs, deadline_s, on_progress)


class Silent:
    """A monitor that knows of no failure."""

    async def statuses(self) -> Mapping[str, WorkerStatus]:
        return {"sd15": WorkerStatus("sd15", "ready")}


@pytest.fixture(scope="module")
def workers(settings: AppSettings) -> LocalWorkers:
    """Workers in this process, shared by the tests below."""
    return LocalWorkers(settings)


def orchestrate(settings: AppSettings, workers: LocalWorkers, **replaced: Any) -> Orchestrator:
    """An orchestrator on `workers`, some of them replaced."""
    return build_orchestrator(settings, {**workers.by_model, **replaced}, Silent())


def asked(**fields: Any) -> GenerationRequest:
    """A request that two denoising steps of sd15 answer."""
    return GenerationRequest("a red circle", target="sd15", steps=2, seed=11, **fields)


async def test_a_lost_worker_costs_one_more_try(settings: AppSettings, workers: LocalWorkers) -> None:
    """A step whose worker dies runs once more with the same seed, and the answer is the same picture."""
    calm = await orchestrate(settings, workers).generate(asked())
    flaky = Flaky(workers.by_model["sd15"], WorkerLostError("gone"))
    again = await orchestrate(settings, workers, sd15=flaky).generate(asked())
    assert flaky.seeds == [11, 11]
    assert (again.made[0].picture.pixels == calm.made[0].picture.pixels).all()


async def test_a_worker_that_dies_three_times_fails_the_request(settings: AppSettings, workers: LocalWorkers) -> None:
    """A step is tried three times, not for ever."""
    flaky = Flaky(workers.by_model["sd15"], *(WorkerLostError(f"gone for time {n}") for n in (1, 2, 3)))
    with pytest.raises(StepError, match="gone for time 3"):
        await orchestrate(settings, workers, sd15=flaky).generate(asked())


async def test_a_model_that_cannot_load_is_routed_around(settings: AppSettings, workers: LocalWorkers) -> None:
    """If the chosen recipe's model turns out to be missing, another recipe is taken and the outcome says so."""
    gone = Flaky(workers.by_model["sd15"], *[LoadError("sd15: no weights", "model")] * 5)
    orchestrator = orchestrate(settings, workers, sd15=gone)
    outcome = await orchestrator.generate(GenerationRequest("a red circle", seed=1))
    assert outcome.route.decision.recipe != "draft"
    assert "no weights" in outcome.notes[0]
    assert [r.gate for r in outcome.route.decision.rejected if r.recipe == "draft"] == ["capability"]
    with pytest.raises(LoadError, match="no weights"):
        await orchestrator.generate(asked())


async def test_work_that_cannot_begin_in_time_is_not_begun(settings: AppSettings, workers: LocalWorkers) -> None:
    """After the latency budget no further step starts: the request ends with a `DeadlineError`."""
    slow = Flaky(workers.by_model["sdxl"], delay_s=0.6)
    request = GenerationRequest("a red circle", target="lab", recipe="latents", latency_budget_s=30, seed=1)
    orchestrator = orchestrate(settings, workers, sdxl=slow)
    await orchestrator.generate(request)  # loads the weights, so that the next estimate is honest
    route = await orchestrator.route(request)
    assert route.decision.recipe == "latents"
    orchestrator._runner.timeout_s = 0.3
    with pytest.raises(DeadlineError):
        await orchestrator.generate(GenerationRequest("a red circle", target="lab", recipe="latents", seed=1))


async def test_cancelling_a_request_cancels_all_its_steps_and_frees_the_queue(
    settings: AppSettings, workers: LocalWorkers
) -> None:
    """When the caller leaves, every running step is cancelled, no waiting one is begun, and the reserved work is taken
    off the queue."""
    slow = Flaky(workers.by_model["sd15"], delay_s=30)
    orchestrator = orchestrate(settings, workers, sd15=slow)
    task = asyncio.create_task(orchestrator.generate(asked(n=3)))
    while len(slow.seeds) < 2:  # one that runs, and one that was sent since that should have ended
        await asyncio.sleep(0.01)
    assert orchestrator.queued_s("sd15") > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (len(slow.seeds), slow.cancelled) == (2, 2)
    assert orchestrator.queued_s("sd15") == 0


async def test_a_request_says_what_its_steps_claim(
    settings: AppSettings, workers: LocalWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step waits under its request's id, tenant and deadline, with the seconds that it is expected to take."""
    claims: list[Claim] = []
    orchestrator = orchestrate(settings, workers)
    usual = orchestrator.step_queues.run

    async def noting(step: Step, inputs: Sequence[Value], claim: Claim, *told: Any) -> StepResult:
        claims.append(claim)
        return await usual(step, inputs, claim, *told)

    monkeypatch.setattr(orchestrator.step_queues, "run", noting)
    before = time.monotonic()
    request = GenerationRequest("a red circle", target="lab", recipe="latents", n=2, tenant="acme", id="req_1", seed=1)
    await orchestrator.generate(replace(request, latency_budget_s=50))
    assert len(claims) == 4
    assert {(claim.job, claim.tenant, claim.priority) for claim in claims} == {("req_1", "acme", "standard")}
    assert all(before + 50 <= claim.deadline <= time.monotonic() + 50 for claim in claims)
    assert all(claim.seconds > 0 for claim in claims)
    claims.clear()
    for _ in range(2):
        await orchestrator.generate(asked())
    assert len({claim.job for claim in claims}) == 2


class FourAtOnce(BatchSizes):
    """What is learned after a while on a machine where it pays."""

    def best(self, step: Step) -> int:
        return 4


async def test_pictures_of_one_request_are_made_together_unless_it_says_otherwise(
    settings: AppSettings, workers: LocalWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four pictures come out of one call of the model, as they would alone up to rounding, what they took is learned of
    batches of four, and each counts with its share; with `deterministic` they have the bytes of pictures made alone."""
    orchestrator = orchestrate(settings, workers)
    costs = orchestrator._runner._costs
    monkeypatch.setattr(orchestrator.step_queues, "_sizes", FourAtOnce(costs, lambda model: 4))
    together = await orchestrator.generate(asked(n=4))
    exact = await orchestrator.generate(asked(n=4, deterministic=True))
    for made, alone in zip(together.made, exact.made, strict=True):
        single = (await orchestrator.generate(replace(asked(), seed=made.seed))).made[0]
        assert (alone.picture.pixels == single.picture.pixels).all()
        assert abs(made.picture.pixels.astype(int) - alone.picture.pixels).max() <= 2
        assert made.traces[0].facts["batch"] == 4
        assert "batch" not in alone.traces[0].facts
    step = together.made[0].traces[0].step
    assert (costs.measured(step, 4), costs.measured(step, 1)) == (4, 8)
    seconds = [made.traces[0].seconds for made in together.made]
    assert len(set(seconds)) == 1
    assert together.cost_usd == pytest.approx(costs.cost_usd(step, sum(seconds)))


async def test_waiting_work_raises_the_estimate_of_others(settings: AppSettings, workers: LocalWorkers) -> None:
    """While a model is busy, the estimates of its recipes include the wait."""
    slow = Flaky(workers.by_model["sd15"], delay_s=1)
    orchestrator = orchestrate(settings, workers, sd15=slow)
    task = asyncio.create_task(orchestrator.generate(asked(n=2)))
    while not slow.seeds:
        await asyncio.sleep(0.01)
    route = await orchestrator.route(asked())
    assert route.estimates["sd15"].queue_s > 0
    await task
    assert (await orchestrator.route(asked())).estimates["sd15"].queue_s == 0


async def test_a_stream_begins_with_the_route_and_ends_with_the_outcome(
    settings: AppSettings, workers: LocalWorkers
) -> None:
    """Events come in the order of the flow, progress of every picture among them."""
    request = GenerationRequest("a red circle", target="sdxl", steps=6, n=2, seed=1)
    events = [event async for event in orchestrate(settings, workers).stream(request)]
    assert isinstance(events[0], Routed)
    assert isinstance(events[-1], Outcome)
    assert {event.index for event in events if isinstance(event, Advanced)} == {0, 1}


async def test_measured_seconds_replace_the_prior(settings: AppSettings, workers: LocalWorkers) -> None:
    """After a few pictures the estimate is what the steps really took, far from the card's figure."""
    orchestrator = orchestrate(settings, workers)
    before = (await orchestrator.route(asked())).estimates["sd15"].work_s
    outcomes = [await orchestrator.generate(asked()) for _ in range(6)]
    after = (await orchestrator.route(asked())).estimates["sd15"].work_s
    real = sum(trace.seconds for outcome in outcomes for trace in outcome.made[0].traces) / len(outcomes)
    assert abs(after - real) < abs(before - real)


async def test_a_guest_that_cannot_load_takes_the_common_recipe_out(
    settings: AppSettings, workers: LocalWorkers
) -> None:
    """Two models that predict together need both: with the guest's weights failed, the recipe is refused beforehand."""

    class Down:
        async def statuses(self) -> Mapping[str, WorkerStatus]:
            return {"sdxl-turbo": WorkerStatus("sdxl-turbo", "failed", "no weights")}

    orchestrator = orchestrate(settings, workers)
    orchestrator.availability = Availability(Down())
    with pytest.raises(LoadError, match="'sdxl-turbo' is not available: no weights"):
        await orchestrator.route(GenerationRequest("a red circle", target="lab", recipe="together"))


async def test_recipes_without_their_model_are_refused_and_the_rest_decided_as_before(
    settings: AppSettings, workers: LocalWorkers
) -> None:
    """With a model failed, decisions only lose its recipes; with all of them failed, the error names the weights."""

    class Down:
        def __init__(self, *models: str) -> None:
            self.models = models

        async def statuses(self) -> Mapping[str, WorkerStatus]:
            return {model: WorkerStatus(model, "failed", "no weights") for model in self.models}

    orchestrator = orchestrate(settings, workers)
    orchestrator.availability = Availability(Down("sd15"))
    route = await orchestrator.route(GenerationRequest("a red circle"))
    assert "draft" not in {ranked.recipe for ranked in route.decision.ranking}
    with pytest.raises(NoRecipeError):
        await orchestrator.route(GenerationRequest("a red circle", max_cost_usd=0))
    orchestrator.availability = Availability(Down("sd15", "sdxl", "sdxl-turbo", "flux"))
    with pytest.raises(LoadError, match="no weights"):
        await orchestrator.route(GenerationRequest("a red circle"))


# ------------------------------------------------------------------------------------------------------- the deadline


class Unreachable:
    """A worker that takes a step and never answers."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.cancelled = asyncio.Event()

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        self.steps.append(step)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError("nothing ends this wait")


async def test_a_request_behind_an_unreachable_worker_ends_at_its_deadline(
    settings: AppSettings, workers: LocalWorkers
) -> None:
    """A worker that never answers holds a request until its latency budget is over; its step is cancelled and its work
    taken off the queue."""
    lost = Unreachable()
    orchestrator = orchestrate(settings, workers, sd15=lost)
    orchestrator._runner.timeout_s = 0.2
    with pytest.raises(DeadlineError, match="was not done when the deadline passed"):
        await orchestrator.generate(asked(n=2))
    await asyncio.wait_for(lost.cancelled.wait(), 60)
    assert len(lost.steps) == 2
    assert orchestrator.queued_s("sd15") == 0


async def test_the_deadline_counts_from_the_arrival(settings: AppSettings, workers: LocalWorkers) -> None:
    """A request that was on its way for longer than its budget is refused before anything runs; one that was not is
    told what is left."""
    deadlines: list[float] = []

    class Noting(Flaky):
        async def run(self, step: Step, inputs: Any, deadline_s: float, on_progress: Any = None) -> StepResult:
            deadlines.append(deadline_s)
            return await super().run(step, inputs, deadline_s, on_progress)

    noting = Noting(workers.by_model["sd15"])
    orchestrator = orchestrate(settings, workers, sd15=noting)
    orchestrator._runner.timeout_s = 600.0
    await orchestrator.generate(asked(latency_budget_s=500, arrived_s=time.time() - 100))
    await orchestrator.generate(asked(latency_budget_s=500, arrived_s=time.time() + 100))
    await orchestrator.generate(asked(arrived_s=time.time() - 100))
    assert 300 < deadlines[0] < 400 < deadlines[1] < 500  # of 500
    assert 400 < deadlines[2] < 500  # of 600
    with pytest.raises(DeadlineError):
        await orchestrator.generate(asked(latency_budget_s=50, arrived_s=time.time() - 100))
    assert len(deadlines) == 3


async def test_a_silent_monitor_does_not_hold_a_request_beyond_its_deadline(
    settings: AppSettings, workers: LocalWorkers
) -> None:
    """While nothing is known of the workers, a request waits for the first word of them until its deadline."""

    class Mute:
        async def statuses(self) -> Mapping[str, WorkerStatus]:
            await asyncio.Event().wait()
            raise AssertionError

    orchestrator = orchestrate(settings, workers)
    orchestrator.availability = Availability(Mute())
    with pytest.raises(DeadlineError, match="no worker said how it is"):
        await orchestrator.generate(asked(latency_budget_s=0.1))


async def test_a_blend_that_takes_too_long_ends_at_the_deadline(
    settings: AppSettings, workers: LocalWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of this process are not waited for beyond the deadline, either."""
    go_on = threading.Event()
    monkeypatch.setattr(runner, "run_step", lambda step, inputs: go_on.wait(60))
    orchestrator = orchestrate(settings, workers)
    await orchestrator.generate(asked())  # loads the weights
    orchestrator._runner.timeout_s = 3.0
    with pytest.raises(DeadlineError):
        await orchestrator.generate(GenerationRequest("a red circle", target="lab", recipe="bigger", seed=1))
    go_on.set()


# --------------------------------------------------------------------------------------------- some pictures, not all


class Breaking(Flaky):
    """A worker that fails for some seeds, and only then lets the others begin."""

    def __init__(self, inner: Any, *seeds: int, error: Exception | None = None) -> None:
        super().__init__(inner)
        self.wrong, self.error = seeds, error or StepError("out of memory", "size")
        self.failed = asyncio.Event()

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        if step.settings.get("seed") in self.wrong:
            self.failed.set()
            raise self.error
        await self.failed.wait()
        await asyncio.sleep(0.05)
        return await super().run(step, inputs, deadline_s, on_progress)


@pytest.mark.parametrize("error", [StepError("out of memory", "size"), RuntimeError("a bug"), DeadlineError("late")])
@pytest.mark.parametrize("wrong", [0, 1])
async def test_pictures_that_were_made_are_delivered_with_what_failed(
    settings: AppSettings, workers: LocalWorkers, wrong: int, error: Exception
) -> None:
    """When one picture of three fails, first or not, the other two come as they always are, and it is said which one
    is missing, with its seed and why."""
    whole = await orchestrate(settings, workers).generate(asked(n=3))
    breaking = Breaking(workers.by_model["sd15"], 11 + wrong, error=error)
    orchestrator = orchestrate(settings, workers, sd15=breaking)
    some = await orchestrator.generate(asked(n=3))
    indices = [index for index in range(3) if index != wrong]
    assert [(made.index, made.seed) for made in some.made] == [(index, 11 + index) for index in indices]
    for made in some.made:
        assert (made.picture.pixels == whole.made[made.index].picture.pixels).all()
    (missing,) = some.failed
    assert (missing.index, missing.seed) == (wrong, 11 + wrong)
    assert missing.code == getattr(error, "code", "step_failed")
    assert str(error) in missing.message
    assert some.notes[0] == f"picture {wrong + 1} of 3 (seed {11 + wrong}) is missing: {missing.message}"
    assert some.warnings[0] == some.notes[0]
    assert orchestrator.queued_s("sd15") == 0


async def test_if_every_picture_fails_the_first_failure_is_the_answer(
    settings: AppSettings, workers: LocalWorkers
) -> None:
    """Without a picture there is nothing to deliver: the request fails."""
    with pytest.raises(StepError, match="out of memory"):
        await orchestrate(settings, workers, sd15=Breaking(workers.by_model["sd15"], 11, 12)).generate(asked(n=2))


async def test_a_picture_is_streamed_when_it_is_made(settings: AppSettings, workers: LocalWorkers) -> None:
    """The event of the first picture comes while the second one is still being made; both are in the outcome."""
    go_on = asyncio.Event()

    class Later(Flaky):
        async def run(self, step: Step, *rest: Any) -> StepResult:
            if step.settings.get("seed") == 12:
                await go_on.wait()
            return await super().run(step, *rest)

    orchestrator = orchestrate(settings, workers, sd15=Later(workers.by_model["sd15"]))
    finished: list[Finished] = []
    async for event in orchestrator.stream(asked(n=2)):
        if isinstance(event, Finished):
            finished.append(event)
            go_on.set()  # without the event of the first picture, this would never be reached
        last = event
    assert isinstance(last, Outcome)
    assert [event.alone.made[0].index for event in finished] == [0, 1]
    assert [event.alone.made[0] for event in finished] == list(last.made)
    assert sum(event.alone.cost_usd for event in finished) == pytest.approx(last.cost_usd)


async def test_the_policy_folder_is_looked_at_once_a_request(
    settings: AppSettings, workers: LocalWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deciding, deciding again after a model was lost, and a shadow cost one look at the folder."""
    looks: list[Any] = []
    real = book.look
    monkeypatch.setattr(book, "look", lambda folder: looks.append(folder) or real(folder))
    orchestrator = orchestrate(settings, workers)
    looks.clear()
    await orchestrator.generate(asked())
    assert len(looks) == 1
    gone = Flaky(workers.by_model["sd15"], *[LoadError("sd15: no weights", "model")] * 5)
    orchestrator = orchestrate(settings, workers, sd15=gone)
    looks.clear()
    await orchestrator.generate(GenerationRequest("a red circle", seed=1))
    assert len(looks) == 1


def test_a_recipe_that_rules_exclude_is_no_reason_to_give_up_on_lost_weights() -> None:
    """If all that rules allow has lost its weights, the error is about the weights, which may come back."""
    error = NoRecipeError(
        "none", (Rejection("a", "capability", "model 'm' is not available: gone"), Rejection("b", "rule", "r"))
    )
    found = load_error(error, GenerationRequest("x"), {"m": "gone"})
    assert isinstance(found, LoadError) and found.message == "model 'm' is not available: gone"
    assert load_error(NoRecipeError("none", error.rejections[1:]), GenerationRequest("x"), {"m": "gone"}) is None
    out = (*error.rejections, Rejection("c", "limit", "too slow"))
    assert load_error(NoRecipeError("none", out), GenerationRequest("x"), {"m": "gone"}) is None
