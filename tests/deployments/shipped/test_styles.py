"""Styles over HTTP and by the command, on tiny weights: asked for, listed, refused, replayed, trained."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from diffusers import UNet2DConditionModel
from PIL import Image

from deployments.settings import parse_settings
from models.provenance import read_metadata
from tests.conftest import ADMIN_KEY, store_in
from tests.deployments.support.scripted import jobs_of
from tests.models import ip_adapters

FREE = "id: free\nfamily: sd15\nkind: freeu\nsettings: {s1: 0.5, s2: 0.5, b1: 1.8, b2: 1.8}\nin_prompts: true\n"
GRAND = FREE.replace("id: free", "id: grand").replace("sd15", "sdxl")
SHY = GRAND.replace("id: grand", "id: shy").replace("in_prompts: true\n", "")


@pytest.fixture(scope="module")
def styled_settings(tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tiny application with a folder of four styles, two of which prompts may name."""
    folder = tmp_path_factory.mktemp("styles")
    (folder / "free.yaml").write_text(FREE)
    (folder / "grand.yaml").write_text(GRAND)
    (folder / "shy.yaml").write_text(SHY)
    weights = Path(tiny_settings["models"]["sd15"]["overrides"]["source"]["local"])
    ip_adapters.write(folder, UNet2DConditionModel.from_pretrained(weights / "unet"), "sd15")
    more = {"styles": {"directories": [str(folder)]}, "store": store_in(tmp_path_factory.mktemp("styled"))}
    return {**tiny_settings, **more}


@pytest.fixture(scope="module")
async def dressed(styled_settings: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it, in this process."""
    from deployments.api.app import create_app
    from deployments.api.service import Service
    from deployments.in_process import build_local

    settings = parse_settings(styled_settings)
    service = Service(jobs_of(build_local(settings)), settings.limits)
    app = create_app(service, settings.limits, admin_key=ADMIN_KEY)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://triptych", timeout=60) as made:
        yield made


async def drawn(client: httpx.AsyncClient, **more: Any) -> tuple[bytes, dict[str, Any]]:
    body = {"prompt": "a red circle", "seed": 1, "model": "sd15", **more}
    answer = await client.post("/v1/images/generations", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return base64.b64decode(found["data"][0]["b64_json"]), found["x_triptych"]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


async def test_a_request_wears_a_style_and_is_replayed(dressed: httpx.AsyncClient) -> None:
    """The picture changes, plan and file say what was worn, and `replay` makes the same bytes again."""
    plain, _ = await drawn(dressed)
    worn, report = await drawn(dressed, style={"free": 0.5})
    assert not np.array_equal(pixels(plain), pixels(worn))
    assert report["plan"]["steps"][0]["settings"]["style"] == "free*0.5"
    assert report["replay"]["style"] == {"free": 0.5}
    metadata = read_metadata(worn)
    assert metadata["steps"][0]["settings"]["style"] == "free*0.5"
    assert "Style: free*0.5" in Image.open(io.BytesIO(worn)).info["parameters"]  # type: ignore[attr-defined]
    again = await dressed.post("/v1/images/generations", json=report["replay"])
    assert base64.b64decode(again.json()["data"][0]["b64_json"]) == worn
    bare, _ = await drawn(dressed, style={"free": 0})
    assert bare == plain


async def test_a_style_in_the_prompt_is_the_style_of_the_request(dressed: httpx.AsyncClient) -> None:
    """`<lora:free:0.5>` is taken out of the prompt: picture, plan, estimates and replay are those of `style`, also of a
    job and of A1111's API."""
    worn, report = await drawn(dressed, style={"free": 0.5})
    same, named = await drawn(dressed, prompt="a red circle <lora:free:0.5>")
    assert same == worn and named["warnings"] == report["warnings"]
    assert named["replay"] == report["replay"] and named["replay"]["prompt"] == "a red circle"
    asked = {"prompt": "<lora:free:0.5>, a red circle", "seed": 1, "model": "sd15"}
    routed, usual = [
        (await dressed.post("/v1/route", json=body)).json()
        for body in (asked, {**asked, "prompt": "a red circle", "style": {"free": 0.5}})
    ]
    assert routed["estimates"].keys() == usual["estimates"].keys()
    for name, estimate in routed["estimates"].items():
        assert estimate["quality"] == usual["estimates"][name]["quality"]
    assert routed["plan"] == usual["plan"]
    waited = await dressed.post("/v1/jobs", json=asked, headers={"prefer": "wait=60"})
    job = waited.json()
    while job["state"] in ("queued", "running"):
        job = (await dressed.get(f"/v1/jobs/{job['id']}")).json()
    assert job["result"]["x_triptych"]["plan"]["steps"][0]["settings"]["style"] == "free*0.5"
    body = {"prompt": asked["prompt"], "seed": 1, "override_settings": {"sd_model_checkpoint": "sd15"}}
    found = (await dressed.post("/sdapi/v1/txt2img", json=body)).json()
    assert np.array_equal(pixels(base64.b64decode(found["images"][0])), pixels(worn))
    assert json.loads(found["info"])["prompt"] == "a red circle"


@pytest.mark.parametrize(
    ("prompt", "more", "param", "said"),
    [
        ("x <lora:fre:1>", {}, "style", "there is no style 'fre'; did you mean 'free'"),
        ("x <lora:free:9>", {}, "style", "2"),
        ("x <lora:free:1:0.5>", {}, "prompt", "one number"),
        ("x <lora:free:1> <lora:free:1>", {}, "prompt", "named twice"),
        ("x <lora:free:1>", {"style": {"free": 1}}, "style", "also in the prompt"),
        ("<lora:free:1>", {}, "prompt", "empty"),
        ("x <lora:grand:1>", {}, None, "for family 'sdxl', not 'sd15'"),
    ],
)
async def test_what_is_no_style_in_a_prompt_is_refused(
    dressed: httpx.AsyncClient, prompt: str, more: dict[str, Any], param: str | None, said: str
) -> None:
    """Names, weights and families are refused as in `style`, and what would be ambiguous is, too."""
    answer = await dressed.post("/v1/images/generations", json={"prompt": prompt, "model": "sd15", **more})
    error = answer.json()["error"]
    assert answer.status_code >= 400 and said in error["message"], answer.text
    assert param is None or error["param"] == param


async def test_a_style_whose_card_keeps_it_out_of_prompts_stays_text(dressed: httpx.AsyncClient) -> None:
    """Without `in_prompts` in its card, the text stays, and one warning says so; a negative prompt names none."""
    _, report = await drawn(dressed, prompt="a red circle <lora:shy:1>")
    assert report["replay"]["prompt"] == "a red circle <lora:shy:1>"
    (warning,) = (one for one in report["warnings"] if "lora" in one)
    assert "in_prompts" in warning
    _, report = await drawn(dressed, negative_prompt="<lora:free:1>")
    assert any("extra network" in one for one in report["warnings"]) and "style" not in report["replay"]


async def test_a_reference_is_drawn_after_and_replayed(dressed: httpx.AsyncClient) -> None:
    """A job's `reference` is what the style draws after; its file names the picture by its digest, and replays."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(buffer, "PNG")
    given = {"style": {"look": 0.8}, "reference": base64.b64encode(buffer.getvalue()).decode()}
    plain, _ = await drawn(dressed)
    made, report = await drawn(dressed, **given)
    assert not np.array_equal(pixels(made), pixels(plain))
    assert [step["kind"] for step in report["plan"]["steps"]] == ["given", "generate"]
    told = read_metadata(made)["given"]
    assert [one["role"] for one in told] == ["reference"]
    assert report["replay"]["reference"] == f"sha256:{told[0]['digest']}"
    again = await dressed.post("/v1/images/generations", json=report["replay"])
    assert base64.b64decode(again.json()["data"][0]["b64_json"]) == made
    for body, said in (
        ({"style": {"look": 1}}, "give one as `reference`"),
        ({"reference": given["reference"]}, "nothing of it"),
    ):
        asked = {"prompt": "x", "model": "sd15", **body}
        answer = await dressed.post("/v1/images/generations", json=asked)
        assert answer.status_code >= 400 and said in answer.text
    bad = await dressed.post("/v1/images/generations", json={**asked, "reference": "bm9uZQ=="})
    assert bad.status_code in (400, 415) and bad.json()["error"]["param"] == "reference"


async def test_styles_are_listed_where_a_model_can_wear_them(dressed: httpx.AsyncClient) -> None:
    """`/v1/models` has the installation's styles, of kind style, and none that no model here can wear."""
    listed = {one["id"]: one["x_triptych"] for one in (await dressed.get("/v1/models")).json()["data"]}
    assert listed["free"]["kind"] == "style" and "sd15" in listed["free"]["worn_by"]
    assert listed["grand"]["family"] == "sdxl" and "sd15" not in listed["grand"]["worn_by"]
    assert "outlined" not in listed  # which is for the embedded weights


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ({"fre": 1}, "style: there is no style 'fre'"),
        ({"free": "much"}, "style"),
        ({"free": 3}, "style"),
        ({str(n): 1 for n in range(5)}, "style"),
        (["free"], "style"),
    ],
)
async def test_what_is_no_style_is_refused(dressed: httpx.AsyncClient, style: Any, said: str) -> None:
    """An unknown name, a weight that is none, too many: a 400 whose param is style."""
    answer = await dressed.post("/v1/images/generations", json={"prompt": "x", "model": "sd15", "style": style})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "style" and said in answer.json()["error"]["message"]


async def test_a_style_of_another_family_rules_recipes_out(dressed: httpx.AsyncClient) -> None:
    """By `model: auto` those remain that can wear it; a model that cannot is refused with the family."""
    report = (await dressed.post("/v1/route", json={"prompt": "a red circle", "style": {"grand": 1}})).json()
    assert {step["settings"].get("style") for step in report["plan"]["steps"] if step["kind"] == "generate"} == {
        "grand*1"
    }
    assert any("family 'sdxl', not 'sd15'" in one["reason"] for one in report["rejected"])
    answer = await dressed.post("/v1/images/generations", json={"prompt": "x", "model": "sd15", "style": {"grand": 1}})
    assert answer.status_code >= 400 and "for family 'sdxl', not 'sd15'" in answer.text


async def test_openais_style_is_told_to_change_nothing(dressed: httpx.AsyncClient) -> None:
    """`style: vivid`, a word of OpenAI's, still passes with a warning."""
    _, report = await drawn(dressed, style="vivid")
    assert any(warning.startswith("style: 'vivid'") for warning in report["warnings"])


@pytest.fixture(scope="module")
def styled_config(styled_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("styled-cli") / "serve.yaml"
    application = {"name": "triptych", "import_path": "deployments.app:build", "args": styled_settings}
    file.write_text(yaml.safe_dump({"applications": [application]}), encoding="utf-8")
    return file


def test_the_command_lists_and_wears(triptych: Any, styled_config: Path, tmp_path: Path) -> None:
    """`models list` names styles and who wears them; `generate --style` puts one on; a bad weight is one sentence."""
    code, out, err = triptych("models", "list", "-c", styled_config)
    assert code == 0 and "free" in out and "freeu" in out, err
    code, out, _ = triptych("models", "list", "-c", styled_config, "--json")
    assert next(card for card in json.loads(out) if card["id"] == "sd15")["styles"] == ["free", "look"]
    file = tmp_path / "worn.png"
    asked = ("generate", "a red circle", "-o", file, "--seed", 1, "-m", "sd15", "-c", styled_config)
    code, _, err = triptych(*asked, "--style", "free=0.5")
    assert code == 0, err
    assert read_metadata(file.read_bytes())["steps"][0]["settings"]["style"] == "free*0.5"
    worn = file.read_bytes()
    code, _, err = triptych("generate", "a red circle <lora:free:.5>", *asked[2:])
    assert code == 0 and file.read_bytes() == worn, err
    code, _, err = triptych(*asked, "--style", "free=much")
    assert code == 2 and "--style free=much" in err


def test_the_command_draws_after_a_reference(triptych: Any, styled_config: Path, tmp_path: Path) -> None:
    """`generate --reference` is HTTP's `reference`, `route` takes it as well, and `replay` draws once more after
    the file that it is given; what lacks a style or a reference, and a file that is none, is refused by name."""
    after, plain, worn, same = (tmp_path / f"{name}.png" for name in ("after", "plain", "worn", "same"))
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(after)
    asked = ("a red circle", "-m", "sd15", "-c", styled_config)
    look = ("--style", "look=0.8", "--reference", after)
    for file, more in ((plain, ()), (worn, look), (same, look)):
        code, _, err = triptych("generate", *asked, "--seed", 1, "-o", file, *more)
        assert code == 0, err
    assert not np.array_equal(pixels(worn.read_bytes()), pixels(plain.read_bytes()))
    assert worn.read_bytes() == same.read_bytes()
    code, out, err = triptych("replay", worn, "--given-reference", after, "-c", styled_config)
    assert code == 0 and "identical" in out, err
    code, out, _ = triptych("replay", worn, "-c", styled_config)
    assert code == 2 and "pass its file" in out
    code, out, err = triptych("route", *asked, *look, "--json")
    assert code == 0 and [step["kind"] for step in json.loads(out)["plan"]["steps"]] == ["given", "generate"], err
    for more, said in (
        (look[:2], "give one as `reference`"),
        (look[2:], "nothing of it"),
        ((*look[:3], tmp_path / "none.png"), "none.png: it cannot be read"),
    ):
        code, _, err = triptych("generate", *asked, "-o", tmp_path / "no.png", *more)
        assert code != 0 and said in " ".join(err.split()), err
    assert not (tmp_path / "no.png").exists()


def test_a_style_is_trained_and_served(triptych: Any, styled_config: Path, tmp_path: Path) -> None:
    """`styles train` writes weights, a card that loads, and a sheet; the same command again has nothing left to do."""
    from models.styles.cards import load_style

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        Image.new("RGB", (70, 60), (60 * number, 0, 0)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a red square")
    asked = ("styles", "train", pictures, "--model", "sd15", "--rank", 2, "--steps", 2, "--batch", 2, "--name", "red")
    code, out, err = triptych(*asked, "--out", tmp_path / "made", "-c", styled_config, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [Path(file).name for file in report["files"]] == ["red.safetensors", "red.yaml", "red.png"]
    style = load_style(tmp_path / "made" / "red.yaml")
    assert (style.id, style.family, style.kind) == ("red", "sd15", "lora")
    first = (tmp_path / "made" / "red.safetensors").read_bytes()
    code, _, err = triptych(*asked, "--out", tmp_path / "made", "-c", styled_config)
    assert code == 0 and (tmp_path / "made" / "red.safetensors").read_bytes() == first, err
    code, _, err = triptych(*asked[:3], "--model", "upscaler", "-c", styled_config)
    assert code != 0 and "upscaler" in err
