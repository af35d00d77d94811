"""Telling others that a job has ended: signed, to addresses that the operator allows, again until they listen.

A delivery is a POST of the job as `GET /v1/jobs/{id}` shows it, signed as https://www.standardwebhooks.com has it:

    webhook-id: job_…          the same at each try
    webhook-timestamp: 1780000000
    webhook-signature: v1,BASE64      of HMAC-SHA256(secret, "{id}.{timestamp}.{body}")

What became of it is in the store, from which the next orchestrator goes on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpcore

from deployments.settings import WebhookSettings
from deployments.store.errors import FencedError, StoreError
from deployments.store.records import JobRecord
from router.errors import NotFoundError, RequestError, TriptychError

logger = logging.getLogger("triptych.webhooks")

WEBHOOK_SECRET = "TRIPTYCH_WEBHOOK_SECRET"
"""The environment variable with the secret that those of tenants derive from; without it, one in the store's folder."""

WAITS_S = (5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0)
"""Seconds before each further try."""
TIMEOUT_S = 10.0  # for each of connecting, sending, and the answer's headers
WHOLE_S = 30.0  # for one try
LOOK_S = 1.0  # between two looks at what is due
AT_ONCE = 16  # deliveries under way
_FAILED = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.UnsupportedProtocol)
PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of a URL; in the list of what is allowed, the host may begin with `*.`"""

    scheme: str
    host: str
    port: int

    def covers(self, other: Origin) -> bool:
        """Whether `other` is this origin, or one below its `*.`"""
        if (self.scheme, self.port) != (other.scheme, other.port):
            return False
        if self.host.startswith("*."):
            return other.host.endswith(self.host[1:]) and len(other.host) > len(self.host[1:])
        return self.host == other.host


def origin_of(url: str) -> Origin:
    """Raises `ValueError` for what is no URL of http or https, or has a user, or a fragment."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    plain = url.isascii() and url.isprintable() and not set(url) & set(" \\#") and "@" not in parts.netloc
    if parts.scheme not in PORTS or not host or not plain:
        raise ValueError(url)
    return Origin(parts.scheme, host.lower(), parts.port or PORTS[parts.scheme])


class Allowed:
    """Where webhooks may go."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._origins = [origin_of(one) for one in settings.allow]

    def check(self, url: str) -> None:
        """Raises `RequestError` for a URL that is not allowed."""
        if not self._origins:
            message = "webhook: none is allowed here; the server's settings list them (webhooks: {allow: [...]})"
            raise RequestError(message, "webhook", "webhook_refused")
        try:
            origin = origin_of(url)
        except ValueError:
            message = "webhook: it is not a plain URL such as https://hooks.example.org/done"
            raise RequestError(message, "webhook", "webhook_refused") from None
        if not any(one.covers(origin) for one in self._origins):
            message = f"webhook: {origin.scheme}://{origin.host}:{origin.port} is not among those that are allowed here"
            raise RequestError(message, "webhook", "webhook_refused")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open Internet: not loopback, private, link-local, shared or reserved."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if inner is None and found in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


async def addresses_of(host: str, port: int) -> list[str]:
    """The IP addresses of a host. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class _Guarded(httpcore.AsyncNetworkBackend):
    """Connects to the address that was looked at, so that a second answer of the DNS cannot lead elsewhere."""

    def __init__(self, private: bool) -> None:
        self._inner = httpcore.AnyIOBackend()
        self._private = private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            found = await asyncio.wait_for(addresses_of(host, port), timeout)
        except (OSError, UnicodeError, TimeoutError):
            raise httpcore.ConnectError(f"there is no address of {host}") from None
        usable = [one for one in found if self._private or is_public(one)]
        if len(usable) < len(found) or not usable:
            raise httpcore.ConnectError(f"{host} leads to an address that is not public")
        last: Exception | None = None
        for address in usable:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                last = error
        raise last or httpcore.ConnectError(host)

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError("no sockets of this machine")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


async def post(url: str, body: bytes, headers: Mapping[str, str], private: bool) -> int:
    """The status of the answer; its body is not read, and no redirect is followed. Raises `OSError` with the reason."""
    told = [("host", urlsplit(url).netloc), ("content-type", "application/json"), ("user-agent", "triptych")]
    told += headers.items()
    extensions = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_S)}
    try:
        async with (
            asyncio.timeout(WHOLE_S),
            httpcore.AsyncConnectionPool(network_backend=_Guarded(private)) as pool,
            pool.stream("POST", url, headers=told, content=body, extensions=extensions) as response,
        ):
            return response.status
    except TimeoutError:
        raise OSError(f"no answer within {WHOLE_S:g} s") from None
    except (*_FAILED, ssl.SSLError) as error:
        raise OSError(str(error) or type(error).__name__) from None


def secret_of(master: bytes, tenant: str) -> bytes:
    """What deliveries to a tenant are signed with: another for each, so that none can sign another's."""
    return hmac.new(master, b"webhook\n" + tenant.encode(), hashlib.sha256).digest()


def shown(secret: bytes) -> str:
    """A secret as receivers are given it."""
    return "whsec_" + base64.b64encode(secret).decode()


def signature(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    """The value of the header `webhook-signature`."""
    mark = hmac.new(secret, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(mark).decode()


Report = Callable[[JobRecord], Awaitable[dict[str, Any]]]


@dataclass
class Webhooks:
    """Delivers what is due, for one orchestrator.

    report: a job's record -> what is sent of it;   master: the secret that those of tenants derive from
    """

    store: Any
    settings: WebhookSettings
    report: Report
    master: Callable[[], bytes]
    waits_s: tuple[float, ...] = WAITS_S
    _fence: int = 0
    _under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _looking: asyncio.Task[None] | None = None

    def start(self, fence: int) -> None:
        """Look for what is due from now on, under this fencing token; not where nothing is allowed."""
        self._fence = fence
        if self.settings.allow and self._looking is None:
            self._looking = asyncio.ensure_future(self._look())

    async def stop(self) -> None:
        """Leave what is under way to the next orchestrator."""
        tasks = [*self._under_way.values(), *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """Something may be due now."""
        self._wake.set()

    async def _look(self) -> None:
        while True:
            try:
                for record in await asyncio.to_thread(self.store.due_webhooks, time.time(), AT_ONCE):
                    if record.id not in self._under_way and len(self._under_way) < AT_ONCE:
                        self._under_way[record.id] = task = asyncio.ensure_future(self._deliver(record))
                        task.add_done_callback(partial(self._done, record.id))
            except StoreError as error:
                logger.warning("webhooks wait for the store: %s", error)
            except Exception:
                logger.exception("webhooks could not be looked for")
            with suppress(TimeoutError):  # of `wait_for`, Python 3.11 loses a cancellation that comes with the waking
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            self._wake.clear()

    def _done(self, id: str, _: asyncio.Task[None]) -> None:
        self._under_way.pop(id, None)

    async def _deliver(self, record: JobRecord) -> None:
        hook = dict(record.webhook or {})
        told = await self._try(record, str(hook.get("url", "")))
        tries = int(hook.get("tries", 0)) + 1
        if told == "":
            state, next_at = "delivered", None
        elif told in _FINAL or tries > len(self.waits_s):
            state, next_at = "failed", None
        else:
            state, next_at = "waiting", time.time() + self.waits_s[tries - 1]
        logger.info("webhook of job %s: %s%s, try %d", record.id, state, f" ({told})" if told else "", tries)
        hook |= {"state": state, "tries": tries, "next_at": next_at, "last": told}
        while True:
            try:
                await asyncio.to_thread(self.store.set_webhook, record.id, self._fence, hook)
                return
            except (FencedError, NotFoundError):
                return
            except StoreError:
                await asyncio.sleep(LOOK_S)

    async def _try(self, record: JobRecord, url: str) -> str:
        """What is wrong; "" if it was taken."""
        try:
            Allowed(self.settings).check(url)  # the settings may have changed
            body = json.dumps(await self.report(record), separators=(",", ":")).encode()
            timestamp = int(time.time())
            secret = secret_of(await asyncio.to_thread(self.master), record.tenant)
            headers = {
                "webhook-id": record.id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signature(secret, record.id, timestamp, body),
            }
            status = await post(url, body, headers, self.settings.private)
        except RequestError:
            return _REFUSED
        except (OSError, TriptychError) as error:
            return str(error)[:200]
        if 200 <= status < 300:
            return ""
        return _GONE if status == 410 else f"HTTP {status}"


_GONE, _REFUSED = "HTTP 410: it wants no more", "it is not allowed any more"
_FINAL = (_GONE, _REFUSED)
