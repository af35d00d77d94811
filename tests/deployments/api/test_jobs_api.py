"""Jobs over HTTP: accepted now, asked for later; their events; pictures at signed addresses. The store is real."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from deployments.settings import AppSettings, UrlSettings
from router.types import Step, StepResult
from tests.deployments.support.scripted import Script
from tests.deployments.support.served import BODY, GENERATE, JOBS, Served, served


@pytest.fixture
async def app(settings: AppSettings, tmp_path: Path) -> AsyncIterator[Served]:
    """An application without keys, on loopback."""
    async with served(settings, tmp_path, Script({}, delay_s=0.02)) as made:
        yield made


def parsed(text: str) -> list[dict[str, Any]]:
    """Server-sent events: `id`, `event` and `data` of each."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if fields:
            found.append({**fields, "data": json.loads(fields["data"])})
    return found


async def test_a_job_is_accepted_with_202_and_found_at_its_location(app: Served) -> None:
    """The answer comes before the pictures; the location has state, progress and, at the end, everything."""
    answer = await app.http.post(JOBS, json={**BODY, "n": 2, "user": "ann"})
    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/jobs/{job['id']}")
    assert job["state"] in ("queued", "running")  # its first step may begin while the store commits
    assert (job["n"], job["position"], job["pictures"], job["result"]) == (2, 0, [], None)
    assert job["eta_s"] > 0
    done = await app.done(job["id"])
    assert (done["state"], done["progress"], done["recipe"], done["user"]) == ("done", 1.0, "draft", "ann")
    assert done["position"] is done["eta_s"] is None
    assert [one["seed"] for one in done["pictures"]] == [7, 8]
    assert [set(one) for one in done["result"]["data"]] == [{"url", "seed"}] * 2
    assert done["result"]["x_triptych"]["job"] == job["id"]


async def test_respond_async_makes_a_job_of_a_generation(app: Served) -> None:
    """`Prefer: respond-async` on generations is a job, and says that it was applied."""
    headers = {"prefer": "wait=10, respond-async"}
    answer = await app.http.post(GENERATE, json=BODY, headers=headers)
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    assert (await app.done(answer.json()["id"]))["state"] == "done"


async def test_a_job_s_pictures_are_those_of_the_call_that_waits(app: Served) -> None:
    """The same body has the same bytes, inline, by address, and by the address of a job."""
    inline = (await app.http.post(GENERATE, json={**BODY, "n": 2})).json()
    by_url = (await app.http.post(GENERATE, json={**BODY, "n": 2, "response_format": "url"})).json()
    job = await app.done((await app.http.post(JOBS, json={**BODY, "n": 2})).json()["id"])
    wanted = [base64.b64decode(one["b64_json"]) for one in inline["data"]]
    for urls in ([one["url"] for one in by_url["data"]], [one["url"] for one in job["pictures"]]):
        assert [(await app.http.get(url)).content for url in urls] == wanted


async def test_a_list_has_pages_and_states(app: Served) -> None:
    """Latest first, page by page, by state; with the addresses of pictures and the request, without results."""
    ids = [(await app.http.post(JOBS, json={**BODY, "seed": seed})).json()["id"] for seed in range(5)]
    for id in ids:
        await app.done(id)
    first = (await app.http.get(JOBS, params={"limit": 2})).json()
    assert ([one["id"] for one in first["data"]], first["has_more"]) == ([ids[4], ids[3]], True)
    rest = (await app.http.get(JOBS, params={"limit": 9, "cursor": first["next_cursor"]})).json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([ids[2], ids[1], ids[0]], False)
    shown = first["data"][0]
    assert "result" not in shown
    assert (await app.http.get(shown["pictures"][0]["url"])).content.startswith(b"\x89PNG")
    assert shown["request"] == {**BODY, "seed": 4}
    assert (await app.http.get(JOBS, params={"state": "failed,cancelled"})).json()["data"] == []
    assert len((await app.http.get(JOBS, params={"state": "done"})).json()["data"]) == 5


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=x", "limit"), ("state=gone", "state"), ("cursor=%00", "cursor"), ("page=2", "page")],
)
async def test_a_list_refuses_what_it_does_not_know(app: Served, query: str, param: str) -> None:
    """A wrong query is 400 that names it."""
    answer = await app.http.get(f"{JOBS}?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_cancelled_job_is_over(settings: AppSettings, tmp_path: Path) -> None:
    """DELETE ends an open job; a second one, and one of a job that is done, change nothing."""
    async with served(settings, tmp_path, Script({}, delay_s=60)) as app:
        id = (await app.http.post(JOBS, json=BODY)).json()["id"]
        assert [(await app.http.delete(f"{JOBS}/{id}")).json()["state"] for _ in range(2)] == ["cancelled"] * 2
        assert (await app.done(id))["error"]["code"] == "cancelled"


@pytest.mark.parametrize(("method", "end"), [("GET", ""), ("DELETE", ""), ("GET", "/events")])
async def test_an_unknown_job_is_404(app: Served, method: str, end: str) -> None:
    """Whatever is asked of it, in the envelope."""
    answer = await app.http.request(method, f"{JOBS}/job_none{end}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")


# ------------------------------------------------------------------------------------------------------------- events


SEARCH = """recipes: {draft: {generate: {model: sd15}}, single: {generate: {model: sdxl}}}
objective: {minimise: cost_usd}
verify: {scorer: alignment, accept_above: 0.6, escalate_to: [single]}
"""


async def test_events_tell_the_plan_each_look_and_each_choice(settings: AppSettings, tmp_path: Path) -> None:
    """Which steps there are, when each begins and ends, what a look found, and what was done about it, in that order;
    a picture comes with the report that the answer has of it."""
    async with served(settings, tmp_path, Script({60: 0.2, 120: 0.9}), policy=SEARCH) as app:
        id = (await app.http.post(JOBS, json=BODY)).json()["id"]
        told = [event["data"] for event in parsed((await app.http.get(f"{JOBS}/{id}/events")).text)]
        result = (await app.done(id))["result"]
    routed = told[0]
    assert (routed["recipe"], [step["id"] for step in routed["steps"]]) == ("draft", ["1-generate-sd15"])
    assert routed["estimate"]["quality"]["mean"] <= 1 and routed["reasons"] and routed["seed"] == BODY["seed"]
    story = [
        (one["type"], one.get("step") or one.get("action") or one.get("recipe"), one.get("done"), one.get("accepted"))
        for one in told[1:-2]
    ]
    assert story == [
        ("job.step", "1-generate-sd15", 0, None),
        ("job.step", "1-generate-sd15", 1, None),
        ("job.step", "verify-alignment", 0, None),
        ("job.check", "draft", None, False),
        ("job.choice", "escalate", None, None),
        ("job.step", "1-generate-sdxl", 0, None),
        ("job.step", "1-generate-sdxl", 1, None),
        ("job.step", "verify-alignment", 0, None),
        ("job.check", "single", None, True),
        ("job.choice", "stop", None, None),
    ]
    assert [step["id"] for step in told[5]["steps"]] == ["1-generate-sdxl"]
    assert told[-2]["report"] == result["x_triptych"]["pictures"][0]


async def test_previews_that_were_asked_for_come_though_nobody_followed_when_it_began(
    settings: AppSettings, tmp_path: Path
) -> None:
    """A job with `partial_images` shows its first step too: whoever asked comes to follow after it has begun."""

    class Telling(Script):
        followed = False

        async def run(self, step: Step, inputs: Any, deadline_s: float, on_progress: Any = None) -> StepResult:
            self.followed = on_progress is not None
            return await super().run(step, inputs, deadline_s, on_progress)

    for previews in (0, 2):
        script = Telling({})
        folder = tmp_path / str(previews)
        folder.mkdir()
        async with served(settings, folder, script) as app:
            await app.done((await app.http.post(JOBS, json={**BODY, "partial_images": previews})).json()["id"])
        assert script.followed is (previews > 0)


async def test_events_end_with_the_job_and_go_on_where_a_client_left(app: Served) -> None:
    """Every event has an id; whoever sends it back gets what follows, and after the last one 204, so that browsers
    stop asking."""
    id = (await app.http.post(JOBS, json={**BODY, "n": 2})).json()["id"]
    events = parsed((await app.http.get(f"{JOBS}/{id}/events")).text)
    kinds = [event["event"] for event in events]
    assert [kind for kind in kinds if kind != "job.step"] == ["job.routed", "job.picture", "job.picture", "job.done"]
    assert all(event["event"] == event["data"]["type"] and event["data"]["job"] == id for event in events)
    rest = await app.http.get(f"{JOBS}/{id}/events", headers={"last-event-id": events[2]["id"]})
    assert parsed(rest.text) == events[3:]
    over = await app.http.get(f"{JOBS}/{id}/events", headers={"last-event-id": events[-1]["id"]})
    assert (over.status_code, over.content) == (204, b"")
    wrong = await app.http.get(f"{JOBS}/{id}/events", headers={"last-event-id": "x"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "Last-Event-ID")
    picture = next(event["data"] for event in events if event["event"] == "job.picture")
    assert (await app.http.get(picture["url"])).headers["content-type"] == "image/png"


async def test_events_of_another_life_are_told_from_the_beginning(app: Served) -> None:
    """The numbers of an orchestrator that is gone mean nothing to its successor: nothing is left out."""
    id = (await app.http.post(JOBS, json=BODY)).json()["id"]
    await app.done(id)
    app.jobs._live.clear()  # as after a restart
    events = parsed((await app.http.get(f"{JOBS}/{id}/events", headers={"last-event-id": "99-50"})).text)
    assert [event["event"] for event in events] == ["job.picture", "job.done"]


async def test_a_failed_job_says_why_in_all_places(settings: AppSettings, tmp_path: Path) -> None:
    """Its state, its last event and the call that waited have the same words."""

    class Broken(Script):
        async def run(self, *args: Any) -> Any:
            from router.errors import StepError

            raise StepError("the accelerator is gone")

    async with served(settings, tmp_path, Broken({})) as app:
        waited = await app.http.post(GENERATE, json=BODY)
        id = (await app.http.post(JOBS, json=BODY)).json()["id"]
        job = await app.done(id)
        last = parsed((await app.http.get(f"{JOBS}/{id}/events")).text)[-1]
        assert (job["state"], last["event"], waited.status_code) == ("failed", "job.failed", 500)
        assert job["error"]["message"] == last["data"]["error"]["message"] == waited.json()["error"]["message"]


# -------------------------------------------------------------------------------------------------------- idempotency


async def test_an_idempotency_key_is_one_job_however_often_it_comes(app: Served) -> None:
    """Sent again while it runs or later, as a call or as a job: the same pictures, made once; another body is 409."""
    headers = {"idempotency-key": "0d2c"}
    first, second = await asyncio.gather(
        app.http.post(GENERATE, json=BODY, headers=headers), app.http.post(GENERATE, json=BODY, headers=headers)
    )
    third = await app.http.post(JOBS, json=BODY, headers=headers)
    assert first.json()["data"] == second.json()["data"]
    assert third.json()["id"] == first.headers["x-triptych-job"] == second.headers["x-triptych-job"]
    assert len(app.script.ran) == 1
    assert sorted("idempotent-replayed" in one.headers for one in (first, second, third)) == [False, True, True]
    other = await app.http.post(GENERATE, json={**BODY, "seed": 8}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_mismatch")
    assert other.headers["x-should-retry"] == "false"


async def test_a_client_that_lost_its_connection_finds_its_pictures(settings: AppSettings, tmp_path: Path) -> None:
    """A call that was broken off is made all the same, and the same call again has its answer."""
    async with served(settings, tmp_path, Script({}, delay_s=0.2)) as app:
        headers = {"idempotency-key": "k"}
        asking = asyncio.ensure_future(app.http.post(GENERATE, json=BODY, headers=headers))
        while not app.script.ran:
            await asyncio.sleep(0.01)
        asking.cancel()
        again = await app.http.post(GENERATE, json=BODY, headers=headers)
        assert (again.status_code, len(app.script.ran)) == (200, 1)


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256])
async def test_an_unsound_idempotency_key_is_refused(app: Served, key: str) -> None:
    """Empty, with spaces, not ASCII, too long: 400, and nothing is made."""
    answer = await app.http.post(JOBS, json=BODY, headers={"idempotency-key": key.encode()})  # type: ignore[dict-item]
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


# ---------------------------------------------------------------------------------------------------------- addresses


async def test_an_address_opens_a_picture_until_it_expires(settings: AppSettings, tmp_path: Path) -> None:
    """Without a key, with its type, cached no longer than it is good for; expired and forged ones are 403."""
    async with served(settings, tmp_path, urls=UrlSettings(expire_s=1000)) as app:
        url = (await app.http.post(GENERATE, json={**BODY, "response_format": "url"})).json()["data"][0]["url"]
        assert url.startswith("http://triptych/v1/images/job_")
        picture = await app.http.get(url)
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
        assert picture.content.startswith(b"\x89PNG")
        assert "max-age=1000" in picture.headers["cache-control"] or "max-age=1001" in picture.headers["cache-control"]
        assert (await app.http.head(url)).headers["content-length"] == str(len(picture.content))
        other = re.sub(r"-0/", "-1/", url)
        later = re.sub(r"expires=(\d+)", lambda found: f"expires={int(found[1]) + 1}", url)
        bare = url.partition("?")[0]
        for forged in (other, later, bare, url[:-1], url.replace("signature=", "signature=%C3%BC")):
            answer = await app.http.get(forged)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "invalid_signature")


async def test_an_expired_address_says_so(
    settings: AppSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """403 with what to do; the job's new addresses open."""
    async with served(settings, tmp_path) as app:
        answer = await app.http.post(GENERATE, json={**BODY, "response_format": "url"})
        from deployments.api import urls

        now = urls.time.time()
        with monkeypatch.context() as later:
            later.setattr(urls.time, "time", lambda: now + 4000)
            expired = await app.http.get(answer.json()["data"][0]["url"])
        assert (expired.status_code, expired.json()["error"]["code"]) == (403, "url_expired")
        job = await app.done(answer.headers["x-triptych-job"])
        assert (await app.http.get(job["pictures"][0]["url"])).status_code == 200


async def test_addresses_outlive_the_process_that_made_them(settings: AppSettings, tmp_path: Path) -> None:
    """The secret lies in the store's folder, for nobody else to read: the next server opens the old addresses."""
    async with served(settings, tmp_path) as first:
        answer = await first.http.post(GENERATE, json={**BODY, "response_format": "url"})
        await first.done(answer.headers["x-triptych-job"])
    async with served(settings, tmp_path) as second:
        assert (await second.http.get(answer.json()["data"][0]["url"])).status_code == 200
    secret = tmp_path / "state" / "url-secret"
    assert (secret.stat().st_mode & 0o777, len(secret.read_bytes())) == (0o600, 64)


async def test_the_configured_base_stands_before_addresses(settings: AppSettings, tmp_path: Path) -> None:
    """Behind a reverse proxy addresses begin as the operator says, not as the request came."""
    async with served(settings, tmp_path, urls=UrlSettings(base="https://pictures.example.org/t/")) as app:
        answer = await app.http.post(GENERATE, json={**BODY, "response_format": "url"})
        assert answer.json()["data"][0]["url"].startswith("https://pictures.example.org/t/v1/images/job_")


# ------------------------------------------------------------------------------------------------- clients and handles


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (JOBS, {"stream": True}, "stream"), (GENERATE, {"stream": True, "response_format": "url"}, "response_format"),
        (GENERATE, {"partial_images": 2}, "partial_images"), (JOBS, {"response_format": "bytes"}, "response_format"),
        (JOBS, {"webhook": "https://example.org"}, "webhook"),
    ],
)  # fmt: skip
async def test_what_does_not_go_together_is_refused(app: Served, path: str, body: dict[str, Any], param: str) -> None:
    """With the field and the way that there is."""
    answer = await app.http.post(path, json={**BODY, **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_openais_client_takes_urls_strictly(app: Served) -> None:
    """`response_format="url"` passes the client's strict validation, as do the ids in headers."""
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app.app))
    async with openai.AsyncOpenAI(
        base_url="http://triptych/v1", api_key="unused", http_client=http, _strict_response_validation=True
    ) as client:
        answer = await client.images.generate(prompt="a red circle", model="sd15", response_format="url")
        assert answer.data and answer.data[0].url and answer.data[0].b64_json is None
        raw = await client.images.with_raw_response.generate(prompt="a red circle", model="sd15")
        assert raw.headers["x-triptych-job"].startswith("job_")


async def test_the_same_is_there_without_http(app: Served) -> None:
    """Submit, status, cancel and events by the calls that a handle has, in builtins."""
    job = (await app.service.submit(BODY)).body
    events = [event async for event in app.service.told_each(app.service.events(job["id"]))]
    assert events[-1]["type"] == "job.done"
    assert (await app.service.status(job["id"]))["state"] == "done"
    assert (await app.service.cancel(job["id"]))["state"] == "done"
    lost = [event async for event in app.service.told_each(app.service.events("job_none"))]
    assert [one["error"]["code"] for one in lost] == ["job_not_found"]


async def test_a_stream_says_its_job_in_its_headers(app: Served) -> None:
    """Whoever loses the connection of a stream finds the pictures under that id."""
    async with app.http.stream("POST", GENERATE, json={**BODY, "stream": True}) as answer:
        id = answer.headers["x-triptych-job"]
        await answer.aread()
    assert "id:" not in answer.text
    assert (await app.done(id))["state"] == "done"


async def test_a_stream_that_is_asked_for_again_has_its_pictures(app: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when its job is known from the store alone: the same picture, complete, with what it says of itself."""
    monkeypatch.setattr("deployments.jobs.life.running.KEPT_S", 0.0)
    headers, body = {"idempotency-key": "again"}, {**BODY, "stream": True}
    first = (await app.http.post(GENERATE, json=body, headers=headers)).text
    while app.jobs._live:
        await asyncio.sleep(0.01)
    second = (await app.http.post(GENERATE, json=body, headers=headers)).text

    def made(text: str) -> list[tuple[str, int]]:
        lines = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        return [(one["b64_json"], len(one["x_triptych"]["pictures"])) for one in lines if "completed" in one["type"]]

    assert made(first) == made(second) and len(made(first)) == 1
