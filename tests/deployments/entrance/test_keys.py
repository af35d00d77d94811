"""Keys: who may ask, for what, how often and for how much. A real store; limits exact however requests come."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.api import keys as gate_module
from deployments.api.keys import Gate
from deployments.jobs import keys as keys_module
from deployments.jobs.keys import KeyRing, hash_of
from deployments.jobs.limits import KeyLimits, RateLimitError
from deployments.orchestration.budgets import TenantBudgets
from deployments.settings import AppSettings
from deployments.store.errors import StoreError
from deployments.store.records import KeyRecord
from tests.deployments.support.scripted import Script
from tests.deployments.support.served import BODY, GENERATE, JOBS, Served, served

ADMIN = {"authorization": "Bearer open sesame"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """New and revoked keys are known without delay."""
    monkeypatch.setattr(keys_module, "FRESH_S", 0.0)
    monkeypatch.setattr(keys_module, "UNKNOWN_S", 0.0)
    monkeypatch.setattr(gate_module, "FRESH_S", 0.0)


@pytest.mark.parametrize(
    ("gate", "keyed", "needed"),
    [
        (Gate("auto", loopback=True), False, False), (Gate("auto", loopback=True), True, True),
        (Gate("auto", loopback=False), False, True), (Gate("auto", loopback=False), True, True),
        (Gate(True, loopback=True), False, True), (Gate(False, loopback=False), True, False),
    ],
)  # fmt: skip
async def test_keys_are_needed_unless_only_this_machine_can_ask_and_none_was_made(
    settings: AppSettings, tmp_path: Path, gate: Gate, keyed: bool, needed: bool
) -> None:
    """`auto` opens loopback as long as there are no keys; true and false say it themselves. Health is always open."""
    async with served(settings, tmp_path, gate=gate) as app:
        if keyed:
            app.key()
        for path, body in ((JOBS, None), ("/v1/models", None), (GENERATE, BODY), ("/v1/route", BODY)):
            answer = await app.http.request("POST" if body else "GET", path, json=body)
            assert answer.status_code == (401 if needed else 200), path
            if needed:
                assert answer.headers["www-authenticate"] == "Bearer"
        assert (await app.http.get("/health")).status_code == 200


async def test_a_key_is_taken_from_either_header(settings: AppSettings, tmp_path: Path) -> None:
    """As bearer token and as `x-api-key`; unknown, cut and revoked ones are 401 and never repeated in answers."""
    async with served(settings, tmp_path) as app:
        header = app.key()
        key = header["authorization"].removeprefix("Bearer ")
        for good in (header, {"x-api-key": key}, {"authorization": f"bearer  {key} "}):
            assert (await app.http.get(JOBS, headers=good)).status_code == 200
        for bad in (key[:-1], "tp_", "sk-1234", key.upper(), key + "x"):
            answer = await app.http.get(JOBS, headers={"x-api-key": bad})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert key not in answer.text and (len(bad) < 5 or bad not in answer.text)
        (record,) = app.store.keys()
        app.store.revoke_key(record.id)
        assert (await app.http.get(JOBS, headers=header)).status_code == 401


async def test_no_key_is_in_a_log_or_in_the_store(
    settings: AppSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither good ones nor wrong ones, whatever is refused; the store has the hash alone."""
    caplog.set_level(logging.DEBUG)
    async with served(settings, tmp_path, Script({})) as app:
        header = app.key(rpm=1)
        key = header["authorization"].removeprefix("Bearer ")
        wrong = "tp_" + "w" * 40
        for body in ({"prompt": ""}, BODY, BODY):
            await app.http.post(JOBS, json=body, headers=header)
            await app.http.post(JOBS, json=body, headers={"x-api-key": wrong})
    assert key not in caplog.text and wrong not in caplog.text
    files = [file.read_bytes() for file in (tmp_path / "state").rglob("*") if file.is_file()]
    assert any(hash_of(key).encode() in data for data in files)
    assert not any(key.encode() in data for data in files)


async def test_a_scope_opens_its_own_endpoints_only(settings: AppSettings, tmp_path: Path) -> None:
    """generate, feedback and admin: another one's endpoint is 403 that names the scope; admin opens all."""
    feedback = {"id": "req_none", "thumb": "up"}
    async with served(settings, tmp_path) as app:
        asked = {
            "generate": lambda header: app.http.post(JOBS, json=BODY, headers=header),
            "feedback": lambda header: app.http.post("/v1/feedback", json=feedback, headers=header),
            "admin": lambda header: app.http.get("/v1/policies", headers=header),
        }
        for scope in asked:
            header = app.key(scopes=(scope,))
            for needed, ask in asked.items():
                answer = await ask(header)
                allowed = scope in (needed, "admin")
                assert (answer.status_code != 403) is allowed, (scope, needed)
                if not allowed:
                    assert answer.json()["error"]["code"] == "scope_missing"
                    assert f"scope {needed}" in answer.json()["error"]["message"]


async def test_the_admin_key_of_the_environment_still_opens_everything(settings: AppSettings, tmp_path: Path) -> None:
    """With or without other keys it administers and asks; a wrong one does not."""
    gate = Gate("auto", True, "open sesame")
    async with served(settings, tmp_path, gate=gate) as app:
        for _ in range(2):
            assert (await app.http.get("/v1/policies", headers=ADMIN)).status_code == 200
            assert (await app.http.post(JOBS, json=BODY, headers=ADMIN)).status_code == 202
            wrong = await app.http.get("/v1/policies", headers={"authorization": "Bearer open sesam"})
            assert wrong.status_code == 401
            app.key()


async def test_the_tenant_is_the_key_s_and_user_a_label(settings: AppSettings, tmp_path: Path) -> None:
    """With keys, the body's `user` changes nothing but the label; without, it is the tenant, as it was."""
    async with served(settings, tmp_path) as app:
        before = (await app.http.post(JOBS, json={**BODY, "user": "bob"})).json()["id"]
        header = app.key("acme")
        after = (await app.http.post(JOBS, json={**BODY, "user": "bob"}, headers=header)).json()
        records = [app.store.job(id) for id in (before, after["id"])]
        assert [one.tenant for one in records if one] == ["bob", "acme"]
        assert after["user"] == "bob"


async def test_without_a_key_nobody_poses_as_a_tenant_that_has_one(settings: AppSettings, tmp_path: Path) -> None:
    """Where keys are not required but exist, callers without one share one tenant, and see none of the others' jobs."""
    async with served(settings, tmp_path, gate=Gate(False)) as app:
        header = app.key("acme")
        own = (await app.http.post(JOBS, json=BODY, headers=header)).json()["id"]
        other = (await app.http.post(JOBS, json={**BODY, "user": "acme"})).json()["id"]
        record = app.store.job(other)
        assert record is not None and record.tenant == ""
        assert (await app.http.get(f"{JOBS}/{own}")).status_code == 404
        assert [one["id"] for one in (await app.http.get(JOBS)).json()["data"]] == [other]


async def test_someone_else_s_job_is_404_in_every_way(settings: AppSettings, tmp_path: Path) -> None:
    """Seen, ended, followed, listed: as if it were not there; with an admin key it is."""
    async with served(settings, tmp_path, Script({}, delay_s=0.05)) as app:
        mine, other, admin = app.key("acme"), app.key("other"), app.key("ops", scopes=("admin",))
        id = (await app.http.post(JOBS, json=BODY, headers=mine)).json()["id"]
        for method, end in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
            answer = await app.http.request(method, f"{JOBS}/{id}{end}", headers=other)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")
        assert (await app.http.get(JOBS, headers=other)).json()["data"] == []
        assert (await app.http.get(f"{JOBS}/{id}", headers=admin)).status_code == 200
        assert (await app.http.get(f"{JOBS}/{id}/events", headers=mine)).status_code == 200
        record = app.store.job(id)
        assert record is not None and record.state != "cancelled"


async def test_an_idempotency_key_belongs_to_its_tenant(settings: AppSettings, tmp_path: Path) -> None:
    """The same one of another tenant is another job."""
    async with served(settings, tmp_path) as app:
        ids = {
            (await app.http.post(JOBS, json=BODY, headers={**app.key(tenant), "idempotency-key": "k"})).json()["id"]
            for tenant in ("acme", "other")
        }
        assert len(ids) == 2


async def test_a_class_beyond_the_key_is_lowered_with_a_warning(settings: AppSettings, tmp_path: Path) -> None:
    """Asked for: with a warning; by default: without one; within the key: as asked."""
    async with served(settings, tmp_path) as app:
        batch, all_of_them = app.key(priority="batch"), app.key()
        asked = await app.http.post(JOBS, json={**BODY, "priority": "interactive"}, headers=batch)
        default = await app.http.post(JOBS, json=BODY, headers=batch)
        free = await app.http.post(JOBS, json={**BODY, "priority": "interactive"}, headers=all_of_them)
        found = [(one.json()["priority"], len(one.json()["warnings"])) for one in (asked, default, free)]
        assert found == [("batch", 1), ("batch", 0), ("interactive", 0)]
        record = app.store.job(asked.json()["id"])
        assert record is not None and record.priority == record.request["priority"] == "batch"


# ------------------------------------------------------------------------------------------------------------- limits


async def test_of_many_at_once_as_many_enter_as_the_key_may_send(settings: AppSettings, tmp_path: Path) -> None:
    """200 at once, five a minute: five enter, the others are 429 with what is left and when; refused ones do not
    count, nor does another key's."""
    async with served(settings, tmp_path) as app:
        header = app.key(rpm=5)
        refused = await app.http.post(JOBS, json={"prompt": ""}, headers=header)
        answers = await asyncio.gather(*(app.http.post(JOBS, json=BODY, headers=header) for _ in range(200)))
        assert refused.status_code == 400
        entered = [one for one in answers if one.status_code == 202]
        left = sorted(int(one.headers["x-ratelimit-remaining-requests"]) for one in entered)
        assert left == [0, 1, 2, 3, 4]
        others = [one for one in answers if one.status_code != 202]
        assert {one.status_code for one in others} == {429}
        for one in others:
            assert one.json()["error"]["code"] == "rate_limit_exceeded"
            assert one.headers["x-ratelimit-limit-requests"] == "5"
            assert one.headers["x-ratelimit-remaining-requests"] == "0"
            assert 1 <= int(one.headers["retry-after"]) <= 60
        assert (await app.http.post(JOBS, json=BODY, headers=app.key(rpm=5))).status_code == 202


async def test_limits_survive_a_restart(settings: AppSettings, tmp_path: Path) -> None:
    """The next orchestrator counts what the last one accepted: requests a minute and dollars."""
    async with served(settings, tmp_path) as first:
        header = first.key(rpm=2)
        for _ in range(2):
            id = (await first.http.post(JOBS, json=BODY, headers=header)).json()["id"]
            await first.done_as(id, header)
    async with served(settings, tmp_path) as second:
        answer = await second.http.post(JOBS, json=BODY, headers=header)
        assert answer.status_code == 429


def test_a_retry_after_comes_true() -> None:
    """After the seconds that a refusal names a request enters, a moment before it does not."""
    now = [1000.0]
    limits = KeyLimits(TenantBudgets(lambda: now[0]), lambda: now[0])
    key = KeyRecord("key_1", "", "acme", rpm=3)
    for _ in range(3):
        limits.enter(key)
        now[0] += 7.0
    for _ in range(3):
        with pytest.raises(RateLimitError) as refused:
            limits.enter(key)
        now[0] += refused.value.retry_after_s - 0.001
        with pytest.raises(RateLimitError):
            limits.enter(key)
        now[0] += 0.002
        limits.enter(key)


async def price_of(app: Served) -> float:
    """What one request is expected to cost."""
    estimates = (await app.http.post("/v1/route", json=BODY)).json()["estimates"]
    return float(estimates["draft"]["cost_usd"])


@pytest.mark.parametrize("restart", [False, True])
async def test_a_budget_lets_in_what_fits(settings: AppSettings, tmp_path: Path, restart: bool) -> None:
    """Of 50 at once as many enter as the key's dollars allow, by what they may cost; also after a restart."""
    async with served(settings, tmp_path, Script({}, delay_s=60)) as app:
        price = await price_of(app)
        header = app.key(budget={"cost_usd": 3.5 * price, "window_s": 3600.0})
        answers = await asyncio.gather(*(app.http.post(JOBS, json=BODY, headers=header) for _ in range(50)))
        assert [one.status_code for one in answers].count(202) == 3
        refused = next(one for one in answers if one.status_code == 429)
        assert refused.json()["error"]["code"] == "budget_exhausted"
        assert 3000 <= int(refused.headers["retry-after"]) <= 3600
    if restart:
        async with served(settings, tmp_path, Script({}, delay_s=60)) as app:
            assert (await app.http.post(JOBS, json=BODY, headers=header)).status_code == 429


async def test_a_budget_counts_what_was_used(settings: AppSettings, tmp_path: Path) -> None:
    """Once a job is done it counts what it cost, not what it might have: there is room again."""
    async with served(settings, tmp_path, Script({}, took_s=1e-6)) as app:
        header = app.key(budget={"cost_usd": 1.5 * await price_of(app), "window_s": 3600.0})
        for _ in range(4):
            job = (await app.http.post(JOBS, json=BODY, headers=header)).json()
            await app.done_as(job["id"], header)
        (row,) = [one for one in app.store.usage_since(0) if one.job == job["id"]]
        assert (row.policy, row.budget) == ("", "key")
        assert 0 < row.cost_usd < 1e-6


async def test_what_costs_more_than_the_whole_budget_is_not_worth_waiting_for(
    settings: AppSettings, tmp_path: Path
) -> None:
    """429 without Retry-After, and OpenAI's client is told not to try again."""
    async with served(settings, tmp_path) as app:
        header = app.key(budget={"cost_usd": 0.5 * await price_of(app), "window_s": 3600.0})
        answer = await app.http.post(JOBS, json=BODY, headers=header)
        assert (answer.status_code, answer.headers["x-should-retry"]) == (429, "false")
        assert "retry-after" not in answer.headers and "more than the key's budget" in answer.json()["error"]["message"]
        assert app.jobs.orchestrator.queued_s("sd15") == 0


async def test_a_request_that_the_store_refuses_does_not_count(settings: AppSettings, tmp_path: Path) -> None:
    """503, and neither rate nor budget nor queue keeps a trace."""
    async with served(settings, tmp_path) as app:
        header = app.key(rpm=1)
        accept: Callable[..., Any] = app.store.accept_soon

        def refuse(*args: Any) -> Any:
            raise StoreError("the database does not answer")

        app.store.accept_soon = refuse  # type: ignore[method-assign]
        failed = await app.http.post(JOBS, json=BODY, headers=header)
        app.store.accept_soon = accept  # type: ignore[method-assign]
        assert (failed.status_code, failed.json()["error"]["code"]) == (503, "store_unavailable")
        assert app.jobs.orchestrator.queued_s("sd15") == 0
        assert (await app.http.post(JOBS, json=BODY, headers=header)).status_code == 202


# ---------------------------------------------------------------------------------------------------------- the keyring


async def test_keys_are_followed_and_stay_while_the_store_is_away() -> None:
    """Read at most every two seconds; while that fails, those that are known stay; at first it is an error."""
    now, away, reads = [0.0], [True], [0]
    keys = [KeyRecord("key_1", "h1", "acme")]

    async def load() -> list[KeyRecord]:
        reads[0] += 1
        if away[0]:
            raise StoreError("away")
        return list(keys)

    ring = KeyRing(load, lambda: now[0], 2.0, 0.25)
    with pytest.raises(StoreError):
        await ring.identify("h1")
    away[0], reads[0] = False, 0
    for _ in range(100):
        assert (await ring.identify("h1")).key == keys[0]
    assert reads[0] == 1
    away[0], now[0] = True, 10.0
    assert (await ring.identify("h1")).key == keys[0]
    away[0] = False
    keys.append(KeyRecord("key_2", "h2", "acme"))
    now[0] = 10.3
    assert (await ring.identify("h2")).key == keys[1]
    started = time.monotonic()
    for _ in range(1000):
        assert (await ring.identify("wrong")).key is None
    assert reads[0] < 10, f"wrong keys read the store {reads[0]} times in {time.monotonic() - started:.1f} s"


# ------------------------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5usd/day", {"cost_usd": 5.0, "window_s": 86_400.0}), ("0.5 USD/hour", {"cost_usd": 0.5, "window_s": 3600.0}),
        ("20usd/30days", {"cost_usd": 20.0, "window_s": 2_592_000.0}),
    ],
)  # fmt: skip
def test_budgets_are_written_as_one_says_them(text: str, budget: dict[str, float]) -> None:
    """Dollars by a window."""
    from deployments.jobs.keys import budget_of

    assert budget_of(text) == budget


async def test_a_key_is_made_shown_once_listed_and_revoked(
    triptych: Callable[..., tuple[int, str, str]],
    settings: AppSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`triptych keys` works on the store of the config; what it makes opens a server, until it is revoked."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    limits = ("--rpm", "60", "--budget", "5usd/day", "--priority", "batch")
    code, key, said = triptych("keys", "create", "--tenant", "acme", "--name", "ci", "--scope", "generate", *limits)
    assert (code, key.startswith("tp_")) == (0, True)
    assert key.strip() not in said
    code, listed, _ = triptych("keys", "list", "--json")
    import json

    (one,) = json.loads(listed)
    assert (one["tenant"], one["name"], one["scopes"], one["rpm"]) == ("acme", "ci", ["generate"], 60)
    assert (one["budget"], one["priority"]) == ({"cost_usd": 5.0, "window_s": 86_400.0}, "batch")
    assert "hash" not in one and key.strip() not in triptych("keys", "list")[1]
    assert triptych("keys", "revoke", one["id"])[0] == 0
    assert json.loads(triptych("keys", "list", "--json")[1])[0]["revoked_at"] is not None
    assert triptych("keys", "revoke", "key_none")[0] == 2
    for wrong in (["--scope", "all"], ["--budget", "5eur/day"], ["--priority", "urgent"], ["--rpm", "0"]):
        assert triptych("keys", "create", "--tenant", "acme", *wrong)[0] == 2
