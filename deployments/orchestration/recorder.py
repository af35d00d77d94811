"""Remembers what an orchestrator decided and how it came out, and takes feedback. No request fails for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from deployments.orchestration.metrics import Metrics
from deployments.orchestration.results import Made, Outcome
from deployments.store.decision_log import DecisionLog
from deployments.store.errors import StoreError
from router.errors import NotFoundError, RequestError, StepError
from router.learning.feedback import SCORER, DecisionRecord, Feedback, Receipt
from router.planning.recipes import recipe_key
from router.quality.predictor import QualityPredictor
from router.types import Catalogue, Recipe

logger = logging.getLogger("triptych.decisions")

SOON_S = 0.1  # how long an answer waits at most until its request can be found; writing goes on without it
PATIENCE_S = 3.0  # and how long feedback waits until it is written
MOST_WAITING = 64  # writes that wait for it; beyond, nothing is logged until it responds
COMPLAIN_EVERY_S = 60.0


class Recorder:
    """Writes to `log` in a thread of its own. log: None: nothing is remembered, and feedback finds nothing."""

    def __init__(self, log: DecisionLog | None, catalogue: Catalogue, metrics: Metrics) -> None:
        self._log = log
        self._catalogue = catalogue
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, "triptych-decisions")
        self._waiting: list[Future[Any]] = []
        self._complained_s = float("-inf")

    async def remember(self, outcome: Outcome, recipes: Mapping[str, Recipe], predictor: QualityPredictor) -> None:
        """Log a decision among `recipes` with its outcome, and what verification said as the scorer's feedback.

        Returns when the request can be found by its id, or soon: what comes to be said of it is written after it in any
        case. Whatever goes wrong is a warning and counted, never raised.
        """
        if (log := self._log) is None or not outcome.route.request.id:
            return

        def write() -> None:
            log.record(record_of(outcome, recipes, predictor, self._catalogue), verdicts(outcome))

        try:
            writing = self._begun(write)
        except TimeoutError as error:
            self._failed(log, error)
            return
        writing.add_done_callback(lambda done: self._failed(log, done.exception()))
        written = asyncio.wrap_future(writing)
        written.add_done_callback(lambda done: done.cancelled() or done.exception())  # marks it as seen
        await asyncio.wait({written}, timeout=SOON_S)

    def _failed(self, log: DecisionLog, error: BaseException | None) -> None:
        """Count a decision that was not logged, and say so from time to time. None: it was."""
        if error is None:
            return
        self._metrics.record("triptych_log_failures_total")
        if time.monotonic() - self._complained_s > COMPLAIN_EVERY_S:
            self._complained_s = time.monotonic()
            logger.warning("decisions are not logged to %s: %s", log.path, str(error) or type(error).__name__)

    async def attach(self, request_id: str, source: str, value: float, image: int | None) -> Receipt:
        """Say how good a picture is; see `DecisionLog.attach`. Also raises `RequestError` for the name of a scorer that
        speaks for itself, and `StepError` if the log cannot be written to."""
        name = source.removeprefix(SCORER)
        if source != name and name in self._catalogue and self._catalogue[name].role == "scorer":
            message = f"scorer: what {name!r} says is recorded when it is asked; send other scores under another name"
            raise RequestError(message, "scorer", "invalid_value")
        if (log := self._log) is None:
            raise NotFoundError("decisions are not logged here (feedback.log: false), so none can be rated", "id")
        try:
            receipt = await self._written(lambda: log.attach(request_id, source, value, image))
        except (StoreError, OSError) as error:
            logger.warning("feedback was not written to %s: %s", log.path, str(error) or type(error).__name__)
            message = "the feedback could not be stored; the server's log says why; send it again later"
            failed = StepError(message)
            failed.retry_after_s = 5.0
            raise failed from None
        self._metrics.record("triptych_feedback_total", kind="score" if source != name else "rating")
        return receipt

    async def _written(self, write: Any) -> Any:
        return await asyncio.wait_for(asyncio.wrap_future(self._begun(write)), PATIENCE_S)

    def _begun(self, write: Any) -> Future[Any]:
        self._waiting = [future for future in self._waiting if not future.done()]
        if len(self._waiting) >= MOST_WAITING:
            raise TimeoutError(f"{MOST_WAITING} writes wait for the file system already")
        future = self._thread.submit(write)
        self._waiting.append(future)
        return future


def record_of(
    outcome: Outcome, recipes: Mapping[str, Recipe], predictor: QualityPredictor, catalogue: Catalogue
) -> DecisionRecord:
    """A decision as the log keeps it."""
    route, decision = outcome.route, outcome.route.decision
    options = {ranked.recipe: route.estimates[ranked.recipe] for ranked in decision.ranking}
    made = tuple(made.recipe for made in outcome.made)
    named = dict.fromkeys([*options, *made, *(check.recipe for one in outcome.made for check in one.checks)])
    return DecisionRecord(
        id=route.request.id,
        at_s=time.time(),
        prompt=route.request.prompt,
        embedding=route.view.embedding,
        features=route.view.features,
        policy=decision.policy,
        policy_digest=decision.policy_digest,
        artifact=route.artifact,
        base=predictor.base,
        base_means=dict(zip(predictor.columns, predictor.base_means(route.view).tolist(), strict=True)),
        options=options,
        keys={name: recipe_key(recipes[name], recipes, catalogue) for name in named},
        recipe=decision.recipe,
        propensity=decision.propensity,
        rules=decision.rules,
        explored=decision.explored,
        pinned=route.request.recipe is not None,
        degradable=route.request.degradable,
        made=made,
        kept=tuple(map(kept, outcome.made)),
        latency_s=outcome.latency_s,
        cost_usd=outcome.cost_usd,
    )


def kept(made: Made) -> int:
    """Which picture of its recipe was kept, from 0, in the search for this one."""
    tries = [check.seed for check in made.checks if check.recipe == made.recipe]
    return tries.index(made.seed) if made.seed in tries else 0


def verdicts(outcome: Outcome) -> list[Feedback]:
    """What the verifier said of each picture that it saw, every try by itself."""
    verify = outcome.route.decision.verify
    if verify is None:
        return []
    found = []
    for index, made in enumerate(outcome.made):
        tries: Counter[str] = Counter()
        for check in made.checks:
            value = min(1.0, max(0.0, check.score))
            found.append(Feedback(SCORER + verify.scorer, index, check.recipe, value, attempt=tries[check.recipe]))
            tries[check.recipe] += 1
    return found
