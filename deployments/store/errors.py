"""What can go wrong with the store. All of them are positional, so that they survive Ray's pickling."""

from __future__ import annotations

from router.errors import TriptychError


class StoreError(TriptychError):
    """The database or the place of the pictures does not answer; the same call may succeed after `retry_after_s`."""

    code = "store_unavailable"
    retry_after_s: float | None = 2.0


class StoreFullError(StoreError):
    """There is no room: new work is refused until some is made. What was accepted before is finished."""

    code = "store_full"
    retry_after_s: float | None = 30.0


class FencedError(TriptychError):
    """Another orchestrator has taken over: the caller's token is old, nothing was written, and it should stop."""

    code = "fenced"
