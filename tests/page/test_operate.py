"""Operating a server on the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deployments.api.keys import Gate
from deployments.settings import AppSettings
from tests.page.conftest import Seen, Site, Visit, opened

ADMIN = "open sesame"
BODY = {"prompt": "a red circle", "seed": 1}


@pytest.fixture
async def site(settings: AppSettings, tmp_path: Path) -> AsyncIterator[Site]:
    """A site that only this machine reaches, with an admin key of the environment."""
    async with opened(settings, tmp_path / "site", Gate("auto", True, ADMIN)) as found:
        yield found


async def entered(page: Any) -> None:
    """Give the admin key where the page asks for it."""
    await page.get_by_role("button", name="Key", exact=True).click()
    await page.fill("dialog input", ADMIN)
    await page.keyboard.press("Enter")


async def made(site: Site, count: int = 1) -> None:
    """Some pictures."""
    for seed in range(count):
        job = (await site.app.http.post("/v1/jobs", json={**BODY, "seed": seed})).json()
        await site.app.done(job["id"])


async def test_the_overview_shows_what_runs_and_what_it_was_worth(site: Site, visit: Visit) -> None:
    """Models with their queues, jobs by state, recipes with share and quality, tenants: of this server, as it is."""
    await made(site, 2)
    page = await visit(site.url)
    await entered(page)
    await page.goto(site.url + "#/operate")
    await page.get_by_role("row").filter(has_text="sdxl-refiner").filter(has_text="ready").first.wait_for()
    assert await page.locator(".counts div", has_text="done").locator("dd").inner_text() == "2"
    taken = page.get_by_role("region", name="Recipes that were taken").get_by_role("row").nth(1)
    assert "balanced" not in await taken.inner_text() and "main" in await taken.inner_text()
    assert "100 %" in await taken.inner_text()
    assert "(nobody named)" in await page.get_by_role("region", name="What each tenant used").inner_text()
    assert "Nothing was refused" in await page.locator(".operate").inner_text()


async def test_jobs_of_all_are_listed_and_ended(site: Site, visit: Visit) -> None:
    """An open job stands in the list with a button that ends it."""
    site.painter.gate.clear()
    job = (await site.app.http.post("/v1/jobs", json=BODY)).json()["id"]
    page = await visit(site.url)
    await entered(page)
    await page.goto(site.url + "#/operate/jobs")
    await page.get_by_role("button", name="Cancel a red circle").click()
    await page.locator(".state.cancelled").wait_for()
    assert (await site.app.http.get(f"/v1/jobs/{job}")).json()["state"] == "cancelled"
    await page.select_option("select", "done")
    await page.get_by_text("There are none.").wait_for()


async def test_without_an_admin_key_policies_are_closed_with_the_remedy(site: Site, visit: Visit, seen: Seen) -> None:
    """The page says what is needed, takes the key, and opens them."""
    seen.allowed = (401, 403)
    page = await visit(site.url + "#/operate/policies")
    await page.locator("dialog[open]").wait_for()
    assert "admin key" in await page.locator("dialog").inner_text()
    await page.fill("dialog input", ADMIN)
    await page.keyboard.press("Enter")
    await page.locator(".sheet textarea").wait_for()


async def test_a_policy_is_mended_previewed_and_put_in_force(site: Site, visit: Visit) -> None:
    """A mistake is told with its line and a proposal that one click takes; what a change would do is told beforehand;
    then it is in force, and can be taken back."""
    await made(site, 2)
    page = await visit(site.url)
    await entered(page)
    await page.goto(site.url + "#/operate/policies")
    area = page.locator(".sheet textarea")
    await area.wait_for()
    text = await area.input_value()
    force = page.get_by_role("button", name="Put in force")
    assert await force.is_disabled()

    await area.fill(text.replace("{model: sd15,", "{model: sd51,"))
    await page.get_by_role("button", name="Use sd15").first.click()
    assert await area.input_value() == text

    await area.fill(text.replace("{cheapest_within: 0.08}", "{maximise: quality}"))
    await page.locator(".verdict h2", has_text="What it would change").wait_for()
    verdict = await page.locator(".verdict").inner_text()
    assert "of the last 2 decisions" in verdict and "Expected quality" in verdict
    assert not await force.is_disabled()
    before = (await site.app.service.policy("main"))["digest"]
    await force.click()
    await page.get_by_text("It is in force: the next request follows it.").wait_for()
    assert (await site.app.service.policy("main"))["digest"] != before
    await page.get_by_role("button", name="Roll back").click()
    await page.get_by_text("The version before is in force again.").wait_for()
    assert await area.input_value() == text


async def test_a_key_is_made_shown_once_and_revoked(site: Site, visit: Visit) -> None:
    """The new key stands on the page this once, works, and is of no use after it was revoked."""
    page = await visit(site.url)
    await entered(page)
    await page.goto(site.url + "#/operate/keys")
    await page.click("summary:has-text('New key')")
    await page.fill("input[name=tenant]", "acme")
    await page.fill("input[name=budget]", "5usd/day")
    await page.click("button:has-text('Make the key')")
    key = await page.locator(".made code").inner_text()
    header = {"authorization": f"Bearer {key}"}
    assert (await site.app.http.get("/v1/jobs", headers=header)).status_code == 200
    row = page.get_by_role("row").filter(has_text="acme")
    await row.filter(has_text="5usd/day").wait_for()
    await page.reload()
    await row.wait_for()
    assert key not in await page.content()
    await row.get_by_role("button").click()
    await row.get_by_role("button", name="for good").click()
    await row.filter(has_text="revoked").wait_for()


async def test_a_server_without_an_overview_says_so(site: Site, visit: Visit, seen: Seen) -> None:
    """Before a server that is older than the page, it shows what there is."""
    seen.allowed = (404,)
    page = await visit(site.url)
    gone = {"error": {"message": "there is nothing here", "code": "unknown_url", "type": "invalid_request_error"}}
    await page.route("**/v1/admin/**", lambda route: route.fulfill(status=404, json=gone))
    await page.goto(site.url + "#/operate")
    await page.get_by_text("This server does not offer the overview yet").wait_for()
    await page.get_by_role("row").filter(has_text="flux").wait_for()


async def test_what_was_written_outlives_entering_a_key(site: Site, visit: Visit, seen: Seen) -> None:
    """A change of a policy that is not in force stays when a key is entered or something else is looked at."""
    seen.allowed = (401, 403)
    page = await visit(site.url)
    await entered(page)
    await page.goto(site.url + "#/operate/policies")
    area = page.locator(".editor textarea")
    await area.wait_for()
    written = (await area.input_value()).replace("0.08", "0.07")
    await area.fill(written)
    await page.get_by_role("button", name="Key set").click()
    await page.fill("dialog input", "wrong")
    await page.keyboard.press("Enter")
    await page.locator("dialog", has_text="The server says").wait_for()
    await page.fill("dialog input", ADMIN)
    await page.keyboard.press("Enter")
    await area.wait_for()
    assert await area.input_value() == written
    await page.goto(site.url + "#/operate/jobs")
    await page.goto(site.url + "#/operate/policies")
    assert await area.input_value() == written
    await page.get_by_role("button", name="Undo changes").click()
    assert "0.08" in await area.input_value()


async def test_a_key_that_is_refused_leaves_what_was_typed(site: Site, visit: Visit, seen: Seen) -> None:
    """What is wrong is said, and only that has to be typed again."""
    seen.allowed = (400, 422)
    page = await visit(site.url)
    await entered(page)
    await page.goto(site.url + "#/operate/keys")
    await page.click("summary:has-text('New key')")
    await page.fill("input[name=tenant]", "acme")
    await page.fill("input[name=budget]", "much")
    await page.click("button:has-text('Make the key')")
    await page.locator(".problem", has_text="budget").wait_for()
    assert await page.input_value("input[name=tenant]") == "acme"
    await page.fill("input[name=budget]", "5usd/day")
    await page.click("button:has-text('Make the key')")
    await page.locator(".made code").wait_for()
    assert await page.input_value("input[name=tenant]") == ""


HIDDEN = """Object.defineProperty(document, 'visibilityState', {get: () => window.seen ? 'visible' : 'hidden'})"""


async def test_what_was_opened_in_the_background_loads_when_it_is_looked_at(site: Site, visit: Visit) -> None:
    """A tab that nobody sees asks for nothing, and for all of it once it is seen."""
    page = await visit(site.url)
    await entered(page)
    await page.evaluate(HIDDEN)
    await page.goto(site.url + "#/operate/policies")
    await page.wait_for_timeout(200)
    assert await page.locator(".editor").count() == 0
    await page.evaluate("window.seen = true; document.dispatchEvent(new Event('visibilitychange'))")
    await page.locator(".editor").wait_for()


async def test_a_refusal_is_told_and_asked_about_again(site: Site, visit: Visit, seen: Seen) -> None:
    """A limit that was reached does not end the overview: it says so, and goes on when it may, or on request."""
    seen.allowed = (429, 400)
    page = await visit(site.url)
    await entered(page)
    error = {"message": "too many requests", "code": "rate_limited", "type": "requests"}
    late = {"status": 429, "json": {"error": error}, "headers": {"retry-after": "1"}}
    await page.route("**/v1/admin/overview", lambda route: route.fulfill(**late), times=1)
    await page.goto(site.url + "#/operate")
    await page.locator(".said", has_text="Too many requests").wait_for()
    await page.locator(".counts").wait_for()
    await page.route("**/v1/policies", lambda route: route.fulfill(status=400, json={"error": error}), times=1)
    await page.goto(site.url + "#/operate/policies")
    await page.get_by_role("button", name="Ask again").click()
    await page.locator(".editor").wait_for()
