"""What became of a request's pictures, as the outcome that is answered."""

from __future__ import annotations

import time
from collections.abc import Sequence

from deployments.orchestration.results import Made, Outcome, unlikely
from deployments.orchestration.runner import Batch
from router.route import Route


def refusing(route: Route) -> bool:
    """Whether a request would rather have no picture than one that is probably wrong."""
    return route.decision.verify is not None and route.decision.verify.or_refuse


def outcome_of(route: Route, batch: Batch, started: float, cost_usd: float, *notes: str, share: float = 1.0) -> Outcome:
    """cost_usd: as measured;   share: of the request's expected cost that belongs to these pictures"""
    lost = [
        f"picture {failure.index + 1} of {route.request.n} (seed {failure.seed}) is missing: {failure.message}"
        for failure in batch.failed
    ]
    notes = (*notes, *lost, *(note for picture in batch.made for note in picture.notes))
    return Outcome(
        route,
        batch.made,
        latency_s=time.monotonic() - started,
        cost_usd=cost_usd,
        notes=tuple(dict.fromkeys(notes)),
        estimated_cost_usd=_estimated_cost_usd(route, batch.made, share),
        warnings=(*lost, *unlikely(batch.made)),
        failed=batch.failed,
    )


def _estimated_cost_usd(route: Route, made: Sequence[Made], share: float) -> float:
    tried = [check.recipe for picture in made for check in picture.checks[1:]]
    once = {name: route.estimates[name].cost_usd / route.request.n for name in tried}
    return share * route.estimates[route.decision.recipe].cost_usd + sum(once[name] for name in tried)
