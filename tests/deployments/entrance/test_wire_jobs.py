"""The wire of jobs and of bodies by itself: what is told of a job, an event and a picture, and what may be asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from starlette.datastructures import Headers

from deployments.api.urls import Signed
from deployments.api.wire.bodies import read_body, read_json
from deployments.api.wire.jobs import event_id, event_report, job_report, page_of, picture_report, place_of, with_urls
from deployments.jobs.values import File, JobEvent, JobView
from deployments.store.records import PictureRecord
from router.errors import RequestError

PICTURE = PictureRecord("job_1-0", "job_1", 0, 7, "image/png", 123, 64, 32)
VIEW = JobView(
    "job_1", "running", "acme", 2, "standard", 1.23456, 2.0, None, 9.87654, 3, 4.00049, 0.123456, 1, (PICTURE,),
    ("b", "a"), body={"wire": {"prompt": "a ring", "user": "ann", "n": 2}, "warnings": ["a"]}, recipe="draft",
)  # fmt: skip


def sign(id: str) -> Signed:
    return Signed(f"http://h/{id}", 99)


def test_a_job_is_told_with_its_pictures_at_their_addresses() -> None:
    """Times with a thousandth of a second; warnings once each, those of the body first; no bytes and no result yet."""
    told = job_report(VIEW, sign)
    assert {key: told[key] for key in ("id", "object", "state", "n", "prompt", "model", "user", "priority")} == {
        "id": "job_1", "object": "job", "state": "running", "n": 2, "prompt": "a ring", "model": "auto", "user": "ann",
        "priority": "standard",
    }  # fmt: skip
    assert [told[key] for key in ("position", "eta_s", "progress", "attempts", "recipe")] == [
        3,
        4.0,
        0.1235,
        1,
        "draft",
    ]
    times = [told[f"{key}_at"] for key in ("created", "started", "finished", "deadline")]
    assert times == [1.235, 2.0, None, 9.877]
    assert (told["warnings"], told["error"], told["result"], told["webhook"]) == (["a", "b"], None, None, None)
    assert told["pictures"] == [
        {"id": "job_1-0", "index": 0, "seed": 7, "media_type": "image/png", "width": 64, "height": 32, "bytes": 123,
         "url": "http://h/job_1-0", "expires_at": 99}
    ]  # fmt: skip
    assert told["request"] == {"prompt": "a ring", "user": "ann", "n": 2}
    assert "result" not in job_report(VIEW, sign, whole=False)


def test_the_result_of_a_job_has_addresses_where_all_pictures_are_there() -> None:
    """One for each, else it is told as it is; a failure has its words, a webhook how often it was tried."""
    done = replace(VIEW, state="done", result={"data": [{"seed": 7}], "x": 1})
    assert job_report(done, sign)["result"] == {"data": [{"url": "http://h/job_1-0", "seed": 7}], "x": 1}
    two = replace(done, result={"data": [{"seed": 7}, {"seed": 8}]})
    assert job_report(two, sign)["result"] == {"data": [{"seed": 7}, {"seed": 8}]}
    failed = replace(VIEW, error={"message": "no"}, webhook={"url": "u", "secret": "s"})
    told = job_report(failed, sign)
    assert (told["error"], told["webhook"]) == ({"message": "no"}, {"url": "u", "state": "waiting", "tries": 0})
    assert with_urls({"data": [{"seed": 1}]}, ["a"], sign) == {"data": [{"url": "http://h/a", "seed": 1}]}


FILE = File("job_1-1", 1, 8, "image/webp", 64, 32, b"abc")


@pytest.mark.parametrize(
    ("event", "told", "id"),
    [
        (JobEvent(1, "routed", {"recipe": "draft"}, None, 7), {"type": "job.routed", "recipe": "draft"}, "7-1"),
        (JobEvent(2, "preview", {"index": 1, "number": 0}, FILE, 7),
         {"type": "job.preview", "index": 1, "number": 0, "media_type": "image/webp", "b64_json": "YWJj"}, "7-2"),
        (JobEvent(2, "preview", {"index": 1}, None, 7), {"type": "job.preview", "index": 1}, "7-2"),
        (JobEvent(3, "failed", {"message": "no"}, None, 7), {"type": "job.failed", "error": {"message": "no"}}, "end"),
        (JobEvent(3, "cancelled", {"code": "c"}, None, 7), {"type": "job.cancelled", "error": {"code": "c"}}, "end"),
        (JobEvent(4, "done", {"data": []}, None, 0), {"type": "job.done"}, "end"),
    ],
)  # fmt: skip
def test_an_event_says_what_it_has_to(event: JobEvent, told: dict[str, Any], id: str) -> None:
    """A preview its bytes, an end its error or nothing; its id is of the life that counted it."""
    assert event_report(event, VIEW, sign) == {"job": "job_1", **told}
    assert event_id(event) == id


def test_a_picture_s_event_has_its_address_and_its_report() -> None:
    """If there is one."""
    for data, report in (({"x_triptych": {"pictures": [{"a": 1}]}}, {"a": 1}), ({"x_triptych": {}}, None), ({}, None)):
        told = event_report(JobEvent(5, "picture", data, FILE, 7), VIEW, sign)
        record = PictureRecord("job_1-1", "job_1", 1, 8, "image/webp", 3, 64, 32)
        assert told == {"type": "job.picture", "job": "job_1", **picture_report(record, sign), "report": report}


def test_a_stream_goes_on_from_the_last_event_that_was_seen() -> None:
    """By life and number; of nothing from the beginning; what is no id of an event is refused."""
    assert [place_of(one) for one in (None, "", "7-12", "0-0", "9" * 15 + "-1")] == [
        (0, 0), (0, 0), (7, 12), (0, 0), (10**15 - 1, 1),
    ]  # fmt: skip
    for wrong in ("7", "7-", "-1", "a-1", "7-1-2", "٧-1", "9" * 16 + "-1", "end"):
        with pytest.raises(RequestError) as refused:
            place_of(wrong)
        assert refused.value.param == "Last-Event-ID"


def test_a_page_has_from_one_to_a_hundred_jobs() -> None:
    """Twenty if nobody says; states once each, by commas or one by one."""
    assert page_of(None, []) == (20, ()) and page_of("1", []) == (1, ()) and page_of("100", [""]) == (100, ())
    assert page_of("5", ["done,failed", "done", "queued"]) == (5, ("done", "failed", "queued"))
    for limit in ("0", "101", "-1", "1.5", "x", "", "٣"):
        with pytest.raises(RequestError, match="a whole number from 1 to 100"):
            page_of(limit, [])
    with pytest.raises(RequestError, match="state: 'over' is none of"):
        page_of(None, ["done,over"])


class Asked:
    """A request with a body that comes in parts."""

    def __init__(self, *parts: bytes, hold_s: float = 0.0, **headers: str) -> None:
        self.headers = Headers({name.replace("_", "-"): value for name, value in headers.items()})
        self.parts, self.hold_s = parts, hold_s

    async def stream(self) -> Any:
        for part in self.parts:
            await asyncio.sleep(self.hold_s)
            yield part


async def read(read: Any, asked: Any, most: int = 5, within_s: float = 5.0) -> Any:
    """The body, or the code of the refusal."""
    try:
        return await read(asked, most, within_s)
    except RequestError as error:
        return error.code


async def test_a_body_is_read_up_to_its_bound() -> None:
    """Whole, in however many parts, in time, not compressed."""
    assert await read(read_body, Asked(b"12", b"345")) == b"12345"
    assert await read(read_body, Asked(b"123", b"456")) == "request_too_large"
    assert await read(read_body, Asked(b"1", hold_s=1.0), within_s=0.01) == "request_timeout"
    assert await read(read_body, Asked(b"\x1f\x8b1")) == "unsupported_media_type"
    assert await read(read_body, Asked(b"1", content_encoding="gzip")) == "unsupported_media_type"
    for plain in ("", "identity", " Identity "):
        assert await read(read_body, Asked(b"1", content_encoding=plain)) == b"1"


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        (None, True), ("application/json", True), ("Text/JSON ; charset=UTF-8", True), ("application/ld+json", True),
        ("application/json; charset=\"utf-16\"", True), ("application/json; x=1; charset=latin-1", False),
        ("text/plain", False), ("application/jsonp", False), ("multipart/form-data", False), (" ; charset=utf8", True),
        ("application/json; charset=ascii", True),
    ],
)  # fmt: skip
async def test_only_json_is_read_as_json(kind: str | None, taken: bool) -> None:
    """Or what says nothing of its kind, in an encoding that JSON may have."""
    headers = {} if kind is None else {"content_type": kind}
    assert await read(read_json, Asked(b"{}", **headers)) == (b"{}" if taken else "unsupported_media_type")
