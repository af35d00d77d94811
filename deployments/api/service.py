"""What Triptych offers, in builtins: the same calls behind HTTP (app.py) and behind a handle (cluster/replicas.py)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol

from deployments.api import errors as failures
from deployments.api.feedback import FeedbackRequest, feedback_report, parse_feedback
from deployments.api.request_ids import new_job_id, new_request_id
from deployments.api.wire import responses as explain
from deployments.api.wire.rendering import packed
from deployments.api.wire.requests import ImageRequest, parse_request, to_request
from deployments.jobs.values import Caller, Delivered, JobEvent, Submission
from deployments.orchestration.results import Overview, PolicyFile
from deployments.settings import Limits
from router.errors import NotFoundError, PolicyError, RequestError, did_you_mean
from router.learning.feedback import Receipt
from router.route import Route
from router.types import GenerationRequest

logger = logging.getLogger("triptych.service")


class Backend(Protocol):
    """The orchestrator's jobs (`deployments.jobs.jobs.Jobs`), here or behind a handle, and what else it offers."""

    async def complete(self, submission: Submission) -> Delivered: ...

    def stream(self, submission: Submission, after: int = 0) -> AsyncGenerator[JobEvent]: ...

    async def route(self, request: GenerationRequest) -> Route: ...

    async def feedback(self, request_id: str, source: str, value: float, image: int | None) -> Receipt: ...

    async def overview(self) -> Overview: ...

    async def policy_file(self, name: str, digest: str | None) -> PolicyFile: ...

    async def put_policy(self, name: str, text: str, expected: str | None) -> PolicyFile: ...


class Service:
    """Wire requests in, wire responses out. Every method raises `TriptychError` for an expected failure."""

    def __init__(self, backend: Backend, limits: Limits) -> None:
        self._backend = backend
        self._limits = limits
        self._since = int(time.time())

    async def answer(self, ask: Callable[[str], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """`await ask(request id)`, with failures as an error envelope: for callers that do not have our exceptions."""
        request_id = new_request_id()
        try:
            return await ask(request_id)
        except Exception as error:
            failures.log(logger, error, request_id, "by handle")
            return failures.envelope(error, request_id)

    async def generate(self, body: Any, request_id: str = "") -> dict[str, Any]:
        """Pictures, as `openai.types.ImagesResponse` with the reasons under `x_triptych`."""
        wire = self._parsed(body)
        if wire.stream:
            raise RequestError("stream: this call answers once; leave it out", "stream")
        done = await self._backend.complete(self._submission(wire, request_id or new_request_id()))
        return explain.with_files(done.result, [file.data for file in done.files], wire)

    async def stream(
        self, body: Any, request_id: str = "", on_routed: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[dict[str, Any]]:
        """OpenAI's events: `image_generation.partial_image` for previews, `image_generation.completed` for pictures,
        each as soon as it is made. If some are missing, those that came stay; if all are, the failure is raised.

        on_routed: called once the request is accepted, which may be long before the first event
        """
        wire = self._parsed(body)
        async with aclosing(self._backend.stream(self._submission(wire, request_id or new_request_id()))) as events:
            async for event in events:
                on_routed()
                if event.kind == "preview" and event.file is not None:
                    size = f"{event.file.width}x{event.file.height}"
                    told = explain.event_body("partial_image", event.file.data, size, wire)
                    yield {
                        **told,
                        "partial_image_index": event.data["number"],
                        "picture_index": event.data["index"],
                    }
                elif event.kind == "picture" and event.file is not None:
                    yield self._completed(event, wire)

    async def route(self, body: Any, request_id: str = "") -> dict[str, Any]:
        """The decision on a request, with nothing run."""
        wire = self._parsed(body)
        route = await self._backend.route(to_request(wire, self._limits))
        return explain.route_answer(route, wire, request_id or new_request_id())

    async def feedback(self, body: Any) -> dict[str, Any]:
        """Attach a rating or a score to the pictures of a request. Raises `NotFoundError` if it is not known."""
        wire = body if isinstance(body, FeedbackRequest) else parse_feedback(body)
        return feedback_report(wire, await self._backend.feedback(wire.id, wire.source, wire.value, wire.image))

    async def models(self) -> dict[str, Any]:
        """All names that `model` may be: auto, policies, recipes of the default policy, models."""
        return {"object": "list", "data": explain.model_list(await self._backend.overview(), self._since, self._limits)}

    async def model(self, name: str) -> dict[str, Any]:
        """One of `models`; `policy/recipe` is found too. Raises `NotFoundError`."""
        models = {model["id"]: model for model in (await self.models())["data"]}
        name = next((known for known in models if known.casefold() == name.casefold()), name)
        policy, _, recipe = name.partition("/")
        if recipe in models.get(policy, {}).get("x_triptych", {}).get("recipes", ()):
            facts = {"kind": "recipe", "description": f"a recipe of policy {policy}"}
            return {**models[policy], "id": name, "x_triptych": facts}
        if name not in models:
            raise NotFoundError(f"there is no model {name!r}{did_you_mean(name, models)}", "model", "model_not_found")
        return models[name]

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether no worker is still starting, and how each of them is."""
        overview = await self._backend.overview()
        return explain.readiness(overview)

    async def policies(self) -> dict[str, Any]:
        """All policies in force, the default first, and what is wrong with their files."""
        overview = await self._backend.overview()
        return {
            "object": "list",
            "data": [{"name": p.name, "digest": p.digest, "description": p.description} for p in overview.policies],
            "problems": list(overview.problems),
        }

    async def policy(self, name: str, digest: str | None = None) -> dict[str, Any]:
        """A policy's file as it is in force (or was, under `digest`), and its history. Raises `NotFoundError`."""
        return explain.policy_file(await self._backend.policy_file(name, digest))

    async def put_policy(self, name: str, text: str, expected: str | None = None) -> dict[str, Any]:
        """Validate and put in force. Raises `PolicyError` with every problem; nothing has changed then."""
        try:
            return explain.policy_file(await self._backend.put_policy(name, text, expected))
        except PolicyError as error:
            error.code = "policy_refused"  # the client's mistake, not that of the server's configuration
            raise

    async def roll_back(self, name: str, digest: str | None = None) -> dict[str, Any]:
        """Put an earlier version in force: that of `digest`, or else the one before the present."""
        present = await self._backend.policy_file(name, None)
        earlier = [version.digest for version in present.versions if version.digest != present.digest]
        if digest is None and not earlier:
            raise NotFoundError(f"policy {name!r} has no earlier version to go back to", "digest")
        wanted = await self._backend.policy_file(name, digest or earlier[0])
        return await self.put_policy(name, wanted.text, present.digest)

    def _parsed(self, body: Any) -> ImageRequest:
        return body if isinstance(body, ImageRequest) else parse_request(body, self._limits)

    def _submission(self, wire: ImageRequest, request_id: str) -> Submission:
        request = to_request(wire, self._limits, request_id)
        return Submission(new_job_id(), request, packed(wire), Caller(request.tenant))

    def _completed(self, event: JobEvent, wire: ImageRequest) -> dict[str, Any]:
        file, result = event.file, event.data
        assert file is not None
        return {
            **explain.event_body("completed", file.data, f"{file.width}x{file.height}", wire),
            "usage": result["usage"],
            "picture_index": file.index,
            "seed": file.seed,
            "x_triptych": result["x_triptych"],
        }
