"""The wire of what operators ask: overview, keys, previews of policies. Times are Unix seconds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deployments.api.wire.requests import given_fields, json_of, request_error
from deployments.jobs.keys import budget_text, made_key, period_of
from deployments.operating.differences import Difference, summary
from deployments.operating.values import ModelState, Operations, PolicyPreview
from deployments.store.records import KeyRecord
from router.types import Estimate

TENANTS = 200  # that an overview lists
EXAMPLES = 10  # requests that a preview shows
EXAMPLE = '{"tenant": "acme", "scopes": ["generate"]}'

_PROBLEM = re.compile(r"[^:]*:(\d+):(\d+): (.*)", re.DOTALL)
_PROPOSAL = re.compile(r"did you mean ['\"]([^'\"]+)['\"]")


class KeyRequest(BaseModel):
    """The body of `POST /v1/admin/keys`."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    tenant: str = Field(min_length=1, max_length=256, description="Whose budgets, share and jobs it is about.")
    name: str = Field(default="", max_length=256, description="For people, such as where it is used.")
    scopes: list[str] = Field(
        default=["generate", "feedback"], min_length=1, max_length=8, description="Of generate, feedback and admin."
    )
    rpm: int | None = Field(default=None, ge=1, lt=2**31, description="Requests a minute; none: no limit.")
    budget: str | None = Field(default=None, max_length=100, description="Such as `5usd/day`; none: no limit.")
    priority: str | None = Field(
        default=None, max_length=16, description="The highest class that it may ask for; none: interactive."
    )

    @model_validator(mode="before")
    @classmethod
    def _known_fields_only(cls, data: Any) -> Any:
        return given_fields(data, cls.model_fields)


def parse_key(body: bytes | Any) -> tuple[str, KeyRecord]:
    """A new key and its record, from JSON text or builtins. Raises `RequestError` that names the field at fault."""
    data = json_of(body, EXAMPLE) if isinstance(body, bytes) else body
    try:
        asked = KeyRequest.model_validate(data)
    except ValidationError as error:
        raise request_error(error.errors(include_url=False)) from None
    return made_key(asked.tenant, asked.name, asked.scopes, asked.rpm, asked.budget, asked.priority)


def key_report(key: KeyRecord) -> dict[str, Any]:
    """A key without what it is or what it hashes to."""
    return {
        "id": key.id,
        "object": "key",
        "tenant": key.tenant,
        "name": key.name,
        "scopes": list(key.scopes),
        "rpm": key.rpm,
        "budget": budget_text(key.budget),
        "priority": key.priority,
        "prefix": key.prefix,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }


def overview_report(found: Operations) -> dict[str, Any]:
    """How everything is, and what was served."""
    return {
        "object": "overview",
        "version": metadata.version("triptych"),
        "since": round(found.since, 3),
        "now": round(found.now, 3),
        "window_s": found.window_s,
        "models": [_model(one) for one in found.models],
        "jobs": dict(found.jobs),
        "recipes": [
            {
                **{key: getattr(one, key) for key in ("policy", "recipe", "pictures", "checked", "rated")},
                **{key: _round(getattr(one, key)) for key in ("share", "predicted", "verified", "rating", "seconds")},
            }
            for one in found.recipes
        ],
        "tenants": [
            {
                "tenant": one.tenant,
                "jobs": one.jobs,
                "pictures": one.pictures,
                "cost_usd": _round(one.cost_usd, 6),
                "seconds": _round(one.seconds),
                "budget": None
                if one.budget is None
                else {
                    "limit_usd": one.budget.limit_usd,
                    "spent_usd": _round(one.budget.spent_usd, 6),
                    "period": period_of(one.budget.window_s),
                },
            }
            for one in found.tenants[:TENANTS]
        ],
        "refusals": [{"reason": reason, "count": count} for reason, count in found.refusals.items()],
    }


def _model(one: ModelState) -> dict[str, Any]:
    return {
        "name": one.name,
        "worker": one.worker,
        "state": one.state,
        "detail": one.detail or None,
        "replicas": one.replicas,
        "age_s": _round(one.age_s, 1),
        "memory_gb": one.memory_gb,
        "seconds_per_picture": _round(one.seconds_per_picture),
        "batch": one.batch,
        "queue": {
            **{f"{name}_s": _round(one.queued_s.get(name, 0.0)) for name in ("interactive", "standard", "batch")},
            "steps": one.queued_steps,
        },
        "running_steps": one.running,
        "breaker": one.breaker,
    }


def preview_report(preview: PolicyPreview) -> dict[str, Any]:
    """What is wrong with a policy, or what it would change."""
    found, told = preview.found, summary(preview.found)
    changed = [(one, why) for one, why in zip(found, preview.reasons, strict=True) if one.changes]
    return {
        "object": "policy_preview",
        "valid": not preview.problems,
        "problems": [_problem(line) for line in preview.problems],
        "decisions": len(found),
        "changed": told["changed"],
        "before": _chosen(one.before for one in found),
        "after": _chosen(one.after for one in found),
        "refused": {"before": told["refused_before"], "after": told["refused_after"]},
        "seconds": {when: _round(told["latency_s"][when]) for when in ("before", "after")},
        "quality": {when: _round(told["quality"][when]) for when in ("before", "after")},
        "cost_usd": {when: _round(told["cost_usd"][when], 6) for when in ("before", "after")},
        "examples": [_example(one, why) for one, why in changed[:EXAMPLES]],
    }


def _example(one: Difference, why: str) -> dict[str, Any]:
    return {
        "prompt": one.prompt or None,
        "before": one.before.recipe if one.before else None,
        "after": one.after.recipe if one.after else None,
        "why": why,
    }


def _chosen(estimates: Iterable[Estimate | None]) -> dict[str, int]:
    return dict(Counter(one.recipe for one in estimates if one is not None).most_common())


def _problem(line: str) -> dict[str, Any]:
    """`file:line:column: message` by its parts, with the nearest name if the message has one."""
    found = _PROBLEM.fullmatch(line)
    row, column, message = (int(found[1]), int(found[2]), found[3]) if found else (1, 1, line)
    near = _PROPOSAL.search(message)
    return {"line": row, "column": column, "message": message, "proposal": near[1] if near else None}


def _round(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
