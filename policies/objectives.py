"""What "best" means among the recipes that may run: each objective turns estimates into utilities, higher is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policies.schema import Objective, Weight
from router.types import Estimate, Ranked

Estimates = Mapping[str, Estimate]


def rank(objective: Objective, estimates: Estimates) -> tuple[Ranked, ...]:
    """Best first. Ties go to the cheaper, then the faster, the better, and the first in the alphabet."""
    utilities = OBJECTIVES[_aim(objective)](objective, estimates)

    def order(name: str) -> tuple[float, float, float, float, str]:
        estimate = estimates[name]
        return -utilities[name], estimate.cost_usd, estimate.latency_s, -estimate.quality.mean, name

    return tuple(Ranked(name, utilities[name]) for name in sorted(utilities, key=order))


def explain(objective: Objective, best: Ranked, estimates: Estimates) -> str:
    """The objective in words, and what it came to for the best recipe."""
    quality = estimates[best.recipe].quality.mean
    if objective.maximise is not None:
        weight = objective.weight or Weight()
        price = "".join(f" − {value:g} × {key}" for key, value in weight.model_dump().items() if value)
        return f"objective: highest quality{price}, which is {best.utility:.3f} here"
    if objective.cheapest_within is not None:
        top = max(estimate.quality.mean for estimate in estimates.values())
        return f"objective: cheapest within {objective.cheapest_within:g} of the best expected quality, {top:.2f}"
    if objective.fastest_above is not None:
        if quality < objective.fastest_above:
            bar = f"{objective.fastest_above:g}"
            return f"objective: fastest with quality {bar} or more; no recipe is expected to reach it, so the best one"
        return f"objective: fastest with quality {objective.fastest_above:g} or more"
    return f"objective: lowest {objective.minimise}"


def _aim(objective: Objective) -> str:
    return next(key for key in OBJECTIVES if getattr(objective, key) is not None)


def _maximise(objective: Objective, estimates: Estimates) -> dict[str, float]:
    weight = objective.weight or Weight()
    return {
        name: e.quality.mean - weight.cost_usd * e.cost_usd - weight.latency_s * e.latency_s
        for name, e in estimates.items()
    }


def _cheapest_within(objective: Objective, estimates: Estimates) -> dict[str, float]:
    best = max((e.quality.mean for e in estimates.values()), default=0.0)
    bar = best - (objective.cheapest_within or 0.0)
    return {name: _over_the_bar(e.quality.mean, bar, e.cost_usd) for name, e in estimates.items()}


def _fastest_above(objective: Objective, estimates: Estimates) -> dict[str, float]:
    bar = objective.fastest_above or 0.0
    return {name: _over_the_bar(e.quality.mean, bar, e.latency_s) for name, e in estimates.items()}


def _minimise(objective: Objective, estimates: Estimates) -> dict[str, float]:
    return {name: -float(getattr(e, objective.minimise or "cost_usd")) for name, e in estimates.items()}


def _over_the_bar(quality: float, bar: float, price: float) -> float:
    """0..1, falling with the price, for whoever reaches the bar; below it, minus the quality that is missing."""
    return 1.0 / (1.0 + price) if quality >= bar else quality - bar


OBJECTIVES: dict[str, Callable[[Objective, Estimates], dict[str, float]]] = {
    "maximise": _maximise,
    "cheapest_within": _cheapest_within,
    "fastest_above": _fastest_above,
    "minimise": _minimise,
}
