"""A job while it is open, by itself: how far it is, where it stands, its events, and a store that does not answer."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.jobs import access as access_module
from deployments.jobs.access import StoreAccess
from deployments.jobs.codec import digest_of, packed, unpacked
from deployments.jobs.life.pictures import Listener
from deployments.jobs.live import PREVIEWS_PER_STEP, LiveJob, Previews
from deployments.jobs.values import File, JobEvent
from deployments.jobs.views import live_view, view_of, warnings_in
from deployments.orchestration.results import Advanced, Finished, Routed, StepBegun, StepEnded
from deployments.store.errors import FencedError, StoreError
from deployments.store.records import JobRecord, PictureRecord
from router.types import Decision, GenerationRequest, Picture, Progress, Turn

SHARES = st.floats(0, 1.5)


def job(n: int = 2, arrived_at: float = 100.0, stored: tuple[int, ...] = (), **more: Any) -> LiveJob:
    """A job that is open, of so many pictures, some of which an earlier process made."""
    record = JobRecord(
        id=more.pop("id", "job_1"), tenant="acme", key_id=None, priority="standard", request={}, body={},
        arrived_at=arrived_at, deadline_at=200.0, idempotency_key=None, body_digest="", fence=7, n=n, **more,
    )  # fmt: skip
    return LiveJob(record, {k: PictureRecord(f"job_1-{k}", "job_1", k, k, "image/png", 1, 8, 8) for k in stored})


def admitted(latency_s: float, queue_s: float) -> Any:
    """What a job knows of its admission."""
    estimate = SimpleNamespace(latency_s=latency_s, queue_s=queue_s)
    route = SimpleNamespace(estimates={"draft": estimate}, decision=SimpleNamespace(recipe="draft"))
    return SimpleNamespace(route=route, charge=None)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 4),
    shares=st.dictionaries(st.tuples(st.integers(0, 3), st.sampled_from(["draw", "refine", "other"])), SHARES),
)
def test_progress_is_the_share_of_the_work_that_is_done(n: int, shares: dict[tuple[int, str], float]) -> None:
    """Each step counts by its share of a picture's seconds and never more than whole, a step that is not of the plan
    nothing, a picture of an earlier process all of its own; 1 is never passed, and reached for certain when it is done.
    """
    one = job(n, stored=(0,))
    weights = {"draw": 0.75, "refine": 0.25}
    one.admit(admitted(1.0, 0.0), weights)
    assert (one.progress, one.state, one.started_at) == (1 / n, "queued", None)
    for (index, step), share in shares.items():
        one.advance(index, step, share)
        assert one.state == "running" and one.started_at is not None
    done = sum(min(1.0, share) * weights.get(step, 0.0) for (_, step), share in shares.items())
    assert one.progress == pytest.approx(min(1.0, (done + 1) / n))
    began = one.started_at
    one.advance(0, "draw", 0.5)
    assert one.started_at == began if shares else one.started_at is not None
    one.end("done", {})
    assert one.progress == 1.0


def test_what_is_missing_is_what_no_earlier_process_made() -> None:
    """If nothing is, the first picture is made again, for what only making it tells."""
    assert job(3, stored=(1,)).missing == {0, 2}
    assert job(3, stored=(0, 1, 2)).missing == {0}
    assert job(1).missing == {0}


@settings(max_examples=60, deadline=None)
@given(wanted=st.integers(0, 3), steps=st.integers(0, 12), pictures=st.integers(1, 2))
def test_as_many_previews_as_are_wanted_are_spread_over_a_picture(wanted: int, steps: int, pictures: int) -> None:
    """Of the previews that are expected of a picture, those go on that come right after each equal part of it,
    numbered from 0, each picture by itself; of more than were expected, none."""
    previews, expected = Previews(wanted, steps), max(1, PREVIEWS_PER_STEP * steps)
    sent: dict[int, list[tuple[int, int]]] = {picture: [] for picture in range(pictures)}
    for seen in range(1, 2 * expected + 1):
        for picture in range(pictures):
            if (number := previews.take(picture)) is not None:
                sent[picture].append((seen, number))
    if expected >= wanted:
        due = [(math.ceil((k + 1) * expected / wanted), k) for k in range(wanted)]
        assert all(found == due for found in sent.values())
    assert all([number for _, number in found] == list(range(len(found))) for found in sent.values())
    assert all(len(found) <= wanted for found in sent.values())


async def test_followers_get_every_event_once_and_are_counted_while_they_follow() -> None:
    """From wherever one begins, the rest in order, also what comes later, up to the end; only the first end counts."""
    one = job()
    one.tell("routed", {"recipe": "draft"})

    async def follow(after: int) -> list[tuple[int, str]]:
        return [(event.number, event.kind) async for event in one.events(after)]

    tasks = [asyncio.create_task(follow(after)) for after in (0, 1, 2)]
    await asyncio.sleep(0)
    assert one.followers == 3
    one.tell("step", {})
    await asyncio.sleep(0)
    one.end("failed", error={"message": "no"})
    one.end("done", {"data": []})
    assert [await task for task in tasks] == [
        [(1, "routed"), (2, "step"), (3, "failed")],
        [(2, "step"), (3, "failed")],
        [(3, "failed")],
    ]
    assert (one.followers, one.state, one.error, one.result) == (0, "failed", {"message": "no"}, None)
    assert one.finished_at == pytest.approx(time.time(), abs=60)
    await asyncio.wait_for(one.over(), 5)
    assert await follow(2) == [(3, "failed")]


def test_an_event_is_the_life_s_that_counted_it() -> None:
    """Its number begins at 1, and it carries the token of its orchestrator and its file."""
    one, file = job(), File("job_1-0", 0, 0, "image/png", 8, 8, b"x")
    one.tell("picture", {"a": 1}, file)
    assert one._events == [JobEvent(1, "picture", {"a": 1}, file, 7)]


@pytest.mark.parametrize(
    ("passed_s", "progress", "eta_s"),
    [(0.0, 0.0, 10.0), (4.0, 0.0, 6.0), (8.0, 0.0, 6.0), (50.0, 0.0, 6.0), (50.0, 0.5, 3.0), (2.0, 0.5, 8.0)],
)
def test_what_is_left_is_what_was_expected_and_never_less_than_its_own_work(
    passed_s: float, progress: float, eta_s: float
) -> None:
    """Ten seconds, four of them waiting: what has passed goes off, down to the share of its six that is still to do."""
    one = job(1, arrived_at=time.time() - passed_s)
    one.admit(admitted(10.0, 4.0), {"draw": 1.0})
    if progress:
        one.advance(0, "draw", progress)
    assert live_view(one, []).eta_s == pytest.approx(eta_s, abs=0.5)


def test_its_place_is_behind_those_that_arrived_before_and_have_not_begun() -> None:
    """Counted among what waits; neither place nor time is told of a job that has ended, or is not admitted yet."""
    waiting = [job(arrived_at=at, id=f"job_{at:g}") for at in (99.0, 100.0, 101.0, 50.0)]
    one = job()
    view = live_view(one, waiting)
    assert (view.position, view.eta_s, view.recipe) == (2, None, None)
    one.admit(admitted(10.0, 4.0), {})
    assert live_view(one, []).position == 0 and live_view(one, []).recipe == "draft"
    one.end("failed", error={"message": "no"})
    ended = live_view(one, waiting)
    assert (ended.position, ended.eta_s, ended.progress, ended.error) == (None, None, 0.0, {"message": "no"})


def test_a_view_has_the_pictures_in_their_order_and_the_times_of_its_record() -> None:
    """Those of an earlier process and those that are new together; what began before keeps its beginning."""
    one = job(3, stored=(2,), started_at=150.0, created_at=90.0)
    one.files[0] = File("job_1-0", 0, 5, "image/png", 8, 16, b"12345")
    view = live_view(one, [])
    assert [picture.index for picture in view.pictures] == [0, 2]
    assert (view.pictures[0].bytes_n, view.pictures[0].width, view.pictures[0].height) == (5, 8, 16)
    assert (view.started_at, view.created_at, view.state) == (150.0, 90.0, "queued")
    one.advance(0, "draw", 0.1)
    assert live_view(one, []).started_at == one.started_at != 150.0
    done = replace(one.record, state="done", created_at=0.0, result={"x_triptych": {"warnings": ["w"]}})
    assert (view_of(done).progress, view_of(done).created_at, view_of(done).warnings) == (1.0, 100.0, ("w",))
    assert view_of(one.record).progress == 0.0
    assert [warnings_in(one) for one in (None, {}, {"x_triptych": None})] == [(), (), ()]


async def test_what_an_orchestrator_tells_is_the_job_s_progress_and_events() -> None:
    """A job begins with its first step, once; a step that is under way counts by what is done of it, one that ended
    whole; a preview is passed on when its time has come and is no event of a step; a picture is made into a file once.
    """
    one, begun, made = job(2), list[str](), list[Any]()
    decision = Decision("draft", "main", "0123", (), (), ())
    plan = SimpleNamespace(steps=[SimpleNamespace(kind=kind) for kind in ("generate", "refine", "upscale")])
    one.admit(admitted(1.0, 0.0), {"draw": 0.75, "refine": 0.25})

    async def preview(*args: Any) -> None:
        made.append(("preview", *args[1:3]))

    async def add(of: LiveJob, outcome: Any) -> None:
        made.append(("picture", outcome.made[0].index))

    said = {"recipe": "draft", "policy": "main"}
    pictures: Any = SimpleNamespace(wanted_previews=lambda of: 1, preview=preview, add=add, said=lambda event, of: said)
    route: Any = SimpleNamespace(decision=decision, plan=plan)
    routes: list[Any] = []
    of: Any = SimpleNamespace(route=route)
    listen = Listener(one, of, pictures, lambda of: begun.append(of.record.id), lambda of, to: routes.append((of, to)))
    listen(Routed(route))
    assert routes == [(one, route)]
    assert one.decision == {"policy": "main", "policy_digest": "0123", "recipe": "draft"}
    for index in (0, 1):
        listen(StepBegun(index, "draw"))
    assert (begun, one.state, one.progress) == (["job_1"], "running", 0.0)
    listen(Advanced(0, Progress("draw", 1, 4)))
    assert one.progress == pytest.approx(0.75 / 4 / 2)
    for _ in range(7):  # six are expected of two denoising steps
        listen(Advanced(0, Progress("draw", 2, 4, Picture(np.zeros((8, 8, 3), np.uint8)))))
    assert one.progress == pytest.approx(0.75 / 2 / 2)
    listen(StepEnded(0, "draw"))
    listen(Advanced(1, Progress("draw", 0, 0)))
    assert one.progress == pytest.approx(0.75 / 2)
    finished: Any = Finished(SimpleNamespace(made=(SimpleNamespace(index=0),)))  # type: ignore[arg-type]
    listen(finished)
    listen(finished)
    await asyncio.gather(*listen.rendering)
    assert made == [("preview", 0, 0), ("picture", 0)]
    assert [(event.kind, dict(event.data)) for event in one._events] == [
        ("routed", {"recipe": "draft", "policy": "main"}),
        ("step", {"index": 0, "step": "draw", "done": 0, "total": 1}),
        ("step", {"index": 1, "step": "draw", "done": 0, "total": 1}),
        ("step", {"index": 0, "step": "draw", "done": 1, "total": 4}),
        ("step", {"index": 0, "step": "draw", "done": 1, "total": 1}),
        ("step", {"index": 1, "step": "draw", "done": 0, "total": 0}),
    ]


async def test_what_the_store_does_not_take_is_written_again_ever_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """After half a second, then twice as long each time, up to thirty; once it is another's to write, not at all."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(access_module.asyncio, "sleep", sleep)
    answers: list[Exception | None] = [StoreError("away")] * 8 + [None]
    tried = 0

    async def write() -> None:
        nonlocal tried
        tried += 1
        if (answer := answers.pop(0)) is not None:
            raise answer

    access = StoreAccess()
    await access.insist(write)
    assert (tried, waited) == (9, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0])
    answers, tried = [FencedError("another"), None], 0
    await access.insist(write)
    assert (tried, len(waited)) == (1, 8)
    access.close()


REQUESTS = st.builds(
    GenerationRequest,
    prompt=st.text(max_size=20),
    width=st.none() | st.integers(16, 64),
    tags=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    turns=st.lists(st.builds(Turn, recipe=st.text(max_size=5)), max_size=2).map(tuple),
    arrived_s=st.none() | st.floats(0, 1e9),
)


@settings(max_examples=40, deadline=None)
@given(request=REQUESTS)
def test_a_request_is_itself_again_after_the_store(request: GenerationRequest) -> None:
    """Every field, in builtins; what another version wrote beside them is left out, what it did not write is as by
    default; the digest of a body does not depend on the order of its fields."""
    data = packed(request)
    assert unpacked({**data, "of_the_future": 1}) == request
    assert unpacked(data).arrived_s == request.arrived_s
    assert unpacked({"prompt": "x"}) == GenerationRequest("x")
    body = {"prompt": request.prompt, "n": 1}
    assert digest_of(body) == digest_of(dict(reversed(body.items()))) != digest_of({**body, "n": 2})
