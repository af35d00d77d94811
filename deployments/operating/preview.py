"""What a policy would change, before it is in force: the latest requests decided by the one in force and by this one.

Both are decided now, by the code that serves, with the same expectations and as if nothing waited, so that what differs
is the policy's doing. Requests that name a recipe or a model are left out: no policy chooses for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from deployments.operating.differences import Difference
from deployments.operating.values import PolicyPreview
from deployments.orchestration.orchestrator import Orchestrator
from policies import Policy
from router.errors import NoRecipeError, NotFoundError, OverloadedError, PolicyError, RequestError
from router.route import Route
from router.routing import Router
from router.types import Context, Estimate, GenerationRequest

DECISIONS = 100
PATIENCE_S = 10.0  # after which those that were not decided are left out


def previewed(
    orchestrator: Orchestrator,
    name: str,
    text: str,
    decided: Sequence[tuple[GenerationRequest, str]],
    should_stop: Callable[[], bool] = lambda: False,
) -> PolicyPreview:
    """The preview of `text` under this name. Takes seconds: call it in a thread.

    decided: the latest requests, with the policy that decided each, the latest first
    should_stop: asked before each of them; what was decided until then is what is given
    """
    try:
        after = orchestrator.policies.check(name, text)
    except PolicyError as error:
        return PolicyPreview(tuple(error.problems) or (error.message,))
    router, until = orchestrator.unhindered(), time.monotonic() + PATIENCE_S
    found: list[Difference] = []
    reasons: list[str] = []
    for request, policy in decided:
        if len(found) >= DECISIONS or time.monotonic() > until or should_stop():
            break
        if not orchestrator.chosen_by_policy(request):
            continue
        try:
            before = orchestrator.policies.get(policy)
        except NotFoundError:  # it is gone
            continue
        was, _ = _chosen(router, before, request)
        now, why = _chosen(router, after, request)
        found.append(Difference(request.prompt, was, now))
        reasons.append(why)
    return PolicyPreview((), tuple(found), tuple(reasons))


def _chosen(router: Router, policy: Policy, request: GenerationRequest) -> tuple[Estimate | None, str]:
    """What the policy chooses, and why; None: it refuses."""
    at = None if request.arrived_s is None else datetime.fromtimestamp(request.arrived_s, UTC)
    try:
        route: Route = router.route(request, policy, Context(at))
    except (NoRecipeError, OverloadedError, RequestError) as error:
        return None, error.message
    reasons = route.decision.reasons
    return route.estimates[route.decision.recipe], reasons[0] if reasons else ""
