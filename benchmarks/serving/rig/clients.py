"""Clients as they should be: they keep a key, ask again when a connection breaks, and come back when they are told to.

Light ones (aiohttp), since they share the machine with what they measure.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp

PATH = "/v1/images/generations"
PAUSE_S = 0.5  # before a client asks again without having been told when


@dataclass(frozen=True)
class Reply:
    """One answer, or none. status: 0 if the connection broke;   enveloped: a refusal is JSON, as documented"""

    status: int
    seconds: float
    body: Mapping[str, Any] | None = None
    code: str = ""
    retry_after_s: float | None = None
    enveloped: bool = True

    @property
    def picture(self) -> bytes | None:
        """The first picture, decoded from base64."""
        data = (self.body or {}).get("data")
        return base64.b64decode(data[0]["b64_json"]) if data else None

    @property
    def again(self) -> bool:
        """Whether the same request may succeed later: refusals for now, and whatever broke."""
        return self.status == 0 or self.status == 429 or self.status >= 500


@dataclass
class Asked:
    """What became of one request, with all its tries. Times in seconds since the run began."""

    began_s: float
    ended_s: float
    status: int
    tries: int
    broken: int
    refused: int
    codes: dict[str, int]
    picture: bytes | None = None
    about: str = ""

    @property
    def waited_s(self) -> float:
        return self.ended_s - self.began_s

    def row(self) -> dict[str, Any]:
        """Without the picture, for JSON."""
        found = {key: value for key, value in asdict(self).items() if key != "picture"}
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}


class Client:
    """Asks one server. began: on the monotonic clock, from when times count"""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session
        self.began = time.monotonic()

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    async def once(
        self, body: Mapping[str, Any], key: str | None = None, timeout_s: float = 600.0, path: str = PATH
    ) -> Reply:
        """Ask once. Nothing is raised: what breaks has status 0."""
        began = time.monotonic()
        headers = {} if key is None else {"Idempotency-Key": key}
        limit = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.post(self.url + path, json=dict(body), headers=headers, timeout=limit) as answer:
                text = await answer.read()
                waited = answer.headers.get("Retry-After")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Reply(0, time.monotonic() - began, code=type(error).__name__, enveloped=False)
        seconds = time.monotonic() - began
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        error = found.get("error") if isinstance(found, dict) else None
        fine = answer.status < 400 or isinstance(error, dict)
        code = "" if answer.status < 400 else str(error["code"]) if isinstance(error, dict) else "no envelope"
        return Reply(answer.status, seconds, found, code, None if waited is None else float(waited), fine)

    async def insist(self, body: Mapping[str, Any], key: str | None, patience_s: float, about: str = "") -> Asked:
        """Ask until it is answered for good, or `patience_s` have passed; always with the same key."""
        asked = Asked(self.now(), 0.0, 0, 0, 0, 0, {}, about=about)
        while True:
            left_s = patience_s - (self.now() - asked.began_s)
            reply = await self.once(body, key, max(1.0, left_s))
            asked.tries += 1
            asked.status, asked.ended_s, asked.picture = reply.status, self.now(), reply.picture
            if reply.code:
                asked.codes[reply.code] = asked.codes.get(reply.code, 0) + 1
            if not reply.again or self.now() - asked.began_s >= patience_s:
                return asked
            if reply.status == 429 or reply.retry_after_s is not None:
                asked.refused += 1
            else:
                asked.broken += 1
            await asyncio.sleep(reply.retry_after_s or PAUSE_S)

    async def ready(self, timeout_s: float = 30.0) -> Reply:
        """`/readyz`, and how long it took."""
        began = time.monotonic()
        try:
            limit = aiohttp.ClientTimeout(total=timeout_s)
            async with self._session.get(self.url + "/readyz", timeout=limit) as answer:
                await answer.read()
                return Reply(answer.status, time.monotonic() - began)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Reply(0, time.monotonic() - began, code=type(error).__name__)


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Client]:
    """A client without a limit of connections."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Client(url, session)


async def closed_loop(
    ask: Callable[[int], Awaitable[Any]], clients: int, seconds: float, count: int | None = None
) -> float:
    """`clients` who each ask again as soon as they are answered, for so long or until `count` in all; how long that
    took, in seconds."""
    began, numbers = time.monotonic(), iter(range(10**9))

    async def one() -> None:
        while time.monotonic() - began < seconds:
            number = next(numbers)
            if count is not None and number >= count:
                return
            await ask(number)

    await asyncio.gather(*(one() for _ in range(clients)))
    return time.monotonic() - began


async def open_loop(
    ask: Callable[[int], Awaitable[Any]], rate: float, seconds: float, chance: random.Random
) -> list[asyncio.Task[Any]]:
    """Requests that come at random, `rate` a second, whether or not earlier ones were answered; returned when the last
    has come. The caller awaits the tasks."""
    tasks: list[asyncio.Task[Any]] = []
    began, due = time.monotonic(), 0.0
    while (due := due + chance.expovariate(rate)) < seconds:
        if (wait_s := due - (time.monotonic() - began)) > 0:
            await asyncio.sleep(wait_s)
        tasks.append(asyncio.ensure_future(ask(len(tasks))))
    return tasks


class Probe:
    """Asks `/readyz` every `every_s` seconds beside everything else."""

    def __init__(self, client: Client, every_s: float = 0.25) -> None:
        self._client = client
        self._every_s = every_s
        self.seconds: list[float] = []
        self.failed = 0

    async def __aenter__(self) -> Probe:
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            reply = await self._client.ready()
            self.seconds.append(reply.seconds)
            self.failed += reply.status != 200
            await asyncio.sleep(self._every_s)
