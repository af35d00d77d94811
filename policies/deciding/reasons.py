"""A choice in words, for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policies.deciding.objectives import explain
from policies.language.schema_choice import Objective
from router.types import Estimate, Ranked


def reasons(
    objective: Objective, chosen: str, ranking: Sequence[Ranked], estimates: Mapping[str, Estimate]
) -> list[str]:
    """What is expected of the chosen recipe, what the objective says, and what the next best would change."""
    taken = next(ranked for ranked in ranking if ranked.recipe == chosen)
    lines = [f"{chosen}: {expected(estimates[chosen])}", explain(objective, taken, estimates)]
    if other := next((ranked.recipe for ranked in ranking if ranked.recipe != chosen), None):
        which = "the next best" if taken is ranking[0] else "the best"
        lines.append(compared(estimates[chosen], estimates[other], which))
    return lines


def expected(estimate: Estimate) -> str:
    """Quality with its uncertainty, seconds and dollars."""
    quality = estimate.quality
    basis = {
        "rule": " (set apart by a hand-written rule: nobody rated these models here)",
        "composed": " (composed from its parts)",
        "prior": " (a prior, nothing is known yet)",
    }
    wait = f" of which {seconds(estimate.queue_s)} waiting" if estimate.queue_s >= 0.05 else ""
    numbers = f"{seconds(estimate.latency_s)}{wait}, {dollars(estimate.cost_usd)}"
    return f"expected quality {quality.mean:.2f} ± {quality.std:.2f}{basis.get(quality.basis, '')}, {numbers}"


def compared(chosen: Estimate, other: Estimate, which: str) -> str:
    """How another recipe differs, as in "has 0.01 more quality for 3.1 times the cost and 2 times the time"."""
    ratios = {}
    if chosen.cost_usd > 0:
        ratios["cost"] = other.cost_usd / chosen.cost_usd
    if chosen.latency_s > 0:
        ratios["time"] = other.latency_s / chosen.latency_s
    prices: dict[str, str] = {}  # one phrase for both where it is the same
    for what, ratio in ratios.items():
        share = times(ratio)
        prices[share] = f"{prices[share]} and {what}" if share in prices else f"{share} {what}"
    more = round(other.quality.mean - chosen.quality.mean, 2)
    gain = f"{abs(more):.2f} {'more' if more > 0 else 'less'} quality" if more else "the same quality"
    return f"{which}, {other.recipe}, has {gain}" + (f" for {' and '.join(prices.values())}" if prices else "")


def times(ratio: float) -> str:
    """A ratio before what it is of, with two digits that count, never as a power of ten."""
    if 0.95 <= ratio < 1.05:
        return "the same"
    if ratio < 0.95:
        return f"{100 * ratio:.2g} % of the" if ratio >= 0.001 else "less than 0.1 % of the"
    return f"{ratio:.2g} times the" if ratio < 99.5 else f"{ratio:.0f} times the"


def seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def dollars(value: float) -> str:
    return (
        f"${value:.2g}"
        if 0.0001 <= value < 0.1
        else f"${value:.2f}"
        if value >= 0.1
        else f"${value:.7f}".rstrip("0").rstrip(".")
    )
