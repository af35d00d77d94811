"""Making pictures on the page."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from deployments.api.app import create_app
from deployments.api.keys import Gate
from deployments.api.service import Service
from deployments.assembly import jobs_in
from deployments.in_process import build_local
from deployments.settings import AppSettings, StoreSettings
from deployments.store import open_store
from tests.conftest import store_in
from tests.page.conftest import Seen, Site, Visit, listening, opened

PROMPT = "a red circle above a blue square"
MADE = ".frame.made img"


async def ask_for(page: Any, prompt: str = PROMPT) -> None:
    """Say it and send it, once the server has said what it would do."""
    await page.fill("textarea", prompt)
    await page.locator(".why h2").wait_for()
    await page.keyboard.press("Enter")


async def job_of(site: Site) -> dict[str, Any]:
    """The latest job, as the server has it."""
    listed = (await site.app.http.get("/v1/jobs?limit=1")).json()["data"]
    return (await site.app.http.get(f"/v1/jobs/{listed[0]['id']}")).json()


async def test_two_actions_make_the_first_picture_with_the_shipped_models(
    settings: AppSettings, tmp_path: Path, visit: Visit
) -> None:
    """On a first visit, without reading anything: typing and Enter give a picture of the embedded models."""
    own = settings.model_copy(update={"store": StoreSettings(**store_in(tmp_path))})
    store = open_store(own.store)
    jobs = jobs_in(store, own, build_local(own))
    async with listening(create_app(Service(jobs, own.limits), own.limits, gate=Gate("auto", True))) as url:
        page = await visit(url)
        await page.keyboard.type(PROMPT)
        await page.keyboard.press("Enter")
        picture = page.locator(MADE)
        await picture.wait_for(timeout=60_000)
        assert await picture.evaluate("async image => { await image.decode(); return image.naturalWidth }") == 64
        assert await picture.get_attribute("alt") == PROMPT
        facts = page.locator(".job .facts")
        await facts.wait_for()
        assert "policy balanced" in await facts.inner_text()
    await jobs.stop()
    store.close()


async def test_estimates_move_as_one_types(site: Site, visit: Visit) -> None:
    """Every recipe has its expected quality, seconds and dollars, and one is marked with the reason."""
    page = await visit(site.url)
    await page.locator("label.recipe").nth(7).wait_for()
    assert "–" in await page.locator("label.recipe", has_text="draft").inner_text()
    await page.fill("textarea", "a red circle")
    await page.locator(".recipe.chosen").wait_for()
    easy = await page.locator("label.recipe", has_text="draft").inner_text()
    assert " s" in easy and "$0.0000" in easy
    await page.fill("textarea", "two green stars and three red rings left of a blue square")
    draft = page.locator("label.recipe", has_text="draft").locator(".figure")
    for _ in range(100):
        if await draft.inner_text() != easy.split()[1]:
            break
        await asyncio.sleep(0.05)
    assert float(await draft.inner_text()) < 0.5
    chosen = (await page.locator(".recipe.chosen .name").inner_text()).strip()
    assert await page.locator(".why h2").inner_text() == f"Why {chosen}"


async def test_a_recipe_that_is_picked_is_the_one_that_is_made(site: Site, visit: Visit) -> None:
    """A click on a recipe goes around the policy's choice."""
    page = await visit(site.url)
    await page.fill("textarea", PROMPT)
    await page.locator("label.recipe", has_text="single").click()
    await page.locator(".recipe.chosen", has_text="single").wait_for()
    await page.click("button[type=submit]")
    await page.locator(MADE).wait_for()
    assert (await job_of(site))["recipe"] == "single"


async def test_previews_come_and_the_plan_lights_up(site: Site, visit: Visit) -> None:
    """While a picture is made there are previews of it, and its steps are seen to run and to end, in place."""
    page = await visit(site.url)
    site.painter.gate.clear()
    await ask_for(page)
    preview = page.locator(".frame:not(.made) img")
    await preview.wait_for()
    assert (await preview.get_attribute("src") or "").startswith("data:image/png;base64,")
    assert await page.locator(".steps li.running").count() == 1
    place = await page.locator(".frame").bounding_box()
    site.painter.gate.set()
    await page.locator(MADE).wait_for()
    assert await page.locator(".frame").bounding_box() == place  # nothing moved
    await page.locator(".thumbs").wait_for()
    steps = page.locator(".steps li")
    assert await steps.count() == await page.locator(".steps li.done").count() == 2


async def test_what_was_looked_at_and_tried_again_is_told(site: Site, visit: Visit) -> None:
    """A picture that is probably wrong, and the one that was made instead, stand below each other with the reason."""
    page = await visit(site.url)
    site.painter.looks = [0.01, 0.97]
    await ask_for(page, "two green stars and three red rings left of a blue square")
    await page.locator(".thumbs").wait_for()
    looks = await page.locator(".look").all_inner_texts()
    assert "probably not what you asked for" in looks[0] and "probably right" in looks[1]
    assert "expected to gain more than it costs" in await page.locator(".rounds > li").nth(1).inner_text()
    told = await page.locator(".rounds").inner_text()
    await page.reload()
    await page.locator(".thumbs").wait_for()
    again = await page.locator(".rounds").inner_text()
    assert [line for line in told.splitlines() if "robab" in line] == [
        line for line in again.splitlines() if "robab" in line
    ]


async def test_a_job_is_cancelled(site: Site, visit: Visit) -> None:
    """Cancel ends it here and at the server, and it can be asked for again."""
    page = await visit(site.url)
    site.painter.gate.clear()
    await ask_for(page)
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Try again").wait_for()
    assert (await job_of(site))["state"] == "cancelled"
    assert "cancelled" in await page.locator(".job .state").inner_text()


async def test_a_failure_is_told_with_its_remedy(site: Site, visit: Visit) -> None:
    """What the server says of a step that failed stands where the picture would."""
    page = await visit(site.url)
    site.painter.broken = {"sdxl-turbo", "sd15", "sdxl", "flux"}
    await ask_for(page)
    problem = page.locator(".job .problem")
    await problem.wait_for()
    assert "ask for a smaller size" in await problem.inner_text()


async def test_what_no_recipe_can_serve_says_why_at_each(site: Site, visit: Visit, seen: Seen) -> None:
    """Too large a size: no recipe is chosen, and each has its reason beside it."""
    seen.allowed = (422, 400)
    page = await visit(site.url)
    await page.fill("textarea", PROMPT)
    await page.click("summary:has-text('More')")
    await page.fill("input[placeholder=auto]", "4096x4096")
    await page.locator(".recipe.out").nth(6).wait_for()
    assert "too large" in await page.locator(".recipe.out .reason").first.inner_text()
    assert await page.locator(".recipe.chosen").count() == 0
    await page.fill("input[placeholder=auto]", "huge")
    await page.locator(".field .wrong").wait_for()
    assert "neither auto nor WIDTHxHEIGHT" in await page.locator(".field .wrong").inner_text()


async def test_a_reload_in_the_midst_of_a_job_finds_it(site: Site, visit: Visit) -> None:
    """The same address, or just the page's in another tab, shows the job that is being made, and then its picture."""
    page = await visit(site.url)
    site.painter.gate.clear()
    await ask_for(page)
    await page.locator(".frame:not(.made) img").wait_for()
    await page.reload()
    await page.locator(".frame:not(.made) img").wait_for()
    other = await visit(site.url)
    await other.locator(".frame:not(.made) img").wait_for()
    site.painter.gate.set()
    await page.locator(MADE).wait_for()
    await other.locator(MADE).wait_for()
    assert (await page.locator("textarea").input_value()) == PROMPT


async def test_the_history_survives_a_restart(settings: AppSettings, tmp_path: Path, visit: Visit) -> None:
    """Another server over the same store has what was made before, and makes it again: the same recipe and seed."""
    async with opened(settings, tmp_path / "site") as site:
        page = await visit(site.url)
        await ask_for(page)
        await page.locator(".thumbs").wait_for()
        await site.app.done((await job_of(site))["id"])
    async with opened(settings, tmp_path / "site") as site:
        before = await job_of(site)
        page = await visit(site.url)
        await page.locator(".history a").click()
        await page.get_by_role("button", name="Replay").click()
        await page.locator(".history li").nth(1).wait_for()
        await page.locator(".thumbs").wait_for()
        after = await site.app.done((await job_of(site))["id"])
    assert after["id"] != before["id"]
    assert [(one["recipe"], one["pictures"][0]["seed"]) for one in (before, after)] == [
        (before["recipe"], before["pictures"][0]["seed"])
    ] * 2


async def test_recipes_are_compared_over_one_seed(site: Site, visit: Visit) -> None:
    """Compare makes one job for each recipe that is ticked, with the same prompt and seed, side by side."""
    page = await visit(site.url)
    await page.fill("textarea", PROMPT)
    await page.locator(".why h2").wait_for()
    await page.click("button:has-text('Compare')")
    assert await page.locator("label.recipe input:checked").count() == 3
    await page.click("button[type=submit]")
    await page.locator(".stage.many .thumbs").nth(2).wait_for()
    jobs = (await site.app.http.get("/v1/jobs")).json()["data"]
    assert len({job["recipe"] for job in jobs}) == 3
    assert len({(job["request"]["seed"], job["request"]["prompt"]) for job in jobs}) == 1
    tops = [(await page.locator(".many .frame").nth(place).bounding_box())["y"] for place in range(3)]
    assert len(set(tops)) == 1  # side by side


async def test_several_pictures_each_have_their_place_and_story(site: Site, visit: Visit) -> None:
    """n pictures have n frames from the start; a click on one tells how that one was made."""
    page = await visit(site.url)
    await page.fill("textarea", PROMPT)
    await page.click("summary:has-text('More')")
    await page.fill("input[type=number]", "4")
    await page.keyboard.press("Enter")
    await page.locator(".frame").nth(3).wait_for()
    await page.locator(MADE).nth(3).wait_for()
    await page.locator(".thumbs").wait_for()
    await page.locator(".frame button").nth(2).click()
    assert await page.locator(".frame button").nth(2).get_attribute("aria-pressed") == "true"
    async with page.expect_download() as download:
        await page.click("a:has-text('Download')")
    assert (await download.value).suggested_filename.endswith("-2.png")


async def test_a_rating_goes_to_the_picture_that_is_told_about(site: Site, visit: Visit) -> None:
    """A thumb is sent as feedback on that picture of the request, and is still there after a reload."""
    page = await visit(site.url)
    await ask_for(page)
    await page.locator(".thumbs").wait_for()
    sent: list[Any] = []

    async def answer(route: Any) -> None:
        sent.append(json.loads(route.request.post_data))
        await route.fulfill(json={"object": "feedback"})

    await page.route("**/v1/feedback", answer)  # these workers have no log of decisions to attach it to
    await page.get_by_role("button", name="It is right", exact=True).click()
    await page.locator("button.up[aria-pressed=true]").wait_for()
    request = (await job_of(site))["result"]["x_triptych"]["request_id"]
    assert sent == [{"id": request, "thumb": "up", "image": 0}]
    await page.reload()
    await page.locator("button.up[aria-pressed=true]").wait_for()


async def test_a_server_that_asks_for_a_key_gets_one(
    settings: AppSettings, tmp_path: Path, visit: Visit, seen: Seen
) -> None:
    """On 401 the page asks for a key, goes on with it, and keeps it in this tab only."""
    seen.allowed = (401,)
    async with opened(settings, tmp_path / "site", Gate(True)) as site:
        key = site.app.key()["authorization"].removeprefix("Bearer ")
        page = await visit(site.url)
        await page.locator("dialog[open]").wait_for()
        await page.fill("dialog input", key)
        await page.keyboard.press("Enter")
        await page.locator("label.recipe").nth(7).wait_for()
        await ask_for(page)
        await page.locator(MADE).wait_for()
        kept = await page.evaluate("[JSON.stringify(localStorage), sessionStorage.getItem('triptych-key')]")
        assert key not in kept[0] and kept[1] == key


async def test_a_server_that_is_away_is_told_and_found_again(site: Site, visit: Visit, seen: Seen) -> None:
    """Without an answer the page says so in words; when there is one again, the words go away."""
    page = await visit(site.url)
    await page.locator("label.recipe").nth(7).wait_for()
    await page.route("**/v1/route", lambda route: route.abort())
    await page.fill("textarea", "a red")
    await page.locator(".why", has_text="The server does not answer").wait_for()
    await page.unroute("**/v1/route")
    await page.fill("textarea", PROMPT)
    await page.locator(".why h2", has_text="Why").wait_for()
    assert all("ERR_FAILED" in text for text in seen.errors)
    seen.errors.clear()


async def test_an_address_of_a_job_that_is_not_kept_says_so(site: Site, visit: Visit, seen: Seen) -> None:
    """An old link tells what is wrong, and the words go when something else is shown."""
    seen.allowed = (404,)
    page = await visit(site.url + "#/jobs/job_none")
    problem = page.locator(".wall > .problem")
    await problem.filter(has_text="job_none").wait_for()
    await ask_for(page)
    await page.locator(MADE).wait_for()
    assert await problem.inner_text() == ""


async def test_a_streamed_job_is_tried_again(site: Site, visit: Visit) -> None:
    """What was of that call only (a stream, its form, who asked) is not sent again; the picture is the same."""
    site.painter.broken = {"sdxl-turbo", "sd15", "sdxl", "flux"}
    asked = {"prompt": PROMPT, "seed": 7, "stream": True, "response_format": "b64_json", "user": "u"}
    await site.app.http.post("/v1/images/generations", json=asked)
    failed = await job_of(site)
    assert failed["state"] == "failed" and failed["request"]["stream"]
    site.painter.broken = set()
    page = await visit(site.url + f"#/jobs/{failed['id']}")
    await page.get_by_role("button", name="Try again").click()
    await page.locator(MADE).wait_for()
    again = (await job_of(site))["request"]
    assert "stream" not in again and "user" not in again and again["seed"] == 7


async def test_the_settings_of_a_past_request_come_back_whole(site: Site, visit: Visit) -> None:
    """*Edit prompt* takes steps, guidance and styles into their fields, and the rest as what can be left out."""
    asked = {"prompt": PROMPT, "model": "sd15", "seed": 7, "steps": 4, "guidance_scale": 1.5}
    asked["style"] = {"outlined": 0.7}
    job = (await site.app.http.post("/v1/jobs", json={**asked, "tags": ["a", "b"], "degrade": False})).json()
    await site.app.done(job["id"])
    page = await visit(site.url + f"#/jobs/{job['id']}")
    await page.get_by_role("button", name="Edit prompt").click()
    await page.fill("textarea", "a blue ring")
    await page.click("summary:has-text('More')")
    await page.get_by_role("button", name="Leave out degrade").click()
    await page.keyboard.press("Escape")
    await page.click("button[type=submit]")
    await page.locator(".history li").nth(1).wait_for()
    again = (await job_of(site))["request"]
    assert again == {**again, **asked, "prompt": "a blue ring", "tags": ["a", "b"]} and "degrade" not in again


async def test_another_key_sees_nothing_of_the_one_before(
    settings: AppSettings, tmp_path: Path, visit: Visit, seen: Seen
) -> None:
    """With another key, the history, and the pictures that were shown, are that key's."""
    seen.allowed = (401, 404)
    async with opened(settings, tmp_path / "site", Gate(True)) as site:
        mine, other = (site.app.key(name)["authorization"].removeprefix("Bearer ") for name in ("acme", "other"))
        page = await visit(site.url)
        await page.fill("dialog input", mine)
        await page.keyboard.press("Enter")
        await page.locator("label.recipe").nth(7).wait_for()
        await ask_for(page)
        await page.locator(".thumbs").wait_for()
        await page.locator(".history li").wait_for()
        await page.get_by_role("button", name="Key set").click()
        await page.fill("dialog input", other)
        await page.keyboard.press("Enter")
        await page.locator(".wall > .problem", has_text="job").wait_for()
        assert await page.locator(".history li").count() == await page.locator(MADE).count() == 0
        await page.close()  # before its server


async def test_a_broken_address_and_broken_storage_break_nothing(site: Site, visit: Visit, seen: Seen) -> None:
    """Half an escape in the address, and anything in the browser's storage: the page is there and works."""
    seen.allowed = (404,)  # of the job of the whole escape
    page = await visit(site.url)
    kept = {"triptych-rated": "{", "triptych-theme": "x", "triptych-draft": "["}
    await page.evaluate("kept => Object.entries(kept).forEach(one => localStorage.setItem(...one))", kept)
    await page.evaluate("kept => Object.entries(kept).forEach(one => sessionStorage.setItem(...one))", kept)
    await page.goto(site.url + "#/jobs/%25,%")
    await page.goto(site.url + "#/jobs/%")
    await page.reload()
    await page.locator("label.recipe").nth(7).wait_for()
    await ask_for(page)
    await page.locator(".thumbs").wait_for()


async def test_what_cannot_be_rated_has_no_thumbs(site: Site, visit: Visit) -> None:
    """A picture of a job without an answer has no request to attach feedback to, so there is nothing to press."""
    job = (await site.app.http.post("/v1/jobs", json={"prompt": PROMPT, "seed": 1})).json()
    report = await site.app.done(job["id"])
    page = await visit(site.url)
    cut = {**report, "state": "cancelled", "result": None}
    await page.route(f"**/v1/jobs/{job['id']}", lambda route: route.fulfill(json=cut))
    await page.goto(site.url + f"#/jobs/{job['id']}")
    await page.locator(MADE).wait_for()
    await page.get_by_role("button", name="Try again").wait_for()
    assert await page.locator(".thumbs").count() == 0
