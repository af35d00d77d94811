"""What goes wrong with jobs themselves, and errors as the store keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deployments.store.errors import FencedError
from router.errors import NotFoundError, OverloadedError, StepError, TriptychError

OF_THE_SERVER = ("server_error", "rate_limit_error")
"""Types of errors, in OpenAI's words, of which the request is not to blame."""

DRAINED_S = 10.0  # after which a client that was refused at the end may find the next server


def fenced() -> TriptychError:
    return FencedError("another orchestrator has taken over; it has the job")


def draining() -> TriptychError:
    return OverloadedError("this server is shutting down; try again in a moment", DRAINED_S)


def unknown(job_id: str) -> TriptychError:
    return NotFoundError(f"there is no job {job_id!r}; it may be past the store's retention", "id", "job_not_found")


def cancelled(job_id: str) -> TriptychError:
    return StepError(f"job {job_id!r} was cancelled", None, "cancelled")


def told(error: Mapping[str, Any]) -> TriptychError:
    """The error of a job of an earlier process, of which the words are left: of the kind that has its code."""
    code = error.get("code")
    kind = next((kind for kind in _kinds(TriptychError) if kind.code == code), StepError)
    found = kind(str(error.get("message") or "the job failed"))
    found.param, found.code = error.get("param"), code or StepError.code
    return found


def worth_another_try(error: Mapping[str, Any]) -> bool:
    """Whether a job failed of the server, not of its request: a worker or a process that died, a check or a model that
    was away, a deadline that passed. error: as the store keeps it"""
    return error.get("type") in OF_THE_SERVER


def _kinds(kind: type[TriptychError]) -> Iterator[type[TriptychError]]:
    """Every kind of expected failure."""
    for sub in kind.__subclasses__():
        yield sub
        yield from _kinds(sub)
