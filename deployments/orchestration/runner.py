"""Runs the plan of a decision for each of its pictures: steps on workers, verification, what it used.

A plain class without Ray or torch; whatever runs the steps comes in as `WorkerClient`s.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from deployments.given.gallery import Gallery
from deployments.observing import tracing
from deployments.orchestration.availability import Availability
from deployments.orchestration.budgets import Charge
from deployments.orchestration.metrics import Metrics
from deployments.orchestration.results import (
    Advanced,
    Check,
    Checked,
    Chosen,
    Failure,
    Made,
    OnEvent,
    Routed,
    StepBegun,
    StepEnded,
    VerificationChoice,
)
from deployments.orchestration.step_queues import StepQueues
from deployments.orchestration.verifier import verified
from deployments.workers.streams import ended
from deployments.workers.worker import OnProgress
from models.fusion.kinds import run_step
from router.cost.model import CostModel
from router.cost.order import Claim
from router.cost.queues import Queues
from router.errors import DeadlineError, LoadError, StepError, TriptychError
from router.planning.execution import execute
from router.route import Route
from router.types import (
    GenerationRequest,
    Picture,
    Plan,
    Progress,
    Resources,
    Scores,
    Step,
    StepResult,
    StepTrace,
    Value,
)
from router.verification.options import Options, next_options
from router.verification.score_reading import ScoreReading, read_score

logger = logging.getLogger("triptych.orchestrator")

Done = TypeVar("Done")


class Runner:
    """Runs plans. costs: learns from what the steps took; timeout_s: deadline of a request without a latency budget.

    queues: what is reserved;   step_queues: where steps wait for their workers;   gallery: has the given pictures
    """

    def __init__(
        self,
        queues: Queues,
        costs: CostModel,
        step_queues: StepQueues,
        availability: Availability,
        metrics: Metrics,
        timeout_s: float,
        gallery: Gallery | None = None,
    ) -> None:
        self._gallery = gallery or Gallery()
        self.queues = queues
        self.timeout_s = timeout_s
        self._costs = costs
        self._step_queues = step_queues
        self._runs = itertools.count(1)
        self._availability = availability
        self._metrics = metrics

    async def pictures(
        self,
        route: Route,
        charge: Charge,
        started: float,
        ticket: int,
        on_event: OnEvent | None,
        on_made: Callable[[Made], None] | None = None,
        screen: Callable[[Made], Awaitable[Made]] | None = None,
        only: Collection[int] | None = None,
        followed: Callable[[], bool] = lambda: True,
    ) -> Batch:
        """The `n` pictures of a route side by side. What the steps used is added to `charge`.

        started: when the request arrived, on the monotonic clock;   ticket: the work that is reserved for them
        screen: looks at each picture before anybody else does, and may change or refuse it by an error
        on_made: called with each picture when it is made;   only: which of them are wanted; default: all
        followed: whether somebody wants to know how far a step is; asked when it begins
        A picture that fails ends no other; only if all of them fail, the first failure is raised.
        """
        if on_event is not None:
            on_event(Routed(route))
        request = route.request
        job = request.id or f"run {next(self._runs)}"
        run = _Run(route, self.due(route.request, started), on_event, charge, started, job, followed)
        seeds = {index: (request.seed + index) % 2**32 for index in range(request.n) if only is None or index in only}

        async def picture(index: int, seed: int) -> Made:
            made = replace(await self._picture(run, ticket, index, seed), index=index)
            if screen is not None:
                made = await screen(made)
            if on_made is not None:
                on_made(made)
            return made

        tasks = [asyncio.create_task(picture(index, seed)) for index, seed in seeds.items()]
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:  # those that were cancelled stop before anything else is done with this request
                await ended(task)
        return _sorted_out(tasks, seeds, route)

    def cost_usd(self, made: Made) -> float:
        """What the steps of a picture cost as measured, its checks and the tries beside it included."""
        traces = [trace for check in made.checks for trace in check.traces] or made.traces
        return sum(self._costs.cost_usd(trace.step, trace.seconds) for trace in traces)

    def due(self, request: GenerationRequest, started: float) -> float:
        """The deadline of a request, on the monotonic clock."""
        budget_s = self.timeout_s if request.latency_budget_s is None else request.latency_budget_s
        return started + budget_s

    async def _picture(self, run: _Run, ticket: int, index: int, seed: int) -> Made:
        decision = run.route.decision
        plan = run.route.plan if index == 0 else run.route.plan.with_seed(seed)
        made = await self.make(run, plan, index, seed, lambda step: self.queues.release(ticket, step, index))
        if decision.verify is None:
            return made
        score_reading = run.route.score_reading or ScoreReading()
        bench = _PictureBench(self, run, index, seed)
        best = await verified(made, decision.verify, score_reading, bench, run.route.request.n)
        if best.checks:
            passed = any(check.accepted for check in best.checks)
            verdict = ("accepted" if len(best.checks) == 1 else "escalated") if passed else "not_accepted"
            self._metrics.record("triptych_verified_total", policy=decision.policy, verdict=verdict)
        elif best.choices:
            self._metrics.record("triptych_verified_total", policy=decision.policy, verdict="not_checked")
        return best

    async def make(self, run: _Run, plan: Plan, index: int, seed: int, release: Callable[[str], None]) -> Made:
        """One picture by `plan`; `release` is called with each step that no longer waits."""
        pixels = plan.width * plan.height

        async def perform(step: Step, inputs: Sequence[Value]) -> StepResult:
            result = await self.step(step, inputs, run, index)
            self.observe(step, result, pixels)
            release(step.id)
            if step.kind == "control" and isinstance(result.value, Picture) and (tell := run.listener(index)):
                tell(Progress(step.id, 1, 1, result.value))  # what is followed can be looked at
            if run.on_event is not None:
                run.on_event(StepEnded(index, step.id))
            return result

        execution = await execute(plan, perform)
        for step in plan.steps:  # also those that were left out
            release(step.id)
        if not isinstance(execution.output, Picture):
            raise StepError(f"the plan of {plan.recipe!r} ended in {type(execution.output).__name__}, not in a picture")
        notes = [
            f"{plan.recipe} went on without {loss.origin.id}, which failed: {loss.error.message}"
            for loss in execution.losses
        ]
        notes += unblended(plan, execution.traces)
        return Made(execution.output, seed, plan.digest(), execution.traces, plan.recipe, notes=tuple(notes))

    def observe(self, step: Step, result: StepResult, pixels: int | None = None) -> None:
        """Learn what a step took."""
        self._costs.observe(step, result.seconds, pixels, int(result.facts.get("batch") or 1))

    async def step(self, step: Step, inputs: Sequence[Value], run: _Run, index: int) -> StepResult:
        """One step of picture `index` where it belongs: in this process, or on the worker of its model."""
        with tracing.span(f"step {step.kind}", step=step.id, model=step.model, picture=index):
            return await self._step(step, inputs, run, index)

    async def _step(self, step: Step, inputs: Sequence[Value], run: _Run, index: int) -> StepResult:
        if step.kind == "given":
            return await within(run.left(step), self._gallery.run(step), step)
        if step.model is None:
            return await within(run.left(step), asyncio.to_thread(run_step, step, inputs), step)
        try:
            claim, begun = self._claim(step, run), run.begins(index, step)
            result = await self._step_queues.run(step, inputs, claim, run.listener(index), begun)
        except LoadError as error:
            self._availability.mark_failed(step.model, error.message)
            raise
        run.charge.use(result.seconds, self._costs.cost_usd(step, result.seconds))
        if isinstance(result.value, Scores):
            result = replace(result, value=Scores(read_score(result.value.values, step.settings)))
        return result

    def _claim(self, step: Step, run: _Run) -> Claim:
        asked, seconds = run.route.request, self._costs.seconds(step)
        return Claim(run.job, asked.tenant, asked.priority, run.deadline, seconds, alone=asked.deterministic)


@dataclass(frozen=True)
class Batch:
    """The pictures of a request in the order of their seeds, and which are missing."""

    made: tuple[Made, ...]
    failed: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class _Run:
    """What the pictures of one request share. started, deadline: on the monotonic clock of this process; job: the id of
    the request, or one that is like no other in this process"""

    route: Route
    deadline: float
    on_event: OnEvent | None
    charge: Charge
    started: float
    job: str
    followed: Callable[[], bool]

    def left(self, step: Step) -> float:
        """Seconds until the deadline; raises `DeadlineError` if there are none."""
        if (left := self.deadline - time.monotonic()) <= 0:
            raise DeadlineError(f"step {step.id!r} was not begun: the deadline passed before its turn")
        return left

    def listener(self, index: int) -> OnProgress | None:
        """Where a worker reports progress of picture `index`; None if nobody listens, which saves the messages."""
        if (on_event := self.on_event) is None or not self.followed():
            return None
        return lambda progress: on_event(Advanced(index, progress))

    def begins(self, index: int, step: Step) -> Callable[[], None] | None:
        """What is called when a step of picture `index` goes to a worker; None if nobody wants to know."""
        if (on_event := self.on_event) is None:
            return None
        return lambda: on_event(StepBegun(index, step.id))


@dataclass(frozen=True)
class _PictureBench:
    """A `verification.Bench` for picture `index` of a request."""

    runner: Runner
    run: _Run
    index: int
    seed: int

    async def score(self, made: Made, scorer: str) -> Check:
        prompt = self.run.route.request.prompt
        step = Step(f"verify-{scorer}", "score", scorer, (made.recipe,), "scores", {"prompt": prompt})
        started = max((trace.ended_s for trace in made.traces), default=0.0)
        result = await self.runner.step(step, [made.picture], self.run, self.index)
        if not isinstance(result.value, Scores):
            raise StepError(f"model {scorer!r} returned {type(result.value).__name__} where scores were due")
        self.runner.observe(step, result)
        trace = StepTrace(step, started, started + result.seconds, result.seconds, result.facts)
        return Check(made.recipe, result.value.values[0], (*made.traces, trace), seed=made.seed)

    async def make(self, recipe: str, again: int) -> Made:
        queues, plan = self.runner.queues, self._plan(recipe)
        seed = seed_again(self.seed, again)
        ticket = queues.reserve(plan)
        try:
            moved = plan if seed == self.run.route.request.seed else plan.with_seed(seed)
            return await self.runner.make(self.run, moved, self.index, seed, lambda step: queues.release(ticket, step))
        finally:
            queues.release(ticket)

    def next_options(self) -> Options:
        route = self.run.route
        plans = {**route.alternatives, route.decision.recipe: route.plan}
        return next_options(
            route.decision, plans, route.estimates, route.score_reading or ScoreReading(), self.runner.queues
        )

    def in_time(self, timing: Resources) -> bool:
        verify = self.run.route.decision.verify
        within = verify.within_s if verify is not None else None
        due = self.run.deadline if within is None else min(self.run.deadline, self.run.started + within)
        return time.monotonic() + timing.latency_s < due

    def tell(self, found: Check | VerificationChoice) -> None:
        if (on_event := self.run.on_event) is None:
            return
        if isinstance(found, Check):
            on_event(Checked(self.index, found))
            return
        made_now = found.action in ("retry", "escalate")
        on_event(Chosen(self.index, found, self._plan(found.recipe) if made_now else None))

    def _plan(self, recipe: str) -> Plan:
        """How a picture of a recipe is made."""
        return self.run.route.alternatives.get(recipe, self.run.route.plan)


def unblended(plan: Plan, traces: Sequence[StepTrace]) -> Iterator[str]:
    """A note for every blend that kept one of its pictures because they disagree."""
    for trace in traces:
        if "kept" in trace.facts:
            apart, within = trace.facts["disagreement"], trace.step.settings["blend_within"]
            yield (
                f"{plan.recipe}: the pictures disagree ({apart:.2f}, more than {within:g}), so they were not blended; "
                "the one with the best score was kept"
            )


def seed_again(seed: int, again: int) -> int:
    """The seed of the picture after `again` others of the same request and recipe: always the same, and not the next
    number, which the next picture of the request has."""
    if not again:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{again}".encode()).digest()[:4], "big")


async def within(left_s: float, work: Coroutine[Any, Any, Done], step: Step) -> Done:
    """What `work` returns, or `DeadlineError` after `left_s` seconds. Work that is late is cancelled; whatever it takes
    to stop goes on without being waited for. If the caller is cancelled, the work has stopped when this ends."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=left_s)
    except asyncio.CancelledError:
        task.cancel()
        await ended(task)
        raise
    if task.done():
        return task.result()
    task.cancel()
    _STOPPING.add(task)
    task.add_done_callback(_stopped)
    raise DeadlineError(f"step {step.id!r} was not done when the deadline passed")


_STOPPING: set[asyncio.Future[Any]] = set()  # the event loop itself keeps no hold on its tasks


def _stopped(task: asyncio.Future[Any]) -> None:
    _STOPPING.discard(task)
    if not task.cancelled():
        task.exception()  # marks it as seen


def _sorted_out(tasks: Sequence[asyncio.Task[Made]], seeds: Mapping[int, int], route: Route) -> Batch:
    """What became of the pictures; raises the first failure if there is none."""
    lost = StepError("it was cancelled on its worker")
    errors = [lost if task.cancelled() else task.exception() for task in tasks]
    made = [task.result() for task, error in zip(tasks, errors, strict=True) if error is None]
    failures = {index: error for index, error in zip(seeds, errors, strict=True) if error is not None}
    if not made:
        raise next(iter(failures.values()))
    failed = []
    for index, error in failures.items():
        if isinstance(error, TriptychError):
            message, code = error.message, error.code
        else:
            logger.error("picture %d of request %s failed", index + 1, route.request.id, exc_info=error)
            message, code = "an internal error; the server's log has the details", TriptychError.code
        failed.append(Failure(index, seeds[index], message, code))
    return Batch(tuple(made), tuple(failed))
