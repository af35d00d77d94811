"""What a shadow policy would have done: decided beside the answer, counted and logged, never run.

Each line of the log also has the mean difference in *expected* quality since this process began, or either policy was
changed, with an interval that is valid at every look. It is the predictor's word on the requests as they come; what
people say of a policy's pictures only a canary can tell.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from cachetools import LRUCache

from deployments.orchestration.metrics import Metrics
from router.errors import TriptychError
from router.learning.intervals import EveryLook
from router.route import Route
from router.routing import Router
from router.types import Context, Estimate, Policy

logger = logging.getLogger("triptych.shadow")

PAIRS = 64  # of policies, each in one version, whose differences are summed up


class Shadows:
    """Compares decisions in the background; no request waits for it or fails through it."""

    def __init__(self, router: Router, metrics: Metrics) -> None:
        self._router = router
        self._metrics = metrics
        self._running: set[asyncio.Task[None]] = set()
        self._gains: LRUCache[tuple[str, str], EveryLook] = LRUCache(PAIRS)

    def compare(self, route: Route, shadow: Policy | None) -> None:
        """Let `shadow` decide on the request of `route`, too."""
        if shadow is not None and not route.request.recipe:
            task = asyncio.create_task(self._compare(route, shadow))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def settle(self) -> None:
        """Wait for all comparisons that run now."""
        await asyncio.gather(*self._running)

    async def _compare(self, route: Route, shadow: Policy) -> None:
        ours = route.decision
        try:
            context = Context(datetime.now(UTC))
            theirs = await asyncio.to_thread(self._router.route, route.request, shadow, context)
        except TriptychError as error:
            logger.info("shadow %s of %s would have refused: %s", shadow.name, ours.policy, error.message)
            self._metrics.record("triptych_shadow_total", policy=ours.policy, shadow=shadow.name, same="refused")
            return
        except Exception:
            logger.exception("shadow %s of %s could not decide", shadow.name, ours.policy)
            return
        chosen = {"own": route.estimates[ours.recipe], "shadow": theirs.estimates[theirs.decision.recipe]}
        same = "yes" if ours.recipe == theirs.decision.recipe else "no"
        self._metrics.record("triptych_shadow_total", policy=ours.policy, shadow=shadow.name, same=same)
        for by, estimate in chosen.items():
            self._metrics.record("triptych_shadow_cost_usd_total", estimate.cost_usd, policy=ours.policy, by=by)
            self._metrics.record("triptych_shadow_quality_total", estimate.quality.mean, policy=ours.policy, by=by)
        gains = self._gains.setdefault((ours.policy_digest, theirs.decision.policy_digest), EveryLook(1.0))
        gains.add(chosen["shadow"].quality.mean - chosen["own"].quality.mean)
        words = _words(chosen["own"], chosen["shadow"])
        logger.info("shadow %s of %s: %s; %s", shadow.name, ours.policy, words, _so_far(gains))


def _so_far(gains: EveryLook) -> str:
    low, high = gains.interval()
    found = f"on average {gains.mean:+.3f} over {gains.count}"
    return f"{found} ({low:+.3f} to {high:+.3f}, 95 %, valid at every look)"


def _words(own: Estimate, other: Estimate) -> str:
    if own.recipe == other.recipe:
        return f"the same recipe, {own.recipe}"
    gain = other.quality.mean - own.quality.mean
    return f"{other.recipe} instead of {own.recipe}, {gain:+.3f} quality, {other.cost_usd - own.cost_usd:+.6f} USD"
