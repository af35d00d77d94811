"""The wire of jobs: a job as JSON, for whoever asks and for webhooks; its events; what a list may be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from deployments.api.urls import Signed
from deployments.api.wire.responses import b64
from deployments.jobs.values import JobEvent, JobView
from deployments.store.records import STATES, JobState, PictureRecord
from router.errors import RequestError

Sign = Callable[[str], Signed]
"""The address of a picture, by its id."""

MOST = 100  # jobs on a page
LAST = "end"
"""The id of the event with which a stream is over: a client that comes back with it has seen everything."""


def job_report(view: JobView, sign: Sign, whole: bool = True) -> dict[str, Any]:
    """A job without the bytes of pictures, which are at their addresses. Times are Unix seconds.

    whole: with the result; a list is without it
    """
    wire = view.body.get("wire", {})
    told: dict[str, Any] = {
        "id": view.id,
        "object": "job",
        "state": view.state,
        "n": view.n,
        "prompt": wire.get("prompt"),
        "model": wire.get("model", "auto"),
        "user": wire.get("user"),
        "priority": view.priority,
        "position": view.position,
        "eta_s": _rounded(view.eta_s),
        "progress": round(view.progress, 4),
        "created_at": _rounded(view.created_at),
        "started_at": _rounded(view.started_at),
        "finished_at": _rounded(view.finished_at),
        "deadline_at": _rounded(view.deadline_at),
        "attempts": view.attempts,
        "recipe": view.recipe,
        "warnings": list(dict.fromkeys([*view.body.get("warnings", ()), *view.warnings])),
        "error": None if view.error is None else dict(view.error),
        "webhook": _webhook(view.webhook),
    }
    told["pictures"] = [picture_report(one, sign) for one in view.pictures]
    told["request"] = dict(wire)
    if whole:
        told["result"] = None if view.result is None else _result(view, sign)
    return told


def picture_report(picture: PictureRecord, sign: Sign) -> dict[str, Any]:
    """A picture of a job, by its address."""
    signed = sign(picture.id)
    return {
        "id": picture.id,
        "index": picture.index,
        "seed": picture.seed,
        "media_type": picture.media_type,
        "width": picture.width,
        "height": picture.height,
        "bytes": picture.bytes_n,
        "url": signed.url,
        "expires_at": signed.expires_at,
    }


def event_report(event: JobEvent, view: JobView, sign: Sign) -> dict[str, Any]:
    """What an event of a job says: a preview has its bytes, a picture its address."""
    told: dict[str, Any] = {"type": f"job.{event.kind}", "job": view.id}
    if event.kind == "preview" and event.file is not None:
        return {**told, **event.data, "media_type": event.file.media_type, "b64_json": b64(event.file.data)}
    if event.kind == "picture" and event.file is not None:
        file = event.file
        record = PictureRecord(
            file.id, view.id, file.index, file.seed, file.media_type, len(file.data), file.width, file.height
        )
        made = (event.data.get("x_triptych") or {}).get("pictures") or [None]
        return {**told, **picture_report(record, sign), "report": made[0]}
    if event.kind in ("failed", "cancelled"):
        return {**told, "error": dict(event.data)}
    return told if event.kind == "done" else {**told, **event.data}


def event_id(event: JobEvent) -> str:
    """What `Last-Event-ID` gives back. Another orchestrator counts anew, so its number is not enough."""
    return LAST if event.kind in ("done", "failed", "cancelled") else f"{event.life}-{event.number}"


def place_of(last_event_id: str | None) -> tuple[int, int]:
    """(life, number) of the last event that a client has seen; (0, 0) if it has seen none. Raises `RequestError`."""
    if not last_event_id:
        return 0, 0
    life, _, number = last_event_id.partition("-")
    if not (_is_number(life) and _is_number(number)):
        raise RequestError(
            f"Last-Event-ID: {last_event_id[:40]!r} is not the id of an event of this stream; leave it out",
            "Last-Event-ID",
            "invalid_value",
        )
    return int(life), int(number)


def page_of(limit: str | None, states: list[str]) -> tuple[int, tuple[JobState, ...]]:
    """What a list of jobs was asked for. Raises `RequestError`."""
    if limit is not None and not (_is_number(limit) and 1 <= int(limit) <= MOST):
        raise RequestError(
            f"limit: it is a whole number from 1 to {MOST}, not {limit[:20]!r}", "limit", "invalid_value"
        )
    wanted = [state for given in states for state in given.split(",") if state]
    for state in wanted:
        if state not in STATES:
            raise RequestError(f"state: {state[:20]!r} is none of {', '.join(STATES)}", "state", "invalid_value")
    return 20 if limit is None else int(limit), tuple(cast(JobState, state) for state in dict.fromkeys(wanted))


def with_urls(result: Mapping[str, Any], pictures: list[str], sign: Sign) -> dict[str, Any]:
    """An answer of the Images API whose pictures are at their addresses."""
    data = [{"url": sign(id).url, **item} for id, item in zip(pictures, result["data"], strict=True)]
    return {**result, "data": data}


def _result(view: JobView, sign: Sign) -> dict[str, Any]:
    result = dict(view.result or {})
    ids = [picture.id for picture in view.pictures]
    return with_urls(result, ids, sign) if len(ids) == len(result.get("data", ())) else result


def _webhook(webhook: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if webhook is None:
        return None
    return {"url": webhook["url"], "state": webhook.get("state", "waiting"), "tries": webhook.get("tries", 0)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16
