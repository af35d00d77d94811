"""What Triptych offers, in builtins: the same calls behind HTTP (app.py) and behind a handle (cluster/replicas.py)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

from deployments.api import errors as failures
from deployments.api import responses as explain
from deployments.api.feedback import FeedbackRequest, feedback_report, parse_feedback
from deployments.api.request_ids import new_request_id
from deployments.api.requests import ImageRequest, parse_request, to_request
from deployments.orchestration.results import Advanced, Event, Finished, Outcome, Overview, PolicyFile, Routed
from deployments.settings import Limits
from models.handover import resize
from models.provenance import encode_image
from router.errors import NotFoundError, PolicyError, RequestError, did_you_mean
from router.learning.feedback import Receipt
from router.route import Route
from router.types import GenerationRequest, Picture

logger = logging.getLogger("triptych.service")

PREVIEWS_PER_STEP = 3  # about what an engine sends for one denoising step of a plan


class Backend(Protocol):
    """An orchestrator: `deployments.orchestration.orchestrator.Orchestrator`, or one behind a handle."""

    async def route(self, request: GenerationRequest) -> Route: ...

    async def generate(self, request: GenerationRequest) -> Outcome: ...

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Event | Outcome]: ...

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
        request_id = request_id or new_request_id()
        outcome = await self._backend.generate(to_request(wire, self._limits, request_id))
        files = await asyncio.to_thread(self._files, outcome, wire)
        return explain.images_response(outcome, files, wire, request_id)

    async def stream(
        self, body: Any, request_id: str = "", on_routed: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[dict[str, Any]]:
        """OpenAI's events: `image_generation.partial_image` for previews, `image_generation.completed` for pictures,
        each as soon as it is made. If some are missing, those that came stay; if all are, the failure is raised.

        on_routed: called once the request is admitted, which may be long before the first event
        """
        wire = self._parsed(body)
        previews = _Previews(wire.partial_images)
        size, request_id, sent = "", request_id or new_request_id(), set[int]()
        async with aclosing(self._backend.stream(to_request(wire, self._limits, request_id))) as items:
            async for item in items:
                if isinstance(item, Routed):
                    size = f"{item.route.plan.width}x{item.route.plan.height}"
                    previews.expect(item.route)
                    on_routed()
                elif isinstance(item, Advanced) and item.progress.preview is not None:
                    number = previews.take(item.index)
                    if number is not None:
                        file = await asyncio.to_thread(_preview_file, item.progress.preview, size, wire)
                        event = explain.event_body("partial_image", file, size, wire)
                        yield {**event, "partial_image_index": number, "picture_index": item.index}
                elif isinstance(item, Finished | Outcome):
                    outcome = item.alone if isinstance(item, Finished) else item
                    left = tuple(made for made in outcome.made if made.index not in sent)
                    sent |= {made.index for made in left}
                    async for event in self._completed(replace(outcome, made=left), wire, request_id):
                        yield event

    async def route(self, body: Any, request_id: str = "") -> dict[str, Any]:
        """The decision on a request, with nothing run."""
        wire = self._parsed(body)
        route = await self._backend.route(to_request(wire, self._limits))
        report = explain.route_report(route, wire.warnings)
        return {"request_id": request_id or new_request_id(), **report, "replay": explain.replay(route, wire)}

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

    def _files(self, outcome: Outcome, wire: ImageRequest) -> list[bytes]:
        return [explain.encoded(made, outcome.route, wire) for made in outcome.made]

    async def _completed(self, outcome: Outcome, wire: ImageRequest, request_id: str) -> AsyncGenerator[dict[str, Any]]:
        if not outcome.made:
            return
        files = await asyncio.to_thread(self._files, outcome, wire)
        report = explain.outcome_report(outcome, wire, request_id)
        for made, file in zip(outcome.made, files, strict=True):
            event = explain.event_body("completed", file, explain.size_of(made), wire)
            yield {
                **event,
                "usage": explain.usage(outcome),
                "picture_index": made.index,
                "seed": made.seed,
                "x_triptych": report,
            }


class _Previews:
    """Which of the previews that come are passed on: `wanted` for each picture, spread over its plan."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._expected = 1
        self._seen: dict[int, int] = {}
        self._sent: dict[int, int] = {}

    def expect(self, route: Route) -> None:
        denoising = sum(step.kind in ("generate", "denoise", "refine") for step in route.plan.steps)
        self._expected = max(1, PREVIEWS_PER_STEP * denoising)

    def take(self, picture: int) -> int | None:
        """The number of this preview among those of its picture, or None to drop it."""
        self._seen[picture] = self._seen.get(picture, 0) + 1
        sent = self._sent.get(picture, 0)
        if sent >= self._wanted or self._seen[picture] * self._wanted < (sent + 1) * self._expected:
            return None
        self._sent[picture] = sent + 1
        return sent


def _preview_file(preview: Picture, size: str, wire: ImageRequest) -> bytes:
    width, height = map(int, size.split("x"))
    return encode_image(resize(preview.pixels, width, height), wire.output_format, None, wire.output_compression)
