"""The flow of one request: policy → route → plan → steps on workers → pictures, with what it took and why.

A plain class without Ray or torch. Whatever runs the steps comes in as `WorkerClient`s, so the same code serves from a
Ray Serve replica and inside one process.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from deployments.given.gallery import Gallery
from deployments.observing import tracing
from deployments.orchestration.availability import Availability, Monitor, load_error
from deployments.orchestration.budgets import Charge, TenantBudgets
from deployments.orchestration.metrics import Metrics, Tally
from deployments.orchestration.recorder import Recorder
from deployments.orchestration.rerouting import Rerouting, Waiting, reroutable
from deployments.orchestration.results import (
    Admitted,
    Decided,
    Event,
    Finished,
    Made,
    OnEvent,
    Outcome,
    likely,
)
from deployments.orchestration.runner import Batch, Runner
from deployments.orchestration.serving.operators import Operated
from deployments.orchestration.serving.outcomes import outcome_of, refusing
from deployments.orchestration.serving.screening import Screening, count_findings, without_previews
from deployments.orchestration.shadows import Shadows
from deployments.orchestration.step_queues import StepQueues, WorkerClient
from deployments.safety.guard import Guard, blocking, refusal, together
from deployments.settings import QueueSettings
from deployments.workers.streams import stream
from policies import Policy, PolicyBook
from router.cost.batches import BatchSizes
from router.cost.model import CostModel
from router.errors import (
    BudgetError,
    DeadlineError,
    LoadError,
    NoRecipeError,
    OverloadedError,
    SafetyError,
    UnlikelyError,
)
from router.quality.live import LivePredictor
from router.route import Route
from router.routing import Router
from router.types import Allowance, Catalogue, Context, GenerationRequest
from router.types.safety import SafetyReport
from router.verification.score_reading import ScoreReading

logger = logging.getLogger("triptych.orchestrator")


class Orchestrator(Operated):
    """Routes requests and runs their plans on workers.

    costs:     learns from what the steps took; the one that `router.cost.queues` asks.
    workers:   by catalogue id.
    timeout_s: deadline of a request that names no latency budget.
    tenant_budgets: what the tenants used of the policies' budgets.
    draw:      chance for exploration, uniform in [0, 1).
    recorder:  remembers decisions and takes feedback; by default nothing is remembered.
    live:      the predictor's folder, which is followed; by default the router's predictor stays.
    score_readings: how scores are read beside the artefact with a digest; asked when the predictor changes.
    queue_settings, worker_of, batch_sizes: of the step queues.
    guard: makes the checks of policies' safety.
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
        tenant_budgets: TenantBudgets | None = None,
        metrics: Metrics | None = None,
        draw: Callable[[], float] = random.random,
        recorder: Recorder | None = None,
        live: LivePredictor | None = None,
        score_readings: Callable[[str], Mapping[str, ScoreReading]] = lambda _: {},
        queue_settings: QueueSettings | None = None,
        worker_of: Mapping[str, str] | None = None,
        batch_sizes: BatchSizes | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.policies = policies
        self.metrics = metrics or Tally()
        self._router = router
        self.tenant_budgets = tenant_budgets or TenantBudgets()
        self._draw = draw
        self._recorder = recorder or Recorder(None, catalogue, self.metrics)
        self._live = live
        self._score_readings = score_readings
        self._revision = 0
        self._artifact_broken = False
        self._looking = threading.Lock()
        self.metrics.record("triptych_policy_problems", len(policies.known_problems))
        self.metrics.record("triptych_artifact_problems", 0.0)
        self._admitting = asyncio.Lock()
        self._shadows = Shadows(router, self.metrics)
        self._costs = costs
        self._worker_of = dict(worker_of or {})
        self._batch_sizes = batch_sizes
        self._guard = guard or Guard()
        self.step_queues = StepQueues(
            workers,
            router.queues.at_once,
            lambda step, batch: costs.seconds(step, batch=batch),
            queue_settings,
            worker_of,
            batch_sizes,
            metrics=self.metrics,
        )
        self.availability = Availability(monitor, self.step_queues.breaker)
        self.gallery = Gallery()
        """The pictures that requests bring, for whoever runs one."""
        self._rerouting = Rerouting(
            router,
            self._admitting,
            lambda: self.availability.unavailable,
            self.metrics,
            most_pixels=lambda: self.availability.most_pixels,
        )
        self._runner = Runner(
            router.queues, costs, self.step_queues, self.availability, self.metrics, timeout_s, self.gallery
        )

    async def route(self, request: GenerationRequest) -> Route:
        """Decide, run nothing, leave nothing to chance. Raises `NotFoundError`, `NoRecipeError`, `RequestError`,
        `LoadError`, or `OverloadedError`."""
        await self.availability.refresh()
        chosen = await asyncio.to_thread(self._chosen, request)
        safety = await self._looked_at(chosen)
        return (await asyncio.to_thread(self._decide, chosen, None, safety)).route

    async def admit(
        self, request: GenerationRequest, charge: Charge | None = None, further: tuple[Allowance, ...] = ()
    ) -> Admitted:
        """Decide, charge the tenant's budgets and reserve the work on the queues, as one: whoever comes next sees all
        of it. What is admitted has to be `run` or `given_up`. Raises as `route` does, `BudgetError` or `DeadlineError`.

        charge: of a request that was admitted before, by a process that is gone; it is not charged again
        further: what it may take beside the policy's budgets; whoever asks holds that account
        """
        return await self._admit(request, begun(request), charge=charge, further=further)

    async def run(
        self,
        admitted: Admitted,
        on_event: OnEvent | None = None,
        only: Collection[int] | None = None,
        followed: Callable[[], bool] = lambda: True,
    ) -> Outcome:
        """The pictures of an admitted request, verified, with what it took and why.

        only: which of the pictures 0 .. n-1 are wanted; default: all;   followed: whether somebody wants to know how
        far a step is, which costs messages; asked when it begins
        A model that turns out not to be loadable is taken out, and the request is routed once more around it. Nothing
        is waited for beyond the deadline, which counts from when the request arrived.
        """
        started = begun(admitted.route.request)
        self._shadows.compare(admitted.route, self.policies.shadow_of(admitted.policy, admitted.route.request))
        try:
            return await self._answer(admitted, started, on_event, only, followed)
        except LoadError as error:
            before, again = admitted.route.decision.recipe, await self._admit(admitted.asked, started, look=False)
            if (now := again.route.decision.recipe) == before:
                self.give_up(again)
                raise
            again.charge.adopt(admitted.charge)
            note = f"{before} could not run ({error.message}); {now} was taken instead"
            return await self._answer(again, started, on_event, only, followed, note)

    def give_up(self, admitted: Admitted) -> None:
        """What was admitted is not run: its place in the queues and its charge are free again."""
        self._router.queues.release(admitted.ticket)
        admitted.charge.settle()

    async def generate(self, request: GenerationRequest, on_event: OnEvent | None = None) -> Outcome:
        """`admit` and `run`: the whole flow of a request whose caller waits here for it."""
        return await self.run(await self.admit(request), on_event)

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Event | Outcome]:
        """The events of `generate`, and its outcome as the last item."""
        return stream(lambda emit: self.generate(request, emit))

    # ------------------------------------------------------------------------------------------------------- deciding

    async def _admit(
        self,
        request: GenerationRequest,
        started: float,
        look: bool = True,
        charge: Charge | None = None,
        further: tuple[Allowance, ...] = (),
    ) -> Admitted:
        """look: whether to look at the policies' folder, which is done at most once for a request"""
        left_s = self._runner.due(request, started) - time.monotonic()
        try:
            await asyncio.wait_for(self.availability.refresh(), max(0.0, left_s))
        except TimeoutError:
            raise DeadlineError("no worker said how it is before the deadline passed") from None
        chosen = await asyncio.to_thread(self._chosen, request, look)
        safety = await self._looked_at(chosen)
        await asyncio.to_thread(self._router.understand, request)  # most of a decision, and nobody need wait for it
        async with self._admitting:
            with tracing.span("decide") as span:
                decided = await asyncio.to_thread(self._decide, chosen, self._draw(), safety, further)
                span.set_attribute("triptych.policy", decided.policy.name)
                span.set_attribute("triptych.recipe", decided.route.decision.recipe)
            work_s, cost_usd = decided.expected()
            charge = charge or self.tenant_budgets.charge(decided.policy, request.tenant, work_s, cost_usd)
            if charge is None:
                raise BudgetError("the tenant's budget has less left than this request may take; try again later")
            ticket = self._router.queues.reserve(decided.route.plan, request.n)
        self._count(decided.route)
        within_s = self._runner.due(request, started) - started
        return Admitted(decided.policy, decided.route, request, charge, ticket, within_s)

    def _chosen(self, request: GenerationRequest, look: bool = True) -> Resolved:
        """The policy that a request is for, and the one that answers it. Raises `NotFoundError`."""
        models = self.catalogue.ids()
        policy, pinned = self.policies.resolve(request.target, models, drawing(self.catalogue), refresh=look)
        self._count_policies()
        if pinned is not None:
            request = replace(request, recipe=pinned)
        served = (None if request.recipe else self.policies.canary_of(policy, request)) or policy
        return Resolved(request, policy, served)

    async def _looked_at(self, chosen: Resolved) -> SafetyReport | None:
        """What the policy's safety says of the prompt. Raises `SafetyError` if it blocks it, or `UnavailableError`."""
        served, request = chosen.served, chosen.request
        if served.safety is None:
            return None
        report = await self._guard.prompt(served.safety, request.prompt, request.lenient)
        count_findings(self.metrics, served.name, report)
        if (finding := blocking(report)) is not None:
            self.metrics.record("triptych_refused_total", policy=served.name, code=SafetyError.code)
            raise refusal(finding)
        return report

    def _decide(
        self,
        chosen: Resolved,
        draw: float | None,
        safety: SafetyReport | None,
        further: tuple[Allowance, ...] = (),
    ) -> Decided:
        self._look_at_artifact()
        request, policy, served = chosen.request, chosen.policy, chosen.served
        allowances = self.tenant_budgets.allowances(served, request.tenant)
        unavailable = self.availability.unavailable
        room = self.availability.most_pixels
        context = Context(datetime.now(UTC), draw, (*allowances, *further), unavailable, room)
        try:
            route = self._route(request, served, context, allowances)
        except (NoRecipeError, OverloadedError) as error:
            if isinstance(error, NoRecipeError) and (missing := load_error(error, request, unavailable)) is not None:
                raise missing from None
            self.metrics.record("triptych_refused_total", policy=served.name, code=error.code)
            raise
        if served is not policy:
            self.metrics.record("triptych_canary_total", policy=policy.name, canary=served.name)
            note = f"canary: {served.name} answers a share of the requests to {policy.name}"
            route = replace(route, decision=replace(route.decision, reasons=(*route.decision.reasons, note)))
        if safety is not None:
            reasons = (*route.decision.reasons, *map(str, safety.findings), *safety.notes)
            route = replace(route, decision=replace(route.decision, reasons=reasons, safety=safety))
        return Decided(served, route)

    def _route(
        self, request: GenerationRequest, policy: Policy, context: Context, allowances: tuple[Allowance, ...]
    ) -> Route:
        """Within all allowances of the context, if that is possible; else within these, and who holds the others says
        what is wrong and when to come back."""
        try:
            return self._router.route(request, policy, context)
        except (NoRecipeError, BudgetError):
            if context.allowances == allowances:
                raise
            return self._router.route(request, policy, replace(context, allowances=allowances))

    def _count(self, route: Route) -> None:
        decision = route.decision
        self.metrics.record("triptych_decisions_total", policy=decision.policy, recipe=decision.recipe)
        self.metrics.record("triptych_decide_seconds", route.decided_in_s, policy=decision.policy)
        if decision.explored:
            self.metrics.record("triptych_explored_total", policy=decision.policy)
        if decision.degraded_from:
            self.metrics.record("triptych_degraded_total", policy=decision.policy)

    # -------------------------------------------------------------------------------------------------------- running

    async def _answer(
        self,
        admitted: Admitted,
        started: float,
        on_event: OnEvent | None,
        only: Collection[int] | None,
        followed: Callable[[], bool],
        *notes: str,
    ) -> Outcome:
        waiting = Waiting(admitted, started)
        safety = admitted.policy.safety if admitted.policy.safety and admitted.policy.safety.image else None
        screening = None
        if safety is not None:
            screening = Screening(
                self._guard,
                safety,
                admitted.policy.name,
                lambda: waiting.admitted.route.request.lenient,
                self.metrics,
            )
            on_event = None if on_event is None else without_previews(on_event)

        def tell(made: Made) -> None:
            route = waiting.admitted.route
            if on_event is not None and (likely(made) or not refusing(route)):  # else it is kept until the end
                cost_usd = self._runner.cost_usd(made)
                alone = outcome_of(route, Batch((made,)), started, cost_usd, share=1 / route.request.n)
                of_it = [] if screening is None else screening.of(made.index)
                on_event(Finished(replace(alone, safety=together(route.decision.safety, of_it))))

        def start(now: Admitted, on_event: OnEvent | None) -> Coroutine[Any, Any, Batch]:
            return self._runner.pictures(
                now.route,
                now.charge,
                started,
                now.ticket,
                on_event,
                tell,
                screening,
                only,
                followed if heard else lambda: False,
            )

        heard = on_event is not None
        try:
            if reroutable(admitted):
                batch = await self._rerouting.follow(waiting, start, on_event)
            else:
                batch = await start(admitted, on_event)
        finally:
            self.give_up(admitted)
        route = waiting.admitted.route
        outcome = outcome_of(route, batch, started, admitted.charge.cost_usd, *notes, *waiting.notes)
        outcome = replace(
            outcome,
            safety=together(route.decision.safety, [] if screening is None else list(screening.reports.values())),
        )
        recipes = self._router.candidates(route.request, admitted.policy)
        await self._recorder.remember(outcome, recipes, self._router.predictor)
        if refusing(route) and not any(map(likely, batch.made)):
            self.metrics.record("triptych_refused_total", policy=route.decision.policy, code=UnlikelyError.code)
            told = "; ".join(outcome.warnings)
            raise UnlikelyError(f"{told}; the policy would rather give none (verify: or: refuse)")
        return outcome


@dataclass(frozen=True)
class Resolved:
    """A request with what its `model` pinned. policy: the one asked for;   served: the one that answers, its canary"""

    request: GenerationRequest
    policy: Policy
    served: Policy


def drawing(catalogue: Catalogue) -> list[str]:
    """The models that can make a picture, by catalogue id."""
    return [model for model in catalogue.ids() if catalogue[model].role == "base"]


def begun(request: GenerationRequest) -> float:
    """When a request arrived, on the monotonic clock of this process: now, less the seconds that it is on its way."""
    under_way_s = 0.0 if request.arrived_s is None else max(0.0, time.time() - request.arrived_s)
    return time.monotonic() - under_way_s
