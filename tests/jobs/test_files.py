"""The files of a job: made once, in order, previews never behind their picture; and a job as a row and a view."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.jobs.life.pictures import Pictures
from deployments.jobs.values import Caller, File, Submission
from deployments.jobs.views import described, live_view, of_picture, pinned, record_of, view_of, warnings_in
from deployments.store.errors import FencedError
from deployments.store.records import PictureRecord
from router.types import Decision, GenerationRequest, Picture
from tests.jobs.test_live import admitted, job

PIXELS = Picture(np.zeros((3, 5, 3), np.uint8))


class Access:
    """Calls at once; what must be written is written until it is taken."""

    async def do(self, call: Callable[..., Any], *args: Any) -> Any:
        return call(*args)

    async def insist(self, write: Callable[[], Any]) -> None:
        while True:
            try:
                return await write()
            except FencedError:
                return None


class Renderer:
    """Files that say what they are of."""

    def file(self, made: Any, route: Any, body: Any) -> tuple[bytes, str]:
        return f"file {made.index} of {body['n']}".encode(), "image/webp"

    def preview(self, picture: Any, route: Any, body: Any) -> tuple[bytes, str, int, int]:
        return b"preview", "image/png", 64, 32

    def facts(self, made: Any) -> dict[str, Any]:
        return {"seed": made.seed}

    def result(self, outcome: Any, body: Any, id: str, earlier: Any) -> dict[str, Any]:
        return {"id": id, "earlier": dict(earlier)}

    def previews(self, body: Any) -> int:
        return 2


class Kept:
    """A store of pictures."""

    def __init__(self) -> None:
        self.pictures = list[Any]()

    def put_picture(self, record: PictureRecord, data: bytes, fence: int) -> None:
        self.pictures.append((record, data, fence))

    def read(self, record: PictureRecord) -> bytes:
        return b"kept " + str(record.index).encode()


def pictures() -> tuple[Pictures, Kept]:
    kept = Kept()
    given: Any = (kept, Access(), Renderer(), lambda: 9)
    return Pictures(*given), kept


def outcome(index: int) -> Any:
    return SimpleNamespace(made=(SimpleNamespace(index=index, seed=7 + index, picture=PIXELS),), route=None)


async def test_a_picture_is_told_with_its_file_and_kept_under_the_token() -> None:
    """Its size is that of its pixels, its facts go with it; nothing of earlier processes is in its event."""
    one = job(2)
    one.record.body["n"] = 2
    files, kept = pictures()
    await files.add(one, outcome(1))
    await asyncio.gather(*one.work)
    file = File("job_1-1", 1, 8, "image/webp", 5, 3, b"file 1 of 2")
    assert one.files == {1: file} and one.facts[1] == {"seed": 8}
    (event,) = one._events
    assert (event.kind, event.file, dict(event.data)) == ("picture", file, {"id": "job_1", "earlier": {}})
    ((record, data, fence),) = kept.pictures
    assert (data, fence, record.made_at) == (file.data, 9, pytest.approx(time.time(), abs=60))
    assert (record.id, record.job, record.index, record.seed, record.bytes_n) == ("job_1-1", "job_1", 1, 8, 11)
    assert (record.width, record.height, record.media_type, record.facts) == (5, 3, "image/webp", {"seed": 8})


async def test_a_preview_is_never_told_behind_its_picture() -> None:
    """It has the seed that its picture will have; of a job that is not admitted there is none."""
    one = job(3)
    one.record.body["n"] = 3
    files, _ = pictures()
    await files.preview(one, 0, 0, PIXELS)
    assert one._events == []
    known = admitted(1.0, 0.0)
    known.route.request = GenerationRequest("x", seed=40)
    one.admit(known, {})
    await files.preview(one, 2, 1, PIXELS)
    await files.add(one, outcome(2))
    await files.preview(one, 2, 2, PIXELS)
    first, second = one._events
    assert (first.kind, dict(first.data)) == ("preview", {"index": 2, "number": 1})
    assert first.file == File("job_1-2", 2, 42, "image/png", 64, 32, b"preview") and second.kind == "picture"
    assert files.wanted_previews(one) == 2
    await asyncio.gather(*one.work)


async def test_the_files_of_a_job_are_in_the_order_of_its_pictures() -> None:
    """From memory, else from the store; what is missing is left out."""
    one = job(4, stored=(0, 3))
    one.record.body["n"] = 4
    files, _ = pictures()
    await files.add(one, outcome(1))
    found = await files.of_job(one)
    assert [(file.index, file.data) for file in found] == [(0, b"kept 0"), (1, b"file 1 of 4"), (3, b"kept 3")]
    assert found[0] == File("job_1-0", 0, 0, "image/png", 8, 8, b"kept 0")
    await asyncio.gather(*one.work)


def test_a_row_of_a_job_has_what_the_next_process_needs() -> None:
    """Its deadline counts from its arrival; a webhook goes with the address of the server that was asked."""
    decision = Decision("draft", "main", "0123", (), (), ())
    request = GenerationRequest("x", n=3, arrived_s=100.0, priority="batch")
    submission = Submission("job_1", request, {"a": 1}, Caller("acme", "key_1"), "k", "https://h", "http://base")
    known: Any = SimpleNamespace(route=SimpleNamespace(decision=decision), within_s=25.0)
    row = record_of(submission, known, 4)
    assert (row.arrived_at, row.deadline_at, row.n, row.priority, row.fence) == (100.0, 125.0, 3, "batch", 4)
    assert (row.tenant, row.key_id, row.idempotency_key, row.body) == ("acme", "key_1", "k", {"a": 1})
    assert row.webhook == {"url": "https://h", "base": "http://base"}
    assert row.decision == pinned(decision) == {"policy": "main", "policy_digest": "0123", "recipe": "draft"}
    now = record_of(Submission("j", GenerationRequest("x"), {}), known, 0)
    assert now.arrived_at == pytest.approx(time.time(), abs=60) and now.webhook is None and now.created_at is not None


def test_a_view_has_what_is_here_and_what_is_kept() -> None:
    """Pictures by their index, wherever they are; what others wait for is counted by when they came."""
    one = job(3, arrived_at=50.0, stored=(2,))
    one.files[0] = File("job_1-0", 0, 7, "image/png", 4, 2, b"abc")
    one.facts[0] = {"seed": 7}
    waiting = [job(1, arrived_at=at, id=f"j{at}") for at in (10.0, 49.9, 50.0, 60.0)]
    view = live_view(one, waiting)
    assert [(picture.index, picture.bytes_n) for picture in view.pictures] == [(0, 3), (2, 1)]
    assert view.position == 2 and view.eta_s is None
    assert described(one, one.files[0]) == PictureRecord(
        "job_1-0", "job_1", 0, 7, "image/png", 3, 4, 2, "", 50.0, {"seed": 7}
    )
    one.end("done", {"x_triptych": {"warnings": ["w"]}})
    over = live_view(one, waiting)
    assert (over.position, over.eta_s, over.progress, over.warnings) == (None, None, 1.0, ("w",))
    assert view_of(one.record).progress == 0.0 and view_of(one.record).created_at == 50.0
    assert warnings_in(None) == () == warnings_in({"x_triptych": None})
    alone = of_picture({"a": 1, "x_triptych": {"b": 2, "pictures": [1, 2]}}, {"c": 3})
    assert alone == {"a": 1, "x_triptych": {"b": 2, "pictures": [{"c": 3}]}}
