"""Who asks: the key of a request, what it may do, and whether one is needed.

A key comes as `Authorization: Bearer tp_…` or `x-api-key: tp_…`, or as the password of `Basic`, which is what A1111's
clients can send. Without keys, on loopback, everybody may do everything
but administer, and the body's `user` says whose budgets count; with them, the key says it.
"""

from __future__ import annotations

import base64
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hmac import compare_digest
from typing import Literal, cast

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.jobs.keys import CLASSES, PREFIX, SCOPES, hash_of
from deployments.jobs.keys import Scope as KeyScope
from deployments.jobs.values import Caller, Identity
from router.errors import RequestError, TriptychError
from router.types import Priority

ADMIN_KEY = "TRIPTYCH_ADMIN_KEY"
"""The environment variable with a key of scope `admin` that is in no store, where the ingress runs."""

FRESH_S = 3.0  # for which an answer about a key is believed
STALE_S = 60.0  # and for which it is while nobody answers
KNOWN = 4096  # answers that are kept

_OPEN = frozenset(("", "/", "/health", "/readyz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"))
_FREE = re.compile(r"/v1/images/[^/]+/content|/page/[^/]+")
"""Paths that need no key: pictures, whose addresses are signed, and the files of the page."""

Authenticate = Callable[[str | None], Awaitable[Identity]]


@dataclass(frozen=True)
class Access:
    """What a request may do.

    tenant: whose budgets and jobs it is about; None: the one that the body's `user` names, for no key says it
    sees:   whose jobs it may see; None: everybody's;   priority: the highest class that it may ask for
    admin_possible: whether there is a key with which it might administer
    looks:  whether it may see what operators see, and change nothing
    """

    tenant: str | None = None
    key_id: str | None = None
    scopes: frozenset[KeyScope] = frozenset(SCOPES)
    priority: Priority = "interactive"
    sees: str | None = None
    admin_possible: bool = True
    looks: bool = False

    def caller(self, label: str) -> Caller:
        """Who a submission is from; label: the body's `user`."""
        return Caller(label if self.tenant is None else self.tenant, self.key_id)

    def need(self, scope: KeyScope) -> None:
        """Raises `RequestError` without the scope."""
        if scope in self.scopes:
            return
        if scope == "admin" and not self.admin_possible:
            remedy = f"make a key (`triptych keys create --scope admin`), or set {ADMIN_KEY} where the server runs"
            raise RequestError(f"nobody can administer over HTTP here yet; {remedy}", None, "admin_disabled")
        if scope == "admin" and self.key_id is None:
            raise RequestError("this needs an admin key, as `Authorization: Bearer KEY`", None, "admin_key_required")
        has = ", ".join(sorted(self.scopes)) or "none"
        raise RequestError(f"this needs a key with scope {scope}; yours has {has}", None, "scope_missing")

    def need_to_look(self) -> None:
        """Raises `RequestError` if it may not see what operators see."""
        if not self.looks:
            self.need("admin")

    def clamped(self, asked: Priority) -> Priority:
        """The class asked for, or the highest one that the key may have."""
        return min(asked, self.priority, key=CLASSES.index)


OPEN = Access()
"""Of callers inside: handles of other Ray applications, this process."""
NOTHING = Access("", scopes=frozenset(), sees="")


@dataclass(frozen=True)
class Gate:
    """Whether requests need a key.

    required: `auto`: unless only this machine can reach the server and no key was ever made
    loopback: whether only this machine can reach it;   admin_key: of the environment
    """

    required: Literal["auto"] | bool = False
    loopback: bool = False
    admin_key: str | None = None

    def needs_key(self, keyed: bool) -> bool:
        """keyed: whether any key was ever made."""
        return (keyed or not self.loopback) if self.required == "auto" else self.required


class Keys:
    """ASGI middleware: whoever comes after finds an `Access` in `state.access`. Raises `RequestError`, 401."""

    def __init__(self, app: ASGIApp, gate: Gate, authenticate: Authenticate) -> None:
        self._app = app
        self._gate = gate
        self._authenticate = authenticate
        self._known: OrderedDict[str | None, tuple[float, Identity]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path not in _OPEN and not _FREE.fullmatch(path):
                scope.setdefault("state", {})["access"] = await self.access(given_key(Headers(scope=scope)))
        await self._app(scope, receive, send)

    async def access(self, key: str | None) -> Access:
        """What a request with this key may do. Raises `RequestError` if it may do nothing."""
        gate = self._gate
        if key is not None and gate.admin_key and compare_digest(key.encode(), gate.admin_key.encode()):
            keyed = (await self._identify(None)).keyed
            return Access(tenant="" if keyed else None)
        ours = key is not None and key.startswith(PREFIX)
        found = await self._identify(hash_of(key) if key is not None and ours else None)
        if (record := found.key) is not None:
            scopes = frozenset(cast(KeyScope, one) for one in record.scopes)
            admin = "admin" in scopes
            return Access(
                record.tenant,
                record.id,
                frozenset(SCOPES) if admin else scopes,
                cast(Priority, record.priority),
                None if admin else record.tenant,
            )
        if ours:
            raise RequestError("this key is none of this server's, or was revoked", None, "invalid_api_key")
        if gate.needs_key(found.keyed):
            if key is not None:
                raise RequestError(f"this key is not known; keys begin with {PREFIX}", None, "invalid_api_key")
            message = "this needs a key, as `Authorization: Bearer KEY`; `triptych keys create` makes one"
            raise RequestError(message, None, "key_required")
        possible = bool(gate.admin_key) or found.keyed
        label, sees = ("", "") if found.keyed else (None, None)
        # Whoever reaches loopback without any key may look: it could read the store's files as well.
        looks = gate.loopback and not possible
        return Access(label, None, frozenset(("generate", "feedback")), sees=sees, admin_possible=possible, looks=looks)

    async def _identify(self, hash: str | None) -> Identity:
        now_s = time.monotonic()
        at_s, known = self._known.get(hash, (float("-inf"), None))
        if known is not None and now_s - at_s < FRESH_S:
            return known
        try:
            answer = await self._authenticate(hash)
        except TriptychError:
            if known is not None and now_s - at_s < STALE_S:
                return known
            raise
        self._known[hash] = (now_s, answer)
        self._known.move_to_end(hash)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return answer


def given_key(headers: Headers) -> str | None:
    """The key of a request, if it has one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if key := headers.get("x-api-key", "").strip():  # before Basic, which may be of a proxy on the way
        return key
    return _password(token) or None if scheme.lower() == "basic" else None


def _password(token: str) -> str:
    """Of `user:password` in base64; "" if it is none."""
    try:
        return base64.b64decode(token.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def access_of(request: HTTPConnection, scope: KeyScope | None = None) -> Access:
    """What a request may do. Raises `RequestError` if it lacks the scope."""
    found: Access = getattr(request.state, "access", NOTHING)
    if scope is not None:
        found.need(scope)
    return found


def warned(access: Access, asked: Priority) -> tuple[Priority, list[str]]:
    """The class that a request gets, and what to say if that is not the one that it asked for."""
    priority = access.clamped(asked)
    return priority, [] if priority == asked else [f"priority: {asked!r} is beyond this key; it is {priority!r}"]
