"""The pictures of docs/page.md, made anew: a real Chromium before the embedded models.

    python -m tests.page.pictures [--into docs/pictures] [--only make-light] [--url http://127.0.0.1:8000]

Without an address, a server of the working tree is started in this process, with a store that is thrown away. What is
drawn has fixed seeds; seconds are of this machine, so let nothing else run.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from deployments.api.app import create_app
from deployments.api.keys import Gate
from deployments.api.service import Service
from deployments.assembly import jobs_in
from deployments.in_process import build_local
from deployments.settings import DEFAULT_CONFIG, StoreSettings, load_serve_config
from deployments.store import open_store
from tests.conftest import store_in
from tests.page.conftest import ARGUMENTS, CHROMIUM, listening
from tests.page.test_edit import VEIL, stroke

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

FOLDER = Path(__file__).parents[2] / "docs/pictures"
KEY = "a key for pictures"
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
PATIENCE_MS = 120_000.0


async def asked(page: Page, prompt: str, seed: int) -> None:
    """A prompt with its seed, and what the server would do."""
    await page.fill("textarea", prompt)
    more = page.locator("details", has=page.locator("summary", has_text="More"))
    await more.locator("summary").click()
    await more.get_by_label("Seed").fill(str(seed))
    await more.locator("summary").click()
    await page.locator(".why h2").wait_for()


async def finished(page: Page, count: int = 1) -> None:
    """As many pictures are there, with thumbs to rate them by; the top of the page is in view."""
    await page.locator(".job .thumbs").nth(count - 1).wait_for()
    await page.mouse.move(0, 0)
    await page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
    await page.wait_for_timeout(500)


async def make(page: Page) -> None:
    await asked(page, "two green stars and three red rings", 11)
    await page.click("button[type=submit]")
    await finished(page)


async def compare(page: Page) -> None:
    await asked(page, "a red circle above a blue square", 5)
    await page.get_by_role("button", name="Compare", exact=True).click()
    for name in ("draft", "single", "duel"):
        await page.locator("label.recipe", has_text=name).locator("input").check()
    for box in await page.locator("label.recipe:not(:has-text('draft'), :has-text('single'), :has-text('duel'))").all():
        await box.locator("input").uncheck()
    await page.click("button[type=submit]")
    await finished(page, 3)


async def edit(page: Page) -> None:
    await asked(page, "a red circle above a blue square", 5)
    await page.click("button[type=submit]")
    await finished(page)
    await page.get_by_role("button", name="Edit picture").click()
    await page.locator(VEIL).wait_for()
    for y in (0.1, 0.2, 0.3, 0.4):
        await stroke(page, (0.2, y), (0.8, y))
    await page.fill("textarea", "a green star above a blue square")
    await page.locator(".why h2").wait_for()
    await page.mouse.move(0, 0)
    await page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
    await page.wait_for_timeout(500)


async def operate(page: Page, part: str = "") -> None:
    await page.get_by_role("button", name="Key", exact=True).click()
    await page.fill("dialog input", KEY)
    await page.keyboard.press("Enter")
    await page.locator("dialog[open]").wait_for(state="detached")
    await page.get_by_role("link", name="Operate").click()
    await page.locator(".counts").wait_for()
    if part:
        await page.get_by_role("link", name=part).click()
    await page.wait_for_timeout(800)


async def policy(page: Page) -> None:
    await operate(page, "Policies")
    area = page.locator(".sheet textarea")
    await area.fill((await area.input_value()).replace("{cheapest_within: 0.08}", "{maximise: quality}"))
    await page.locator(".verdict h2", has_text="What it would change").wait_for()
    await page.evaluate("document.activeElement?.blur()")
    await page.locator(".verdict").scroll_into_view_if_needed()
    await page.wait_for_timeout(500)


View = Callable[["Page"], Awaitable[None]]
VIEWS: dict[str, tuple[View, str, dict[str, int]]] = {
    "make-light": (make, "light", DESK),
    "compare-dark": (compare, "dark", DESK),
    "edit-dark": (edit, "dark", DESK),
    "make-phone": (make, "light", PHONE),
    "operate-light": (operate, "light", DESK),
    "policy-light": (policy, "light", DESK),
}
"""In this order: what is made first is what there is to operate later."""


@asynccontextmanager
async def serving(url: str | None) -> AsyncIterator[str]:
    """The address of a server."""
    if url is not None:
        yield url.rstrip("/") + "/"
        return
    settings = load_serve_config(DEFAULT_CONFIG).settings
    with tempfile.TemporaryDirectory() as folder:
        own = settings.model_copy(update={"store": StoreSettings(**store_in(Path(folder)))})
        store = open_store(own.store)
        jobs = jobs_in(store, own, build_local(own))
        app = create_app(Service(jobs, own.limits), own.limits, gate=Gate("auto", True, KEY))
        async with listening(app) as address:
            yield address
        await jobs.stop()
        store.close()


async def taken(browser: Browser, url: str, name: str) -> bytes:
    """One of the views: a PNG."""
    view, scheme, size = VIEWS[name]
    phone = size is PHONE
    context = await browser.new_context(
        viewport=size,  # type: ignore[arg-type]
        color_scheme=scheme,  # type: ignore[arg-type]
        device_scale_factor=2 if phone else 1,
        has_touch=phone,
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_MS)
    try:
        page = await context.new_page()
        await page.goto(url)
        await page.locator("label.recipe").nth(3).wait_for()
        await view(page)
        shot = Image.open(io.BytesIO(await page.screenshot(full_page=phone)))
    finally:
        await context.close()
    out = io.BytesIO()
    shot.convert("RGB").quantize(192).save(out, "PNG", optimize=True)
    return out.getvalue()


async def take(into: Path, names: Sequence[str], url: str | None) -> None:
    from playwright.async_api import async_playwright

    async with serving(url) as address, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        for name in names:
            (into / f"{name}.png").write_bytes(await taken(browser, address, name))
            print(into / f"{name}.png", flush=True)
        await browser.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Take them."""
    parser = argparse.ArgumentParser(prog="python -m tests.page.pictures", description=__doc__)
    parser.add_argument("--into", type=Path, default=FOLDER, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=VIEWS, default=list(VIEWS), metavar="NAME")
    parser.add_argument("--url", help="a running server, whose admin key is not needed for pictures of making")
    given = parser.parse_args(argv)
    given.into.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(given.into, given.only, given.url))


if __name__ == "__main__":
    main()
