"""What goes in and out of `Jobs`: submissions, views of jobs, events, files. Plain data, fit for any process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from deployments.given.files import GivenFile
from deployments.orchestration.results import Checked, Chosen, Made, Outcome, Routed
from deployments.store.records import JobState, KeyRecord, PictureRecord
from router.route import Route
from router.types import GenerationRequest, Picture, Priority

EventKind = Literal[
    "accepted", "routed", "step", "check", "choice", "preview", "picture", "done", "failed", "cancelled"
]
ENDS: tuple[EventKind, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Caller:
    """Who asks. tenant: whose budgets and share it is;   key_id: of the API key, None where none is needed"""

    tenant: str = ""
    key_id: str | None = None


@dataclass(frozen=True)
class Identity:
    """What is known of a key that was sent. key: None if it is none of ours;   keyed: whether any key was ever made"""

    key: KeyRecord | None
    keyed: bool


@dataclass(frozen=True)
class Rate:
    """What a key has left of its requests a minute. reset_s: seconds until all of them are free again"""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True)
class Submission:
    """A request on its way to become a job.

    id: of the job, chosen by whoever receives the request first, so that it may be sent again after a broken connection
    body: the wire request, of which only the renderer knows what it means;   webhook: told when the job has ended
    base_url: of this server as the client knows it, for addresses that the webhook is told
    given: the files of the request's pictures
    again: this was sent before, and may be accepted already;   trace: its place in a trace (`observing.tracing`)
    """

    id: str
    request: GenerationRequest
    body: Mapping[str, Any]
    caller: Caller = Caller()
    idempotency_key: str | None = None
    webhook: str | None = None
    base_url: str = ""
    again: bool = False
    trace: Mapping[str, str] = field(default_factory=dict)
    given: tuple[GivenFile, ...] = ()


@dataclass(frozen=True)
class File:
    """A picture as it is delivered. id: `<job>-<index>`;   size in pixels"""

    id: str
    index: int
    seed: int
    media_type: str
    width: int
    height: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class JobView:
    """A job as its owner sees it. Times are Unix seconds.

    position: open jobs that were accepted before and have not begun; eta_s: seconds until it is expected to be done;
    both None once it has ended.   progress: 0 .. 1, of its seconds of work
    pictures: those that can be had already;   result: the answer without the pictures' bytes, once done
    rate: of the key that it came with, when it was accepted
    """

    id: str
    state: JobState
    tenant: str
    n: int
    priority: Priority
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float | None = None
    position: int | None = None
    eta_s: float | None = None
    progress: float = 0.0
    attempts: int = 0
    pictures: tuple[PictureRecord, ...] = ()
    warnings: tuple[str, ...] = ()
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    webhook: Mapping[str, Any] | None = None
    rate: Rate | None = None


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job. number: from 1, without gaps within one life of an orchestrator; 0: `accepted`,
    which only the stream of a submission begins with

    data: builtins;   file: of a preview or a picture;   life: which orchestrator counted; 0: it was read from the store
    """

    number: int
    kind: EventKind
    data: Mapping[str, Any] = field(default_factory=dict)
    file: File | None = None
    life: int = 0


@dataclass(frozen=True)
class Delivered:
    """The answer of a job that is done. result: without the pictures' bytes, which are in `files`, in their order

    rate: of the key that it came with, when it was accepted
    """

    id: str
    result: Mapping[str, Any]
    files: tuple[File, ...]
    rate: Rate | None = None


class Renderer(Protocol):
    """Knows what the body of a request means: makes its files, its answer, its errors."""

    def file(self, made: Made, route: Route, body: Mapping[str, Any]) -> tuple[bytes, str]:
        """A picture as a file, and its media type."""
        ...

    def previews(self, body: Mapping[str, Any]) -> int:
        """How many previews of each picture are wanted."""
        ...

    def said(self, event: Routed | Checked | Chosen, body: Mapping[str, Any]) -> dict[str, Any]:
        """What an event says of a decision, of a picture that was looked at, or of what is done next."""
        ...

    def preview(self, picture: Picture, route: Route, body: Mapping[str, Any]) -> tuple[bytes, str, int, int]:
        """A preview as a file of the picture's final size: bytes, media type, width, height."""
        ...

    def facts(self, made: Made) -> dict[str, Any]:
        """What the answer says of one picture: kept with it, should another process finish the job."""
        ...

    def result(
        self, outcome: Outcome, body: Mapping[str, Any], job: str, earlier: Mapping[int, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The answer to a request, without the pictures' bytes; earlier: facts of pictures that are not in `outcome`,
        by index."""
        ...

    def error(self, error: BaseException, request_id: str) -> dict[str, Any]:
        """What a job that failed says: message, type, param, code."""
        ...
