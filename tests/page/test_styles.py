"""The style picker."""

from __future__ import annotations

import re

from deployments.page.serving import bundle
from models.styles.cards import load_styles
from tests.page.conftest import Seen, Site, Visit
from tests.page.test_make import MADE, PROMPT, job_of


def test_every_shipped_style_has_a_sample() -> None:
    """The build has a small picture of each style, and one without any to compare with."""
    names = {re.sub(r"^page/(.+)-.{8}\.png$", r"\1", name) for name in bundle() if name.endswith(".png")}
    assert names == {*load_styles(), "plain"}


async def test_styles_are_worn_together_with_their_weights(site: Site, visit: Visit) -> None:
    """Tiles put them on, sliders weigh them, the request has exactly these, and who cannot wear them is out."""
    page = await visit(site.url)
    await page.fill("textarea", PROMPT)
    await page.click("summary:has-text('Styles')")
    await page.locator(".tile", has_text="outlined").click()
    await page.locator(".tile", has_text="gray").click()
    slider = page.get_by_label("outlined", exact=True).and_(page.locator("[type=range]"))
    await slider.fill("0.7")
    await page.locator(".recipe.out", has_text="single").wait_for()
    assert "sd15" in await page.locator(".recipe.out .reason").first.inner_text()
    await page.locator(".recipe.chosen", has_text="draft").wait_for()
    await page.click("button[type=submit]")
    await page.locator(MADE).wait_for()
    assert (await job_of(site))["request"]["style"] == {"outlined": 0.7, "gray": 1}
    await page.get_by_role("button", name="Take gray off").click()
    assert await page.locator(".weights li").count() == 1


async def test_styles_of_another_family_are_off_with_the_reason(site: Site, visit: Visit, seen: Seen) -> None:
    """With a model or a recipe chosen, what it cannot wear is off and says why; the keyboard puts on the others."""
    seen.allowed = (422,)  # a recipe is asked for that cannot wear what is worn
    page = await visit(site.url)
    await page.fill("textarea", PROMPT)
    await page.click("summary:has-text('Styles')")
    await page.select_option("select", "sdxl")
    await page.locator(".tile.out").nth(6).wait_for()
    assert "for sd15; sdxl is sdxl" in await page.locator(".tile", has_text="outlined").inner_text()
    assert await page.locator(".tile:not(:has-text('none')) input:not([disabled])").count() == 0
    await page.select_option("select", "auto")
    await page.locator("label.recipe", has_text="draft").click()
    await page.locator(".recipe.chosen", has_text="draft").wait_for()
    assert await page.locator(".tile.out").count() == 0
    await page.locator(".tile", has_text="outlined").locator("input").focus()
    await page.keyboard.press("Space")
    await page.locator(".weights li").wait_for()
    await page.locator("label.recipe", has_text="single").click()
    await page.locator(".why h2", has_text="cannot be made").wait_for()


async def test_comparing_waits_for_the_decision_on_what_is_worn_now(site: Site, visit: Visit) -> None:
    """Pressed right after a style is taken off, Compare ticks what is worth comparing without it."""
    page = await visit(site.url)
    await page.fill("textarea", PROMPT)
    await page.click("summary:has-text('Styles')")
    await page.locator(".tile", has_text="outlined").click()
    await page.locator(".recipe.out", has_text="single").wait_for()
    await page.get_by_role("button", name="Take outlined off").click()
    await page.get_by_role("button", name="Compare").click()
    await page.locator("label.recipe input:checked").nth(2).wait_for()
    names = await page.locator("label.recipe:has(input:checked) .name").all_inner_texts()
    body = {"prompt": PROMPT, "model": "auto"}
    chosen = (await site.app.http.post("/v1/route", json=body)).json()["recipe"]
    assert chosen in names and await page.locator("label.recipe.out:has(input:checked)").count() == 0
