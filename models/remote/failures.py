"""What another server's refusals and failures mean here, once: who is at fault, and whether trying again may help.

| it says | it means |
| --- | --- |
| 429 | it has no room now: `BusyError`, and the step waits for as long as it says |
| 429 for an empty account, 401, 402, 403, 3xx | nobody's request can succeed before somebody acts: `LoadError` |
| 400 for what policies forbid | `SafetyError`, as if a check of ours had found it |
| any other 4xx | this request is refused: `RequestError`, in its words |
| 408, 5xx, no connection, no answer in time | it is gone for now: `WorkerLostError`, and the step runs again |
| 5xx with `x-should-retry: false` | it would fail again: `StepError` |
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from router.errors import (
    BusyError,
    LoadError,
    RequestError,
    SafetyError,
    StepError,
    TriptychError,
    WorkerLostError,
)
from router.types import ModelCard, Remote

WORDS = 500  # of the other side that are passed on
WAIT_S = 1.0  # where it has no room and does not say for how long
LONGEST_WAIT_S = 3600.0
MODERATED = {"content_policy_violation": "input", "moderation_blocked": "output"}
UNPAID = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


def failure(status: int, headers: Mapping[str, str], body: bytes, card: ModelCard) -> TriptychError:
    """The error of an answer with another status than 200."""
    return _meant(status, headers, _error_of(body), card)


def failure_inside(error: Mapping[str, Any], card: ModelCard) -> TriptychError:
    """The error of a stream that began well."""
    kind, code = str(error.get("type") or ""), str(error.get("code") or "")
    refused = kind in ("invalid_request_error", "image_generation_user_error") or code in MODERATED
    return _meant(400 if refused else 429 if kind == "rate_limit_error" else 500, {}, error, card)


def lost(card: ModelCard, why: str) -> WorkerLostError:
    """The server does not answer, or stopped in the middle."""
    return WorkerLostError(f"{_who(card)} {why}; try again")


def unusable(card: ModelCard, why: str) -> StepError:
    """It answered, and what it said cannot be used."""
    return StepError(f"{_who(card)} answered, but {why}")


def key_remedy(remote: Remote) -> str:
    """What to do when the server does not know who asks."""
    if not remote.key_env:
        return "name the environment variable with a key under 'source.remote.key_env' of its card"
    return f"look at the key in {remote.key_env}, in the environment of its worker, and at what it may do there"


def _meant(status: int, headers: Mapping[str, str], error: Mapping[str, Any], card: ModelCard) -> TriptychError:
    assert card.remote is not None
    code, words = str(error.get("code") or ""), _words(error, card.remote)
    who, told = _who(card), f": {words}" if words else ""
    if code in UNPAID or status == 402:
        return LoadError(f"{who} wants to be paid{told}; look at the account there", "model")
    if status == 429:
        return BusyError(f"{who} has no room for more now{told}", _retry_after_s(headers))
    if status in (401, 403):
        return LoadError(f"{who} refuses the key ({status}){told}; {key_remedy(card.remote)}", "model")
    if 300 <= status < 400:
        return LoadError(f"{who} is elsewhere ({status}); correct 'source.remote.url' of its card", "model")
    if code in MODERATED:
        return SafetyError(f"{who} refuses{told or ' what the prompt asks for'}", MODERATED[code])
    if status == 404:
        return LoadError(f"{who} is not found there (404){told}; look at 'source.remote' of its card", "model")
    if 400 <= status < 500 and status not in (408, 409, 425):
        return RequestError(f"{who} refuses this ({status}){told}", _param(error), "refused_elsewhere")
    if headers.get("x-should-retry") == "false":
        return StepError(f"{who} failed ({status}){told}")
    return WorkerLostError(f"{who} failed ({status}){told}; try again")


def _who(card: ModelCard) -> str:
    assert card.remote is not None
    return f"{card.remote.name}, which draws for {card.id!r},"


def _error_of(body: bytes) -> Mapping[str, Any]:
    """OpenAI's `error`, FastAPI's `detail`, or whatever text there is."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return {"message": body.decode("utf-8", "replace")}
    found = data.get("error", data.get("detail", data.get("message"))) if isinstance(data, dict) else data
    return found if isinstance(found, dict) else {"message": found if isinstance(found, str) else json.dumps(found)}


def _words(error: Mapping[str, Any], remote: Remote) -> str:
    """What the other side says, for whoever asks here: without the key, which some servers repeat."""
    said = str(error.get("message") or "")
    if key := os.environ.get(remote.key_env, "").strip() if remote.key_env else "":
        said = said.replace(key, "[the key]")
    text = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return text if len(text) <= WORDS else text[: WORDS - 1] + "…"


def _param(error: Mapping[str, Any]) -> str | None:
    param = error.get("param")
    return param if isinstance(param, str) and param.isidentifier() else "model"


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds, as `Retry-After` says them, or until the date that it says."""
    said = headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return WAIT_S
    return min(max(seconds, 0.0), LONGEST_WAIT_S) if math.isfinite(seconds) else WAIT_S
