"""Changing a picture on the page: a mask that is painted, what is sent, and what comes back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.page.conftest import Seen, Site, Visit
from tests.page.test_make import PROMPT, ask_for, job_of

SIDE = 64
VEIL = ".easel .veil"
BITS = f"""() => {{ const veil = document.querySelector('{VEIL}');
  const copy = new OffscreenCanvas(veil.width, veil.height).getContext('2d', {{willReadFrequently: true}});
  copy.drawImage(veil, 0, 0);
  const {{data}} = copy.getImageData(0, 0, veil.width, veil.height);
  return [...data].filter((_, at) => at % 4 === 3).map(alpha => alpha ? 1 : 0); }}"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A picture of somebody's: a gradient, so that no two pixels are alike."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    pixels = np.stack([x * 4, y * 4, (x + y) * 2], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "theirs.png")
    return tmp_path / "theirs.png"


async def choose(page: Any, path: Path) -> None:
    """Choose a file, as the button does."""
    await page.locator("input[type=file]").first.set_input_files(path)
    await page.locator(VEIL).wait_for()


async def mask_on(page: Any) -> NDArray[np.bool_]:
    """What is painted, as (height, width) of booleans."""
    width = await page.locator(VEIL).evaluate("veil => veil.width")
    return np.array(await page.evaluate(BITS), bool).reshape(-1, width)


async def stroke(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Paint from one place to another, in shares of the picture."""
    await page.locator(VEIL).scroll_into_view_if_needed()
    box = await page.locator(VEIL).bounding_box()
    at = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in (start, end)]
    await page.mouse.move(*at[0])
    await page.mouse.down()
    await page.mouse.move(*at[1], steps=4)
    await page.mouse.up()


async def picture_of(site: Site, job: dict[str, Any]) -> NDArray[np.uint8]:
    """The first picture of a job, (height, width, 3)."""
    report = await site.app.done(job["id"])
    address = report["pictures"][0]["url"]
    data = (await site.app.http.get(address[address.index("/v1/") :])).content
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


async def test_what_is_painted_changes_and_every_other_byte_stays(site: Site, visit: Visit, file: Path) -> None:
    """A file, a stroke, a prompt: the answer differs from the file inside the mask, and nowhere else."""
    page = await visit(site.url)
    await choose(page, file)
    await stroke(page, (0.2, 0.3), (0.6, 0.4))
    mask = await mask_on(page)
    assert 0.05 < mask.mean() < 0.5
    await page.get_by_label("Strength").fill("0.9")
    await ask_for(page)
    await page.locator(".pair").wait_for()
    job = await job_of(site)
    assert job["request"]["strength"] == 0.9 and job["request"]["prompt"] == PROMPT
    before, after = np.asarray(Image.open(file)), await picture_of(site, job)
    differs = (before != after).any(axis=-1)
    assert not (differs & ~mask).any()
    assert differs[mask].mean() > 0.5


async def test_a_picture_made_here_is_edited_and_compared(site: Site, visit: Visit) -> None:
    """*Edit picture* puts it on the easel; without a mask all of it may change; a line shows it before and after."""
    page = await visit(site.url)
    await ask_for(page)
    await page.locator(".thumbs").wait_for()
    await page.get_by_role("button", name="Edit picture").click()
    await page.locator(VEIL).wait_for()
    await page.fill("textarea", "a large green star")
    await page.click("button[type=submit]")
    await page.locator(".pair").wait_for()
    edited = await job_of(site)
    assert edited["prompt"] == "a large green star"
    slider = page.get_by_role("slider", name="Before and after")
    await slider.fill("80")
    clip = await page.locator(".pair .was").evaluate("one => getComputedStyle(one).clipPath")
    assert clip.startswith("inset(0px 20%")
    before = await page.locator(".pair .was").get_attribute("src")
    assert before and before.startswith("blob:")
    await page.get_by_role("button", name="Paint").click()
    await page.locator(VEIL).wait_for()
    await page.get_by_role("button", name="Stop", exact=True).click()
    await page.locator(".pair").wait_for()


async def test_the_mask_is_painted_by_keyboard(site: Site, visit: Visit, file: Path) -> None:
    """Arrows, Space and Enter paint, E erases, brackets size the brush, Ctrl Z takes one back; it is said aloud."""
    page = await visit(site.url)
    await choose(page, file)
    await page.locator(VEIL).focus()
    await page.keyboard.press("Space")
    dab = await mask_on(page)
    assert dab[SIDE // 2, SIDE // 2] and 0 < dab.mean() < 0.1
    assert f"{round(dab.mean() * 100)} percent" in await page.locator(".easel [role=status]").inner_text()
    for key in ("Enter", "ArrowRight", "ArrowRight", "Enter", "ArrowRight"):
        await page.keyboard.press(key)
    line = await mask_on(page)
    assert line.sum() > dab.sum() and not (dab & ~line).any()
    await page.keyboard.press("Control+z")
    assert (await mask_on(page) == dab).all()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowLeft", "]", "]", "e", "Space"):
        await page.keyboard.press(key)
    assert not (await mask_on(page)).any()
    await page.get_by_role("button", name="Invert").click()
    assert (await mask_on(page)).all()
    await page.get_by_role("button", name="Clear").click()
    assert not (await mask_on(page)).any()
    await page.get_by_role("button", name="Undo").click()
    assert (await mask_on(page)).all()


async def test_a_finger_paints(site: Site, visit: Visit, file: Path) -> None:
    """On a touch screen a stroke over the picture paints, and does not scroll the page away."""
    page = await visit(site.url, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    await choose(page, file)
    await page.locator(VEIL).scroll_into_view_if_needed()
    box = await page.locator(VEIL).bounding_box()
    top = await page.evaluate("scrollY")
    touch = await page.context.new_cdp_session(page)
    for kind, x, y in (("touchStart", 0.3, 0.2), ("touchMove", 0.5, 0.5), ("touchMove", 0.6, 0.8), ("touchEnd", 0, 0)):
        at = {"x": box["x"] + box["width"] * x, "y": box["y"] + box["height"] * y}
        points = [] if kind == "touchEnd" else [at]
        await touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    mask = await mask_on(page)
    assert mask[int(0.2 * SIDE) + 1, int(0.3 * SIDE)] and mask[int(0.8 * SIDE) - 1, int(0.6 * SIDE)]
    assert await page.evaluate("scrollY") == top
    assert await page.evaluate("document.documentElement.scrollWidth") == 390


async def test_a_picture_grows_at_its_sides(site: Site, visit: Visit, file: Path) -> None:
    """Extending adds what may change and keeps the rest; the answer has the new size, and the old picture inside."""
    page = await visit(site.url)
    await choose(page, file)
    await page.get_by_role("button", name="Right").click()
    mask = await mask_on(page)
    assert mask.shape == (SIDE, SIDE + 16) and mask[:, SIDE:].all() and not mask[:, :SIDE].any()
    await page.fill("textarea", PROMPT)
    await page.click("button[type=submit]")
    await page.locator(".pair").wait_for()
    after = await picture_of(site, await job_of(site))
    assert after.shape == (SIDE, SIDE + 16, 3)
    assert (after[:, :SIDE] == np.asarray(Image.open(file))).all()


DROP = """async ([kind, base64, name, type]) => {
  const data = Uint8Array.from(atob(base64), one => one.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([data], name, {type}));
  const how = {bubbles: true, cancelable: true};
  const event = kind === 'paste' ? new ClipboardEvent('paste', {clipboardData: dataTransfer, ...how})
    : new DragEvent(kind, {dataTransfer, ...how});
  document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
async def test_a_picture_is_dropped_or_pasted(site: Site, visit: Visit, file: Path, kind: str) -> None:
    """Anywhere on the page; the place to drop it shows while it is dragged."""
    page = await visit(site.url)
    await page.locator("label.recipe").nth(7).wait_for()
    base64 = await page.evaluate("data => btoa(String.fromCharCode(...data))", list(file.read_bytes()))
    if kind == "drop":
        await page.evaluate(DROP, ["dragover", base64, "theirs.png", "image/png"])
        await page.locator(".dropping").wait_for()
    await page.evaluate(DROP, [kind, base64, "theirs.png", "image/png"])
    await page.locator(VEIL).wait_for()
    assert await page.locator(".dropping").count() == 0
    assert "theirs.png" in await page.locator(".given").inner_text()


async def test_what_is_transparent_is_marked_and_what_is_large_is_taken_smaller(
    site: Site, visit: Visit, tmp_path: Path
) -> None:
    """Both are said in words; more than four million pixels are not painted on here."""
    pixels = np.full((1600, 3200, 4), 200, np.uint8)
    pixels[..., 3] = 255
    pixels[:800, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "cut out.png")
    page = await visit(site.url)
    await choose(page, tmp_path / "cut out.png")
    told = await page.locator(".easel").inner_text()
    assert "3200 × 1600, taken as 2896 × 1448" in told and "transparent" in told
    assert "50 % of the picture" in told


async def test_a_file_that_is_no_picture_is_told_in_words(site: Site, visit: Visit, tmp_path: Path) -> None:
    """What the browser cannot read is said where one looks, with what it could read; nothing else changes."""
    (tmp_path / "notes.png").write_text("not a picture")
    page = await visit(site.url)
    await page.locator("input[type=file]").first.set_input_files(tmp_path / "notes.png")
    problem = page.locator(".wall > .problem", has_text="cannot be read as a picture")
    await problem.wait_for()
    assert "PNG, JPEG or WebP" in await problem.inner_text()
    assert await page.locator(VEIL).count() == 0


async def test_what_the_server_refuses_of_an_edit_is_told_in_its_words(
    site: Site, visit: Visit, seen: Seen, file: Path
) -> None:
    """The easel stays as it is, so that one can go on; a proxy that says nothing is given words."""
    seen.allowed = (400, 413)
    page = await visit(site.url)
    await choose(page, file)
    await stroke(page, (0.2, 0.3), (0.6, 0.4))
    error = {"message": "mask: it has 1x1, and the image 64x64; give it the size of the image", "code": "invalid_value"}
    await page.route("**/v1/images/edits", lambda route: route.fulfill(status=400, json={"error": error}), times=1)
    await page.fill("textarea", PROMPT)
    await page.click("button[type=submit]")
    await page.locator(".wall > .problem", has_text="give it the size of the image").wait_for()
    assert (await mask_on(page)).any()
    await page.route("**/v1/images/edits", lambda route: route.fulfill(status=413, body="no"), times=1)
    await page.click("button[type=submit]")
    await page.locator(".wall > .problem", has_text="choose a smaller picture").wait_for()


async def test_the_server_takes_what_the_page_sends_from_others_too(site: Site, file: Path) -> None:
    """The same form by an ordinary client: the page asks for nothing that is its own."""
    files = {"image": ("theirs.png", file.read_bytes(), "image/png")}
    async with httpx.AsyncClient(base_url=site.url, timeout=30) as http:
        made = await http.post("v1/images/edits", files=files, data={"prompt": PROMPT, "model": "auto", "n": "1"})
    assert made.status_code == 200, made.text
    assert made.json()["size"] == f"{SIDE}x{SIDE}"


async def test_recipes_are_compared_over_one_picture(site: Site, visit: Visit, file: Path) -> None:
    """Compare changes the same picture by each recipe that is ticked."""
    page = await visit(site.url)
    await choose(page, file)
    await page.fill("textarea", PROMPT)
    await page.locator(".why h2").wait_for()
    await page.click("button:has-text('Compare')")
    await page.click("button[type=submit]")
    await page.locator(".stage.many .pair").nth(2).wait_for()
    jobs = (await site.app.http.get("/v1/jobs")).json()["data"]
    assert len({job["recipe"] for job in jobs}) == 3
