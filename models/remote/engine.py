"""A model that another server draws with, as an engine: `generate` steps by HTTP, several at once, without torch.

Each step has a connection of its own, which is closed when nobody waits for the picture any more; where the other side
is a Triptych that streams, its job is ended, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx

from models.remote.failures import failure, failure_inside, key_remedy, lost, unusable
from models.remote.standing import Standing, StandingWatch
from models.remote.wire import (
    body_of,
    events,
    first_item,
    most_bytes,
    object_of,
    picture_of,
    preview_of,
    told_of,
    whole,
)
from router.errors import Cancelled, LoadError, StepError, TriptychError, WorkerLostError
from router.types import ModelCard, Progress, Remote, Scalar, Step, StepResult, Value

WATCH_S = 0.05  # how often it is asked whether somebody still waits
CONNECT_S = 10.0
END_S = 2.0  # for telling the other side that nobody does
ERROR_BYTES = 64 * 1024
JOB = "x-triptych-job"
_JOB_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")

OnProgress = Callable[[Progress], None]
OnBatchProgress = Callable[[int, Progress], None]
ShouldStop = Callable[[], bool]


class RemoteEngine:
    """An engine for the server of `card`; a `models.engine.engine.Engine`, but that it runs several steps at once.

    `LoadError` says which key is missing. A server that does not answer is no reason: `standing` says how it is.
    """

    broken = ""
    """Nothing that happens there breaks this process."""

    def __init__(self, card: ModelCard) -> None:
        if card.remote is None:
            raise LoadError(f"model {card.id!r} names no server; give its card a 'source: {{remote: ...}}'")
        self.card = card
        self.revision = card.revision
        self._remote = card.remote
        headers = {"user-agent": "triptych", "accept-encoding": "identity", **_key(card, card.remote)}
        # Certificates are read once; a server that is asked by plain HTTP has none.
        verify: Any = httpx.create_ssl_context() if card.remote.url.startswith("https:") else False
        self._client = partial(
            httpx.AsyncClient, headers=headers, verify=verify, trust_env=False, follow_redirects=False
        )
        self._watch = StandingWatch(card, partial(httpx.Client, headers=headers, verify=verify, trust_env=False))
        self._watch.look()

    def standing(self) -> Standing:
        """How the server was when it was last asked; it is asked again in the background where that is long ago."""
        return self._watch.standing()

    def run(
        self,
        step: Step,
        inputs: Sequence[Value] = (),
        *,
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> StepResult:
        """Have one `generate` step drawn there.

        on_progress hears of the pictures that the server sends on the way; should_stop is asked all the time, and
        `Cancelled` raised when it says yes. What the server refuses or fails in is raised as `models.remote.failures`
        says.
        """
        listen = None if on_progress is None else (lambda _, told: on_progress(told))
        (made,) = self.run_batch([step], [inputs], on_progress=listen, should_stop=should_stop)
        if isinstance(made, TriptychError):
            raise made
        return made

    def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        *,
        on_progress: OnBatchProgress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> list[StepResult | TriptychError]:
        """Several steps side by side, each by a request of its own. A step that fails is an error in its place;
        `Cancelled` is raised for all of them."""
        return asyncio.run(self._all(steps, inputs, on_progress, should_stop))

    def warm_up(self) -> float:
        """Nothing to do, and a picture may cost money; returns 0 s."""
        return 0.0

    async def _all(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        on_progress: OnBatchProgress | None,
        should_stop: ShouldStop | None,
    ) -> list[StepResult | TriptychError]:
        drawing = [
            asyncio.ensure_future(
                self._drawn(step, values, None if on_progress is None else partial(on_progress, number))
            )
            for number, (step, values) in enumerate(zip(steps, inputs, strict=True))
        ]
        pending: set[asyncio.Future[StepResult]] = set(drawing)
        while pending:
            if should_stop is not None and should_stop():
                for task in pending:
                    task.cancel()
                await asyncio.wait(pending)
                raise Cancelled(f"step {steps[0].id!r} was cancelled while {self._remote.name} drew it")
            _, pending = await asyncio.wait(pending, timeout=WATCH_S)
        made: list[StepResult | TriptychError] = []
        for task in drawing:
            if isinstance(error := task.exception(), TriptychError):
                made.append(error)
            else:
                made.append(task.result())  # a bug of ours is raised as it is
        return made

    async def _drawn(self, step: Step, inputs: Sequence[Value], on_progress: OnProgress | None) -> StepResult:
        self._check_able(step, inputs)
        began = time.perf_counter()
        try:
            answer, item = await self._asked(step, on_progress)
        except WorkerLostError:
            self._watch.doubt()
            raise
        except LoadError as error:
            self._watch.refused(error.message)
            raise
        made = picture_of(item, step, self.card)
        self._watch.well()
        facts: dict[str, Scalar] = {
            "model": self.card.id,
            "revision": self.revision,
            "remote": self._remote.name,
            **told_of(item, answer),
        }
        return StepResult(made, time.perf_counter() - began, facts)

    def _check_able(self, step: Step, inputs: Sequence[Value]) -> None:
        if step.kind != "generate" or inputs or step.produces != "image" or "tiles" in step.settings:
            raise StepError(
                f"step {step.id!r}: {self.card.id!r} is drawn by {self._remote.name}, which makes pictures from a "
                f"prompt only and cannot {step.kind!r} like this",
                "recipe",
            )

    async def _asked(self, step: Step, on_progress: OnProgress | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The answer, and its entry of the picture."""
        remote = self._remote
        previews = remote.previews if on_progress is not None else 0
        body = body_of(step, self.card, previews)
        timeout = httpx.Timeout(remote.timeout_s, connect=min(CONNECT_S, remote.timeout_s))
        async with self._client(timeout=timeout) as client:
            request = client.build_request("POST", f"{remote.url}/images/generations", json=body)
            opening = asyncio.ensure_future(client.send(request, stream=True))
            try:
                async with asyncio.timeout(remote.timeout_s):
                    return await self._read(await asyncio.shield(opening), step, previews, on_progress)
            except (TimeoutError, httpx.TimeoutException):
                await self._left(client, opening)
                raise lost(self.card, f"made no picture within {remote.timeout_s:g} s") from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise lost(self.card, f"cannot be reached ({_named(error)})") from None
            except asyncio.CancelledError:
                await self._left(client, opening)
                raise
            finally:
                await _closed(opening)

    async def _read(
        self, answer: httpx.Response, step: Step, previews: int, on_progress: OnProgress | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if answer.status_code != 200:
            raise failure(answer.status_code, answer.headers, await whole(answer, ERROR_BYTES) or b"", self.card)
        most = most_bytes(step, self.card, 1 + previews)
        if "text/event-stream" not in answer.headers.get("content-type", ""):
            if (text := await whole(answer, most)) is None:
                raise unusable(self.card, f"with more than {most:,} bytes")
            said = object_of(text, self.card)
            return said, first_item(said, self.card)
        came = 0
        async for event in events(answer, most, self.card):
            if isinstance(error := event.get("error"), dict):
                raise failure_inside(error, self.card)
            kind = str(event.get("type", ""))
            if kind.endswith(".completed"):
                return event, event
            if kind.endswith(".partial_image") and on_progress is not None:
                came += 1
                preview = preview_of(event, self.card)
                on_progress(Progress(step.id, min(came, previews), previews + 1, preview))
        raise lost(self.card, "stopped in the middle of a picture")

    async def _left(self, client: httpx.AsyncClient, opening: asyncio.Task[httpx.Response]) -> None:
        """Nobody waits for the picture any more: close the connection, and end the job of another Triptych, which would
        go on else. What its id is, is told as soon as it has accepted; a server that does not stream tells it last."""
        if self._remote.stream and not opening.done():
            await asyncio.wait({opening}, timeout=END_S)
        job = await _closed(opening)
        if _JOB_ID.fullmatch(job):
            with contextlib.suppress(TimeoutError, httpx.HTTPError):  # it may be gone
                async with asyncio.timeout(END_S):
                    await client.delete(f"{self._remote.url}/jobs/{quote(job)}")


async def _closed(opening: asyncio.Task[httpx.Response]) -> str:
    """Close the connection of a request, whatever has become of it; the job that the answer names, or ""."""
    opening.cancel()
    await asyncio.wait({opening})
    if opening.cancelled() or opening.exception() is not None:
        return ""
    answer = opening.result()
    await answer.aclose()
    return answer.headers.get(JOB, "")


def _key(card: ModelCard, remote: Remote) -> dict[str, str]:
    """The header with the key. Raises `LoadError` if it is not there."""
    if not remote.key_env:
        return {}
    if not (key := os.environ.get(remote.key_env, "").strip()):
        raise LoadError(
            f"model {card.id!r}: {remote.name} needs a key, and {remote.key_env} is not set in the environment of its "
            f"worker; {key_remedy(remote)}",
            "model",
        )
    if not key.isascii() or not key.isprintable():
        raise LoadError(f"model {card.id!r}: what {remote.key_env} holds is no key; write it anew", "model")
    return {"authorization": f"Bearer {key}"}


def _named(error: Exception) -> str:
    """An error of httpx, which may have no words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
