"""Check a picture after it was made; while it is not good enough and time is left, try others and keep the best."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from deployments.outcome import Check, Made
from router.errors import TriptychError
from router.types import Verification


class Bench(Protocol):
    """Where pictures of one request are scored and made."""

    async def score(self, made: Made, scorer: str) -> Check: ...

    async def make(self, recipe: str) -> Made: ...

    def in_time(self, recipe: str) -> bool: ...


async def verified(made: Made, verify: Verification, bench: Bench) -> Made:
    """The best picture found, with every check and a note for whatever was not tried. Only fails if cancelled.

    A picture that was made is never lost: an escalation that fails or comes too late leaves the best one so far.
    """
    notes: list[str] = []
    try:
        first = await bench.score(made, verify.scorer)
    except TriptychError as error:
        return replace(made, notes=(*made.notes, f"the picture could not be verified: {error.message}"))
    best, checks = made, [_judged(first, verify)]
    for name in verify.escalate_to:
        if checks[-1].accepted:
            break
        if not bench.in_time(name):
            notes.append(f"{name} was not tried: it would end after the deadline")
            continue
        try:
            other = await bench.make(name)
            check = _judged(await bench.score(other, verify.scorer), verify)
        except TriptychError as error:
            notes.append(f"{name} was tried and failed: {error.message}")
            continue
        if check.score > max(earlier.score for earlier in checks):
            best = other
        checks.append(check)
    if not any(check.accepted for check in checks):
        score = max(check.score for check in checks)
        notes.append(f"no picture reached {verify.accept_above:g}; the best has {score:.2f}, by {best.recipe}")
    elif len(checks) > 1:
        notes.append(f"{made.recipe} had {checks[0].score:.2f}, so {best.recipe} was taken with {checks[-1].score:.2f}")
    return replace(best, checks=tuple(checks), notes=(*made.notes, *notes))


def _judged(check: Check, verify: Verification) -> Check:
    return replace(check, accepted=check.score >= verify.accept_above)
