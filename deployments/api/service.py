"""What Triptych offers, in builtins: the same calls behind HTTP (app.py) and behind a handle (cluster/replicas.py)."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from deployments.api import errors as failures
from deployments.api.edits.pictures import with_given, with_pictures
from deployments.api.errors import rate_headers
from deployments.api.keys import OPEN, Access, warned
from deployments.api.request_ids import new_job_id, new_request_id
from deployments.api.urls import Signed, UrlSigner
from deployments.api.wire import admin
from deployments.api.wire import jobs as job_wire
from deployments.api.wire import responses as explain
from deployments.api.wire.feedback import FeedbackRequest, feedback_report, parse_feedback
from deployments.api.wire.rendering import packed
from deployments.api.wire.requests import ImageRequest, parse_request, to_request
from deployments.given.files import GivenFile
from deployments.jobs.values import Delivered, File, Identity, JobEvent, JobView, Rate, Submission
from deployments.jobs.webhooks import Allowed
from deployments.observing import tracing
from deployments.operating.values import Operations, PolicyPreview
from deployments.orchestration.results import Overview, PolicyFile
from deployments.settings import Limits, UploadSettings, UrlSettings, WebhookSettings
from deployments.store.records import JobState, KeyRecord
from router.errors import NotFoundError, PolicyError, RequestError, did_you_mean
from router.learning.feedback import Receipt
from router.route import Route
from router.types import GenerationRequest

logger = logging.getLogger("triptych.service")


class Backend(Protocol):
    """The orchestrator's jobs (`deployments.jobs.jobs.Jobs`), here or behind a handle, and what else it offers."""

    async def complete(self, submission: Submission) -> Delivered: ...

    def stream(self, submission: Submission, after: int = 0) -> AsyncGenerator[JobEvent]: ...

    async def submit(self, submission: Submission) -> JobView: ...

    def events(self, job_id: str, after: int = 0) -> AsyncGenerator[JobEvent]: ...

    async def status(self, job_id: str, tenant: str | None = None) -> JobView: ...

    async def list(
        self, tenant: str | None, states: Sequence[JobState], limit: int, cursor: str | None
    ) -> tuple[list[JobView], str | None]: ...

    async def cancel(self, job_id: str, tenant: str | None = None) -> JobView: ...

    async def picture(self, picture_id: str) -> File: ...

    async def authenticate(self, hash: str | None) -> Identity: ...

    async def url_secret(self) -> bytes: ...

    async def given(self, digest: str, tenant: str | None) -> bytes: ...

    async def route(self, request: GenerationRequest) -> Route: ...

    async def feedback(self, request_id: str, source: str, value: float, image: int | None) -> Receipt: ...

    async def overview(self) -> Overview: ...

    async def policy_file(self, name: str, digest: str | None) -> PolicyFile: ...

    async def put_policy(self, name: str, text: str, expected: str | None) -> PolicyFile: ...

    async def operations(self) -> Operations: ...

    async def all_keys(self) -> Sequence[KeyRecord]: ...

    async def add_key(self, key: KeyRecord) -> None: ...

    async def revoke_key(self, id: str) -> KeyRecord: ...

    async def preview_policy(self, name: str, text: str) -> PolicyPreview: ...


@dataclass(frozen=True)
class Call:
    """How a request came, beside its body.

    idempotency_key: under which it is accepted once, however often it comes;   base_url: of this server as the client
    knows it;   arrived_s: at the edge, Unix seconds; None: now
    """

    access: Access = OPEN
    idempotency_key: str | None = None
    base_url: str = ""
    arrived_s: float | None = None


@dataclass(frozen=True)
class Answer:
    """A body in builtins, and what goes into the headers beside it."""

    body: dict[str, Any]
    headers: Mapping[str, str]


_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Service:
    """Wire requests in, wire responses out. Every method raises `TriptychError` for an expected failure."""

    def __init__(
        self,
        backend: Backend,
        limits: Limits,
        urls: UrlSettings | None = None,
        webhooks: WebhookSettings | None = None,
        uploads: UploadSettings | None = None,
    ) -> None:
        self._uploads = uploads or UploadSettings()
        self._backend = backend
        self._limits = limits
        self._urls = urls or UrlSettings()
        self._webhooks = Allowed(webhooks or WebhookSettings())
        self._signer: UrlSigner | None = None
        self._since = int(time.time())

    async def answer(self, ask: Callable[[str], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """`await ask(request id)`, with failures as an error envelope: for callers that do not have our exceptions."""
        request_id = new_request_id()
        with tracing.begun({"request": request_id}, "by handle", request=request_id):
            try:
                return await ask(request_id)
            except Exception as error:
                failures.log(logger, error, request_id, "by handle")
                return failures.envelope(error, request_id)

    async def told_each(self, events: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[dict[str, Any]]:
        """The events, and a failure as an envelope in the place of the last one."""
        try:
            async with aclosing(events) as arriving:
                async for event in arriving:
                    yield event
        except Exception as error:
            request_id = new_request_id()
            failures.log(logger, error, request_id, "by handle")
            yield failures.envelope(error, request_id)

    async def authenticate(self, hash: str | None) -> Identity:
        """Whose key has this SHA-256, and whether there are any."""
        return await self._backend.authenticate(hash)

    # ---------------------------------------------------------------------------------------------- what is waited for

    async def generate(self, body: Any, request_id: str = "", call: Call | None = None) -> dict[str, Any]:
        """Pictures, as `openai.types.ImagesResponse` with the reasons under `x_triptych`."""
        return (await self.made(body, request_id, call)).body

    async def made(self, body: Any, request_id: str = "", call: Call | None = None) -> Answer:
        """`generate`, with its headers."""
        call, wire = call or Call(), self._parsed(body)
        if wire.stream:
            raise RequestError("stream: this call answers once; leave it out", "stream")
        if wire.partial_images:
            raise RequestError("partial_images: previews need stream: true", "partial_images", "invalid_value")
        submission = await self._submission(wire, request_id or new_request_id(), call)
        done = await self._backend.complete(submission)
        headers = {**explain.headers(done.result["x_triptych"]), **_headers(done.id, done.rate, submission)}
        if wire.response_format == "url":
            sign = await self._sign(call)
            return Answer(job_wire.with_urls(done.result, [file.id for file in done.files], sign), headers)
        return Answer(explain.with_files(done.result, [file.data for file in done.files], wire), headers)

    async def stream(
        self,
        body: Any,
        request_id: str = "",
        on_accepted: Callable[[Mapping[str, str]], None] = lambda _: None,
        call: Call | None = None,
    ) -> AsyncGenerator[dict[str, Any]]:
        """OpenAI's events: `image_generation.partial_image` for previews, `image_generation.completed` for pictures,
        each as soon as it is made. If some are missing, those that came stay; if all are, the failure is raised.

        on_accepted: called with headers once the request is accepted, which may be long before the first event
        """
        wire = self._parsed(body)
        if wire.response_format == "url":
            remedy = "leave it out, or send the request as a job (POST /v1/jobs), whose events have addresses"
            raise RequestError(f"response_format: a stream has the pictures themselves; {remedy}", "response_format")
        submission = await self._submission(wire, request_id or new_request_id(), call or Call())
        async with aclosing(self._backend.stream(submission)) as events:
            async for event in events:
                if event.kind == "accepted":
                    rate = event.data.get("rate")
                    on_accepted(_headers(event.data["job"], rate and Rate(**rate), submission))
                elif event.kind == "preview" and event.file is not None:
                    size = f"{event.file.width}x{event.file.height}"
                    told = explain.event_body("partial_image", event.file.data, size, wire)
                    yield {
                        **told,
                        "partial_image_index": event.data["number"],
                        "picture_index": event.data["index"],
                    }
                elif event.kind == "picture" and event.file is not None:
                    yield self._completed(event, wire)

    # ------------------------------------------------------------------------------------------------------------ jobs

    async def submit(self, body: Any, request_id: str = "", call: Call | None = None) -> Answer:
        """Accept a request as a job, which is made whoever waits for it, and report it."""
        call, wire = call or Call(), self._parsed(body)
        if wire.stream:
            raise RequestError("stream: a job answers at once; GET its /events for what happens to it", "stream")
        submission = await self._submission(wire, request_id or new_request_id(), call)
        view = await self._backend.submit(submission)
        report = job_wire.job_report(view, await self._sign(call))
        return Answer(report, _headers(view.id, view.rate, submission))

    async def status(self, job_id: str, call: Call | None = None) -> dict[str, Any]:
        """How a job is. Raises `NotFoundError`, also for those that the caller may not see."""
        call = call or Call()
        view = await self._backend.status(job_id, call.access.sees)
        return job_wire.job_report(view, await self._sign(call))

    async def jobs(
        self, states: Sequence[JobState] = (), limit: int = 20, cursor: str | None = None, call: Call | None = None
    ) -> dict[str, Any]:
        """The jobs that the caller may see, the latest first. Raises `RequestError` for a cursor that is none."""
        call = call or Call()
        views, after = await self._backend.list(call.access.sees, states, limit, cursor)
        sign = await self._sign(call)
        data = [job_wire.job_report(view, sign, whole=False) for view in views]
        return {"object": "list", "data": data, "has_more": after is not None, "next_cursor": after}

    async def cancel(self, job_id: str, call: Call | None = None) -> dict[str, Any]:
        """End a job that is open; one that has ended stays as it is. Raises `NotFoundError`."""
        call = call or Call()
        view = await self._backend.cancel(job_id, call.access.sees)
        return job_wire.job_report(view, await self._sign(call))

    async def events(
        self,
        job_id: str,
        last_event_id: str | None = None,
        on_accepted: Callable[[Mapping[str, str]], None] = lambda _: None,
        call: Call | None = None,
    ) -> AsyncGenerator[dict[str, Any]]:
        """What happened and happens to a job, until its end; each with the `id_line` that `last_event_id` goes on from.
        Raises `NotFoundError`."""
        call = call or Call()
        life, number = job_wire.place_of(last_event_id)
        view, sign = await self._backend.status(job_id, call.access.sees), await self._sign(call)
        on_accepted({"x-triptych-job": job_id})
        async with aclosing(self._backend.events(job_id)) as events:
            async for event in events:
                if event.life == life and event.number <= number:
                    continue
                yield {**job_wire.event_report(event, view, sign), "id_line": job_wire.event_id(event)}

    async def picture(self, picture_id: str, expires: str, signature: str) -> tuple[File, int]:
        """A picture by its signed address, and the Unix second in which that expires. Raises `RequestError`, 403."""
        expires_at = (await self._signing()).check(picture_id, expires, signature)
        return await self._backend.picture(picture_id), expires_at

    # -------------------------------------------------------------------------------------------- what makes no picture

    async def route(self, body: Any, request_id: str = "", call: Call | None = None) -> dict[str, Any]:
        """The decision on a request, with nothing run."""
        call, wire = call or Call(), self._parsed(body)
        wire, given = await self._with_pictures(wire, call)
        route = await self._backend.route(self._request(wire, "", call, given))
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
            facts = {
                "kind": "recipe",
                "description": f"a recipe of policy {policy}",
                "takes": await self._takes(policy, recipe),
            }
            return {**models[policy], "id": name, "x_triptych": facts}
        if name not in models:
            raise NotFoundError(f"there is no model {name!r}{did_you_mean(name, models)}", "model", "model_not_found")
        return models[name]

    async def _takes(self, policy: str, recipe: str) -> list[str]:
        overview = await self._backend.overview()
        found = next((one.takes for one in overview.policies if one.name == policy), {})
        return list(found.get(recipe, ("text",)))

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

    # ----------------------------------------------------------------------------------------------- what operators ask

    async def operations(self) -> dict[str, Any]:
        """How everything is, and what was served within a day."""
        return admin.overview_report(await self._backend.operations())

    async def all_jobs(self, states: Sequence[JobState], limit: int, cursor: str | None, call: Call) -> dict[str, Any]:
        """Jobs of all tenants, the latest first. Raises `RequestError` for a cursor that is none."""
        views, after = await self._backend.list(None, states, limit, cursor)
        sign = await self._sign(call)
        data = [{**job_wire.job_report(view, sign, whole=False), "tenant": view.tenant} for view in views]
        return {"object": "list", "data": data, "has_more": after is not None, "next_cursor": after}

    async def keys(self) -> dict[str, Any]:
        """Every key, revoked ones included, without the keys themselves."""
        return {"object": "list", "data": [admin.key_report(key) for key in await self._backend.all_keys()]}

    async def make_key(self, body: Any) -> dict[str, Any]:
        """Make a key, which is shown this once. Raises `RequestError`."""
        key, record = admin.parse_key(body)
        await self._backend.add_key(record)
        return {**admin.key_report(record), "key": key}

    async def revoke_key(self, id: str) -> dict[str, Any]:
        """End a key. Raises `NotFoundError`."""
        return admin.key_report(await self._backend.revoke_key(id))

    async def preview_policy(self, name: str, text: str) -> dict[str, Any]:
        """What a policy would change; what is wrong with it is part of the answer."""
        return admin.preview_report(await self._backend.preview_policy(name, text))

    def _parsed(self, body: Any) -> ImageRequest:
        return body if isinstance(body, ImageRequest) else parse_request(body, self._limits)

    async def _with_pictures(self, wire: ImageRequest, call: Call) -> tuple[ImageRequest, tuple[GivenFile, ...]]:
        """The body with digests in the place of its pictures, and their files; those that are named by a digest are of
        the same tenant."""
        tenant = call.access.caller(wire.user or wire.safety_identifier).tenant
        return await with_pictures(wire, self._uploads, lambda digest: self._backend.given(digest, tenant))

    async def _submission(self, wire: ImageRequest, request_id: str, call: Call) -> Submission:
        if wire.webhook is not None:
            self._webhooks.check(wire.webhook)
        key = call.idempotency_key
        if key is not None and not _KEY.fullmatch(key):
            message = "Idempotency-Key: it is 1 to 255 printable ASCII characters without spaces, such as a UUID"
            raise RequestError(message, "Idempotency-Key", "invalid_value")
        wire, given = await self._with_pictures(wire, call)
        request = self._request(wire, request_id, call, given)
        caller = call.access.caller(request.tenant)
        trace = {**tracing.carrier(), "request": request_id}
        return Submission(
            new_job_id(), request, packed(wire), caller, key, wire.webhook, call.base_url, trace=trace, given=given
        )

    def _request(
        self, wire: ImageRequest, request_id: str, call: Call, given: tuple[GivenFile, ...] = ()
    ) -> GenerationRequest:
        request = with_given(to_request(wire, self._limits, request_id), wire, given)
        priority, said = warned(call.access, request.priority)
        if said and "priority" in wire.model_fields_set:
            wire._warnings = (*wire.warnings, *said)
        tenant = call.access.caller(request.tenant).tenant
        return replace(request, tenant=tenant, priority=priority, arrived_s=call.arrived_s or request.arrived_s)

    async def _signing(self) -> UrlSigner:
        if self._signer is None:
            secret = await self._backend.url_secret()
            self._signer = UrlSigner(secret, self._urls.expire_s, self._urls.base or "")
        return self._signer

    async def _sign(self, call: Call) -> Callable[[str], Signed]:
        signer = await self._signing()
        return lambda picture: signer.sign(picture, call.base_url)

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


def _headers(job: str, rate: Rate | None, submission: Submission) -> dict[str, str]:
    """Of what was accepted: its job, whether it had been accepted before, and what the key has left."""
    again = {"idempotent-replayed": "true"} if job != submission.id else {}
    return {"x-triptych-job": job, **again, **rate_headers(rate)}
