"""How the picture of a chosen recipe is checked once it is made, and what may be tried if it is not good enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from policies.conditions import Facts, holds
from policies.schema import VerifySpec
from policies.schema_choice import Limits
from router.types import Estimate, Verification


def verification(
    verify: VerifySpec | None, facts: Facts, limits: Limits, open_: Mapping[str, Estimate], chosen: str
) -> tuple[Verification | None, tuple[str, ...]]:
    """What to check and to try, and in words why; (None, ()) if the picture is not checked.

    A recipe that was asked for by name is checked, but no other takes its place.
    """
    if verify is None:
        return None, ()
    fact = holds(verify.when, replace(facts, chosen=open_[chosen])) if verify.when else "always"
    if fact is None:
        return None, ()
    wanted = [] if facts.request.recipe else verify.escalate_to or []
    ladder = _affordable([name for name in wanted if name in open_ and name != chosen], facts, limits, open_, chosen)
    then = f"below, {', then '.join(ladder)} is tried" if ladder else "nothing is tried below"
    note = f"verified ({fact}): accepted from {verify.accept_above:g} by {verify.scorer}; {then}"
    return Verification(verify.scorer, verify.accept_above, ladder), (note,)


def _affordable(
    names: Iterable[str], facts: Facts, limits: Limits, open_: Mapping[str, Estimate], chosen: str
) -> tuple[str, ...]:
    """Those of `names` that stay within every limit and budget if the chosen recipe and all before them run, too."""
    request, allowances = facts.request, facts.context.allowances
    bounds = {
        "latency_s": (limits.latency_s, request.latency_budget_s),
        "cost_usd": (limits.cost_usd, request.max_cost_usd, *(a.cost_usd for a in allowances)),
        "work_s": (limits.work_s, *(a.work_s for a in allowances)),
    }
    left = {key: min((b for b in given if b is not None), default=float("inf")) for key, given in bounds.items()}
    left = {key: bound - getattr(open_[chosen], key) for key, bound in left.items()}
    ladder = []
    for name in names:
        after = {key: bound - getattr(open_[name], key) for key, bound in left.items()}
        if all(bound >= 0 for bound in after.values()):
            ladder.append(name)
            left = after
    return tuple(ladder)
