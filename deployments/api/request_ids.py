"""The id of a request: the client's own if it is sound, else a new one; decided once, before anybody reads it.

asgi-correlation-id is not used: it always sets the header of the response, and Ray Serve's proxy does so, too.
"""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-request-id"
_SOUND = re.compile(r"[\x21-\x7e]{1,128}")


def new_request_id() -> str:
    return f"req_{secrets.token_hex(12)}"


def new_job_id() -> str:
    """Ids of jobs are never a client's: whoever knows one may ask for its pictures."""
    return f"job_{secrets.token_hex(16)}"


class RequestIds:
    """ASGI middleware: whoever comes after finds one sound id in the request's header and in `state.request_id`.

    Plain ASGI, so that a cancelled request is cancelled all the way down and streams are not held up.
    echo: whether to set the header of the response; Ray Serve's proxy does so itself.
    """

    def __init__(self, app: ASGIApp, echo: bool = True) -> None:
        self._app = app
        self._echo = echo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = MutableHeaders(scope=scope)
        given = headers.get(HEADER, "")
        request_id = given if _SOUND.fullmatch(given) else new_request_id()
        headers[HEADER] = request_id
        scope.setdefault("state", {})["request_id"] = request_id

        async def sending(message: Message) -> None:
            if self._echo and message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        await self._app(scope, receive, sending)
