"""What operators ask over HTTP: a real store, the orchestrator in this process, workers that take no time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from deployments.api import keys as gate_module
from deployments.api.admin import schemas
from deployments.api.admin.schemas import AdminOverview
from deployments.api.keys import Gate
from deployments.api.wire.admin import overview_report
from deployments.jobs import keys as keys_module
from deployments.jobs import operators
from deployments.jobs.keys import budget_of, budget_text
from deployments.operating.refusals import SLICE_S, Refusals
from deployments.operating.values import Operations, PolicyPreview
from deployments.settings import AppSettings
from deployments.store.records import STATES
from tests.deployments.support.scripted import Script
from tests.deployments.support.served import BODY, GENERATE, JOBS, Served, served

POLICY = """
recipes: {draft: {generate: {model: sd15}}, fine: {generate: {model: sdxl}}}
objective: {minimise: cost_usd}
rules:
  - {name: large, when: {tag: print}, only: [fine]}
  - {name: small, when: {not: {tag: print}}, only: [draft]}
"""
SAME = "version: 1\nname: main\n" + POLICY
OTHER = SAME.replace("{tag: print}, only: [fine]", "{not: {tag: tiny}}, only: [fine]").replace(
    "{not: {tag: print}}, only: [draft]", "{tag: tiny}, only: [draft]"
)
ENV = Gate("auto", True, "open sesame")
ADMIN = {"authorization": "Bearer open sesame"}
OVERVIEW, ALL_JOBS, KEYS, PREVIEW = (
    "/v1/admin/overview",
    "/v1/admin/jobs",
    "/v1/admin/keys",
    "/v1/policies/main/preview",
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """New and revoked keys are known without delay."""
    for module, name in ((keys_module, "FRESH_S"), (keys_module, "UNKNOWN_S"), (gate_module, "FRESH_S")):
        monkeypatch.setattr(module, name, 0.0)


async def drawn(app: Served, header: dict[str, str], **fields: Any) -> str:
    """A job of one picture that has ended, and is counted."""
    id = (await app.http.post(JOBS, json={**BODY, **fields}, headers=header)).json()["id"]
    await app.done_as(id, header)
    return str(id)


async def overview(app: Served, header: dict[str, str]) -> dict[str, Any]:
    answer = await app.http.get(OVERVIEW, headers=header)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_overview_says_what_was_served_to_whom(settings: AppSettings, tmp_path: Path) -> None:
    """Jobs, recipes with expected quality, tenants with their budget, refusals, models: numbers that were counted."""
    async with served(settings, tmp_path, gate=ENV, policy=POLICY) as app:
        acme, other = app.key("acme", budget={"cost_usd": 5.0, "window_s": 86_400.0}), app.key("other", rpm=1)
        for fields in ({}, {"n": 3}, {"tags": ["print"]}):
            await drawn(app, acme, **fields)
        await drawn(app, other)
        assert (await app.http.post(JOBS, json=BODY, headers=other)).status_code == 429
        assert (await app.http.post(JOBS, json={**BODY, "model": "nothing"}, headers=acme)).status_code == 404
        told = await overview(app, ADMIN)
        assert told["jobs"] == {"queued": 0, "running": 0, "done": 4, "failed": 0, "cancelled": 0}
        recipes = {one["recipe"]: one for one in told["recipes"]}
        assert {name: (one["pictures"], one["share"]) for name, one in recipes.items()} == {
            "draft": (5, round(5 / 6, 4)), "fine": (1, round(1 / 6, 4)),
        }  # fmt: skip
        assert 0 < recipes["draft"]["predicted"] < 1 and recipes["draft"]["verified"] is None
        assert recipes["draft"]["checked"] == 0 and recipes["draft"]["seconds"] >= 0
        tenants = {one["tenant"]: one for one in told["tenants"]}
        assert (tenants["acme"]["jobs"], tenants["acme"]["pictures"]) == (3, 5)
        assert tenants["acme"]["seconds"] == pytest.approx(0.05) and tenants["other"]["budget"] is None
        budget = tenants["acme"]["budget"]
        assert (budget["limit_usd"], budget["period"]) == (5.0, "day")
        assert budget["spent_usd"] == pytest.approx(tenants["acme"]["cost_usd"], abs=1e-6)
        assert {one["reason"]: one["count"] for one in told["refusals"]} == {
            "rate_limit_exceeded": 1, "model_not_found": 1,
        }  # fmt: skip
        models = {one["name"]: one for one in told["models"]}
        assert (models["sd15"]["state"], models["sd15"]["breaker"], models["sd15"]["running_steps"]) == (
            "ready", "closed", 0,
        )  # fmt: skip
        assert models["sd15"]["queue"] == {"interactive_s": 0.0, "standard_s": 0.0, "batch_s": 0.0, "steps": 0}
        assert models["sd15"]["seconds_per_picture"] == pytest.approx(0.01, rel=0.5)
        assert told["since"] <= told["now"] and told["window_s"] == 86_400


async def test_predicted_and_verified_are_of_the_same_pictures(settings: AppSettings, tmp_path: Path) -> None:
    """With a look at every picture, `verified` is the mean chance that the first try was right, beside what was
    expected of it."""
    policy = POLICY + "verify: {scorer: alignment, accept_above: 0.5}\n"
    async with served(settings, tmp_path, Script({60: 0.9, 120: 0.9}), ENV, policy=policy) as app:
        id = await drawn(app, ADMIN, n=2)
        checks = [one["checks"][0] for one in (await app.done_as(id, ADMIN))["result"]["x_triptych"]["pictures"]]
        (one,) = (await overview(app, ADMIN))["recipes"]
    assert one["checked"] == 2
    assert one["verified"] == pytest.approx(sum(check["probability"] for check in checks) / 2, abs=1e-3)


async def test_what_waits_is_seen_in_seconds_by_class(settings: AppSettings, tmp_path: Path) -> None:
    """While workers are busy, queues have seconds of work and steps, jobs are queued and running."""
    script = Script({}, delay_s=60)
    async with served(settings, tmp_path, script, ENV, policy=POLICY) as app:
        ids = [(await app.http.post(JOBS, json={**BODY, "priority": "batch"}, headers=ADMIN)).json()["id"]
               for _ in range(4)]  # fmt: skip
        await asyncio.sleep(0.1)
        told = await overview(app, ADMIN)
        (sd15,) = [one for one in told["models"] if one["name"] == "sd15"]
        assert sd15["running_steps"] >= 1
        assert sd15["queue"]["steps"] >= 2 and sd15["queue"]["batch_s"] > 0 == sd15["queue"]["interactive_s"]
        assert told["jobs"]["queued"] + told["jobs"]["running"] == 4
        for id in ids:
            await app.http.delete(f"{JOBS}/{id}", headers=ADMIN)
            await app.done_as(id, ADMIN)
        assert (await overview(app, ADMIN))["jobs"]["cancelled"] == 4


async def test_what_was_served_outlives_the_process(settings: AppSettings, tmp_path: Path) -> None:
    """The sums are in the store: the next orchestrator shows them."""
    async with served(settings, tmp_path, gate=ENV, policy=POLICY) as app:
        await drawn(app, ADMIN)
    async with served(settings, tmp_path, gate=ENV, policy=POLICY) as app:
        told = await overview(app, ADMIN)
    assert (told["jobs"]["done"], told["recipes"][0]["pictures"]) == (1, 1)


async def test_ratings_are_those_of_people_within_the_window(settings: AppSettings, tmp_path: Path) -> None:
    """A rating counts for the recipe that made the picture; a program's score does not."""
    async with served(settings, tmp_path, gate=ENV, policy=POLICY) as app:
        app.jobs.orchestrator._recorder._log = app.store.decisions
        answer = (await app.http.post(GENERATE, json=BODY, headers=ADMIN)).json()
        id = answer["x_triptych"]["request_id"]
        for said in ({"rating": 4}, {"score": 0.1, "scorer": "mine"}):
            assert (await app.http.post("/v1/feedback", json={"id": id, **said}, headers=ADMIN)).status_code == 200
        for _ in range(100):
            if recipes := (await overview(app, ADMIN))["recipes"]:
                break
            await asyncio.sleep(0.01)
        assert (recipes[0]["rated"], recipes[0]["rating"]) == (1, 0.75)
        assert app.store.rated_since(time.time() + 1) == []


async def test_jobs_of_all_tenants_are_listed_and_ended(settings: AppSettings, tmp_path: Path) -> None:
    """An admin sees everybody's with its tenant, by pages and state, and ends any; others see and end their own."""
    script = Script({}, delay_s=0.4)
    async with served(settings, tmp_path, script, ENV, policy=POLICY) as app:
        acme, other = app.key("acme"), app.key("other")
        mine = (await app.http.post(JOBS, json=BODY, headers=acme)).json()["id"]
        theirs = (await app.http.post(JOBS, json=BODY, headers=other)).json()["id"]
        first = (await app.http.get(ALL_JOBS, params={"limit": 1}, headers=ADMIN)).json()
        rest = (await app.http.get(ALL_JOBS, params={"cursor": first["next_cursor"]}, headers=ADMIN)).json()
        assert [(one["id"], one["tenant"]) for one in first["data"] + rest["data"]] == [
            (theirs, "other"), (mine, "acme"),
        ]  # fmt: skip
        assert (await app.http.delete(f"{JOBS}/{theirs}", headers=acme)).status_code == 404
        assert (await app.http.delete(f"{JOBS}/{theirs}", headers=ADMIN)).json()["state"] == "cancelled"
        await app.done_as(theirs, ADMIN)
        ended = (await app.http.get(ALL_JOBS, params={"state": "cancelled"}, headers=ADMIN)).json()
        assert [one["id"] for one in ended["data"]] == [theirs]
        assert (await app.http.get(ALL_JOBS, params={"state": "lost"}, headers=ADMIN)).status_code == 400
        assert (await app.http.get(ALL_JOBS, headers=acme)).json()["error"]["code"] == "scope_missing"


async def test_a_key_is_made_used_listed_and_ended(settings: AppSettings, tmp_path: Path) -> None:
    """What is made is shown once, opens the server at once, says when it was used, and is of no use once ended."""
    asked = {"tenant": "acme", "scopes": ["generate"], "rpm": 60, "budget": "5usd/day", "priority": "batch"}
    async with served(settings, tmp_path, gate=ENV) as app:
        made = await app.http.post(KEYS, json=asked, headers=ADMIN)
        key = made.json()
        assert made.status_code == 201 and made.headers["cache-control"] == "no-store"
        assert {name: key[name] for name in asked} == asked
        assert key["key"].startswith(key["prefix"]) and len(key["prefix"]) < 12
        header = {"authorization": f"Bearer {key['key']}"}
        assert (await app.http.get(JOBS, headers=header)).status_code == 200
        await app.jobs._upkeep.note_used()
        (listed,) = (await app.http.get(KEYS, headers=ADMIN)).json()["data"]
        assert "key" not in listed and "hash" not in listed
        assert listed["last_used_at"] == pytest.approx(time.time(), abs=5)
        ended = (await app.http.delete(f"{KEYS}/{key['id']}", headers=ADMIN)).json()
        assert ended["revoked_at"] is not None
        assert (await app.http.get(JOBS, headers=header)).status_code == 401
        assert (await app.http.delete(f"{KEYS}/key_none", headers=ADMIN)).status_code == 404


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"scopes": ["all"]}, "scopes"), ({"scopes": []}, "scopes"), ({"budget": "5eur/day"}, "budget"),
        ({"rpm": 0}, "rpm"), ({"priority": "urgent"}, "priority"), ({"tenant": " "}, "tenant"), ({"to": 1}, "to"),
    ],
)  # fmt: skip
async def test_a_wrong_key_names_its_field(
    settings: AppSettings, tmp_path: Path, wrong: dict[str, Any], param: str
) -> None:
    """Nothing is made of it."""
    async with served(settings, tmp_path, gate=ENV) as app:
        answer = await app.http.post(KEYS, json={"tenant": "acme", **wrong}, headers=ADMIN)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert app.store.keys() == []


@pytest.mark.parametrize("budget", ["5usd/day", "0.5usd/hour", "20usd/month", "7usd/3days", "1usd/90minutes"])
def test_a_budget_reads_as_it_was_written(budget: str) -> None:
    """Text to window and back."""
    assert budget_text(budget_of(budget)) == budget


async def test_a_preview_says_what_a_policy_would_change(settings: AppSettings, tmp_path: Path) -> None:
    """The latest requests are decided by both; nothing is put in force; what names a recipe is left out."""
    async with served(settings, tmp_path, gate=ENV, policy=POLICY) as app:
        for prompt in ("a red circle", "two blue squares", "a cat"):
            await drawn(app, ADMIN, prompt=prompt)
        await drawn(app, ADMIN, tags=["print"])
        await drawn(app, ADMIN, model="fine")
        told = (await app.http.post(PREVIEW, content=OTHER, headers=ADMIN)).json()
        assert (told["valid"], told["problems"], told["decisions"]) == (True, [], 4)
        assert told["before"] == {"draft": 3, "fine": 1}
        assert (told["after"], told["changed"]) == ({"fine": 4}, 3)
        assert [(one["prompt"], one["before"], one["after"]) for one in told["examples"]] == [
            (prompt, "draft", "fine") for prompt in ("a cat", "two blue squares", "a red circle")
        ]
        assert told["quality"]["after"] != told["quality"]["before"]
        again = (await app.http.post(PREVIEW, content=SAME, headers=ADMIN)).json()
        assert (again["changed"], again["examples"]) == (0, [])
        assert (await app.http.get("/v1/policies/main", headers=ADMIN)).json()["text"].endswith(POLICY)
        new = (await app.http.post("/v1/policies/later/preview", content=OTHER.replace("name: main", "name: later"),
                                   headers=ADMIN)).json()  # fmt: skip
        assert (new["valid"], new["decisions"]) == (True, 4)


async def test_a_preview_counts_what_a_policy_would_refuse(settings: AppSettings, tmp_path: Path) -> None:
    """A limit that a request is beyond is counted, and the example says why."""
    async with served(settings, tmp_path, gate=ENV, policy=POLICY) as app:
        await drawn(app, ADMIN, size="128x128")
        strict = OTHER + "limits: {max_pixels: 4096}\n"
        told = (await app.http.post(PREVIEW, content=strict, headers=ADMIN)).json()
    assert told["problems"] == []
    assert (told["refused"], told["after"]) == ({"before": 0, "after": 1}, {})
    assert told["examples"][0]["after"] is None and told["examples"][0]["why"]


async def test_a_preview_of_a_broken_policy_names_lines_and_proposals(settings: AppSettings, tmp_path: Path) -> None:
    """Not YAML, unknown models and misspelt keys: 200, with where, what and the nearest name."""
    async with served(settings, tmp_path, gate=ENV, policy=POLICY) as app:
        broken = OTHER.replace("model: sd15", "model: sd51")
        told = (await app.http.post(PREVIEW, content=broken, headers=ADMIN)).json()
        assert (told["valid"], told["decisions"]) == (False, 0)
        problem = told["problems"][0]
        assert (problem["line"], problem["proposal"]) == (4, "sd15")
        assert problem["column"] == broken.splitlines()[3].index("sd51") + 1
        nothing = (await app.http.post(PREVIEW, content="recipes: [", headers=ADMIN)).json()
        assert nothing["valid"] is False and nothing["problems"][0]["line"] >= 1
        name = (await app.http.post("/v1/policies/else/preview", content=OTHER, headers=ADMIN)).json()
        assert "named 'main'" in name["problems"][0]["message"]


async def test_without_any_key_loopback_may_look_and_change_nothing(settings: AppSettings, tmp_path: Path) -> None:
    """Whoever reaches loopback sees what operators see until there is a key; changes always need an admin key, and
    nobody looks from elsewhere."""
    looks = [("GET", OVERVIEW), ("GET", ALL_JOBS), ("GET", KEYS), ("POST", PREVIEW), ("GET", "/v1/policies/main")]
    changes = [("POST", KEYS), ("DELETE", f"{KEYS}/key_1"), ("PUT", "/v1/policies/main")]

    async def statuses(app: Served, calls: list[tuple[str, str]], header: dict[str, str]) -> set[int]:
        body = {"content": OTHER, "headers": header}
        return {(await app.http.request(method, path, **body)).status_code for method, path in calls}

    async with served(settings, tmp_path, gate=Gate("auto", True), policy=POLICY) as app:
        assert await statuses(app, looks, {}) == {200}
        assert await statuses(app, changes, {}) == {403}
        generate = app.key(scopes=("generate",))
        assert await statuses(app, looks + changes, {}) == {401}
        assert await statuses(app, looks + changes, generate) == {403}
        assert await statuses(app, looks, app.key(scopes=("admin",))) == {200}
    for name in ("env", "open"):
        (tmp_path / name).mkdir()
    async with served(settings, tmp_path / "env", gate=ENV, policy=POLICY) as app:
        assert await statuses(app, looks + changes, {}) == {401}
    async with served(settings, tmp_path / "open", gate=Gate(False, loopback=False), policy=POLICY) as app:
        assert await statuses(app, looks + changes, {}) == {403}


async def test_a_poll_reads_sums_and_no_jobs(settings: AppSettings, tmp_path: Path) -> None:
    """What an overview asks of the database goes by an index: no table of jobs, decisions or feedback is scanned."""
    from sqlalchemy import event

    async with served(settings, tmp_path, gate=ENV, policy=POLICY) as app:
        await drawn(app, ADMIN)
        asked: list[tuple[str, Any]] = []
        engine = app.store.database.engine

        def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            asked.append((statement, parameters))

        event.listen(engine, "before_cursor_execute", note)
        await overview(app, ADMIN)
        event.remove(engine, "before_cursor_execute", note)
        with app.store.database.reading() as db:
            plans = [
                row[3] for statement, parameters in asked if statement.lstrip().startswith("SELECT")
                for row in db.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            ]  # fmt: skip
    assert plans
    scanned = [plan for plan in plans if plan.startswith("SCAN") and "keys" not in plan]
    assert scanned == []


def test_refusals_are_forgotten_after_the_window() -> None:
    """Counts belong to the last window, ten minutes exact."""
    now = 1_000_000.0
    refusals = Refusals(3600, lambda: now)
    for _ in range(3):
        refusals.count("overloaded")
    now += 1800
    refusals.count("budget_exceeded")
    assert refusals.counts() == {"overloaded": 3, "budget_exceeded": 1}
    now += 1800 + SLICE_S
    assert refusals.counts() == {"budget_exceeded": 1}
    for _ in range(100):  # nobody asks for counts, and no more is kept than of one window
        now += SLICE_S
        refusals.count("overloaded")
    assert len(refusals._slices) <= 3600 / SLICE_S + 1


async def test_previews_are_made_one_by_one_and_for_whoever_waits(
    settings: AppSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time, a few wait, more are told to come again; one for which nobody waits any more is ended."""
    begun, ended_, free = threading.Event(), [], threading.Event()

    def previewed(*args: Any) -> PolicyPreview:
        should_stop = args[-1]
        begun.set()
        while not (free.is_set() or should_stop()):
            time.sleep(0.005)
        ended_.append(free.is_set())
        return PolicyPreview(())

    monkeypatch.setattr(operators, "previewed", previewed)
    async with served(settings, tmp_path, gate=ENV) as app:
        asking = [asyncio.ensure_future(app.jobs.preview_policy("main", "")) for _ in range(operators.MOST_PREVIEWS)]
        await asyncio.to_thread(begun.wait, 5)
        answer = await app.http.post("/v1/policies/main/preview", content=OTHER, headers=ADMIN)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
        for left in asking[:2]:  # the one that is made, and one that waits
            left.cancel()
        await asyncio.wait(asking[:2])
        free.set()
        assert [preview.problems for preview in await asyncio.gather(*asking[2:])] == [(), ()]
    assert ended_ == [False, True, True]


async def test_the_answers_are_as_documented(settings: AppSettings, tmp_path: Path) -> None:
    """Overview, jobs, keys, a new key and a preview have the fields of their schemas and no others, with something in
    every list; an overview of nothing, too."""
    jobs = dict.fromkeys(STATES, 0)
    AdminOverview.model_validate(overview_report(Operations(0.0, 1.0, 2.0, (), jobs, (), (), {})))
    async with served(settings, tmp_path, gate=ENV, policy=POLICY) as app:
        acme = app.key("acme", budget={"cost_usd": 5.0, "window_s": 86_400.0})
        await drawn(app, acme)
        assert (await app.http.post(JOBS, json={**BODY, "model": "nothing"}, headers=acme)).status_code == 404
        made = await app.http.post(KEYS, json={"tenant": "acme", "budget": "5usd/day"}, headers=ADMIN)
        answers = [
            (schemas.AdminNewKey, made),
            (AdminOverview, await app.http.get(OVERVIEW, headers=ADMIN)),
            (schemas.AdminJobList, await app.http.get(ALL_JOBS, headers=ADMIN)),
            (schemas.AdminKeyList, await app.http.get(KEYS, headers=ADMIN)),
            (schemas.PolicyPreviewed, await app.http.post(PREVIEW, content=OTHER, headers=ADMIN)),
        ]
    for schema, answer in answers:
        assert list(_undocumented(schema.model_validate(answer.json()), answer.json(), schema.__name__)) == []


def _undocumented(read: Any, said: Any, place: str) -> Iterator[str]:
    """Places where an answer has a field that its schema has not, or an empty list where something was to be seen."""
    if isinstance(said, list):
        if not said and place.rpartition(".")[2] not in ("pictures", "warnings", "problems"):
            yield f"{place} is empty"
        for one, other in zip(read, said, strict=True):
            yield from _undocumented(one, other, place)
    elif isinstance(read, BaseModel):
        yield from (f"{place}.{name} is in no schema" for name in set(said) - set(type(read).model_fields))
        for name in set(said) & set(type(read).model_fields):
            yield from _undocumented(getattr(read, name), said[name], f"{place}.{name}")
