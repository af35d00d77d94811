"""Policies changed while requests run: over HTTP in this process, and between two books on one folder."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from deployments.api.app import create_app
from deployments.api.service import Service
from deployments.settings import AppSettings
from policies import PolicyBook, load_policy_text
from router.types import GenerationRequest
from tests.conftest import ADMIN_KEY
from tests.deployments.support.policies import SWITCH
from tests.deployments.support.scripted import Script, scripted

KEY = {"Authorization": f"Bearer {ADMIN_KEY}"}
URL = "/v1/policies/switch"
FIRST, SECOND = SWITCH.format(only="first"), SWITCH.format(only="second")


@pytest.fixture(autouse=True)
def restored(policy_folder: Path):
    """Other tests find the policy as it was."""
    yield
    (policy_folder / "switch.yaml").write_text(FIRST)


async def chosen(client: httpx.AsyncClient) -> str:
    return (await client.post("/v1/route", json={"prompt": "a cat", "model": "switch"})).json()["recipe"]


async def test_put_changes_the_next_request(client: httpx.AsyncClient) -> None:
    """A policy that was put is in force for the next request, with its digest, and can be read back."""
    before = (await client.get(URL, headers=KEY)).json()
    assert before["text"] == FIRST
    put = await client.put(URL, content=SECOND, headers=KEY)
    assert put.status_code == 200
    assert put.json()["digest"] != before["digest"]
    assert await chosen(client) == "second"
    listed = (await client.get("/v1/policies", headers=KEY)).json()
    assert {p["name"]: p["digest"] for p in listed["data"]}["switch"] == put.json()["digest"]
    yaml = await client.get(URL, headers={**KEY, "Accept": "application/yaml"})
    assert (yaml.text, yaml.headers["etag"]) == (SECOND, f'"{put.json()["digest"]}"')


async def test_a_bad_policy_changes_nothing_and_says_why(client: httpx.AsyncClient) -> None:
    """Every problem comes back with line and column, and the old policy goes on."""
    response = await client.put(URL, content=FIRST.replace("model: sd15", "model: sd51"), headers=KEY)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (422, "policy_refused")
    assert len(error["problems"]) == 2
    assert error["problems"][0].startswith("switch.yaml:5:")
    assert await chosen(client) == "first"
    other = await client.put("/v1/policies/elsewhere", content=FIRST, headers=KEY)
    assert (other.status_code, "named 'switch'" in other.json()["error"]["message"]) == (422, True)
    lost = await client.put(URL, content=FIRST + "shadow: {policy: nobody, share: 1}\n", headers=KEY)
    assert "unknown policy 'nobody'" in lost.json()["error"]["problems"][0]
    large = await client.put(URL, content="#" * 300_000, headers=KEY)
    assert large.status_code == 413


async def test_history_and_rollback(client: httpx.AsyncClient) -> None:
    """Each version that was in force can be seen and put in force again; without a digest it is the one before."""
    first = (await client.put(URL, content=FIRST + "# again\n", headers=KEY)).json()["digest"]
    second = (await client.put(URL, content=SECOND, headers=KEY)).json()
    assert [version["digest"] for version in second["versions"][:2]] == [second["digest"], first]
    assert (await client.get(URL, params={"digest": first}, headers=KEY)).json()["text"].startswith(FIRST)
    assert (await client.post(f"{URL}/rollback", headers=KEY)).json()["digest"] == first
    assert await chosen(client) == "first"
    again = await client.post(f"{URL}/rollback", json={"digest": second["digest"]}, headers=KEY)
    assert again.json()["digest"] == second["digest"]
    assert await chosen(client) == "second"
    missing = await client.post(f"{URL}/rollback", json={"digest": "0" * 12}, headers=KEY)
    assert missing.status_code == 404


async def test_two_editors_do_not_overwrite_each_other(client: httpx.AsyncClient) -> None:
    """With `If-Match` a change is refused if another came first."""
    seen = (await client.get(URL, headers=KEY)).json()["digest"]
    assert (await client.put(URL, content=SECOND, headers={**KEY, "If-Match": f'"{seen}"'})).status_code == 200
    late = await client.put(URL, content=FIRST, headers={**KEY, "If-Match": seen})
    assert (late.status_code, late.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_the_key_is_needed(
    client: httpx.AsyncClient, service: Service, settings: AppSettings, method: str
) -> None:
    """Without the key nothing is shown or changed; where no key is set, the endpoints are closed."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer ключ".encode()}):
        response = await client.request(method, URL, content=SECOND, headers=headers)  # type: ignore[arg-type]
        assert (response.status_code, response.json()["error"]["code"]) == (401, "admin_key_required")
    transport = httpx.ASGITransport(app=create_app(service, settings.limits))
    async with httpx.AsyncClient(transport=transport, base_url="http://closed") as closed:
        response = await closed.request(method, URL, content=SECOND, headers=KEY)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "admin_disabled")
    assert await chosen(client) == "first"


async def test_a_broken_file_is_visible(
    client: httpx.AsyncClient, policy_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that was broken by hand leaves the old policy in force; /readyz, the list and a log line say so."""
    assert await chosen(client) == "first"  # which is in force once somebody has looked, whatever test came before
    with caplog.at_level(logging.INFO, "triptych.policies"):
        (policy_folder / "switch.yaml").write_text(FIRST.replace("sd15", "sd51", 1))
        assert await chosen(client) == "first"
        ready = (await client.get("/readyz")).json()
        (policy_folder / "switch.yaml").write_text(SECOND)
        assert await chosen(client) == "second"
    assert "switch.yaml:5:" in ready["policy_problems"][0]
    assert ready["status"] == "degraded"
    assert any("what was in force stays" in record.message for record in caplog.records)
    assert any("is in force instead of" in record.message for record in caplog.records)
    assert (await client.get("/readyz")).json()["policy_problems"] == []


def test_all_who_share_the_folder_follow(tmp_path: Path) -> None:
    """What one process puts in force, another with the same folder follows with its next look-up."""
    (tmp_path / "switch.yaml").write_text(FIRST)
    here, there = PolicyBook(tmp_path, "switch"), PolicyBook(tmp_path, "switch")
    put = here.put("switch", SECOND)
    assert there.get("switch").digest == here.get("switch").digest == put.digest
    old = load_policy_text(FIRST).digest
    assert [version.digest for version in there.versions("switch")] == [put.digest, old]
    assert len(list((tmp_path / ".history" / "switch").iterdir())) == 2


async def test_swaps_under_load(settings: AppSettings, tmp_path: Path) -> None:
    """While policies change under steady load, no request fails and each is answered wholly by one version that was in
    force while it ran."""
    texts = {"switch": SECOND.replace("version: 1\nname: switch\n", "").strip() + "\n"}
    orchestrator, tally = scripted(settings, tmp_path, Script({60: 1.0}, delay_s=0.002), texts)
    clock = asyncio.get_running_loop().time
    since = {orchestrator.policies.get("switch").digest: [(0.0, float("inf"))]}
    answers: list[tuple[float, float, str, str]] = []
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            began = clock()
            outcome = await orchestrator.generate(GenerationRequest("a cat", seed=1))
            answers.append((began, clock(), outcome.route.decision.policy_digest, outcome.made[0].recipe))

    load = [asyncio.create_task(ask()) for _ in range(4)]
    meaning = {orchestrator.policies.get("switch").digest: "second"}
    present = next(iter(meaning))
    for k in range(50):
        began, only = clock(), ("first", "second")[k % 2]
        file = await orchestrator.put_policy("switch", SWITCH.format(only=only))
        since[present][-1] = (since[present][-1][0], clock())
        since.setdefault(file.digest, []).append((began, float("inf")))
        present, meaning[file.digest] = file.digest, only
        await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*load)
    assert len(answers) > 50
    for began, ended, digest, recipe in answers:
        assert any(start <= ended and began <= end for start, end in since[digest])
        assert meaning[digest] == recipe
    assert tally.value("triptych_policy_changes_total") == 50
    (tmp_path / "switch.yaml").write_text("version: 1\n")
    await orchestrator.route(GenerationRequest("a cat"))
    assert tally.value("triptych_policy_problems") == len(orchestrator.policies.problems()) > 0
