"""How the picture of a chosen recipe is checked once it is made, and what may be tried if it is not good enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from policies.deciding.conditions import Facts, holds
from policies.deciding.objectives import priced
from policies.deciding.terms import Terms
from policies.language.schema import VerifySpec
from policies.language.schema_choice import Limits
from router.types import UNBOUNDED, Allowance, Estimate, GenerationRequest, Prices, Resources, Verification

KEYS = ("latency_s", "cost_usd", "work_s")
LEAST_S = 1e-6  # of work of a picture, so that a price stays a number


def verification(
    verify: VerifySpec | None, facts: Facts, terms: Terms, bounds: Resources, open_: Mapping[str, Estimate]
) -> tuple[Verification | None, tuple[str, ...]]:
    """What to check and to try, and in words why; (None, ()) if the picture is not checked.

    facts: with the chosen recipe's estimate;   bounds: what the request may take
    A recipe that was asked for by name is checked by a ladder, but no other picture takes its place; by expected gain
    there is nothing to look for then.
    """
    chosen = facts.chosen
    if verify is None or chosen is None:
        return None, ()
    fact = holds(verify.when, facts) if verify.when else "always"
    pinned = facts.request.recipe is not None
    if fact is None or (pinned and verify.by == "expected_gain"):
        return None, ()
    wanted = [name for name in verify.escalate_to or () if name in open_ and name != chosen.recipe]
    left = {key: getattr(bounds, key) - getattr(chosen, key) for key in KEYS}
    fitting = _affordable(wanted, left, open_) if verify.by == "ladder" else _each_affordable(wanted, left, open_)
    made = Verification(
        scorer=verify.scorer,
        accept_above=verify.accept_above,
        escalate_to=() if pinned else fitting,
        by=verify.by,
        retry=0 if pinned else verify.retry or 0,
        most=verify.most,
        prices=_prices(verify, terms, chosen, facts.request.n),
        within_s=_known(bounds.latency_s),
        cost_usd=_known(left["cost_usd"]),
        work_s=_known(left["work_s"]),
        or_refuse=verify.or_ == "refuse",
    )
    return made, (f"verified ({fact}): {_words(made)}",)


def tightest(limits: Limits, request: GenerationRequest, allowances: Sequence[Allowance]) -> Resources:
    """The least of what limits, the request and the tenant's budgets allow."""
    latency_s, cost_usd, work_s = UNBOUNDED.latency_s, UNBOUNDED.cost_usd, UNBOUNDED.work_s
    for bound in (limits.latency_s, request.latency_budget_s):
        latency_s = latency_s if bound is None else min(latency_s, bound)
    for bound in (limits.cost_usd, request.max_cost_usd, *[a.cost_usd for a in allowances]):
        cost_usd = cost_usd if bound is None else min(cost_usd, bound)
    for bound in (limits.work_s, *[a.work_s for a in allowances]):
        work_s = work_s if bound is None else min(work_s, bound)
    return Resources(latency_s, work_s, cost_usd)


def _affordable(names: Iterable[str], left: Mapping[str, float], open_: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Those of `names` that stay within every limit and budget if all before them run, too."""
    ladder = []
    for name in names:
        after = {key: bound - getattr(open_[name], key) for key, bound in left.items()}
        if all(bound >= 0 for bound in after.values()):
            ladder.append(name)
            left = after
    return tuple(ladder)


def _each_affordable(names: Iterable[str], left: Mapping[str, float], open_: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Those of `names` that stay within every limit and budget alone; which of them run is decided picture by picture,
    within what is left then."""
    return tuple(name for name in names if all(getattr(open_[name], key) <= left[key] for key in KEYS))


def _prices(verify: VerifySpec, terms: Terms, chosen: Estimate, n: int) -> Prices:
    """What a second and a dollar are worth; by `quality_per_try`, a second is worth its share of another picture."""
    if verify.quality_per_try is None:
        return priced(terms.objective, verify.quality_per_s, verify.quality_per_usd)
    return Prices(per_s=verify.quality_per_try / max(chosen.work_s / n, LEAST_S))


def _known(bound: float) -> float | None:
    return None if bound == float("inf") else max(0.0, bound)


def _words(made: Verification) -> str:
    again = f"each up to {made.retry} times again" if made.retry else ""
    bar = f"accepted from {made.accept_above:g} by {made.scorer}" if made.accept_above is not None else ""
    if made.by == "ladder":
        names = ", then ".join(made.escalate_to)
        then = f"below, {names} is tried" if names else "" if made.retry else "nothing is tried below"
        return "; ".join(part for part in (bar, then, again) if part)
    names = ", ".join(made.escalate_to)
    asked = ((made.prices.per_s, "a second"), (made.prices.per_usd, "a dollar"))
    price = " and ".join(f"{value:.2g} {unit}" for value, unit in asked if value) or "nothing"
    what = f"tries{f' of {names}' if names else ''} are made while they are expected to gain more than {price}"
    return "; ".join(part for part in (f"by {made.scorer}, {what}", again, bar) if part)
