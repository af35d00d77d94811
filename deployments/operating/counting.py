"""A job that has ended as a row that sums add up, and sums as shares of recipes and use by tenants."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from deployments.operating.values import BudgetUse, RecipeShare, TenantUse
from deployments.orchestration.metrics import Metrics
from deployments.orchestration.results import Outcome
from deployments.store.records import JobRecord, JobState, RatedRow, ServedRow


def row_of(
    record: JobRecord, state: JobState, decision: Mapping[str, Any], outcome: Outcome | None, used: tuple[float, float]
) -> ServedRow:
    """decision: policy and recipe;   outcome: None if nothing was made;   used: seconds of work and dollars"""
    ended_at, work_s, cost_usd = time.time(), *used
    row = ServedRow(
        ended_at,
        record.tenant,
        str(decision.get("policy", "")),
        str(decision.get("recipe", "")),
        state,
        work_s=work_s,
        cost_usd=cost_usd,
        latency_s=max(0.0, ended_at - record.arrived_at),
    )
    if outcome is None:
        return row
    estimate = outcome.route.estimates.get(row.recipe)
    expected = estimate.quality.mean if estimate is not None else 0.0
    first = [made.checks[0] for made in outcome.made if made.checks]
    pictures = record.n - len(outcome.failed)
    return replace(
        row,
        pictures=pictures,
        expected=expected * pictures,
        checked=len(first),
        expected_checked=expected * len(first),
        verified=sum(check.probability for check in first),
    )


def count(metrics: Metrics, row: ServedRow, priority: str) -> None:
    """The same for whoever scrapes."""
    metrics.record("triptych_jobs_total", state=row.state, priority=priority)
    if not row.recipe:
        return
    of = {"policy": row.policy, "recipe": row.recipe}
    metrics.record("triptych_work_seconds_total", row.work_s, **of)
    metrics.record("triptych_cost_usd_total", row.cost_usd, **of)
    if row.state == "done":
        metrics.record("triptych_request_seconds", row.latency_s, **of, priority=priority)
        metrics.record("triptych_pictures_total", row.pictures, **of)
    if row.checked:
        metrics.record("triptych_checked_pictures_total", row.checked, **of)
        metrics.record("triptych_checked_expected_total", row.expected_checked, **of)
        metrics.record("triptych_checked_quality_total", row.verified, **of)


def shares(rows: Iterable[ServedRow], rated: Iterable[RatedRow]) -> list[RecipeShare]:
    """What each policy chose its recipes for; the most frequent first within a policy."""
    said = {(one.policy, one.recipe): one for one in rated}
    by_recipe: dict[tuple[str, str], list[ServedRow]] = defaultdict(list)
    for row in rows:
        if row.state == "done" and row.recipe:
            by_recipe[row.policy, row.recipe].append(row)
    of_policy: dict[str, int] = defaultdict(int)
    for (policy, _), mine in by_recipe.items():
        of_policy[policy] += sum(row.pictures for row in mine)
    found = []
    for (policy, recipe), mine in by_recipe.items():
        jobs, pictures, checked = (sum(getattr(row, key) for row in mine) for key in ("jobs", "pictures", "checked"))
        one = said.get((policy, recipe))
        expected = sum(row.expected_checked if checked else row.expected for row in mine)
        found.append(
            RecipeShare(
                policy,
                recipe,
                pictures,
                share=_ratio(pictures, of_policy[policy]) or 0.0,
                predicted=_ratio(expected, checked or pictures),
                verified=_ratio(sum(row.verified for row in mine), checked),
                checked=checked,
                rated=one.count if one is not None else 0,
                rating=one.mean if one is not None else None,
                seconds=_ratio(sum(row.latency_s for row in mine), jobs),
            )
        )
    return sorted(found, key=lambda one: (one.policy, -one.pictures, one.recipe))


def uses(rows: Iterable[ServedRow], budget_of: Callable[[str], BudgetUse | None]) -> list[TenantUse]:
    """What each tenant was served, whoever used most first."""
    by_tenant: dict[str, list[ServedRow]] = defaultdict(list)
    for row in rows:
        by_tenant[row.tenant].append(row)
    found = [
        TenantUse(
            tenant,
            sum(row.jobs for row in mine),
            sum(row.pictures for row in mine),
            sum(row.cost_usd for row in mine),
            sum(row.work_s for row in mine),
            budget_of(tenant),
        )
        for tenant, mine in by_tenant.items()
    ]
    return sorted(found, key=lambda one: (-one.seconds, one.tenant))


def ended(rows: Sequence[ServedRow]) -> dict[JobState, int]:
    """How many jobs have ended, by how."""
    counts: dict[JobState, int] = {"done": 0, "failed": 0, "cancelled": 0}
    for row in rows:
        counts[row.state] += row.jobs
    return counts


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
