"""Walks a plan: every step starts as soon as its inputs exist, and independent steps run side by side.

How a step is performed (in this process, or on a worker far away) is the caller's callable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from router.errors import PlanError, StepError, TriptychError
from router.types import Latents, Mask, Picture, Plan, Scores, Step, StepResult, StepTrace, Unless, Value

Perform = Callable[[Step, Sequence[Value]], Awaitable[StepResult]]

PRODUCTS: dict[str, type] = {"image": Picture, "mask": Mask, "latents": Latents, "scores": Scores}
PRODUCED = (Picture, Mask, Latents, Scores)


@dataclass(frozen=True)
class Execution:
    """output: the value of the plan's output step; values: of every step by id; traces: in the order of ending;
    losses: the steps that failed and that a fusion could do without, with the failure.

    A step that was left out (`Step.unless`) or lost has neither value nor trace.
    """

    output: Value
    values: Mapping[str, Value]
    traces: tuple[StepTrace, ...]
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True)
class Loss:
    """A step that failed, or whose inputs did, for which a fusion had enough others. origin: the step that failed."""

    origin: Step
    error: TriptychError


async def execute(plan: Plan, perform: Perform) -> Execution:
    """Run `plan`. `perform(step, inputs)` gets the values of `step.inputs` in this order.

    If a step fails, or if this coroutine is cancelled, all other steps are cancelled and awaited before it raises. A
    step of a fusion that has enough other branches (`Step.needs`) may fail: the fusion goes on with what there is, and
    raises the first failure as soon as too few can be left.
    Expected failures (`TriptychError`) pass as they are; any other becomes a `StepError` that names the step.
    """
    _check_order(plan)
    walk = _Walk(perform, {step.id: step for step in plan.steps}, _dispensable(plan))
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for step in plan.steps:
                walk.tasks[step.id] = group.create_task(walk.run(step), name=step.id)
    except BaseExceptionGroup as failures:
        failure = _first(failures)
    if failure is not None:  # raised out here, so that it keeps its own cause
        raise failure
    done = {name: task.result() for name, task in walk.tasks.items()}
    values = {name: value for name, value in done.items() if value is not None and not isinstance(value, Loss)}
    losses = {value.origin.id: value for value in done.values() if isinstance(value, Loss)}
    return Execution(values[plan.output], values, tuple(walk.traces), tuple(losses.values()))


class _Walk:
    """steps: of the plan, by id;   dispensable: ids of the steps that a fusion may do without."""

    def __init__(self, perform: Perform, steps: Mapping[str, Step], dispensable: Collection[str]) -> None:
        self.perform = perform
        self.steps = steps
        self.dispensable = dispensable
        self.tasks: dict[str, asyncio.Task[Value | Loss | None]] = {}
        self.traces: list[StepTrace] = []
        self.began = time.perf_counter()

    async def run(self, step: Step) -> Value | Loss | None:
        """The step's value; None if it was left out, a loss if it failed and others may go on without it. Either is
        missing from the inputs of others."""
        try:
            return await self.taken(step)
        except TriptychError as error:
            if step.id not in self.dispensable:
                raise
            return Loss(step, error)

    async def taken(self, step: Step) -> Value | Loss | None:
        if step.unless is not None and await self.spared(step.unless):
            return None
        gathered = await self.gathered(step)
        if isinstance(gathered, Loss):
            if step.id not in self.dispensable:
                raise gathered.error
            return gathered
        started = time.perf_counter() - self.began
        result = await self.guarded(step, gathered)
        ended = time.perf_counter() - self.began
        self.traces.append(StepTrace(step, started, ended, result.seconds, result.facts))
        return result.value

    async def gathered(self, step: Step) -> list[Value] | Loss:
        """The values of the inputs that there are, or the loss that this step cannot go without."""
        losses: list[Loss] = []
        possible = sum(self.steps[name].produces == "image" for name in step.inputs)
        spare = 0 if step.needs is None else max(0, possible - step.needs)
        for coming in asyncio.as_completed([self.tasks[name] for name in step.inputs]):
            value = await coming
            losses += [value] if isinstance(value, Loss) else []
            if len({loss.origin.id for loss in losses}) > spare:
                return losses[0]
        kept = self.unscathed(step.inputs)
        pictures = sum(self.steps[name].produces == "image" for name in kept)
        if losses and pictures < possible - spare - self.left_out(step.inputs):
            return losses[0]
        return [value for name in kept if isinstance(value := self.tasks[name].result(), PRODUCED)]

    def left_out(self, inputs: Sequence[str]) -> int:
        return sum(self.tasks[name].result() is None and self.steps[name].produces == "image" for name in inputs)

    def unscathed(self, inputs: Sequence[str]) -> list[str]:
        """Those of `inputs` that were not lost; a picture whose score was lost counts as lost with it."""
        lost = {name for name in inputs if isinstance(self.tasks[name].result(), Loss)}
        unscored = {name for score in lost for name in self.steps[score].inputs if self.steps[score].kind == "score"}
        return [name for name in inputs if name not in lost | unscored]

    async def spared(self, unless: Unless) -> bool:
        scores = [await self.tasks[name] for name in (*unless.earlier, unless.score)]
        if scores[-1] is None:
            return True
        return any(isinstance(score, Scores) and max(score.values) >= unless.at_least for score in scores)

    async def guarded(self, step: Step, inputs: Sequence[Value]) -> StepResult:
        try:
            result = await self.perform(step, inputs)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise StepError(f"{_named(step)} was cancelled by its worker; try again") from None
        except StepError as error:
            if step.id in error.message:
                raise
            raise StepError(f"{_named(step)} failed: {error.message}", error.param, error.code) from error
        except TriptychError:
            raise
        except Exception as error:
            raise StepError(f"{_named(step)} failed: {type(error).__name__}: {error}") from error
        if not isinstance(result, StepResult) or not isinstance(result.value, PRODUCTS[step.produces]):
            got = type(getattr(result, "value", result)).__name__
            raise StepError(f"{_named(step)} returned {got} where {step.produces} was due")
        return result


def _dispensable(plan: Plan) -> set[str]:
    """The steps on whose values only fusions wait that may do with fewer."""
    followers: dict[str, list[Step]] = {step.id: [] for step in plan.steps}
    for step in plan.steps:
        for name in step.inputs:
            followers[name].append(step)
    found: set[str] = set()
    for step in reversed(plan.steps):
        after = followers[step.id]
        if step.id != plan.output and after and all(f.needs is not None or f.id in found for f in after):
            found.add(step.id)
    return found


def _named(step: Step) -> str:
    return f"step {step.id!r}" + (f" on {step.model!r}" if step.model else "")


def _check_order(plan: Plan) -> None:
    known: set[str] = set()
    for step in plan.steps:
        if missing := [name for name in step.after if name not in known]:
            raise PlanError(f"step {step.id!r} takes {missing[0]!r}, which does not come before it")
        if step.id in known:
            raise PlanError(f"two steps are called {step.id!r}")
        known.add(step.id)
    if plan.output not in known:
        raise PlanError(f"the plan's output {plan.output!r} is none of its steps")


def _first(failures: BaseExceptionGroup) -> BaseException:
    """Steps that waited for a failed one fail with the same exception object: any leaf of the group will do."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
