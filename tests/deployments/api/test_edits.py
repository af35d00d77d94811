"""Edits over HTTP, by jobs and handles: forms and JSON, masks, what is kept, what is refused. The store is real."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image

from deployments.api.wire.rendering import Rendering
from deployments.jobs.jobs import Jobs
from deployments.settings import AppSettings
from models.provenance.reading import read_metadata, read_pixels
from tests.deployments.support.scripted import GREY, Script, scripted
from tests.deployments.support.served import JOBS, POLICY, Served, served

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"
PROMPT = "a green star above a blue square"


def picture(side: int = 64, seed: int = 0) -> Image.Image:
    """A picture of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def png(image: Image.Image) -> bytes:
    """Its file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def upper_half(side: int = 64) -> Image.Image:
    """A mask that leaves the upper half open."""
    alpha = np.full((side, side), 255, np.uint8)
    alpha[: side // 2] = 0
    made = picture(side).convert("RGBA")
    made.putalpha(Image.fromarray(alpha))
    return made


IMAGE, MASK = png(picture()), png(upper_half())
FORM = {"image": ("photo.png", IMAGE, "image/png"), "mask": ("mask.png", MASK, "image/png")}


@pytest.fixture
async def app(settings: AppSettings, tmp_path: Path) -> AsyncIterator[Served]:
    """An application without keys, on loopback."""
    async with served(settings, tmp_path, Script({})) as made:
        yield made


async def strict(app: Served) -> openai.AsyncOpenAI:
    """OpenAI's client, strict about every field."""
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app.app))
    return openai.AsyncOpenAI(
        base_url="http://triptych/v1", api_key="unused", http_client=http, max_retries=0,
        _strict_response_validation=True,
    )  # fmt: skip


def pixels_of(item: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The pixels of a picture in an answer."""
    return read_pixels(base64.b64decode(item["b64_json"]))


async def test_outside_the_mask_the_bytes_are_the_given_ones(app: Served) -> None:
    """A form with a picture and a mask: what is open is drawn, and every other byte stays."""
    answer = await app.http.post(EDITS, files=FORM, data={"prompt": PROMPT, "seed": "7", "n": "2"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert app.script.ran == ["inpaint sd15"] * 2 and body["x_triptych"]["seeds"] == [7, 8]
    given = np.asarray(picture())
    for item in body["data"]:
        made = pixels_of(item)
        assert np.array_equal(made[32:], given[32:])
        assert (made[:28] == GREY["sd15"]).all()
    assert body["usage"]["input_tokens_details"]["image_tokens"] == 2 * 64 * 64 // 256


async def test_openai_s_client_edits(app: Served) -> None:
    """`images.edit` with a mask, with three pictures, and with transparency passes the client's strict validation."""
    client = await strict(app)
    masked = await client.images.edit(image=("a.png", IMAGE), mask=("m.png", MASK), prompt=PROMPT, n=2, size="64x64")
    assert masked.data is not None and len(masked.data) == 2
    three = await client.images.edit(
        image=[("a.png", IMAGE), ("b.png", png(picture(32, 1))), ("c.png", png(picture(16, 2)))],
        prompt=PROMPT,
        input_fidelity="high",
    )
    report = (three.model_extra or {})["x_triptych"]
    assert "image: it takes 1 of the 3 given pictures; the 2 others change nothing" in report["warnings"]
    assert report["plan"]["steps"][-1]["settings"]["strength"] == 0.35
    clear = await client.images.edit(image=("a.png", MASK), prompt=PROMPT, response_format="b64_json")
    assert (clear.model_extra or {})["x_triptych"]["plan"]["steps"][-1]["kind"] == "paste"


async def test_openai_s_client_streams_edits(app: Served) -> None:
    """With `stream` the events are those of edits, also of three pictures and a mask."""
    client = await strict(app)
    three = [("a.png", IMAGE), ("b.png", png(picture(32, 1))), ("c.png", png(picture(16, 2)))]
    for image, more in ((three[0], {}), (three, {"mask": ("m.png", MASK)})):
        stream = await client.images.edit(
            image=image, prompt=PROMPT, stream=True, partial_images=1, extra_body={"seed": 3}, **more
        )
        events = [event async for event in stream]
        assert [event.type for event in events] == ["image_edit.completed"]  # these workers show nothing on the way
        assert events[0].size == "64x64" and events[0].usage.total_tokens > 0
    made = read_pixels(base64.b64decode(events[0].b64_json))
    assert np.array_equal(made[32:], np.asarray(picture())[32:])


async def test_openai_s_client_makes_variations(app: Served) -> None:
    """`images.create_variation` needs no prompt."""
    client = await strict(app)
    made = await client.images.create_variation(image=("a.png", IMAGE), n=2, size="256x256")
    assert made.data is not None and len(made.data) == 2
    assert app.script.ran == ["refine sd15"] * 2


async def test_json_has_the_pictures_in_base64(app: Served) -> None:
    """Base64, a data URL, OpenAI's JSON and a form are the same request; so are the pictures."""
    plain = base64.b64encode(IMAGE).decode()
    base: dict[str, Any] = {"prompt": PROMPT, "seed": 1, "strength": 0.5}
    bodies = [
        {**base, "image": plain},
        {**base, "image": f"data:image/png;base64,{plain}"},
        {**base, "images": [{"image_url": f"data:image/png;base64,{plain}"}]},
        {**base, "image": [plain], "policy": "main"},
    ]
    answers = [(await app.http.post(EDITS, json=body)).json() for body in bodies]
    form = {key: str(value) for key, value in base.items()}
    answers.append((await app.http.post(EDITS, files={"image": IMAGE}, data=form)).json())
    assert len({answer["data"][0]["b64_json"] for answer in answers if "policy" not in answer}) == 1, answers


async def test_a_job_keeps_what_it_was_given(app: Served) -> None:
    """A job of an edit has its pictures' digests; the pictures themselves lie in the store until it is forgotten."""
    answer = await app.http.post(JOBS, files=FORM, data={"prompt": PROMPT, "seed": "7"})
    assert answer.status_code == 202, answer.text
    done = await app.done(answer.json()["id"])
    assert done["state"] == "done"
    image, mask = done["request"]["image"][0], done["request"]["mask"]
    assert image.startswith("sha256:") and mask.startswith("sha256:") and image != mask
    again = await app.http.post(EDITS, json={"prompt": PROMPT, "seed": 7, "image": image, "mask": mask})
    shown = (await app.http.get(done["pictures"][0]["url"])).content
    assert base64.b64decode(again.json()["data"][0]["b64_json"]) == shown
    await app.done(again.json()["x_triptych"]["job"])
    folder = Path(app.settings.store.pictures_place)
    assert len(list(folder.rglob("given/*.png"))) == 4
    assert app.store.tidy(1e12)["jobs"] == 2
    assert not list(folder.rglob("*.png"))
    gone = await app.http.post(EDITS, json={"prompt": PROMPT, "image": image})
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "image")


async def test_another_tenant_s_picture_is_not_found(settings: AppSettings, tmp_path: Path) -> None:
    """A digest is of use to the tenant alone who gave the picture."""
    async with served(settings, tmp_path, Script({})) as app:
        ann, bob = app.key("ann"), app.key("bob")
        made = await app.http.post(EDITS, files={"image": IMAGE}, data={"prompt": PROMPT}, headers=ann)
        image = made.json()["x_triptych"]["replay"]["image"]
        statuses = []
        for header in (ann, bob):
            again = await app.http.post(EDITS, json={"prompt": PROMPT, "image": image}, headers=header)
            statuses.append(again.status_code)
        assert statuses == [200, 404]


async def test_the_next_orchestrator_has_the_given_picture(settings: AppSettings, tmp_path: Path) -> None:
    """A job whose process dies is carried on from the store, with the same bytes."""
    slow = Script({}, delay_s=60)
    async with served(settings, tmp_path, slow) as app:
        accepted = await app.http.post(JOBS, files=FORM, data={"prompt": PROMPT, "seed": "7"})
        id = accepted.json()["id"]
        for _ in range(200):
            if slow.ran:
                break
            await asyncio.sleep(0.01)
        (tmp_path / "next").mkdir()
        other, _ = scripted(app.settings, tmp_path / "next", Script({}), {"main": POLICY})
        after = Jobs(other, app.store, Rendering())
        await after.start()
        done = await asyncio.wait_for(after.answer(id), 20)
        made = read_pixels(done.files[0].data)
        assert np.array_equal(made[32:], np.asarray(picture())[32:]) and (made[:28] == GREY["sd15"]).all()
        await after.stop()


async def test_a_file_says_how_the_edit_was_made(app: Served) -> None:
    """Its metadata have digests, not the pictures, and replay it."""
    made = (await app.http.post(EDITS, files=FORM, data={"prompt": PROMPT, "seed": "7"})).json()
    told = read_metadata(base64.b64decode(made["data"][0]["b64_json"]))
    assert [one["role"] for one in told["given"]] == ["image", "mask"]
    assert told["replay"]["image"] == f"sha256:{told['given'][0]['digest']}"
    again = (await app.http.post(EDITS, json=made["x_triptych"]["replay"])).json()
    assert again["data"][0]["b64_json"] == made["data"][0]["b64_json"]


async def test_a_border_is_drawn(app: Served) -> None:
    """`extend` makes the picture larger, and keeps every byte of what was there."""
    body = {"prompt": PROMPT, "seed": "7", "extend": json.dumps({"right": 64})}
    made = (await app.http.post(EDITS, files={"image": IMAGE}, data=body)).json()
    pixels = pixels_of(made["data"][0])
    assert pixels.shape == (64, 128, 3) and np.array_equal(pixels[:, :64], np.asarray(picture()))
    assert (pixels[:, 72:] == GREY["sd15"]).all()


async def test_route_says_who_takes_a_picture(settings: AppSettings, tmp_path: Path) -> None:
    """Explained, not run: a policy with recipes of both kinds rules each out with its reason."""
    policy = """recipes:
  draft: {generate: {model: sd15}}
  retouch: {edit: {model: sd15, strength: 0.6}}
  enlarge: {chain: [{given: {}}, {upscale: {factor: 2}}, {refine: {model: sdxl, strength: 0.3}}]}
objective: {minimise: cost_usd}
"""
    async with served(settings, tmp_path, Script({}), policy=policy) as app:
        base = {"prompt": PROMPT, "image": base64.b64encode(IMAGE).decode()}
        whole = (await app.http.post("/v1/route", json=base)).json()
        masked = (await app.http.post("/v1/route", json={**base, "mask": base64.b64encode(MASK).decode()})).json()
        text = (await app.http.post("/v1/route", json={"prompt": PROMPT})).json()
        why = [{one["recipe"]: one["reason"] for one in told["rejected"]} for told in (whole, masked, text)]
        assert "takes no picture" in why[0]["draft"] and set(why[0]) == {"draft"}
        assert "takes no mask" in why[1]["enlarge"] and masked["recipe"] == "retouch"
        assert "brings none" in why[2]["retouch"] and text["recipe"] == "draft"
        assert not app.script.ran
        models = {one["id"]: one["x_triptych"] for one in (await app.http.get("/v1/models")).json()["data"]}
        assert [models[name]["takes"] for name in ("draft", "retouch", "enlarge", "sd15")] == [
            ["text"], ["image", "mask"], ["image"], ["text", "image", "mask"],
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "data", "status", "param"),
    [
        ({"image": b"GIF89a"}, {}, 415, "image"),
        ({"image": IMAGE[:200]}, {}, 400, "image"),
        ({"image": IMAGE, "mask": b"text"}, {}, 415, "mask"),
        ({"image": IMAGE, "mask": IMAGE}, {}, 400, "mask"),
        ({"image": IMAGE, "mask": png(upper_half(32))}, {}, 400, "mask"),
        ({"mask": MASK}, {}, 400, "mask"),
        ({"image": IMAGE}, {"strength": "2"}, 400, "strength"),
        ({"image": IMAGE}, {"strength": "much"}, 400, "strength"),
        ({"image": IMAGE}, {"stream": "maybe"}, 400, "stream"),
        ({"image": IMAGE}, {"extend": "all"}, 400, "extend"),
        ({"image": IMAGE}, {"prompts": "x"}, 400, "prompts"),
        ({"image": IMAGE}, {"image": "https://example.org/a.png"}, 400, "image"),
        ({"other": IMAGE}, {}, 400, "other"),
        ({"image": IMAGE}, {"size": "128x64"}, 422, None),
    ],
)
async def test_a_bad_form_is_one_clear_4xx(
    app: Served, files: dict[str, bytes], data: dict[str, str], status: int, param: str | None
) -> None:
    """What is wrong is named, and nothing is run."""
    answer = await app.http.post(EDITS, files=files, data={"prompt": PROMPT, **data})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), error
    assert not app.script.ran


@pytest.mark.parametrize(
    "image", ["http://127.0.0.1/a.png", "https://example.org/a.png", "file:///etc/passwd", "no base64!", "sha256:abc"]
)
async def test_nothing_is_fetched(app: Served, image: str) -> None:
    """An address, a path or half a digest is refused; nobody is asked for it."""
    answer = await app.http.post(EDITS, json={"prompt": PROMPT, "image": image})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")


async def test_forms_of_other_pages_are_not_taken(app: Served) -> None:
    """A page of another origin can make a browser send a form without asking; JSON it cannot."""
    mine = await app.http.post(EDITS, files=FORM, data={"prompt": PROMPT}, headers={"origin": "http://triptych"})
    other = await app.http.post(EDITS, files=FORM, data={"prompt": PROMPT}, headers={"origin": "http://evil.example"})
    assert (mine.status_code, other.status_code) == (200, 403)
    assert other.json()["error"]["code"] == "origin_refused"


async def test_an_edit_without_a_picture_is_refused(app: Served) -> None:
    """The field is named; and pictures' fields beside a prompt alone are, too."""
    answer = await app.http.post(EDITS, json={"prompt": PROMPT})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")
    for field in ({"strength": 0.5}, {"mask": base64.b64encode(MASK).decode()}, {"extend": {"left": 8}}):
        alone = await app.http.post("/v1/images/generations", json={"prompt": PROMPT, **field})
        assert (alone.status_code, alone.json()["error"]["param"]) == (400, next(iter(field)))


async def test_a_handle_edits_bytes(app: Served) -> None:
    """Through a handle the pictures are bytes, in and out."""
    body = {"prompt": PROMPT, "image": IMAGE, "mask": MASK, "seed": 7, "response_format": "bytes"}
    made = await app.service.generate(body)
    assert np.array_equal(read_pixels(made["data"][0]["bytes"])[32:], np.asarray(picture())[32:])


async def test_a1111_s_clients_edit(app: Served) -> None:
    """`img2img` paints over the first picture; its mask is white where that may change, or black if it is inverted."""
    white = png(Image.fromarray(np.repeat(np.repeat([[255], [0]], 32, 0), 64, 1).astype(np.uint8)))
    body = {"prompt": PROMPT, "init_images": [base64.b64encode(IMAGE).decode()], "seed": 7, "width": 64, "height": 64}
    whole = (await app.http.post("/sdapi/v1/img2img", json={**body, "denoising_strength": 0.5})).json()
    assert json.loads(whole["info"])["denoising_strength"] == 0.5 and len(whole["images"]) == 1
    given = np.asarray(picture())
    for inverted, kept in ((0, slice(32, 64)), (1, slice(0, 32))):
        asked = {**body, "mask": base64.b64encode(white).decode(), "inpainting_mask_invert": inverted}
        made = (await app.http.post("/sdapi/v1/img2img", json=asked)).json()
        pixels = read_pixels(base64.b64decode(made["images"][0]))
        assert np.array_equal(pixels[kept], given[kept]) and not np.array_equal(pixels, given)
    bad = await app.http.post("/sdapi/v1/img2img", json={**body, "mask": "no base64!"})
    assert bad.status_code == 400 and "mask" in bad.json()["detail"]
    none = await app.http.post("/sdapi/v1/img2img", json={"prompt": PROMPT})
    assert none.status_code == 400 and "init_images" in none.json()["detail"]


SEVERAL = """recipes:
  paint: {edit: {model: sd15}}
  tell:  {edit: {model: kontext}}
objective: {minimise: cost_usd}
"""


async def test_several_pictures_go_to_who_takes_several(settings: AppSettings, tmp_path: Path) -> None:
    """Of three pictures the cheap recipe would use one, so it is ruled out with the reason; one picture it may have.
    Whoever asks for it by name is told what it leaves out, and what a file says makes the same again."""
    models = {**settings.models, "kontext": settings.models["flux"].model_copy(
        update={"card": "real/flux-kontext", "overrides": {}})}  # fmt: skip
    settings = settings.model_copy(update={"models": models})
    async with served(settings, tmp_path, Script({}), policy=SEVERAL) as app:
        client = await strict(app)
        files = [("a.png", png(picture(512))), ("b.png", png(picture(300, 1))), ("c.png", png(picture(64, 2)))]
        three = await client.images.edit(image=files, prompt=PROMPT, input_fidelity="high")
        report = (three.model_extra or {})["x_triptych"]
        assert report["recipe"] == "tell" and not any("nothing" in warning for warning in report["warnings"])
        assert [step["kind"] for step in report["plan"]["steps"]][:5] == ["given"] * 3 + ["blend", "edit"]
        (ruled_out,) = report["rejected"]
        assert ruled_out["recipe"] == "paint" and "tell takes all of them" in ruled_out["reason"]
        metadata = read_metadata(base64.b64decode(three.data[0].b64_json or ""))  # type: ignore[index]
        assert [one["role"] for one in metadata["given"]] == ["image"] * 3 and len(metadata["replay"]["image"]) == 3
        again = await app.http.post(EDITS, json={"prompt": PROMPT, **metadata["replay"]})
        assert again.json()["data"][0]["b64_json"] == three.data[0].b64_json, again.text  # type: ignore[index]
        one = await client.images.edit(image=files[0], prompt=PROMPT)
        assert (one.model_extra or {})["x_triptych"]["rejected"] == []
        named = await client.images.edit(image=files, prompt=PROMPT, model="paint")
        assert "1 of the 3 given" in str((named.model_extra or {})["x_triptych"]["warnings"])
        told = await app.http.post(
            EDITS, json={"prompt": PROMPT, "image": metadata["replay"]["image"], "strength": 0.5}
        )
        assert told.json()["x_triptych"]["recipe"] == "paint"
        assert "noises no picture again" in str(told.json()["x_triptych"]["rejected"])
