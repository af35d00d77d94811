"""Runs the plan of a decision for each of its pictures: steps on workers, verification, what it used.

A plain class without Ray or torch; whatever runs the steps comes in as `WorkerClient`s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.availability import Availability
from deployments.ledger import Charge
from deployments.metrics import Metrics
from deployments.outcome import Advanced, Check, Made, OnEvent, Routed, WorkerLostError
from deployments.verification import verified
from deployments.worker import OnProgress
from models.fusion import run_step
from router.costs import CostModel
from router.errors import DeadlineError, LoadError, StepError
from router.execution import execute
from router.queues import Queues
from router.types import Picture, Plan, Route, Scores, Step, StepResult, StepTrace, Value

logger = logging.getLogger("triptych.orchestrator")


class WorkerClient(Protocol):
    """Whoever can run the steps of one model."""

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        """Raises a `TriptychError`, or `WorkerLostError` if the worker died and the step may be tried again."""
        ...


class Runner:
    """Runs plans. costs: learns from what the steps took; timeout_s: deadline of a request without a latency budget."""

    def __init__(
        self,
        queues: Queues,
        costs: CostModel,
        workers: Mapping[str, WorkerClient],
        availability: Availability,
        metrics: Metrics,
        timeout_s: float,
    ) -> None:
        self.queues = queues
        self.timeout_s = timeout_s
        self._costs = costs
        self._workers = workers
        self._availability = availability
        self._metrics = metrics

    async def pictures(
        self, route: Route, charge: Charge, started: float, on_event: OnEvent | None
    ) -> tuple[Made, ...]:
        """The `n` pictures of a route side by side; one failure ends all. What the steps used is added to `charge`."""
        if on_event is not None:
            on_event(Routed(route))
        request = route.request
        run = _Run(route, started + (request.latency_budget_s or self.timeout_s), on_event, charge)
        ticket = self.queues.reserve(route.plan, request.n)
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._picture(run, ticket, index, (request.seed + index) % 2**32))
                    for index in range(request.n)
                ]
        except BaseExceptionGroup as failures:
            failure = first_of(failures)
        finally:
            self.queues.release(ticket)
        if failure is not None:  # raised out here, so that it keeps its own cause
            raise failure
        return tuple(task.result() for task in tasks)

    async def _picture(self, run: _Run, ticket: int, index: int, seed: int) -> Made:
        decision = run.route.decision
        plan = run.route.plan if index == 0 else run.route.plan.with_seed(seed)
        made = await self.make(run, plan, index, seed, lambda step: self.queues.release(ticket, step, index))
        if decision.verify is None:
            return made
        best = await verified(made, decision.verify, _PictureBench(self, run, index, seed))
        if best.checks:
            passed = any(check.accepted for check in best.checks)
            verdict = ("accepted" if len(best.checks) == 1 else "escalated") if passed else "not_accepted"
            self._metrics.record("triptych_verified_total", policy=decision.policy, verdict=verdict)
        return best

    async def make(self, run: _Run, plan: Plan, index: int, seed: int, release: Callable[[str], None]) -> Made:
        """One picture by `plan`; `release` is called with each step that no longer waits."""
        pixels = plan.width * plan.height

        async def perform(step: Step, inputs: Sequence[Value]) -> StepResult:
            result = await self.step(step, inputs, run, index)
            self._costs.observe(step, result.seconds, pixels)
            release(step.id)
            return result

        execution = await execute(plan, perform)
        for step in plan.steps:  # also those that were left out
            release(step.id)
        if not isinstance(execution.output, Picture):
            raise StepError(f"the plan of {plan.recipe!r} ended in {type(execution.output).__name__}, not in a picture")
        return Made(execution.output, seed, plan.digest(), execution.traces, plan.recipe)

    async def step(self, step: Step, inputs: Sequence[Value], run: _Run, index: int) -> StepResult:
        """One step of picture `index` where it belongs: in this process, or on the worker of its model."""
        if step.model is None:
            return await asyncio.to_thread(run_step, step, inputs)
        if step.model not in self._workers:
            raise LoadError(f"no worker holds model {step.model!r}", "model")
        try:
            result = await self._on_worker(self._workers[step.model], step, inputs, run, index)
        except LoadError as error:
            self._availability.mark_failed(step.model, error.message)
            raise
        run.charge.use(result.seconds, self._costs.cost_usd(step, result.seconds))
        return result

    async def _on_worker(
        self, worker: WorkerClient, step: Step, inputs: Sequence[Value], run: _Run, index: int
    ) -> StepResult:
        try:
            return await worker.run(step, inputs, run.left(step), run.listener(index))
        except WorkerLostError as error:
            logger.warning("step %s: its worker was lost (%s); it runs once more", step.id, error)
            return await worker.run(step, inputs, run.left(step), run.listener(index))


@dataclass(frozen=True)
class _Run:
    """What the pictures of one request share. deadline: on the monotonic clock of this process."""

    route: Route
    deadline: float
    on_event: OnEvent | None
    charge: Charge

    def left(self, step: Step) -> float:
        """Seconds until the deadline; raises `DeadlineError` if there are none."""
        if (left := self.deadline - time.monotonic()) <= 0:
            raise DeadlineError(f"step {step.id!r} was not begun: the deadline passed before its turn")
        return left

    def listener(self, index: int) -> OnProgress | None:
        """Where a worker reports progress of picture `index`; None if nobody listens, which saves the messages."""
        if (on_event := self.on_event) is None:
            return None
        return lambda progress: on_event(Advanced(index, progress))


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
        trace = StepTrace(step, started, started + result.seconds, result.seconds, result.facts)
        return Check(made.recipe, result.value.values[0], (*made.traces, trace))

    async def make(self, recipe: str) -> Made:
        plan, queues = self.run.route.alternatives[recipe], self.runner.queues
        ticket = queues.reserve(plan)
        try:
            moved = plan if self.index == 0 else plan.with_seed(self.seed)
            return await self.runner.make(
                self.run, moved, self.index, self.seed, lambda step: queues.release(ticket, step)
            )
        finally:
            queues.release(ticket)

    def in_time(self, recipe: str) -> bool:
        expected = self.runner.queues.estimate(self.run.route.alternatives[recipe])
        return time.monotonic() + expected.latency_s < self.run.deadline


def first_of(failures: BaseExceptionGroup) -> BaseException:
    """One failure of a group stands for all: the pictures of a request share their plan."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
