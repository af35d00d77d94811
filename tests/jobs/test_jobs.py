"""Accepted means done: jobs over a real store, with workers of whom nobody knows when they answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.api.wire.rendering import Rendering, packed
from deployments.api.wire.requests import parse_request, to_request
from deployments.given.files import file_of
from deployments.jobs import access
from deployments.jobs.failures import told, worth_another_try
from deployments.jobs.jobs import Jobs
from deployments.jobs.life import running, upkeep
from deployments.jobs.live import LiveJob
from deployments.jobs.values import Caller, Submission
from deployments.orchestration.budgets import Charge
from deployments.orchestration.results import WorkerLostError
from deployments.settings import AppSettings, StoreSettings
from deployments.store import Store, open_store
from deployments.store.errors import FencedError, StoreError
from deployments.store.records import KeyRecord, UsageRow
from router.errors import (
    BudgetError,
    DeadlineError,
    LoadError,
    NotFoundError,
    OverloadedError,
    RequestError,
    SafetyError,
    StepError,
    TriptychError,
    UnlikelyError,
)
from tests.conftest import store_in
from tests.deployments.support.scripted import Script, scripted
from tests.store.values import job as a_job

POLICY = """
recipes: {draft: {generate: {model: sd15}}, pair: {chain: [{generate: {model: sd15}}, {upscale: {factor: 2}}]}}
objective: {minimise: cost_usd}
rules: [{name: r, when: {not: {tag: never}}, only: [draft]}]
"""
Make = Callable[..., Jobs]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of SQLite and a folder."""
    return open_store(StoreSettings(**store_in(tmp_path)))


@pytest.fixture
def make(settings: AppSettings, tmp_path: Path, store: Store) -> Make:
    """Jobs of an orchestrator over `store`; each call is another process's."""

    def made(script: Script, policy: str = POLICY, kept: Any = None) -> Jobs:
        folder = tmp_path / f"policies-{time.monotonic_ns()}"
        folder.mkdir()
        orchestrator, _ = scripted(settings, folder, script, {"main": policy})
        return Jobs(orchestrator, kept or store, Rendering())

    return made


def asked(number: int = 1, tenant: str = "", key: str | None = None, **body: Any) -> Submission:
    """A submission, the same for the same arguments."""
    settings = AppSettings.model_validate({"models": {"sd15": {"card": "embedded/sd15"}}})
    wire = parse_request({"prompt": "a red circle", "seed": 7, **body}, settings.limits)
    request = replace(to_request(wire, settings.limits, f"req_{number}"), tenant=tenant)
    return Submission(f"job_{number}", request, packed(wire), Caller(tenant), key)


@asynccontextmanager
async def killed(jobs: Jobs) -> AsyncIterator[None]:
    """After the block its process is dead: nothing of it goes on, and it says nothing to the store."""
    yield
    tasks = [*jobs._upkeep.background, *jobs._running.closing, *(job.task for job in jobs._live.values() if job.task)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    """Wait, five seconds at most, for what other tasks bring about."""
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


async def test_a_job_is_in_the_store_before_anybody_is_told_of_it(make: Make, store: Store) -> None:
    """When `submit` returns, the job is committed; when it is done, so are its answer and its pictures."""
    script = Script({}, delay_s=0.05)
    jobs = make(script)
    view = await jobs.submit(asked(n=2))
    assert store.job(view.id) is not None
    assert (view.n, view.pictures) == (2, ())
    done = await jobs.answer(view.id)
    await until(lambda: store.job(view.id).state == "done")  # type: ignore[union-attr]
    kept = store.pictures(view.id)
    assert [store.read(one) for one in kept] == [file.data for file in done.files]
    assert [one.seed for one in kept] == [7, 8]
    assert store.job(view.id).result == done.result  # type: ignore[union-attr]
    await jobs.stop()


async def test_what_cannot_be_committed_is_not_run_on(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step may begin while the store commits; if it cannot, the step is stopped and nothing is reserved any more."""
    script = Script({}, delay_s=30.0)
    jobs = make(script)
    await jobs.start()
    accepting: Future[Any] = Future()
    monkeypatch.setattr(store, "accept_soon", lambda *_: accepting)
    asking = asyncio.ensure_future(jobs.submit(asked()))
    await until(lambda: script.ran == ["generate sd15"])
    monkeypatch.setattr(Charge, "settle", lambda charge: settled.append((charge.work_s, charge.cost_usd)))
    settled: list[tuple[float, float]] = []
    accepting.set_exception(StoreError("the disk is gone"))
    with pytest.raises(StoreError):
        await asking
    assert jobs.orchestrator.queued_s("sd15") == 0.0
    assert jobs.orchestrator.step_queues.snapshot()["sd15"]["running"] == 0
    assert settled[-1] == (0.0, 0.0)
    await jobs.stop()


async def test_what_ends_before_it_is_refused_was_never_there(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that is done before the store refuses it is counted nowhere, and its end is not written."""
    script = Script({})
    jobs = make(script)
    await jobs.start()
    accepting: Future[Any] = Future()
    monkeypatch.setattr(store, "accept_soon", lambda *_: accepting)
    asking = asyncio.ensure_future(jobs.submit(asked()))
    await until(lambda: bool(jobs._running.closing))
    accepting.set_exception(StoreError("the disk is gone"))
    with pytest.raises(StoreError):
        await asking
    await until(lambda: not jobs._running.closing)
    tally = jobs.orchestrator.metrics
    assert tally.value("triptych_jobs_total", state="done", priority="standard") == 0  # type: ignore[attr-defined]
    await jobs.stop()
    assert "was never retrieved" not in caplog.text and "NotFoundError" not in caplog.text


async def test_a_failure_of_the_server_is_tried_again_under_its_key(make: Make, store: Store) -> None:
    """The same key after a worker was lost makes the picture, as a job of its own; what the request itself is to blame
    for, and what was made, stay as they are."""

    class Failing(Script):
        failure: TriptychError | None = StepError("the worker fell over")

        async def run(self, *args: Any, **kwargs: Any) -> Any:
            if self.failure is not None:
                raise self.failure
            return await super().run(*args, **kwargs)

    script = Failing({})
    jobs = make(script)
    with pytest.raises(StepError, match="fell over"):
        await jobs.complete(asked(1, "acme", "k"))
    script.failure = None
    first, again = await asyncio.gather(*(jobs.complete(asked(n, "acme", "k")) for n in (2, 3)))
    assert (first.id, again.id) == ("job_2", "job_2") and first.files == again.files
    assert (await jobs.submit(asked(4, "acme", "k"))).id == "job_2"
    assert store.job("job_1").idempotency_key is None  # type: ignore[union-attr]
    assert (await jobs.status("job_1")).state == "failed"
    script.failure = RequestError("it cannot be drawn", "prompt")
    for number in (5, 6):
        with pytest.raises(RequestError, match="cannot be drawn"):
            await jobs.complete(asked(number, "acme", "other"))
    assert store.job("job_6") is None
    await jobs.stop()
    later = make(Script({}))  # which knows of them from the store alone
    assert (await later.submit(asked(7, "acme", "other"))).id == "job_5"
    await later.stop()


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (WorkerLostError("x"), True), (StepError("x"), True), (LoadError("x"), True), (DeadlineError("x"), True),
        (RuntimeError("x"), True), (RequestError("x"), False), (NotFoundError("x"), False), (SafetyError("x"), False),
        (SafetyError("x", "output"), False), (UnlikelyError("x"), False), (RequestError("x", None, "conflict"), False),
        (OverloadedError("x"), True),
    ],
)  # fmt: skip
def test_what_is_tried_again_failed_of_the_server(error: Exception, again: bool) -> None:
    """By what the store keeps of a failure: whose fault it was decides."""
    assert worth_another_try(Rendering().error(error, "req_1")) is again


async def test_a_job_that_the_store_knows_first_is_followed_here(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its commit and the moment in which its process has it, whoever asks waits, and has its pictures."""
    usual, told = store.accept_soon, Future[Any]()
    monkeypatch.setattr(store, "accept_soon", lambda *args: (usual(*args).result(), told)[1])
    jobs = make(Script({}))
    asking = asyncio.ensure_future(jobs.submit(asked()))
    await until(lambda: store.job("job_1") is not None)
    answering = asyncio.ensure_future(jobs.answer("job_1"))
    await asyncio.sleep(0.05)
    told.set_result(store.job("job_1"))
    await asking
    assert len((await answering).files) == 1
    await jobs.stop()


async def test_a_submission_that_comes_twice_is_one_job(make: Make) -> None:
    """Whoever sends it again after a broken connection gets the same pictures, and nothing is made twice."""
    script = Script({}, delay_s=0.02)
    jobs = make(script)
    first, second = await asyncio.gather(jobs.complete(asked()), jobs.complete(replace(asked(), again=True)))
    assert first.files == second.files
    assert script.ran == ["generate sd15"]
    await jobs.stop()


async def test_an_idempotency_key_stands_for_one_request_of_a_tenant(make: Make) -> None:
    """The key again finds the job, with another request it is refused, and another tenant's key is another key."""
    script = Script({})
    jobs = make(script)
    await jobs.complete(asked(1, "acme", "k"))
    assert (await jobs.submit(asked(2, "acme", "k"))).id == "job_1"
    with pytest.raises(RequestError):
        await jobs.submit(asked(3, "acme", "k", prompt="a blue square"))
    assert (await jobs.submit(asked(4, "other", "k"))).id == "job_4"
    await jobs.answer("job_4")
    assert len(script.ran) == 2
    await jobs.stop()


async def test_an_idempotency_key_that_comes_five_times_at_once_begins_one_job(make: Make) -> None:
    """The others find it: no step is run for them."""
    script = Script({})
    jobs = make(script)
    views = await asyncio.gather(*(jobs.submit(asked(number, "acme", "k")) for number in range(1, 6)))
    assert len({view.id for view in views}) == 1
    await jobs.answer(views[0].id)
    assert script.ran == ["generate sd15"]
    await jobs.stop()


async def test_requests_without_an_idempotency_key_do_not_wait_for_each_other(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store has not answered for the first, the second of the same tenant is with it already."""
    accept, asked_for = store.accept_soon, list[Callable[[], None]]()

    def soon(*given: Any) -> Future[Any]:
        answer = Future[Any]()
        asked_for.append(lambda: answer.set_result(accept(*given).result()))
        return answer

    monkeypatch.setattr(store, "accept_soon", soon)
    jobs = make(Script({}))
    both = asyncio.gather(*(jobs.submit(asked(number, "acme")) for number in (1, 2)))
    await until(lambda: len(asked_for) == 2)
    for answer in asked_for:
        await asyncio.to_thread(answer)
    assert [view.id for view in await both] == ["job_1", "job_2"]
    await jobs.stop()


async def test_the_pictures_of_a_request_that_is_refused_are_not_kept(make: Make, tmp_path: Path) -> None:
    """They were on the disk before it was known that no job would need them; those of one that is accepted stay."""
    jobs = make(Script({}))
    brought = (file_of(np.full((8, 8, 3), 90, np.uint8), "image"),)
    with pytest.raises(NotFoundError):
        await jobs.submit(replace(asked(1, model="none"), given=brought))
    assert [*tmp_path.rglob("given/*.png")] == []
    await jobs.submit(replace(asked(2), given=brought))
    assert len([*tmp_path.rglob("given/*.png")]) == 1
    await jobs.stop()


async def test_a_job_goes_on_without_whoever_asked(make: Make, store: Store) -> None:
    """A client that goes away ends nothing; who comes back with the id finds the pictures."""
    script = Script({}, delay_s=0.05)
    jobs = make(script)
    waiting = asyncio.ensure_future(jobs.complete(asked()))
    await until(lambda: store.job("job_1") is not None)
    waiting.cancel()
    assert len((await jobs.answer("job_1")).files) == 1
    await jobs.stop()


async def test_a_dead_orchestrator_s_jobs_are_carried_on(make: Make, store: Store) -> None:
    """The next one makes the pictures that are missing, and only those; the answer is that of an undisturbed run."""
    calm = make(Script({}))
    whole = await calm.complete(asked(9, n=3))
    await calm.stop()

    script = Script({})
    turns = [0.0, 0.0, 60.0]

    async def run(step: Any, *args: Any) -> Any:
        await asyncio.sleep(turns.pop(0))
        return await Script.run(script, step, *args)

    script.run = run  # type: ignore[method-assign]
    first = make(script)
    async with killed(first):
        await first.submit(asked(1, n=3))
        await until(lambda: len(store.pictures("job_1")) == 2)
    left = Script({})
    second = make(left)
    await second.start()
    done = await second.answer("job_1")
    assert [file.data for file in done.files] == [file.data for file in whole.files]
    assert done.result["x_triptych"]["seeds"] == [7, 8, 9]
    assert left.ran == ["generate sd15"]
    await until(lambda: store.job("job_1").state == "done")  # type: ignore[union-attr]
    await second.stop()


async def test_a_job_that_kills_its_process_is_given_up(make: Make, store: Store) -> None:
    """After three processes that died over it, it has failed, with the reason."""
    for number in range(3):
        jobs = make(Script({}, delay_s=60))
        async with killed(jobs):
            await jobs.start()
            if not number:
                await jobs.submit(asked())
            await until(lambda jobs=jobs: jobs._live["job_1"].state == "running")  # type: ignore[misc]
    last = make(Script({}))
    await last.start()
    with pytest.raises(TriptychError, match="3 processes ended while they worked on it"):
        await last.answer("job_1")


async def test_a_cancelled_job_stops_and_says_so(make: Make, store: Store) -> None:
    """Its steps are taken back, its place in the queues is free, and a second cancel changes nothing."""
    jobs = make(Script({}, delay_s=60))
    view = await jobs.submit(asked())
    await until(lambda: jobs.orchestrator.queued_s("sd15") > 0)
    assert (await jobs.cancel(view.id)).state == "cancelled"
    assert (await jobs.cancel(view.id)).state == "cancelled"
    assert jobs.orchestrator.queued_s("sd15") == 0
    with pytest.raises(TriptychError, match="was cancelled"):
        await jobs.answer(view.id)
    await until(lambda: store.job(view.id).state == "cancelled")  # type: ignore[union-attr]
    await jobs.stop()


async def test_a_job_that_is_cancelled_before_it_is_carried_on_leaves_nothing(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the moment before its task begins: it has ended, in the store too, and its place in the queue is free."""
    first = make(Script({}, delay_s=60.0))
    view = await first.submit(asked())
    await first.stop()
    script = Script({})
    second, usual, cancelling = make(script), LiveJob.__init__, []

    def init(job: LiveJob, *args: Any) -> None:
        usual(job, *args)
        cancelling.append(asyncio.ensure_future(second.cancel(view.id)))  # it runs before the job's own task

    monkeypatch.setattr(LiveJob, "__init__", init)
    await second.start()
    assert [(await one).state for one in cancelling] == ["cancelled"]
    assert (script.ran, second.orchestrator.queued_s("sd15")) == ([], 0)
    await until(lambda: store.job(view.id).state == "cancelled")  # type: ignore[union-attr]
    await second.stop()


async def test_another_tenant_s_job_is_not_there(make: Make) -> None:
    """Neither to be seen nor to be ended: the answer is that of an id that was never given."""
    jobs = make(Script({}, delay_s=0.05))
    await jobs.submit(asked(1, "acme"))
    for call in (jobs.status, jobs.cancel):
        with pytest.raises(NotFoundError, match="there is no job 'job_1'"):
            await call("job_1", "other")
    assert [view.id for view in (await jobs.list("acme"))[0]] == ["job_1"]
    assert (await jobs.list("other"))[0] == []
    await jobs.answer("job_1")
    await jobs.stop()


async def test_an_orchestrator_that_was_replaced_stops(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits there is told to ask the new one, which has the job; nothing new is accepted by the old one."""
    monkeypatch.setattr(upkeep, "LOOK_S", 0.01)
    slow = Script({}, delay_s=60)
    old, new = make(slow), make(Script({}))
    waiting = asyncio.ensure_future(old.complete(asked(1)))
    await until(lambda: bool(slow.ran))
    await new.start()
    with pytest.raises(FencedError):
        await waiting
    await until(lambda: old.orchestrator.queued_s("sd15") == 0)  # what it had begun is stopped
    with pytest.raises(FencedError):
        await old.submit(asked(2))
    assert len((await new.complete(replace(asked(1), again=True))).files) == 1
    await old.stop()
    await new.stop()


async def test_the_end_waits_for_what_is_open_and_lets_nothing_in(make: Make) -> None:
    """Draining says how many were open and returns when they are done, or at its limit; who comes meanwhile is told
    to come again."""
    script = Script({}, delay_s=0.1)
    jobs = make(script)
    assert await make(Script({})).drain(60) == (0, 0)
    await jobs.submit(asked(1, n=2))
    draining = asyncio.ensure_future(jobs.drain(60))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="shutting down") as refused:
        await jobs.submit(asked(2))
    assert refused.value.retry_after_s == 10
    assert await draining == (1, 0)
    assert len((await jobs.answer("job_1")).files) == 2
    stuck = make(Script({}, delay_s=60))
    await stuck.submit(asked(3))
    assert await stuck.drain(0.01) == (1, 1)
    await jobs.stop()
    await stuck.stop()


async def test_stopping_waits_as_long_as_it_is_told_and_leaves_the_rest(make: Make, store: Store) -> None:
    """What ends meanwhile is done, in the store too; what does not is stopped here and open for the next one."""
    script = Script({}, delay_s=0.1)
    jobs = make(script)
    await jobs.submit(asked(1))
    await jobs.stop(30)
    assert store.job("job_1").state == "done"  # type: ignore[union-attr]
    stuck = make(Script({}, delay_s=60))
    await stuck.submit(asked(2))
    await until(lambda: stuck._live["job_2"].state == "running")
    task = stuck._live["job_2"].task
    await stuck.stop(0.01)
    assert task is not None and task.cancelled() and stuck.orchestrator.queued_s("sd15") == 0
    await until(lambda: store.job("job_2").state in ("queued", "running"))  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [DeadlineError, OverloadedError, WorkerLostError, NotFoundError])
async def test_a_failure_of_an_earlier_process_is_of_its_kind(kind: type[TriptychError]) -> None:
    """What the store keeps of an error becomes the same status again, as far as it has a code of its own."""
    kept = Rendering().error(kind("why"), "req_1")
    again = told(kept)
    assert (type(again), again.message, again.code) == (kind, "why", kind.code)


class Away:
    """A store that can go away."""

    def __init__(self, store: Store) -> None:
        self._store, self.away = store, False

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise StoreError("the database does not answer")
        return getattr(self._store, name)


async def test_a_key_s_budget_steers_what_is_chosen(make: Make, store: Store) -> None:
    """As long as it pays for the recipe that the policy likes best, that is taken, then a cheaper one, then none."""
    policy = """
recipes: {draft: {generate: {model: sd15, steps: 4}}, slow: {generate: {model: sd15, steps: 40}}}
objective: {minimise: cost_usd}
rules: [{name: better, when: {not: {tag: never}}, prefer: [slow]}]
"""
    jobs = make(Script({}, delay_s=60.0), policy)
    route = await jobs.orchestrator.route(asked().request)
    assert route.decision.recipe == "slow"
    dear, cheap = (route.estimates[name].cost_usd for name in ("slow", "draft"))
    store.add_key(KeyRecord("key_1", "hash", "acme", budget={"cost_usd": dear + 1.5 * cheap, "window_s": 3600.0}))
    found = []
    for number in range(3):
        submission = replace(asked(number, tenant="acme"), caller=Caller("acme", "key_1"))
        try:
            found.append((await jobs.submit(submission)).recipe)
        except BudgetError as error:
            found.append(error.code)
    assert found == ["slow", "draft", "budget_exhausted"]
    await jobs.stop()


async def test_without_a_store_nothing_is_accepted(make: Make, store: Store) -> None:
    """The refusal is clear, nothing is run, and no budget or queue keeps a trace."""
    away, script = Away(store), Script({})
    jobs = make(script, kept=away)
    await jobs.start()
    away.away = True
    with pytest.raises(StoreError, match="does not answer"):
        await jobs.submit(asked())
    assert (script.ran, jobs.orchestrator.queued_s("sd15")) == ([], 0)
    away.away = False
    await jobs.complete(asked())
    await jobs.stop()


async def test_what_was_accepted_is_done_while_the_store_is_away(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is given, and written once the store is back."""
    monkeypatch.setattr(access, "AGAIN_S", 0.02)
    away = Away(store)
    jobs = make(Script({}, delay_s=0.05), kept=away)
    view = await jobs.submit(asked())
    away.away = True
    assert len((await jobs.answer(view.id)).files) == 1
    away.away = False
    await until(lambda: store.job(view.id).state == "done")  # type: ignore[union-attr]
    assert len(store.pictures(view.id)) == 1
    await jobs.stop()


async def test_events_are_numbered_and_can_be_read_from_any_of_them(make: Make) -> None:
    """Who comes late, or again, gets what is missing; the last event is the job's end, for everybody."""
    jobs = make(Script({}, delay_s=0.02))
    view = await jobs.submit(asked(n=2))
    events = [event async for event in jobs.events(view.id)]
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert [event.kind for event in events if event.kind != "step"] == ["routed", "picture", "picture", "done"]
    assert [event async for event in jobs.events(view.id, after=3)] == events[3:]
    await jobs.stop()


async def test_what_was_granted_counts_as_long_as_the_longest_window(make: Make, store: Store) -> None:
    """The next orchestrator knows what a budget of an hour granted fifty minutes ago, and nothing from before that."""
    budgets = "budgets: [{name: hourly, window_s: 3600, work_s: 100}, {name: short, window_s: 60, work_s: 100}]\n"
    for ago_s, work_s in ((3000.0, 7.0), (4000.0, 11.0), (30.0, 1.0)):
        of = f"job_{ago_s:g}", "main"
        rows = [UsageRow(*of, name, "acme", time.time() - ago_s, work_s) for name in ("hourly", "short")]
        store.accept(a_job(f"job_{ago_s:g}"), rows)
        store.finished(f"job_{ago_s:g}", 0, "done", {})
    jobs = make(Script({}), POLICY + budgets)
    await jobs.start()
    left = jobs.orchestrator.tenant_budgets.allowances(jobs.orchestrator.policies.get("main"), "acme")
    assert {one.budget: one.work_s for one in left} == {"hourly": pytest.approx(92.0), "short": pytest.approx(99.0)}
    await jobs.stop()


async def test_of_a_thousand_at_once_as_many_enter_as_fit(make: Make) -> None:
    """A budget for five jobs lets five in, however many arrive together, also after a restart."""
    jobs = make(Script({}, took_s=0.5))
    price = (await jobs.route(asked().request)).estimates["draft"].work_s
    bound = POLICY + f"budgets: [{{name: b, window_s: 3600, work_s: {5.5 * price}}}]\n"
    jobs = make(Script({}, delay_s=0.2, took_s=price), bound)
    answers = await asyncio.gather(
        *(jobs.submit(asked(number, "acme")) for number in range(1000)), return_exceptions=True
    )
    entered = [one for one in answers if not isinstance(one, BaseException)]
    assert len(entered) == 5
    assert all(isinstance(one, BudgetError) for one in answers if isinstance(one, BaseException))
    for view in entered:
        await jobs.answer(view.id)
    await jobs.stop(5.0)
    with pytest.raises(BudgetError):
        await make(Script({}), bound).submit(asked(2000, "acme"))


@pytest.mark.parametrize(
    ("refusals", "left_s", "ends"),
    [
        ([OverloadedError("full", 0.0), LoadError("away")], 30.0, "done"),
        ([], 30.0, "done"),
        ([OverloadedError("full", 60.0)] * 99, 0.3, "failed"),
        ([OverloadedError("full", 60.0)] * 99, -5.0, "failed"),
    ],
)
async def test_what_was_accepted_waits_where_it_would_be_refused_until_its_deadline(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch, refusals: list[Exception], left_s: float, ends: str
) -> None:
    """The next orchestrator asks again, at the times that the refusal names but at most ten times as long as usual, and
    gives up when the deadline would pass meanwhile: with 504, and what it waited for."""
    monkeypatch.setattr(running, "AGAIN_S", 0.05)
    first = make(Script({}, delay_s=60))
    async with killed(first):
        await first.submit(asked())
        await until(lambda: first._live["job_1"].state == "running")
    second, waited = make(Script({})), [0.0]
    monkeypatch.setattr(store, "take_over", later := _due(store.take_over, left_s))
    admit, sleep = second.orchestrator.admit, asyncio.sleep

    async def refuse(request: Any, charge: Any = None) -> Any:
        if refusals:
            raise refusals.pop(0)
        return await admit(request, charge)

    async def nap(seconds: float) -> None:
        waited.append(seconds)
        await sleep(min(seconds, 0.1))

    refusals = list(refusals)
    second.orchestrator.admit = refuse  # type: ignore[method-assign]
    monkeypatch.setattr(running.asyncio, "sleep", nap)
    await second.start()
    assert later
    if ends == "done":
        assert len((await second.answer("job_1")).files) == 1
    else:
        with pytest.raises(DeadlineError, match="its deadline passed while it waited: full"):
            await second.answer("job_1")
    monkeypatch.undo()
    assert max([one for one in waited if one < 1.0], default=0.0) <= 0.5
    await second.stop()


def _due(take_over: Callable[..., Any], left_s: float) -> Callable[..., Any]:
    """A take-over whose jobs have so many seconds left."""
    return lambda *args: [replace(one, deadline_at=time.time() + left_s) for one in take_over(*args)]
