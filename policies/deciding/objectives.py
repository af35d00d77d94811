"""What "best" means among the recipes that may run: each objective turns estimates into utilities, higher is better."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from policies.language.schema_choice import Bounds, Criterion, Objective, Weight
from router.types import Estimate, Prices, Ranked

Estimates = Mapping[str, Estimate]


def rank(objective: Objective, estimates: Estimates, preferred: Sequence[Collection[str]] = ()) -> tuple[Ranked, ...]:
    """Best first, of one recipe at least. Ties go to the cheaper, then the faster, the better, and the first in the
    alphabet.

    preferred: sets of recipes that come before all others, whatever their utility; earlier sets count more.
    """
    utilities = OBJECTIVES[objective.aim](objective, estimates)
    order = []
    for name, utility in utilities.items():
        estimate = estimates[name]
        liking = [name not in names for names in preferred] if preferred else ()
        order.append((*liking, -utility, estimate.cost_usd, estimate.latency_s, -estimate.quality.mean, name))
    return tuple([Ranked(entry[-1], utilities[entry[-1]]) for entry in sorted(order)])


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
    if (bounds := objective.best_under) is not None:
        words = " and ".join(f"{key} {value:g}" for key, value in bounds.model_dump(exclude_none=True).items())
        excess = _excess(bounds, estimates[best.recipe])
        return f"objective: best under {words}" + ("; nothing stays under, so the nearest" if excess > 0 else "")
    if objective.lexicographic is not None:
        words = ", then ".join(c.by + (f" (within {c.within:g})" if c.within else "") for c in objective.lexicographic)
        return f"objective: best by {words}"
    return f"objective: lowest {objective.minimise}"


def priced(objective: Objective | None, per_s: float | None, per_usd: float | None) -> Prices:
    """What a second and a dollar are worth in quality: as said, else by the objective's weights, else nothing."""
    weight = (objective.weight if objective is not None else None) or Weight()
    return Prices(weight.latency_s if per_s is None else per_s, weight.cost_usd if per_usd is None else per_usd)


def _maximise(objective: Objective, estimates: Estimates) -> dict[str, float]:
    weight = objective.weight or Weight()
    return {
        name: e.quality.mean
        - weight.cost_usd * e.cost_usd
        - weight.latency_s * e.latency_s
        - weight.uncertainty * e.quality.std
        for name, e in estimates.items()
    }


def _cheapest_within(objective: Objective, estimates: Estimates) -> dict[str, float]:
    best = max(e.quality.mean for e in estimates.values())
    bar = best - (objective.cheapest_within or 0.0)
    return {name: _over_the_bar(e.quality.mean, bar, e.cost_usd) for name, e in estimates.items()}


def _fastest_above(objective: Objective, estimates: Estimates) -> dict[str, float]:
    bar = objective.fastest_above or 0.0
    return {name: _over_the_bar(e.quality.mean, bar, e.latency_s) for name, e in estimates.items()}


def _best_under(objective: Objective, estimates: Estimates) -> dict[str, float]:
    """The expected quality under the bounds; over them, minus the relative excess."""
    bounds = objective.best_under
    assert bounds is not None
    excess = {name: _excess(bounds, e) for name, e in estimates.items()}
    return {name: -excess[name] if excess[name] > 0 else e.quality.mean for name, e in estimates.items()}


def _excess(bounds: Bounds, estimate: Estimate) -> float:
    pairs = ((estimate.cost_usd, bounds.cost_usd), (estimate.latency_s, bounds.latency_s))
    return sum(max(0.0, value / bound - 1) for value, bound in pairs if bound is not None)


def _lexicographic(objective: Objective, estimates: Estimates) -> dict[str, float]:
    """The number of criteria that a recipe passed; among those that passed all, the last criterion adds to it.

    Each criterion keeps what is within its tolerance of the best that the criteria before it kept.
    """
    criteria = objective.lexicographic or [Criterion(by="quality")]
    kept = dict(estimates)
    passed = dict.fromkeys(estimates, 0.0)
    for criterion in criteria:
        best = max(_gain(criterion, e) for e in kept.values())
        kept = {name: e for name, e in kept.items() if _gain(criterion, e) >= best - criterion.within}
        for name in kept:
            passed[name] += 1
    for name, estimate in kept.items():
        passed[name] += _squashed(_gain(criteria[-1], estimate))
    return passed


def _gain(criterion: Criterion, estimate: Estimate) -> float:
    return estimate.quality.mean if criterion.by == "quality" else -float(getattr(estimate, criterion.by))


def _squashed(gain: float) -> float:
    """Between 0 and 1, rising with the gain."""
    return 0.5 + gain / (2 * (1 + abs(gain)))


def _minimise(objective: Objective, estimates: Estimates) -> dict[str, float]:
    return {name: -float(getattr(e, objective.minimise or "cost_usd")) for name, e in estimates.items()}


def _over_the_bar(quality: float, bar: float, price: float) -> float:
    """0..1, falling with the price, for whoever reaches the bar; below it, minus the quality that is missing."""
    return 1.0 / (1.0 + price) if quality >= bar else quality - bar


OBJECTIVES: dict[str, Callable[[Objective, Estimates], dict[str, float]]] = {
    "maximise": _maximise,
    "cheapest_within": _cheapest_within,
    "fastest_above": _fastest_above,
    "best_under": _best_under,
    "lexicographic": _lexicographic,
    "minimise": _minimise,
}
