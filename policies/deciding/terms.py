"""The terms of one decision: what the policy says, with what the rules that apply set in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from policies.language.schema_choice import ExploreSpec, Limits, Objective
from policies.language.schema_rules import Rule


@dataclass(frozen=True)
class Applied:
    """A rule whose condition holds, and the fact in words."""

    rule: Rule
    fact: str


@dataclass(frozen=True)
class Terms:
    """notes: in words, what was set by which rule."""

    objective: Objective
    limits: Limits
    explore: ExploreSpec | None = None
    notes: tuple[str, ...] = ()

    def under(self, applied: Sequence[Applied]) -> Terms:
        """The terms with the settings of `applied`; of two rules that set the same, the first one counts."""
        terms = self
        taken: set[str] = set()
        for rule, fact in ((a.rule, a.fact) for a in applied if a.rule.set_):
            assert rule.set_ is not None
            fresh = {key: value for key, value in rule.set_.given_limits.items() if key not in taken}
            said = [f"{key} {value:g}" for key, value in fresh.items()]
            terms = replace(terms, limits=terms.limits.model_copy(update=fresh)) if fresh else terms
            if rule.set_.objective is not None and "objective" not in taken:
                terms = replace(terms, objective=rule.set_.objective)
                said.append("the objective")
            if rule.set_.explore is not None and "explore" not in taken:
                terms = replace(terms, explore=rule.set_.explore)
                said.append(f"exploration at {rule.set_.explore.rate:g}")
            taken |= {*fresh, *(key for key in ("objective", "explore") if getattr(rule.set_, key) is not None)}
            if said:
                terms = replace(terms, notes=(*terms.notes, f"rule {rule.name!r} ({fact}) sets {', '.join(said)}"))
        return terms
