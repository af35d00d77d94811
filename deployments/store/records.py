"""The values that go in and out of the store: frozen, of JSON builtins throughout, times in Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: tuple[JobState, ...] = get_args(JobState)
OPEN: tuple[JobState, ...] = ("queued", "running")
"""The states of a job that is still to be done."""


@dataclass(frozen=True)
class JobRecord:
    """One accepted request.

    key_id:     of the key it came with;   priority: its class
    request:    `GenerationRequest` as JSON builtins;   body: what the wire adds (format, compression, …): opaque here
    deadline_at: None: none
    idempotency_key, body_digest: unique with the tenant; the digest tells the same request from another
    attempts:   how often it was running when its orchestrator went away;   fence: token of the orchestrator that has it
    decision:   what a take-over pins: {"policy", "policy_digest", "recipe", "turns", …}
    n:          pictures asked for;   result: the final answer without the pictures' bytes
    error:      {"message", "code", "type", "param"};   webhook: {"url", "state", "tries", "next_at"}
    created_at: when it was committed; set by the store
    """

    id: str
    tenant: str
    key_id: str | None
    priority: str
    request: dict[str, Any]
    body: dict[str, Any]
    arrived_at: float
    deadline_at: float | None = None
    idempotency_key: str | None = None
    body_digest: str = ""
    state: JobState = "queued"
    attempts: int = 0
    fence: int = 0
    decision: dict[str, Any] | None = None
    n: int = 1
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    webhook: dict[str, Any] | None = None
    created_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def open(self) -> bool:
        """Whether it is still to be done."""
        return self.state in OPEN


@dataclass(frozen=True)
class PictureRecord:
    """One delivered picture. index: its place in the answer, from 0; bytes_n: size of the file; key: where its bytes
    are, set by the store; facts: what else is known of it, JSON builtins."""

    id: str
    job: str
    index: int
    seed: int
    media_type: str
    bytes_n: int
    width: int
    height: int
    key: str = ""
    made_at: float = 0.0
    facts: dict[str, Any] | None = None


@dataclass(frozen=True)
class GivenRecord:
    """One picture that a job brought. role: what for, "image 2" for the second of a role;   digest: of its pixels;
    key: where its bytes are"""

    job: str
    role: str
    digest: str
    bytes_n: int
    width: int
    height: int
    key: str


@dataclass(frozen=True)
class KeyRecord:
    """One key of a tenant.

    hash:     SHA-256 of the key, hex; the key itself is nowhere
    scopes:   of "generate", "admin", "feedback";   rpm: requests a minute, None: no limit
    budget:   {"cost_usd", "window_s"}, None: no limit;   priority: the highest class that it may ask for
    prefix:   its first characters, by which its owner knows it;   last_used_at: some seconds late
    """

    id: str
    hash: str
    tenant: str
    name: str = ""
    scopes: tuple[str, ...] = ("generate",)
    rpm: int | None = None
    budget: dict[str, Any] | None = None
    priority: str = "interactive"
    created_at: float = 0.0
    revoked_at: float | None = None
    prefix: str | None = None
    last_used_at: float | None = None


@dataclass(frozen=True)
class UsageRow:
    """What a job takes of one budget that binds it: reserved when it is accepted, as it was when it is finished.
    at: when it counts, Unix seconds; work_s: seconds of work; cost_usd: dollars."""

    job: str
    policy: str
    budget: str
    tenant: str
    at: float
    work_s: float = 0.0
    cost_usd: float = 0.0


@dataclass(frozen=True)
class PolicyVersion:
    """A policy as it was written at `at` (Unix seconds). No digest and no text: it went."""

    name: str
    at: float
    digest: str | None
    text: str | None


@dataclass(frozen=True)
class ServedRow:
    """A job that has ended, or the sum of several, as operators look at them.

    at:      when they ended, Unix seconds;   recipe: that was chosen, "" if none was;   pictures: that were made
    work_s:  seconds of work and `cost_usd` dollars as measured;   latency_s: from arrival to answer, summed up
    expected, verified: quality (0..1), summed up over pictures: of all of them as it was expected (`expected`), and of
             the `checked` ones as it was expected (`expected_checked`) and as it was at the first look (`verified`)
    """

    at: float
    tenant: str
    policy: str
    recipe: str
    state: JobState
    jobs: int = 1
    pictures: int = 0
    cost_usd: float = 0.0
    work_s: float = 0.0
    latency_s: float = 0.0
    expected: float = 0.0
    checked: int = 0
    expected_checked: float = 0.0
    verified: float = 0.0


@dataclass(frozen=True)
class RatedRow:
    """What people said of the pictures of a recipe: how often, and the mean on 0..1."""

    policy: str
    recipe: str
    count: int
    mean: float


Record = TypeVar("Record", JobRecord, PictureRecord, KeyRecord, UsageRow)


def to_json(record: JobRecord | PictureRecord | KeyRecord | UsageRow) -> dict[str, Any]:
    """A record as JSON builtins, by field. Dicts in it are not copied."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def from_json(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """The other way round; what `values` has beside the fields of `kind` is left out."""
    own: dict[str, Any] = {field.name: values[field.name] for field in fields(kind) if field.name in values}
    own = {name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}
    return kind(**own)
