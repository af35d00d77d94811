"""How the server of a remote model is: asked now and then by `GET /models`, never while somebody waits for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from models.remote.failures import key_remedy
from router.errors import did_you_mean
from router.types import ModelCard

LOOK_S = 10.0  # after which it is asked again, if somebody wants to know
PATIENCE_S = 5.0
MOST_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Standing:
    """reason: why it cannot draw, "" while all is well;   seen_at: when that was seen, Unix s"""

    reason: str
    seen_at: float


class StandingWatch:
    """Asks the server of `card`. client: makes a client with what it has to be told;   clock: in seconds"""

    def __init__(
        self, card: ModelCard, client: Callable[..., httpx.Client], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._card = card
        self._client = client
        self._clock = clock
        self._known = Standing("", time.time())
        self._due = clock()
        self._asking = threading.Lock()

    def standing(self) -> Standing:
        """What is known; asked again in a thread of its own if that is old."""
        if self._clock() >= self._due and not self._asking.locked():
            threading.Thread(target=self.look, name=f"standing-{self._card.id}", daemon=True).start()
        return self._known

    def look(self) -> None:
        """Ask now. Blocks; never raises."""
        if not self._asking.acquire(blocking=False):
            return  # somebody else does
        try:
            self._known = Standing(self._asked(), time.time())
            self._due = self._clock() + LOOK_S
        finally:
            self._asking.release()

    def well(self) -> None:
        """It has just made a picture."""
        self._known = Standing("", time.time())
        self._due = self._clock() + LOOK_S

    def refused(self, reason: str) -> None:
        """It has just said that nobody's request can succeed; that is believed until it is asked again."""
        self._known = Standing(reason, time.time())
        self._due = self._clock() + LOOK_S

    def doubt(self) -> None:
        """It has just not answered: it is asked as soon as somebody wants to know."""
        self._due = self._clock()

    def _asked(self) -> str:
        """Why it cannot draw; "" if nothing speaks against it."""
        remote = self._card.remote
        assert remote is not None
        try:
            with self._client(timeout=min(PATIENCE_S, remote.timeout_s), follow_redirects=False) as client:
                status, listed = _got(client, f"{remote.url}/models")
                if status != 200:
                    return self._said(status)
                data = listed.get("data")
                named = [m for m in data if isinstance(m, dict) and "id" in m] if isinstance(data, list) else []
                models = {str(m["id"]): m for m in named}
                found = models.get(remote.model)
                if found is None and models:
                    # A name need not be listed, as a recipe of a policy is not, and yet be known.
                    status, found = _got(client, f"{remote.url}/models/{quote(remote.model)}")
                    if status == 404:
                        return f"{remote.name} is not known there{did_you_mean(remote.model, models)}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{remote.name} cannot be reached: {str(error) or type(error).__name__}"
        told = (found or {}).get("x_triptych")
        if isinstance(told, dict) and told.get("state") in ("failed", "lost"):
            return f"{remote.name} is there, and {told['state']}: its server has the reason"
        return ""

    def _said(self, status: int) -> str:
        remote = self._card.remote
        assert remote is not None
        if status in (401, 403):
            return f"{remote.name} refuses the key ({status}): {key_remedy(remote)}"
        if 300 <= status < 400:
            return f"{remote.name} is elsewhere ({status}): correct 'source.remote.url' of its card"
        # Not every server lists its models, and one that is busy is there.
        return f"{remote.name} answers {status}" if status >= 500 else ""


def _got(client: httpx.Client, url: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of an answer; an empty object for anything else."""
    with client.stream("GET", url) as answer:
        raw = bytearray()
        for chunk in answer.iter_bytes():
            raw += chunk
            if len(raw) > MOST_BYTES:
                return answer.status_code, {}
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError):
            data = None
        return answer.status_code, data if isinstance(data, dict) else {}
