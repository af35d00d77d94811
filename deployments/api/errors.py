"""Every failure as OpenAI's error envelope `{"error": {message, type, param, code}}`, and its HTTP status, once."""

from __future__ import annotations

import logging
import math
from typing import Any

from deployments.jobs.values import Rate
from router import errors

STATUS: dict[type[Exception], int] = {
    errors.RequestError: 400,
    errors.NotFoundError: 404,
    errors.NoRecipeError: 422,
    errors.PlanError: 422,
    errors.PolicyError: 500,
    errors.CatalogueError: 500,
    errors.ArtifactError: 500,
    errors.LoadError: 503,
    errors.StepError: 500,
    errors.UnlikelyError: 422,
    errors.OverloadedError: 429,
    errors.DeadlineError: 504,
}

# A code may narrow what its class says.
STATUS_OF_CODE = {
    "request_too_large": 413,
    "image_too_large": 413,
    "unsupported_image": 415,
    "origin_refused": 403,
    "unsupported_media_type": 415,
    "unsupported_encoding": 415,
    "method_not_allowed": 405,
    "admin_key_required": 401,
    "key_required": 401,
    "invalid_api_key": 401,
    "scope_missing": 403,
    "invalid_signature": 403,
    "url_expired": 403,
    "request_timeout": 408,
    "idempotency_mismatch": 409,
    "store_unavailable": 503,
    "store_full": 507,
    "admin_disabled": 403,
    "read_only": 409,
    "conflict": 409,
    "policy_refused": 422,
    "worker_lost": 503,
    "safety_unavailable": 503,
    "content_policy_violation": 400,
    "moderation_blocked": 400,
}


FULL = "x-triptych-full"
"""The header of a refusal for want of room, by which the edge knows it from those of budgets and rates."""

MODERATED = ("moderation_blocked", "content_policy_violation")
"""Codes of what a policy's `safety` blocked: a prompt, or what was made of it."""


def status_of(error: BaseException) -> int:
    """The HTTP status of a failure; 500 for whatever is not in the table."""
    if isinstance(error, errors.TriptychError) and error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def envelope(error: BaseException, request_id: str = "") -> dict[str, Any]:
    """The body of the response. What was not foreseen is named by its request id only: its text may hold secrets."""
    if not isinstance(error, errors.TriptychError):
        hint = f"; the server's log has the details under request id {request_id}" if request_id else ""
        return _envelope(f"An unexpected error occurred{hint}.", "server_error", None, "internal_error")
    status = status_of(error)
    body = _envelope(error.message, _kind(status), error.param, error.code)
    if isinstance(error, errors.NoRecipeError):
        body["error"]["rejected"] = [
            {"recipe": r.recipe, "gate": r.gate, "reason": r.reason} for r in error.rejections
        ]  # fmt: skip
    if isinstance(error, errors.SafetyError):
        details = {"moderation_stage": error.stage, "categories": list(error.categories)}
        body["error"] |= {"type": "image_generation_user_error", "moderation_details": details}
    if isinstance(error, errors.PolicyError) and error.problems:
        body["error"]["problems"] = list(error.problems)
    return body


def headers(error: BaseException) -> dict[str, str]:
    """`Retry-After` (whole seconds, rounded up) where waiting helps; `x-should-retry: false` where OpenAI's client,
    which retries 408, 409, 429 and all from 500, would do so in vain: the same request fails again."""
    status = status_of(error)
    told = rate_headers(getattr(error, "rate", None))
    if status == 401:
        told["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.TriptychError) and error.code == "overloaded":
        told[FULL] = "1"
    if isinstance(error, errors.TriptychError) and error.retry_after_s is not None:
        return {**told, "Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    return {**told, **({"x-should-retry": "false"} if status >= 500 or status in (408, 409, 429) else {})}


def rate_headers(rate: Rate | None) -> dict[str, str]:
    """What a key has left, under the names that OpenAI gives it; the time as `12.3s`."""
    if rate is None:
        return {}
    return {
        "x-ratelimit-limit-requests": str(rate.limit),
        "x-ratelimit-remaining-requests": str(rate.remaining),
        "x-ratelimit-reset-requests": f"{rate.reset_s:.1f}s",
    }


def log(logger: logging.Logger, error: BaseException, request_id: str, where: str) -> None:
    """One line for what was expected, without what the client wrote; the whole traceback for what was not."""
    if not isinstance(error, errors.TriptychError):
        logger.error("request %s failed", request_id, exc_info=error)
        return
    status = status_of(error)
    level = logging.INFO if status < 500 else logging.WARNING
    about = f" ({error.param})" if error.param else ""
    logger.log(level, "request %s: %d %s%s, %s", request_id, status, error.code, about, where)


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def _envelope(message: str, kind: str, param: str | None, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
