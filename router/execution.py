"""Walks a plan: every step starts as soon as its inputs exist, and independent steps run side by side.

How a step is performed (in this process, or on a worker far away) is the caller's callable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from router.errors import PlanError, StepError, TriptychError
from router.types import Latents, Picture, Plan, Scores, Step, StepResult, StepTrace, Unless, Value

Perform = Callable[[Step, Sequence[Value]], Awaitable[StepResult]]
OnTrace = Callable[[StepTrace], None]

PRODUCTS: dict[str, type] = {"image": Picture, "latents": Latents, "scores": Scores}


@dataclass(frozen=True)
class Execution:
    """output: the value of the plan's output step; values: of every step by id; traces: in the order of ending.

    A step that was left out (`Step.unless`) has neither value nor trace.
    """

    output: Value
    values: Mapping[str, Value]
    traces: tuple[StepTrace, ...]


async def execute(plan: Plan, perform: Perform, on_trace: OnTrace | None = None) -> Execution:
    """Run `plan`. `perform(step, inputs)` gets the values of `step.inputs` in this order.

    If a step fails, or if this coroutine is cancelled, all other steps are cancelled and awaited before it raises.
    Expected failures (`TriptychError`) pass as they are; any other becomes a `StepError` that names the step.
    """
    _check_order(plan)
    walk = _Walk(perform, on_trace)
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for step in plan.steps:
                walk.tasks[step.id] = group.create_task(walk.run(step), name=step.id)
    except BaseExceptionGroup as failures:
        failure = _first(failures)
    if failure is not None:  # raised out here, so that it keeps its own cause
        raise failure
    values = {name: value for name, task in walk.tasks.items() if (value := task.result()) is not None}
    return Execution(values[plan.output], values, tuple(walk.traces))


class _Walk:
    def __init__(self, perform: Perform, on_trace: OnTrace | None) -> None:
        self.perform = perform
        self.on_trace = on_trace
        self.tasks: dict[str, asyncio.Task[Value | None]] = {}
        self.traces: list[StepTrace] = []
        self.began = time.perf_counter()

    async def run(self, step: Step) -> Value | None:
        """The step's value; None if it was left out. What was left out is missing from the inputs of others."""
        if step.unless is not None and await self.spared(step.unless):
            return None
        inputs = [value for name in step.inputs if (value := await self.tasks[name]) is not None]
        started = time.perf_counter() - self.began
        result = await self.guarded(step, inputs)
        ended = time.perf_counter() - self.began
        trace = StepTrace(step, started, ended, result.seconds, result.facts)
        self.traces.append(trace)
        if self.on_trace is not None:
            self.on_trace(trace)
        return result.value

    async def spared(self, unless: Unless) -> bool:
        score = await self.tasks[unless.score]
        return score is None or (isinstance(score, Scores) and max(score.values) >= unless.at_least)

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
