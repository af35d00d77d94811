"""Where the command line gets its answers: this process, or a running Triptych over HTTP. Same bodies, same answers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from deployments.settings import load_serve_config
from router.errors import (
    DeadlineError,
    LoadError,
    NoRecipeError,
    NotFoundError,
    OverloadedError,
    RequestError,
    StepError,
    TriptychError,
)
from router.types import Rejection

if TYPE_CHECKING:
    from deployments.api.wire.requests import ImageRequest
    from deployments.given.files import GivenFile

API_KEY = "TRIPTYCH_API_KEY"
"""The environment variable with the key that a server is asked with."""


class Source(Protocol):
    """Answers requests in the form of `POST /v1/images/generations` and `POST /v1/route`."""

    async def generate(self, body: dict[str, Any], console: Console) -> dict[str, Any]: ...

    async def route(self, body: dict[str, Any]) -> dict[str, Any]: ...


def source(url: str | None, config: Path) -> Source:
    """A server if `url` is given, else the models of `config` in this process."""
    return HttpSource(url) if url else LocalSource(config)


class LocalSource:
    """Runs everything in this process, without Ray."""

    def __init__(self, config: Path) -> None:
        from deployments.assembly import credentials_of
        from deployments.in_process import build_local

        self._settings = load_serve_config(config).settings
        self._credentials = credentials_of(self._settings)
        self._orchestrator = build_local(self._settings)

    async def generate(self, body: dict[str, Any], console: Console) -> dict[str, Any]:
        from deployments.api.edits.pictures import with_given
        from deployments.api.request_ids import new_request_id
        from deployments.api.wire import responses as explain
        from deployments.api.wire.files import encoded
        from deployments.api.wire.requests import parse_request, to_request
        from deployments.orchestration.results import Advanced, Event

        wire, given = await self._with_pictures(parse_request(body, self._settings.limits))
        with _bars(console) as bars:
            loading = bars.add_task("loading weights", total=None)
            tasks: dict[tuple[int, str], TaskID] = {}

            def on_event(event: Event) -> None:
                if not isinstance(event, Advanced):
                    return
                bars.update(loading, visible=False)
                key = (event.index, event.progress.step)
                if key not in tasks:
                    tasks[key] = bars.add_task(f"picture {event.index + 1}: {event.progress.step}", total=None)
                bars.update(tasks[key], completed=event.progress.done, total=event.progress.total)

            request = with_given(to_request(wire, self._settings.limits, request_id := new_request_id()), wire, given)
            outcome = await self._orchestrator.generate(request, on_event)
        files = [encoded(made, outcome.route, wire, self._credentials) for made in outcome.made]
        return explain.with_files(explain.images_result(outcome, wire, request_id), files, wire)

    async def route(self, body: dict[str, Any]) -> dict[str, Any]:
        from deployments.api.edits.pictures import with_given
        from deployments.api.request_ids import new_request_id
        from deployments.api.wire import responses as explain
        from deployments.api.wire.requests import parse_request, to_request

        wire, given = await self._with_pictures(parse_request(body, self._settings.limits))
        request = with_given(to_request(wire, self._settings.limits), wire, given)
        return explain.route_answer(await self._orchestrator.route(request), wire, new_request_id())

    async def _with_pictures(self, wire: ImageRequest) -> tuple[ImageRequest, tuple[GivenFile, ...]]:
        """The body with digests in the place of its pictures, and their files, which are at hand from now on."""
        from deployments.api.edits.pictures import with_pictures

        wire, given = await with_pictures(wire, self._settings.uploads, _not_kept)
        self._orchestrator.gallery.keep(given)
        return wire, given


async def _not_kept(digest: str) -> bytes:
    """There is no store in this process."""
    raise NotFoundError(
        f"the given picture {digest[:12]} is not here: pass its file, or ask the server that has it (--url)", "image"
    )


class HttpSource:
    """Asks a running Triptych."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    async def generate(self, body: dict[str, Any], console: Console) -> dict[str, Any]:
        with _bars(console) as bars:
            bars.add_task(f"waiting for {self._url}", total=None)
            path = "edits" if body.get("image") else "generations"
            return await self._post(f"/v1/images/{path}", body)

    async def route(self, body: dict[str, Any]) -> dict[str, Any]:
        return await self._post("/v1/route", body)

    async def feedback(self, body: dict[str, Any]) -> dict[str, Any]:
        return await self._post("/v1/feedback", body)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        import httpx

        try:
            async with httpx.AsyncClient(timeout=None, headers=_key()) as client:
                response = await client.post(self._url + path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LoadError(
                f"no answer from {self._url} ({str(error) or type(error).__name__}); is `triptych serve` running?"
            ) from None
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        try:
            answer = response.json()
        except ValueError:
            raise StepError(f"{self._url} answered {response.status_code} with something that is not JSON") from None
        if response.status_code >= 400 or "error" in answer:
            raise failure(response.status_code, answer.get("error") or {})
        return answer


# HTTP status -> the error that stands for it here, so that exit codes are the same as without a server.
ERRORS: dict[int, type[TriptychError]] = {
    400: RequestError,
    401: RequestError,
    403: RequestError,
    404: NotFoundError,
    408: DeadlineError,
    409: RequestError,
    405: RequestError,
    413: RequestError,
    415: RequestError,
    422: NoRecipeError,
    429: OverloadedError,
    503: LoadError,
    504: DeadlineError,
    507: LoadError,
}


def failure(status: int, error: dict[str, Any]) -> TriptychError:
    """The error of an envelope as our own exception."""
    message = str(error.get("message") or f"HTTP {status}")
    kind = ERRORS.get(status, StepError)
    if kind is NoRecipeError:
        return NoRecipeError(message, [Rejection(**r) for r in error.get("rejected", ())])
    made = kind(message)
    made.param, made.code = error.get("param"), str(error.get("code") or made.code)
    return made


def _key() -> dict[str, str]:
    """The header with the key of the environment, if there is one."""
    key = os.environ.get(API_KEY)
    return {"authorization": f"Bearer {key}"} if key else {}


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), Count(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


class Count(ProgressColumn):
    """`3/10`, or nothing where it is not known how many there are."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.completed:g}/{task.total:g}")
