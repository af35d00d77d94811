"""Every expected failure, in one hierarchy. The HTTP status and the exit code of each are mapped once, in deployments/.

TriptychError
├── RequestError        the request is malformed or asks for something impossible      400
│   ├── NotFoundError   no such model, policy, recipe or picture                        404
│   └── SafetyError     a policy's `safety` blocks the prompt, or every picture of it   400
├── NoRecipeError       no recipe passed the gates; carries every rejection             422
├── PolicyError         a policy file is broken; carries all problems with file:line
├── CatalogueError        a model card is broken, or there is no such model
├── ArtifactError       a router artefact is missing, incomplete or tampered with
├── PlanError           a recipe cannot be arranged: hand-over, size or model do not fit
├── LoadError           weights are missing or do not fit the card                      503
├── StepError           a step failed on its worker                                     500
│   └── WorkerLostError whatever ran the step is gone; it may run again                 503
├── UnlikelyError       pictures were made, but none is likely right, and the policy says `or: refuse`     422
├── OverloadedError     too much work is waiting; carries retry_after_s                 429
│   ├── BudgetError     the tenant's budget is used up for now                          429
│   └── BusyError       the server that draws for a model has no room now; steps wait   429
├── DeadlineError       the deadline passed before the work was done                    504
└── Cancelled           a step was stopped because nobody waits for it any more

Messages say what, where and the remedy. All arguments are positional, so that the exceptions survive Ray's pickling.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.types import Rejection


class TriptychError(Exception):
    """Base class. `code` is stable and machine-readable; `param` names the offending field, if there is one;
    `retry_after_s` says when the same request may succeed, None that it will not by waiting."""

    code = "internal_error"
    retry_after_s: float | None = None

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param, code)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


class RequestError(TriptychError):
    code = "invalid_request"


class NotFoundError(RequestError):
    code = "not_found"


class SafetyError(RequestError):
    """stage: `input`, the prompt, or `output`, what was made;   categories: what was found, as the check says it"""

    code = "content_policy_violation"

    def __init__(self, message: str, stage: str = "input", categories: Sequence[str] = ()) -> None:
        super().__init__(
            message,
            "prompt" if stage == "input" else None,
            "content_policy_violation" if stage == "input" else "moderation_blocked",
        )
        self.args = (message, stage, tuple(categories))
        self.stage = stage
        self.categories = tuple(categories)


class NoRecipeError(TriptychError):
    """Nothing passed the gates. `rejections` says why, one by one."""

    code = "no_recipe"

    def __init__(self, message: str, rejections: Sequence[Rejection] = ()) -> None:
        super().__init__(message)
        self.args = (message, tuple(rejections))
        self.rejections = tuple(rejections)


class PolicyError(TriptychError):
    """`problems` are complete lines `file:line:column: message`, in the order of the file."""

    code = "invalid_policy"

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.args = (message, tuple(problems))
        self.problems = tuple(problems)


class CatalogueError(TriptychError):
    code = "invalid_catalogue"


class ArtifactError(TriptychError):
    code = "invalid_artifact"


class PlanError(TriptychError):
    code = "invalid_plan"


class LoadError(TriptychError):
    code = "model_not_loaded"


class StepError(TriptychError):
    code = "step_failed"


class WorkerLostError(StepError):
    """The process, or the server, that ran the step is gone. Steps are pure, so the same step may run again."""

    code = "worker_lost"
    retry_after_s = 1.0


class OverloadedError(TriptychError):
    code = "overloaded"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.args = (message, retry_after_s)
        self.retry_after_s = retry_after_s


class BudgetError(OverloadedError):
    code = "budget_exhausted"


class BusyError(OverloadedError):
    code = "worker_busy"


class UnlikelyError(TriptychError):
    """Pictures were made, none is likely to be right, and the policy would rather give none."""

    code = "no_picture_likely_right"


class DeadlineError(TriptychError):
    code = "deadline_exceeded"


class Cancelled(TriptychError):
    """The step was stopped because nobody waits for it any more."""

    code = "cancelled"


SHOWN = 20  # names that a message lists


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'flux'?"` for the nearest of `known`, in any case, or the list of them if nothing is near; a
    list that is cut says so."""
    names = sorted(map(str, known))
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(str(word).casefold(), folded, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {folded[near[0]]!r}?"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"; known: {', '.join(names[:SHOWN])}{more}" if names else ""
