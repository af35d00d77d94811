"""What operators ask of an orchestrator beside pictures: what is here, what it takes, which policies hold."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from deployments.orchestration.availability import Availability
from deployments.orchestration.metrics import Metrics
from deployments.orchestration.recorder import Recorder
from deployments.orchestration.results import Overview, PolicyFile, PolicySummary
from policies import PolicyBook
from router.cost.batches import BatchSizes
from router.cost.model import CostModel, plan_seconds
from router.cost.queues import Queues
from router.errors import ArtifactError, NotFoundError, TriptychError
from router.learning.feedback import Receipt
from router.planning.edits import takes
from router.planning.plan import make_plan
from router.quality.live import LivePredictor
from router.routing import Router
from router.types import Catalogue, Generate, GenerationRequest, Plan
from router.verification.case import Knowledge
from router.verification.score_reading import ScoreReading

logger = logging.getLogger("triptych.orchestrator")


class Operated:
    """The part of an `Orchestrator` that makes no pictures. It has what that one is made with."""

    catalogue: Catalogue
    policies: PolicyBook
    metrics: Metrics
    availability: Availability
    _router: Router
    _costs: CostModel
    _recorder: Recorder
    _live: LivePredictor | None
    _score_readings: Callable[[str], Mapping[str, ScoreReading]]
    _worker_of: Mapping[str, str]
    _batch_sizes: BatchSizes | None
    _looking: threading.Lock
    _revision: int
    _artifact_broken: bool

    def shares(self, plan: Plan) -> dict[str, float]:
        """How much of a picture's seconds each step of a plan is expected to take, by its id; in all 1."""
        seconds = plan_seconds(plan, self._costs)
        whole = sum(seconds.values()) or 1.0
        return {step: one / whole for step, one in seconds.items()}

    @property
    def longest_window_s(self) -> float:
        """Over how many seconds a budget of the policies in force looks back at most."""
        policies = map(self.policies.get, self.policies.names())
        return max((budget.window_s for policy in policies for budget in policy.budgets), default=0.0)

    def costs_snapshot(self) -> dict[str, Any]:
        """What was learned of seconds, as builtins."""
        return self._costs.snapshot()

    def restore_costs(self, snapshot: Mapping[str, Any]) -> None:
        """Start from what an earlier process learned of seconds."""
        self._costs.restore(snapshot)

    def queued_s(self, model: str) -> float:
        """Seconds of work that wait or run on `model`, as this orchestrator knows."""
        return self._router.queues.outstanding_s(model)

    @property
    def queues(self) -> Queues:
        """What waits for the workers, in seconds."""
        return self._router.queues

    async def overview(self) -> Overview:
        """What is here; the workers are asked now."""
        statuses = await self.availability.refresh(now=True)
        policies = [self.policies.get(name) for name in self.policies.names()]
        self._count_policies()
        await asyncio.to_thread(self._look_at_artifact)
        return Overview(
            policies=tuple(
                PolicySummary(p.name, p.digest, p.description, tuple(p.recipes), takes(p.recipes, self.catalogue))
                for p in policies
            ),
            cards=tuple(self.catalogue[model] for model in self.catalogue.ids()),
            statuses=statuses,
            problems=self.policies.problems(),
            artifact=self._router.predictor.digest,
            artifact_problem=self._live.problem if self._live else "",
        )

    def unhindered(self) -> Router:
        """A router that decides as this orchestrator does, if nothing waited and nothing were broken."""
        return self._router.apart(self._router.queues.empty())

    def chosen_by_policy(self, request: GenerationRequest) -> bool:
        """Whether a policy may choose what this request gets; not if it names a recipe or a model."""
        if request.recipe is not None:
            return False
        try:
            return self.policies.resolve(request.target, self.catalogue.ids(), refresh=False)[1] is None
        except NotFoundError:
            return False

    def seconds_per_picture(self, model: str) -> tuple[float, int] | None:
        """What a picture of a model alone is expected to take at its card's settings, and how many are made at once as
        far as was learned. None: it makes none by itself."""
        if self.catalogue[model].role != "base":
            return None
        try:
            plan = make_plan(model, Generate(model), GenerationRequest("-"), self.catalogue, {})
        except TriptychError:
            return None
        seconds = plan_seconds(plan, self._costs)
        drawing = next((step for step in plan.steps if step.model == model), None)
        batch = 1 if drawing is None or self._batch_sizes is None else self._batch_sizes.best(drawing)
        return sum(seconds[step.id] for step in plan.steps if step.model == model), batch

    def worker_of(self, model: str) -> str:
        """The name of the worker that holds a model."""
        return self._worker_of.get(model, model)

    async def policy_file(self, name: str, digest: str | None = None) -> PolicyFile:
        """The file in force, or that of an earlier digest. Raises `NotFoundError`."""
        text = await asyncio.to_thread(self.policies.text, name, digest)
        versions = await asyncio.to_thread(self.policies.versions, name)
        return PolicyFile(name, digest or self.policies.get(name).digest, text, tuple(versions))

    async def put_policy(self, name: str, text: str, expected: str | None = None) -> PolicyFile:
        """Validate and put in force. Raises `PolicyError` or `RequestError`; nothing has changed then."""
        policy = await asyncio.to_thread(self.policies.put, name, text, expected)
        return PolicyFile(name, policy.digest, text, tuple(await asyncio.to_thread(self.policies.versions, name)))

    async def feedback(self, request_id: str, source: str, value: float, image: int | None = None) -> Receipt:
        """Remember how good a picture is (0..1). Raises `NotFoundError`, `RequestError` or `StepError`."""
        return await self._recorder.attach(request_id, source, value, image)

    def _count_policies(self) -> None:
        """Count what changed in the policy folder when it was last looked at."""
        with self._looking:  # several decisions may see the same change
            if (revision := self.policies.revision) != self._revision:
                self.metrics.record("triptych_policy_changes_total", revision - self._revision)
                self.metrics.record("triptych_policy_problems", len(self.policies.known_problems))
                self._revision = revision

    def _look_at_artifact(self) -> None:
        """Follow what changed in the artefact's folder, and count it."""
        if (live := self._live) is None:
            return
        if live.refresh():  # true for one of those that ask at the same time; the others go on with the last one
            try:
                readings = dict(self._score_readings(live.predictor.digest))
            except ArtifactError as error:  # what was in force stays, both of it
                live.problem = str(error)
                logger.error("an artefact is refused, what was in force stays: %s", error)
            else:
                # Published together: no decision sees the new predictor beside the readings of the old one.
                self._router.knowledge = Knowledge(live.predictor, readings)
                self.metrics.record("triptych_artifact_changes_total")
        if bool(live.problem) is not self._artifact_broken:
            self._artifact_broken = bool(live.problem)
            self.metrics.record("triptych_artifact_problems", float(self._artifact_broken))
