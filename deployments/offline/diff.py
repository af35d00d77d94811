"""Two policies on the same prompts: who changes, and what that does to expected cost, time and quality."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.offline.rehearsal import Rehearsal
from policies import Policy
from router.errors import NoRecipeError, OverloadedError, RequestError
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


def read_bodies(path: Path) -> list[dict[str, Any]]:
    """Request bodies: a line is a prompt, or a JSON object as over the wire; empty lines and `#` lines are left out.

    Raises `RequestError` with file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    bodies = []
    for number, line in enumerate((line.strip() for line in lines), start=1):
        if line.startswith("{"):
            try:
                bodies.append(json.loads(line))
            except ValueError as error:
                raise RequestError(f"{path}:{number}: not valid JSON: {error}") from None
        elif line and not line.startswith("#"):
            bodies.append({"prompt": line})
    if not bodies:
        raise RequestError(f"{path}: there is no prompt in it")
    return bodies


def differences(
    before: Policy, after: Policy, bodies: Sequence[Mapping[str, Any]], rehearsal: Rehearsal
) -> list[Difference]:
    """Both decisions on every request."""

    def chosen(policy: Policy, body: Mapping[str, Any]) -> Estimate | None:
        try:
            route = rehearsal.route(policy, body)
        except (NoRecipeError, OverloadedError):
            return None
        return route.estimates[route.decision.recipe]

    return [Difference(str(body.get("prompt")), chosen(before, body), chosen(after, body)) for body in bodies]


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
