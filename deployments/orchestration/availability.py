"""Which models cannot run, and routing around them: the capability gate refuses their recipes, with the reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.workers.worker import WorkerStatus
from router.errors import LoadError, NoRecipeError
from router.route import Route
from router.types import (
    NO_CONTEXT,
    Bounds,
    Context,
    Decision,
    Estimate,
    GenerationRequest,
    Plan,
    Policy,
    PromptView,
    Recipe,
    Rejection,
)

MAX_AGE_S = 2.0


class Monitor(Protocol):
    """Whoever can ask all workers how they are."""

    async def statuses(self) -> Mapping[str, WorkerStatus]: ...


class Availability:
    """What is known about the workers, refreshed in the background so that no request waits for it."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._known: Mapping[str, WorkerStatus] = {}
        self._asked = float("-inf")
        self._asking: asyncio.Task[Mapping[str, WorkerStatus]] | None = None

    async def refresh(self, now: bool = False) -> Mapping[str, WorkerStatus]:
        """The newest statuses. Waits for the workers only if `now`, or if nothing is known yet."""
        if self._asking is None and (now or time.monotonic() - self._asked > MAX_AGE_S):
            self._asking = asyncio.ensure_future(self._ask())
        if self._asking is not None and (now or not self._known):
            await asyncio.shield(self._asking)
        return self._known

    async def _ask(self) -> Mapping[str, WorkerStatus]:
        try:
            self._known = {**self._known, **await self._monitor.statuses()}
            self._asked = time.monotonic()
        finally:
            self._asking = None
        return self._known

    def mark_failed(self, model: str, reason: str) -> None:
        """Take a model out at once; the next refresh may bring it back."""
        self._known = {**self._known, model: WorkerStatus(model, "failed", reason)}

    def route_around(
        self, policy: Policy, request: GenerationRequest, route: Callable[[GenerationRequest, Policy], Route]
    ) -> Route:
        """`route(request, policy)` without the recipes that need a failed model.

        Raises `LoadError` rather than `NoRecipeError` if such a model is all that stands in the way.
        """
        failed = {status.model: status.reason for status in self._known.values() if status.state == "failed"}
        if not failed:
            return route(request, policy)
        reachable = ReachablePolicy(policy, failed)
        try:
            return route(request, reachable)
        except NoRecipeError as error:
            wanted = [r for r in error.rejections if request.recipe in (None, r.recipe)]
            if wanted and all(reachable.refuses(rejection) for rejection in wanted):
                raise LoadError(wanted[0].reason, "model") from None
            raise


@dataclass(frozen=True)
class ReachablePolicy:
    """A policy that first refuses the recipes that need one of the `failed` models (id -> reason)."""

    inner: Policy
    failed: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def digest(self) -> str:
        return self.inner.digest

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        return self.inner.recipes

    def refuses(self, rejection: Rejection) -> bool:
        return rejection.gate == "capability" and rejection.reason in map(self._reason, self.failed)

    def bounds(self, request: GenerationRequest, view: PromptView, context: Context = NO_CONTEXT) -> Bounds:
        return self.inner.bounds(request, view, context)

    def decide(
        self,
        request: GenerationRequest,
        view: PromptView,
        plans: Mapping[str, Plan],
        estimates: Mapping[str, Estimate],
        refused: Sequence[Rejection] = (),
        context: Context = NO_CONTEXT,
    ) -> Decision:
        gone = [
            Rejection(name, "capability", self._reason(model))
            for name, plan in plans.items()
            if (model := next((m for s in plan.steps for m in s.models if m in self.failed), None))
        ]
        names = {rejection.recipe for rejection in gone}
        kept = {name: plan for name, plan in plans.items() if name not in names}
        return self.inner.decide(request, view, kept, estimates, (*refused, *gone), context)

    def _reason(self, model: str) -> str:
        return f"model {model!r} is not available: {self.failed[model]}"
