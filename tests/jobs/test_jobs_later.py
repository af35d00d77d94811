"""What is known of jobs when nobody runs them here any more, and what operators and keys have to do with them."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from deployments.jobs.keys import made_key
from deployments.jobs.life import upkeep
from deployments.jobs.life.upkeep import _every
from deployments.jobs.limits import KEY, RateLimitError
from deployments.jobs.values import Caller, JobEvent
from deployments.store import Store
from deployments.store.errors import StoreError
from router.errors import BudgetError, NotFoundError, RequestError, StepError, TriptychError
from tests.deployments.support.scripted import Script
from tests.jobs.test_jobs import POLICY, Make, asked, make, store, until
from tests.store.values import job, used

__all__ = ["make", "store"]  # fixtures


async def ended(jobs: Any, store: Store, id: str) -> None:
    """Wait until the store has its end, and forget what is in memory."""
    await until(lambda: store.job(id).state in ("done", "failed", "cancelled"))  # type: ignore[union-attr]
    jobs._live.pop(id)


async def test_an_answer_is_the_same_from_the_store(make: Make, store: Store) -> None:
    """Files in the order of the pictures, the result, and the events of pictures and the end, from any number on."""
    jobs = make(Script({}))
    await jobs.submit(asked(n=3))
    here = await jobs.answer("job_1")
    await ended(jobs, store, "job_1")
    again = await jobs.answer("job_1")
    assert (again.result, [file.data for file in again.files]) == (here.result, [file.data for file in here.files])
    assert [(file.index, file.seed) for file in again.files] == [(0, 7), (1, 8), (2, 9)]
    events = [event async for event in jobs.events("job_1")]
    assert [(event.number, event.kind, event.life) for event in events] == [
        (1, "picture", 0), (2, "picture", 0), (3, "picture", 0), (4, "done", 0),
    ]  # fmt: skip
    assert [event.file.index for event in events[:3] if event.file] == [0, 1, 2]
    assert [len(event.data["x_triptych"]["pictures"]) for event in events[:3]] == [1, 1, 1]
    assert events[3].data == here.result
    for after, numbers in ((1, [2, 3, 4]), (3, [4]), (4, [5]), (9, [10])):
        assert [event.number async for event in jobs.events("job_1", after)] == numbers
    view = await jobs.status("job_1", "")
    assert (view.state, view.progress, view.recipe, len(view.pictures)) == ("done", 1.0, "draft", 3)
    await jobs.stop()


async def test_an_end_without_pictures_is_the_same_from_the_store(make: Make, store: Store) -> None:
    """What was cancelled and what failed: of the same kind, with the same words, also at the end of events."""
    broken = Script({}, delay_s=60)
    jobs = make(broken)
    await jobs.submit(asked(1))
    await jobs.cancel("job_1")

    async def fail(*_: Any) -> None:
        raise StepError("out of paint", "prompt")

    broken.run = fail  # type: ignore[method-assign, assignment]
    await jobs.submit(asked(2))
    found = []
    for forget in (False, True):
        for id in ("job_1", "job_2"):
            if forget:
                await ended(jobs, store, id)
            with pytest.raises(TriptychError) as error:
                await jobs.answer(id)
            last = [event async for event in jobs.events(id)][-1]
            found.append((type(error.value), error.value.message, error.value.code, last.kind, last.data["code"]))
    assert found[:2] == found[2:]
    assert found[0][1:4] == ("job 'job_1' was cancelled", "cancelled", "cancelled")
    assert found[1][1].endswith("failed: out of paint") and found[1][2:4] == ("step_failed", "failed")
    with pytest.raises(NotFoundError):
        await jobs.answer("job_3")
    await jobs.stop()


async def test_a_picture_is_found_by_its_id_here_and_in_the_store(make: Make, store: Store) -> None:
    """Of a job that is open or was a moment ago from memory; what is no number is none."""
    jobs = make(Script({}))
    await jobs.complete(asked(n=2))
    here = [await jobs.picture(f"job_1-{k}") for k in (0, 1)]
    for wrong in ("job_1-2", "job_1-x", "job_1", "job_2-0"):
        with pytest.raises(NotFoundError, match="there is no picture"):
            await jobs.picture(wrong)
    await ended(jobs, store, "job_1")
    assert [await jobs.picture(f"job_1-{k}") for k in (0, 1)] == here
    await jobs.stop()


async def test_a_list_has_what_is_here_as_it_is_now(make: Make, store: Store) -> None:
    """The latest first; open ones with their progress and place, ended ones as they are kept, with their pictures."""
    script = Script({})
    jobs = make(script)
    await jobs.complete(asked(1, "acme"))
    await ended(jobs, store, "job_1")
    script.delay_s = 60
    for number in (2, 3, 4, 5):  # a worker has two steps at most
        await jobs.submit(asked(number, "acme"))
    await until(lambda: jobs._live["job_3"].state == "running")
    views, after = await jobs.list("acme")
    assert [(view.id, view.state, view.position, len(view.pictures)) for view in views] == [
        ("job_5", "queued", 1, 0), ("job_4", "queued", 0, 0), ("job_3", "running", 0, 0), ("job_2", "running", 0, 0),
        ("job_1", "done", None, 1),
    ]  # fmt: skip
    assert after is None and views[0].eta_s is not None and views[4].eta_s is None
    page, after = await jobs.list("acme", limit=1)
    assert [view.id for view in page] == ["job_5"] and after is not None
    assert [view.id for view in (await jobs.list("acme", ["done"]))[0]] == ["job_1"]
    await jobs.stop()


async def test_a_key_that_came_with_a_request_is_charged_and_told_what_it_has_left(make: Make, store: Store) -> None:
    """In the view, in the answer and at the beginning of a stream; what is refused counts for nothing, and is counted
    as a refusal; a key that was revoked meanwhile opens nothing."""
    jobs = make(Script({}))
    _, record = made_key("acme", rpm=3)
    await jobs.start()
    await jobs.add_key(record)
    with pytest.raises(RequestError, match="already"):
        await jobs.add_key(record)

    def by_key(number: int) -> Any:
        return replace(asked(number, "acme"), caller=Caller("acme", record.id))

    view = await jobs.submit(by_key(1))
    assert view.rate is not None and (view.rate.limit, view.rate.remaining) == (3, 2)
    done = await jobs.complete(by_key(2))
    assert done.rate is not None and done.rate.remaining == 1
    first = await anext(jobs.stream(by_key(3)))
    assert (first.number, first.kind, first.data["job"]) == (0, "accepted", "job_3")
    assert first.data["rate"]["remaining"] == 0
    with pytest.raises(RateLimitError):
        await jobs.submit(by_key(4))
    assert jobs.refusals.counts() == {"rate_limit_exceeded": 1}
    assert (await anext(jobs.stream(asked(5)))).data["rate"] is None
    assert (await jobs.revoke_key(record.id)).revoked_at is not None
    with pytest.raises(RequestError, match="was revoked") as refused:
        await jobs.submit(by_key(6))
    assert refused.value.code == "invalid_api_key"
    assert [key.id for key in await jobs.all_keys()] == [record.id]
    await jobs.stop()


async def test_what_is_sent_again_is_refused_by_no_limit(make: Make, store: Store) -> None:
    """A submission that comes once more after a broken connection finds its job, also where its key has sent all that
    it may, and the process has forgotten the job."""
    jobs = make(Script({}))
    _, record = made_key("acme", rpm=1)
    store.add_key(record)
    sent = replace(asked(1, "acme"), caller=Caller("acme", record.id))
    await jobs.complete(sent)
    await ended(jobs, store, "job_1")
    assert (await jobs.submit(replace(sent, again=True))).state == "done"
    with pytest.raises(RateLimitError):
        await jobs.submit(replace(asked(2, "acme"), caller=Caller("acme", record.id)))
    await jobs.stop()


async def test_what_a_budget_refuses_leaves_the_minute_as_it_was(make: Make, store: Store) -> None:
    """A request that is not accepted is none of those that a key may send."""
    jobs = make(Script({}))
    _, record = made_key("acme", rpm=2)
    store.add_key(replace(record, budget={"cost_usd": 1e-9, "window_s": 60.0}))
    for number in range(4):
        with pytest.raises((BudgetError, TriptychError)) as refused:
            await jobs.submit(replace(asked(number, "acme"), caller=Caller("acme", record.id)))
        assert not isinstance(refused.value, RateLimitError)
    assert store.jobs()[0] == [] and jobs.orchestrator.queued_s("sd15") == 0
    await jobs.stop()


async def test_what_a_job_used_takes_the_place_of_what_was_reserved(make: Make, store: Store) -> None:
    """In the store, too, from which the next orchestrator counts: the seconds that its steps took."""
    jobs = make(Script({}, took_s=0.5), POLICY + "budgets: [{name: hourly, window_s: 3600, work_s: 100}]\n")
    await jobs.complete(asked(n=2))
    await until(lambda: store.job("job_1").state == "done")  # type: ignore[union-attr]
    (row,) = store.usage_since(0.0)
    assert (row.job, row.policy, row.budget, row.work_s) == ("job_1", "main", "hourly", pytest.approx(1.0))
    await jobs.stop()


async def test_operators_see_what_waits_runs_and_was_served(make: Make, store: Store) -> None:
    """Jobs by state, sums by recipe and tenant, and gauges with the same numbers."""
    script = Script({})
    jobs = make(script)
    began = time.time()
    for number in (1, 2):
        await jobs.complete(asked(number, "acme"))
        await until(lambda number=number: store.job(f"job_{number}").state == "done")  # type: ignore[misc, union-attr]
    script.delay_s = 60
    for number in (3, 4, 5):
        await jobs.submit(asked(number, "acme"))
    await until(lambda: jobs._live["job_4"].state == "running")
    found = await jobs.operations()
    assert {name: found.jobs[name] for name in ("queued", "running", "done")} == {"queued": 1, "running": 2, "done": 2}
    assert [(one.recipe, one.pictures) for one in found.recipes] == [("draft", 2)]
    assert [(one.tenant, one.jobs) for one in found.tenants] == [("acme", 2)]
    assert (found.since, found.now) == (pytest.approx(began, abs=60), pytest.approx(time.time(), abs=60))
    assert found.window_s == 86_400.0
    gauges = {(name, tuple(sorted(tags.items()))): value for name, tags, value in jobs.samples()}
    assert [gauges["triptych_jobs_open", (("state", state),)] for state in ("queued", "running")] == [1, 2]
    await jobs.stop()


async def test_stopping_keeps_what_was_learned_and_when_keys_were_used(make: Make, store: Store) -> None:
    """For the next orchestrator, whose estimates are the same."""
    jobs = make(Script({}, took_s=0.75))
    _, record = made_key("acme")
    await jobs.start()
    await jobs.add_key(record)
    assert (await jobs.authenticate(record.hash)).key is not None
    await jobs.complete(asked())
    await jobs.stop()
    assert store.keys()[0].last_used_at == pytest.approx(time.time(), abs=60)
    other = make(Script({}))
    await other.start()
    assert other.orchestrator.costs_snapshot() == jobs.orchestrator.costs_snapshot()
    assert (await other.route(asked().request)).estimates["draft"].work_s == pytest.approx(0.75, rel=0.1)
    await other.stop()


async def test_what_goes_wrong_in_the_background_goes_on(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is away is a line of the log, a bug a traceback; both are tried again."""
    turns = list[int]()

    async def look() -> None:
        turns.append(len(turns))
        if len(turns) == 1:
            raise StoreError("away")
        if len(turns) == 2:
            raise ValueError("a bug")

    with caplog.at_level(logging.WARNING):
        task = asyncio.ensure_future(_every(0.001, look))
        await until(lambda: len(turns) > 2)
        task.cancel()
    assert "the store does not answer: away" in caplog.text and "look failed" in caplog.text


async def test_what_goes_on_in_the_background_has_its_time(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each second it is looked whether another has begun, each ten it is written when keys were used, each five minutes
    the store is tidied."""
    begun = []

    async def every(often_s: float, what: Any) -> None:
        begun.append((often_s, what.__name__))

    monkeypatch.setattr(upkeep, "_every", every)
    jobs = make(Script({}))
    await jobs.start()
    await until(lambda: len(begun) == 3)
    assert sorted(begun) == [(1.0, "look"), (10.0, "note_used"), (300.0, "tidy")]
    store.accept(job("old", fence=jobs._open.fence))
    store.finished("old", jobs._open.fence, "done", {})
    monkeypatch.setattr(upkeep.time, "time", lambda now=time.time: now() + 400 * 86_400)
    monkeypatch.setattr(jobs.orchestrator, "costs_snapshot", lambda: {"learned": 7})
    await jobs._upkeep.tidy()
    assert store.job("old") is None and store.costs() == {"learned": 7}
    await jobs.stop()


async def test_when_keys_were_used_is_written_later_if_the_store_is_away(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once: what was written is not written again."""
    jobs, wrote = make(Script({})), list[dict[str, float]]()
    await jobs.start()
    _, record = made_key("acme")
    await jobs.add_key(record)
    await jobs.authenticate(record.hash)

    def away(at: dict[str, float]) -> None:
        wrote.append(dict(at))
        raise StoreError("away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "keys_used", away)
        for _ in range(2):
            with pytest.raises(StoreError):
                await jobs._upkeep.note_used()
    assert len(wrote) == 2 and wrote[0] == wrote[1] and set(wrote[0]) == {record.id}
    await jobs._upkeep.note_used()
    assert store.keys()[0].last_used_at == wrote[0][record.id]
    monkeypatch.setattr(store, "keys_used", away)
    await jobs._upkeep.note_used()
    await jobs.stop()


async def test_what_a_key_used_counts_after_a_restart(make: Make, store: Store) -> None:
    """For as long as its own budget looks back, however short those of the policies are; nothing before that."""
    _, record = made_key("acme", budget="1usd/week")
    store.add_key(record)
    for days, usd in ((3, 0.5), (6.9, 0.25), (7.1, 0.125)):
        at = time.time() - 86_400 * days
        (policy, budget, tenant), name = (*KEY, record.id), f"used_{days}"
        store.accept(job(name), [used(name, policy=policy, budget=budget, tenant=tenant, at=at, cost_usd=usd)])
        store.finished(name, 0, "done", {})
    jobs = make(Script({}))
    await jobs.start()
    (allowance,) = jobs.limits.allowances(record)
    assert allowance.cost_usd == pytest.approx(0.25)
    assert allowance.renews_s == pytest.approx(0.1 * 86_400, abs=60)
    await jobs.stop()


async def test_a_failure_that_nobody_foresaw_is_told_without_its_words(
    make: Make, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """They are in the log; the job has failed all the same."""
    script = Script({})
    jobs = make(script)

    renderer: Any = Broken(jobs._running._renderer)
    jobs._running._renderer = renderer
    await jobs.submit(asked())
    with pytest.raises(ValueError, match="a secret"):
        await jobs.answer("job_1")
    await until(lambda: store.job("job_1").state == "failed")  # type: ignore[union-attr]
    assert "a secret" not in str(store.job("job_1").error) and "job job_1 failed" in caplog.text  # type: ignore[union-attr]
    await jobs.stop()


class Broken:
    """A renderer that cannot make an answer."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def result(self, *_: Any) -> Any:
        raise ValueError("a secret")


async def test_a_preview_of_a_policy_looks_at_what_it_decided(make: Make, store: Store) -> None:
    """Of a known policy its own requests, of a new one all."""
    jobs = make(Script({}))
    for number in (1, 2):
        await jobs.complete(asked(number))
    for name, decided in (("main", 2), ("new", 2)):
        preview = await jobs.preview_policy(name, f"version: 1\nname: {name}\n{POLICY}")
        assert not preview.problems and len(preview.found) == decided, preview.problems
    broken = await jobs.preview_policy("main", "recipes: 3")
    assert broken.problems
    await jobs.stop()


async def test_events_of_a_stream_end_with_the_job_or_its_error(make: Make) -> None:
    """A failure is raised after what happened, the end of one that is done is the last event."""
    script = Script({})
    jobs = make(script)
    kinds = [event.kind async for event in jobs.stream(asked(1))]
    assert kinds[0] == "accepted" and kinds[-1] == "done"

    async def fail(*_: Any) -> None:
        raise StepError("out of paint")

    script.run = fail  # type: ignore[method-assign, assignment]
    seen: list[JobEvent] = []
    with pytest.raises(StepError, match="out of paint"):  # noqa: PT012
        async for event in jobs.stream(asked(2)):
            seen.append(event)
    assert [event.kind for event in seen][:2] == ["accepted", "routed"]
    await jobs.stop()
