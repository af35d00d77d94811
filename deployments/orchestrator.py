"""The flow of one request: policy → route → plan → steps on workers → pictures, with what it took and why.

A plain class without Ray or torch. Whatever runs the steps comes in as `WorkerClient`s, so the same code serves from a
Ray Serve replica and inside one process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from deployments.availability import Availability, Monitor
from deployments.outcome import (
    Advanced,
    Event,
    Made,
    OnEvent,
    Outcome,
    Overview,
    PolicySummary,
    Routed,
    WorkerLostError,
)
from deployments.streams import stream
from deployments.worker import OnProgress
from models.fusion import run_step
from policies import PolicyBook
from router.costs import CostModel
from router.errors import DeadlineError, LoadError, StepError
from router.execution import execute
from router.routing import Router
from router.types import (
    Catalogue,
    GenerationRequest,
    Picture,
    Plan,
    Route,
    Step,
    StepResult,
    Value,
)

logger = logging.getLogger("triptych.orchestrator")


class WorkerClient(Protocol):
    """Whoever can run the steps of one model."""

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        """Raises a `TriptychError`, or `WorkerLostError` if the worker died and the step may be tried again."""
        ...


class Orchestrator:
    """Routes requests and runs their plans on workers.

    costs:     learns from what the steps took; the one that `router.queues` asks.
    workers:   by catalogue id.
    timeout_s: deadline of a request that names no latency budget.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        policies: PolicyBook,
        router: Router,
        costs: CostModel,
        workers: Mapping[str, WorkerClient],
        monitor: Monitor,
        timeout_s: float = 600.0,
    ) -> None:
        self.catalogue = catalogue
        self.policies = policies
        self._router = router
        self._costs = costs
        self._workers = workers
        self._timeout_s = timeout_s
        self.availability = Availability(monitor)

    async def route(self, request: GenerationRequest) -> Route:
        """Decide, run nothing. Raises `NotFoundError`, `NoRecipeError`, `RequestError`, or `LoadError`."""
        await self.availability.refresh()
        return await asyncio.to_thread(self._decide, request)

    async def generate(self, request: GenerationRequest, on_event: OnEvent | None = None) -> Outcome:
        """Route, run the plan for each of the `n` pictures (seed, seed + 1, ...), and report.

        A model that turns out not to be loadable is taken out, and the request is routed once more around it.
        """
        started = time.monotonic()
        notes: list[str] = []
        route = await self.route(request)
        try:
            made = await self._pictures(route, started, on_event)
        except LoadError as error:
            before, route = route.decision.recipe, await self.route(request)
            if route.decision.recipe == before:
                raise
            notes.append(f"{before} could not run ({error.message}); {route.decision.recipe} was taken instead")
            made = await self._pictures(route, started, on_event)
        return Outcome(route, made, time.monotonic() - started, tuple(notes))

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Event | Outcome]:
        """The events of `generate`, and its outcome as the last item."""
        return stream(lambda emit: self.generate(request, emit))

    def queued_s(self, model: str) -> float:
        """Seconds of work that wait or run on `model`, as this orchestrator knows."""
        return self._router.queues.outstanding_s(model)

    async def overview(self) -> Overview:
        """What is here; the workers are asked now."""
        statuses = await self.availability.refresh(now=True)
        policies = [self.policies.get(name) for name in self.policies.names()]
        return Overview(
            policies=tuple(PolicySummary(p.name, p.digest, p.description, tuple(p.recipes)) for p in policies),
            cards=tuple(self.catalogue[model] for model in self.catalogue.ids()),
            statuses=statuses,
            problems=self.policies.problems(),
        )

    # ------------------------------------------------------------------------------------------------------- deciding

    def _decide(self, request: GenerationRequest) -> Route:
        self.policies.refresh()
        policy, pinned = self.policies.resolve(request.target, self.catalogue.ids())
        if pinned is not None:
            request = replace(request, recipe=pinned)
        return self.availability.route_around(policy, request, self._router.route)

    # -------------------------------------------------------------------------------------------------------- running

    async def _pictures(self, route: Route, started: float, on_event: OnEvent | None) -> tuple[Made, ...]:
        if on_event is not None:
            on_event(Routed(route))
        request = route.request
        run = _Run(route.plan, started + (request.latency_budget_s or self._timeout_s), on_event)
        ticket = self._router.queues.reserve(route.plan, request.n)
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
            self._router.queues.release(ticket)
        if failure is not None:  # raised out here, so that it keeps its own cause
            raise failure
        return tuple(task.result() for task in tasks)

    async def _picture(self, run: _Run, ticket: int, index: int, seed: int) -> Made:
        plan = run.plan if index == 0 else run.plan.with_seed(seed)
        pixels = plan.width * plan.height

        async def perform(step: Step, inputs: Sequence[Value]) -> StepResult:
            result = await self._step(step, inputs, run, index)
            self._costs.observe(step, result.seconds, pixels)
            self._router.queues.release(ticket, step.id, index)
            return result

        execution = await execute(plan, perform)
        if not isinstance(execution.output, Picture):
            raise StepError(f"the plan of {plan.recipe!r} ended in {type(execution.output).__name__}, not in a picture")
        return Made(execution.output, seed, plan.digest(), execution.traces)

    async def _step(self, step: Step, inputs: Sequence[Value], run: _Run, index: int) -> StepResult:
        if step.model is None:
            return await asyncio.to_thread(run_step, step, inputs)
        if step.model not in self._workers:
            raise LoadError(f"no worker holds model {step.model!r}", "model")
        try:
            return await self._on_worker(self._workers[step.model], step, inputs, run, index)
        except LoadError as error:
            self.availability.mark_failed(step.model, error.message)
            raise

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

    plan: Plan
    deadline: float
    on_event: OnEvent | None

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


def first_of(failures: BaseExceptionGroup) -> BaseException:
    """One failure of a group stands for all: the pictures of a request share their plan."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
