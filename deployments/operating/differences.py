"""The same requests decided by two policies: who changes, and what that does to expected cost, time and quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from router.types import Estimate


@dataclass(frozen=True)
class Difference:
    """One prompt; None where a policy refuses it."""

    prompt: str
    before: Estimate | None
    after: Estimate | None

    @property
    def changes(self) -> bool:
        return (self.before and self.before.recipe) != (self.after and self.after.recipe)


def summary(found: Sequence[Difference]) -> dict[str, Any]:
    """Counts, and means over the prompts that both policies answer."""
    both = [(c.before, c.after) for c in found if c.before and c.after]

    def means(measure: str) -> dict[str, float]:
        pairs = [(_measure(a, measure), _measure(b, measure)) for a, b in both]
        sums = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)] if pairs else [0.0, 0.0]
        return {"before": sums[0], "after": sums[1], "difference": sums[1] - sums[0]}

    return {
        "prompts": len(found),
        "changed": sum(c.changes for c in found),
        "refused_before": sum(c.before is None for c in found),
        "refused_after": sum(c.after is None for c in found),
        **{measure: means(measure) for measure in ("quality", "cost_usd", "latency_s")},
    }


def _measure(estimate: Estimate, measure: str) -> float:
    return estimate.quality.mean if measure == "quality" else float(getattr(estimate, measure))
