"""Which recipe is taken once they are ranked: less waiting under load, and now and then one that chance draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.deciding.reasons import seconds
from policies.language.schema import OverloadSpec
from policies.language.schema_choice import ExploreSpec
from router.errors import OverloadedError
from router.types import Context, Estimate, GenerationRequest, Ranked


@dataclass(frozen=True)
class Taken:
    """The recipe that is taken. propensity: with which probability; degraded_from: what the ranking would have said."""

    recipe: str
    propensity: float = 1.0
    degraded_from: str | None = None
    explored: bool = False
    notes: tuple[str, ...] = ()


def take(
    ranking: Sequence[Ranked],
    open_: Mapping[str, Estimate],
    request: GenerationRequest,
    context: Context,
    overload: OverloadSpec | None,
    explore: ExploreSpec | None,
) -> Taken:
    """The first of the ranking, unless load or chance speak for another. Raises `OverloadedError`."""
    best = ranking[0].recipe
    taken = Taken(best)
    if overload is not None:
        taken = _degraded(best, open_, request, overload)
        _refuse(open_[taken.recipe], overload)
    calm = taken.recipe == best and not taken.notes
    if explore is not None and context.draw is not None and calm and not request.recipe:
        taken = _explored(best, calm_ones(open_, overload), explore, context.draw)
    return taken


def calm_ones(open_: Mapping[str, Estimate], overload: OverloadSpec | None) -> Mapping[str, Estimate]:
    """The recipes that chance may take: those which overload would neither refuse nor replace for their waiting."""
    bounds = (overload.degrade_after_s, overload.reject_after_s) if overload is not None else ()
    most = min((bound for bound in bounds if bound is not None), default=math.inf)
    return {name: estimate for name, estimate in open_.items() if estimate.queue_s <= most}


def _degraded(best: str, open_: Mapping[str, Estimate], request: GenerationRequest, overload: OverloadSpec) -> Taken:
    """The mildest recipe of the ladder that waits less than the bound, or else the one that waits least."""
    bound = overload.degrade_after_s
    if bound is None or open_[best].queue_s <= bound:
        return Taken(best)
    ladder = [name for name in overload.degrade_to or () if name in open_ and name != best]
    quick = next((name for name in ladder if open_[name].queue_s <= bound), None)
    lesser = quick or min((best, *ladder), key=lambda name: open_[name].queue_s)
    wait = f"{best} would wait {seconds(open_[best].queue_s)}"
    if lesser == best:
        return Taken(best, notes=(f"{wait}, and nothing that waits less may take its place",))
    if not request.degradable:
        return Taken(best, notes=(f"{wait}; {lesser} was not taken instead, because the request forbids it",))
    waits = seconds(open_[lesser].queue_s)
    return Taken(lesser, degraded_from=best, notes=(f"overload: {wait}, so {lesser} was taken, which waits {waits}",))


def _refuse(estimate: Estimate, overload: OverloadSpec) -> None:
    bound = overload.reject_after_s
    if bound is not None and estimate.queue_s > bound:
        wait = f"{estimate.recipe} would wait {seconds(estimate.queue_s)}, over the policy's {seconds(bound)}"
        raise OverloadedError(f"{wait}; try again later", estimate.queue_s - bound)


def _explored(best: str, open_: Mapping[str, Estimate], explore: ExploreSpec, draw: float) -> Taken:
    """With probability `rate` one of the pool, each alike."""
    pool = _pool(open_, explore)
    if not pool or not explore.rate:
        return Taken(best)
    drawn = draw < explore.rate
    recipe = pool[min(len(pool) - 1, int(draw / explore.rate * len(pool)))] if drawn else best
    propensity = drawing(best, open_, explore)[recipe]
    note = f"exploration: {recipe} was drawn among {len(pool)} (probability {propensity:.3g}); {best} ranks first"
    return Taken(recipe, propensity, explored=drawn, notes=(note,) if drawn else ())


def drawing(best: str, open_: Mapping[str, Estimate], explore: ExploreSpec | None) -> dict[str, float]:
    """With which probability exploration takes each recipe; both ways to the same recipe count."""
    pool = _pool(open_, explore) if explore is not None else []
    rate = explore.rate if explore is not None and pool else 0.0
    return {name: (1 - rate) * (name == best) + (rate / len(pool) if name in pool else 0.0) for name in open_}


def _pool(open_: Mapping[str, Estimate], explore: ExploreSpec) -> list[str]:
    return sorted(set(open_) & set(explore.among)) if explore.among else sorted(open_)
