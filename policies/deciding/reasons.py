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
    """How another recipe differs, as in "costs 3.1x, takes 2.0x as long, for +0.01 quality"."""
    parts = []
    if chosen.cost_usd > 0:
        parts.append(f"costs {times(other.cost_usd / chosen.cost_usd)}")
    if chosen.latency_s > 0:
        parts.append(f"takes {times(other.latency_s / chosen.latency_s)} as long")
    more = round(other.quality.mean - chosen.quality.mean, 2)
    gain = f"{more:+.2f} quality" if more else "the same quality"
    return f"{which}, {other.recipe}, {', '.join([*parts, f'for {gain}' if parts else f'has {gain}'])}"


def times(ratio: float) -> str:
    """Two digits that count, never as a power of ten."""
    return f"{ratio:.2g}x" if 0.001 <= ratio < 99.5 else f"{ratio:.0f}x" if ratio >= 1 else "<0.001x"


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
