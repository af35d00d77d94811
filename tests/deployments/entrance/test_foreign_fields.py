"""What clients of other protocols send and read, field by field: bounds, A1111's own values, usage as each counts."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

from deployments.api.compat import img2img, sdapi, sdapi_info
from deployments.api.compat.chat import Chat
from deployments.api.compat.conversation import ASPECTS, SCALES, left_out, prompt_of, read_as, size_of
from deployments.api.compat.conversation import Message as Said
from deployments.api.compat.img2img import Img2ImgRequest
from deployments.api.compat.responses import Responses, _summed
from deployments.api.compat.sdapi import OverrideSettings, Txt2ImgRequest
from deployments.api.wire.requests import parse_request
from deployments.settings import Limits, UploadSettings
from router.errors import RequestError

LIMITS = Limits()
A_CAT = {"prompt": "a cat"}
MESSAGES = [{"role": "user", "content": "a cat"}]


@pytest.mark.parametrize(
    ("body", "field", "within", "beyond"),
    [
        (Txt2ImgRequest, "seed", (-1, 2**32 - 1, 7.0), (-2, 2**32, 7.5)),
        (Txt2ImgRequest, "steps", (1, 1000), (0, 1001)),
        (Txt2ImgRequest, "cfg_scale", (0, 1000), (-0.1, 1000.1)),
        (Txt2ImgRequest, "width", (1, 99_999), (0, 100_000)),
        (Txt2ImgRequest, "height", (1, 99_999), (0, 100_000)),
        (Txt2ImgRequest, "batch_size", (1, 10), (0, 11)),
        (Txt2ImgRequest, "n_iter", (1, 10), (0, 11)),
        (OverrideSettings, "jpeg_quality", (1, 100), (0, 101)),
        (OverrideSettings, "CLIP_stop_at_last_layers", (1,), (0, 2)),
        (Img2ImgRequest, "denoising_strength", (1e-6, 1.0), (0.0, 1.000001)),
        (Img2ImgRequest, "inpainting_mask_invert", (0, 1), (-1, 2)),
        (Img2ImgRequest, "init_images", (["x"], ["x"] * 16), ([], ["x"] * 17)),
    ],
)
def test_a_field_of_a1111s_may_be_at_its_bounds(
    body: type[BaseModel], field: str, within: tuple[Any, ...], beyond: tuple[Any, ...]
) -> None:
    """And not beyond, which names it."""
    given: dict[str, Any] = {} if body is OverrideSettings else {"prompt": "a cat", "init_images": ["x"]}
    for value in within:
        assert getattr(read_as(body, {**given, field: value}), field) == value
    for value in beyond:
        with pytest.raises(RequestError) as refused:
            read_as(body, {**given, field: value})
        assert str(refused.value.param).startswith(field)


@pytest.mark.parametrize(
    ("field", "within", "beyond"),
    [
        ("extend", ({side: 8192} for side in ("left", "top", "right", "bottom")), ({"left": 8193}, {"top": -1})),
        ("extend", ({"right": 0},), ({"right": 8193}, {"bottom": 8193}, {"left": -1}, {"right": -1}, {"bottom": -1})),
        ("extend", ({},), ({"top": 8193},)),
        ("strength", (1e-6, 1.0), (0.0, 1.000001)),
        ("image", ("x", ["x"] * 16), (["x"] * 17,)),
        ("style", ({"a": 2.0}, {"a": -2.0}, dict.fromkeys("abcd", 1.0)), ({"a": 2.01}, dict.fromkeys("abcde", 1.0))),
        ("style", ({"x" * 64: 1.0},), ({"x" * 65: 1.0}, {"": 1.0}, {"a": -2.01})),
        ("webhook", ("https://h/" + "x" * 2038,), ("https://h/" + "x" * 2039, "")),
        ("negative_prompt", ("x" * 32_000,), ("x" * 32_001,)),
        ("tags", (["x" * 64] * 32,), (["x"] * 33, ["x" * 65])),
        ("safety_identifier", ("x" * 256,), ("x" * 257,)),
    ],
)
def test_a_field_of_ours_may_be_at_its_bounds(field: str, within: Any, beyond: tuple[Any, ...]) -> None:
    """And not beyond, which names it."""
    given = {**A_CAT, "image": "x"}
    for value in within:
        assert getattr(parse_request({**given, field: value}, LIMITS), field) is not None
    for value in beyond:
        with pytest.raises(RequestError) as refused:
            parse_request({**given, field: value}, LIMITS)
        assert str(refused.value.param).startswith(field)


# -------------------------------------------------------------------------------------------------------------- A1111


def test_what_a1111_is_asked_for_is_a_request_of_ours() -> None:
    """Batches times rounds are pictures, -1 is no seed, a side that is missing has A1111's 512, a quality is of files
    that lose."""
    wire = sdapi.asked_in({**A_CAT, "batch_size": 2, "n_iter": 3, "width": 64, "seed": 5, "cfg_scale": 3}, LIMITS)
    assert (wire.n, wire.size, wire.seed, wire.guidance_scale, wire.model) == (6, "64x512", 5, 3, "auto")
    wire = sdapi.asked_in({**A_CAT, "height": 48, "seed": -1}, LIMITS)
    assert (wire.size, wire.seed, wire.output_format, wire.n) == ("512x48", None, "png", 1)
    assert sdapi.asked_in(A_CAT, LIMITS).size == "auto"
    for kind, quality in (("WEBP", 80), ("png", None)):
        override = {"samples_format": kind, "jpeg_quality": 80, "sd_model_checkpoint": "sd15"}
        wire = sdapi.asked_in({**A_CAT, "override_settings": override}, LIMITS)
        assert (wire.output_format, wire.output_compression, wire.model) == (kind.lower(), quality, "sd15")


@pytest.mark.parametrize("value", [None, False, "", 0, [], {}, "None", "none"])
def test_what_is_off_at_a1111_is_no_wish(value: Any) -> None:
    """Whatever cannot be done here passes where it says nothing; details without a meaning here pass in silence."""
    sent = {**A_CAT, **dict.fromkeys(sdapi.REFUSED, value), "eta": 0.5, "sampler_name": "Automatic"}
    assert sdapi.asked_in(sent, LIMITS).warnings == ()
    for name in sdapi.REFUSED:
        with pytest.raises(RequestError) as refused:
            sdapi.asked_in({**sent, name: ["x"]}, LIMITS)
        assert refused.value.param == name


def picture(seed: int, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"seed": seed, "steps": list(steps)}


def made(*pictures: dict[str, Any]) -> dict[str, Any]:
    """An answer of ours."""
    report = {"pictures": list(pictures), "recipe": "draft", "policy": "main", "warnings": ["w"]}
    usage = {"input_tokens": 3, "output_tokens": 8, "total_tokens": 11}
    return {"size": "64x32", "data": [{"b64_json": "AAAA"} for _ in pictures], "usage": usage, "x_triptych": report}


DRAWN = {
    "kind": "generate", "model": "sd15", "facts": {"scheduler": "Euler"},
    "settings": {"steps": 20, "guidance_scale": 7.5, "strength": 0.5, "scheduler": "euler"},
}  # fmt: skip


def test_what_nothing_here_decides_has_a1111s_own_values() -> None:
    """Beside what was made: seeds, sizes, and the settings of the first step that denoised."""
    wire = sdapi.asked_in({**A_CAT, "negative_prompt": "dogs"}, LIMITS)
    answer = sdapi.answer(made(picture(7, {"kind": "given"}, DRAWN), picture(8, DRAWN)), wire, A_CAT)
    info = json.loads(answer["info"])
    assert len(info["job_timestamp"]) == 14 and info.pop("job_timestamp").isdigit()
    line = "Steps: 20, Sampler: Euler, CFG scale: 7.5, Seed: {}, Size: 64x32, Model: sd15, Recipe: draft"
    assert info == {
        "prompt": "a cat", "all_prompts": ["a cat"] * 2, "negative_prompt": "dogs",
        "all_negative_prompts": ["dogs"] * 2, "seed": 7, "all_seeds": [7, 8], "subseed": 0, "all_subseeds": [0, 0],
        "subseed_strength": 0, "width": 64, "height": 32, "sampler_name": "Euler", "cfg_scale": 7.5, "steps": 20,
        "batch_size": 2, "restore_faces": False, "sd_model_name": "sd15", "denoising_strength": 0.5,
        "extra_generation_params": {"recipe": "draft", "policy": "main"}, "index_of_first_image": 0,
        "infotexts": [f"a cat\nNegative prompt: dogs\n{line.format(seed)}, Version: triptych" for seed in (7, 8)],
        "styles": [], "clip_skip": 1, "is_using_inpainting_conditioning": False, "version": "triptych",
        "warnings": ["w"],
    }  # fmt: skip
    assert answer["images"] == ["AAAA", "AAAA"] and answer["parameters"] == A_CAT
    assert sdapi.answer(made(picture(7, DRAWN)), wire, {"send_images": False})["images"] == []
    bare = json.loads(sdapi.answer(made(picture(7)), sdapi.asked_in(A_CAT, LIMITS), {})["info"])
    assert [bare[name] for name in ("steps", "cfg_scale", "denoising_strength", "sd_model_name")] == [0, 0, 0, ""]
    assert bare["infotexts"][0].startswith("a cat\nSteps: 0, Sampler: , ")


def test_progress_is_that_of_the_oldest_job_that_is_open() -> None:
    """Ended ones do not count; without any, nothing is under way."""
    jobs = [
        {"id": "c", "state": "done", "progress": 1.0},
        {"id": "b", "state": "queued", "progress": 0.0, "eta_s": 9.0},
        {"id": "a", "state": "running", "progress": 0.254, "eta_s": 3.5},
        {"id": "z", "state": "failed", "progress": 0.5},
    ]
    still = {"skipped": False, "interrupted": False, "stopping_generation": False, "job_timestamp": "0", "job_no": 0}
    state = {**still, "job": "a", "job_count": 2, "sampling_step": 25, "sampling_steps": 100}
    nothing = {"current_image": None, "textinfo": None}
    assert sdapi_info.progress(jobs) == {"progress": 0.254, "eta_relative": 3.5, "state": state, **nothing}
    idle = {**still, "job": "", "job_count": 0, "sampling_step": 0, "sampling_steps": 0}
    assert sdapi_info.progress(jobs[:1]) == {"progress": 0.0, "eta_relative": 0.0, "state": idle, **nothing}
    assert sdapi_info.progress([{**jobs[2], "eta_s": None}])["eta_relative"] == 0.0


def test_recipes_choose_samplers_and_schedules() -> None:
    """So there is one of each, with the keys and the values of A1111's automatic one; options are those of nobody."""
    assert sdapi_info.samplers() == [{"name": "Automatic", "aliases": ["automatic"], "options": {}}]
    (schedule,) = sdapi_info.schedulers()
    assert (schedule["name"], schedule["default_rho"], schedule["need_inner_model"]) == ("automatic", -1.0, False)
    assert sdapi_info.options()["CLIP_stop_at_last_layers"] == 1
    sdapi_info.set_options({**sdapi_info.options(), "sd_vae": None})
    with pytest.raises(RequestError, match="there is no such option"):
        sdapi_info.set_options({"eta": 1})


def mask(*levels: int) -> str:
    """A mask of A1111's in base64: one pixel of each grey."""
    buffer = io.BytesIO()
    Image.fromarray(np.array([levels], np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(("inverted", "alpha"), [(0, [255, 155, 0]), (1, [0, 100, 255])])
def test_white_is_open_at_a1111_and_transparent_here(inverted: int, alpha: list[int]) -> None:
    """And what lies between lies between; A1111's strength, where none is given."""
    sent = {"init_images": ["x"], "mask": mask(0, 100, 255), "inpainting_mask_invert": inverted, "mask_blur": 4}
    wire = img2img.asked_in(sent, LIMITS, UploadSettings())
    assert isinstance(wire.mask, bytes) and (wire.strength, wire.prompt, wire.image) == (0.75, "", ("x",))
    found = np.asarray(Image.open(io.BytesIO(wire.mask)))
    assert found.shape == (1, 3, 4) and found[0, :, 3].tolist() == alpha
    for wrong in ("!", base64.b64encode(b"no picture").decode()):
        with pytest.raises(RequestError) as refused:
            img2img.asked_in({**sent, "mask": wrong}, LIMITS, UploadSettings())
        assert refused.value.param == "mask"
    assert img2img.asked_in({"init_images": ["x"]}, LIMITS, UploadSettings()).mask is None


# ----------------------------------------------------------------------------------------------------- conversations


def test_shapes_are_a_megapixel_of_their_names() -> None:
    """OpenRouter's: whole blocks of 32 pixels, about as wide to high as they say; 2K and 4K are two and four times."""
    for name, (width, height) in ASPECTS.items():
        across, down = map(int, name.split(":"))
        assert width % 32 == height % 32 == 0 and abs(math.log(width * down / (height * across))) < 0.06
        assert 0.95 < width * height / 1024**2 < 1.05
        assert size_of({"aspect_ratio": name, "image_size": "2K"}) == f"{2 * width}x{2 * height}"
    assert {f"{factor}K": factor for factor in (1, 2, 4)} == SCALES


def test_the_last_message_of_the_user_is_drawn() -> None:
    """Its parts by lines; that others are not is said, each once."""
    parts: Any = [{"type": "text", "text": "a cat"}, {"type": "input_text", "text": "at night"}, {"type": "text"}]
    last = Said(role="user", content=parts)
    assert prompt_of([last], "messages") == ("a cat\nat night\n", [])
    assert prompt_of([Said(role="user")], "input") == ("", [])
    others = [Said(role="system", content="be kind"), Said(role="user", content="a dog"), Said(role="developer")]
    prompt, warnings = prompt_of([*others, last], "input")
    assert prompt.startswith("a cat") and [one.partition(":")[0] for one in warnings] == ["input"] * 2
    given = {"temperature": 0.5, "stop": [], "tools": {}, "store": False, "n": 2}
    assert left_out(given, ("temperature", "stop", "tools", "store"), "no") == ["temperature: no"]
    assert given == {"n": 2} and left_out(given, ("stop",), "no") == []


def test_a_chat_counts_its_prompt_once_and_its_pictures_all() -> None:
    """Pictures are numbered where `images` is asked for, and Markdown elsewhere."""
    answer = made(picture(7), picture(8))
    answer["data"][1] = {"url": "http://u"}
    listed = Chat({"messages": MESSAGES, "modalities": ["image"]}, LIMITS).answer(answer, "req_1")
    images = listed["choices"][0]["message"]["images"]
    assert [one["index"] for one in images] == [0, 1]
    assert [one["image_url"]["url"] for one in images] == ["data:image/png;base64,AAAA", "http://u"]
    assert listed["usage"] == {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11}
    plain = Chat({"messages": MESSAGES, "stream": True}, LIMITS)
    said = plain.answer(answer, "req_1")
    assert (said["id"], said["object"], said["model"]) == ("chatcmpl-req_1", "chat.completion", "auto")
    (choice,) = said["choices"]
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert choice["message"] == {
        "role": "assistant", "refusal": None,
        "content": "![picture](data:image/png;base64,AAAA)\n![picture](http://u)\n",
    }  # fmt: skip
    assert plain.stream and not Chat({"messages": MESSAGES}, LIMITS).stream


def test_a_response_has_the_fields_of_openai_s() -> None:
    """What is of models of language is as for none; a call for each picture; usage is summed over a stream."""
    asked = {"input": "a cat", "tools": [{"type": "image_generation", "quality": "hd"}], "metadata": {"a": "b"}}
    answer = Responses(asked, LIMITS).answer(made(picture(7), picture(8)), "req_1")
    assert [one["id"] for one in answer["output"]] == ["ig_req_1-0", "ig_req_1-1"]
    assert answer["output"][0] == {
        "id": "ig_req_1-0", "type": "image_generation_call", "status": "completed", "result": "AAAA",
        "action": "generate", "background": "opaque", "output_format": "png", "quality": "auto", "size": "64x32",
        "revised_prompt": None,
    }  # fmt: skip
    assert answer["usage"] == {
        "input_tokens": 3, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 11,
    }  # fmt: skip
    assert answer["parallel_tool_calls"] is True and answer["metadata"] == {"a": "b"}
    assert answer["tools"] == [{"type": "image_generation", "size": "auto", "output_format": "png"}]
    assert {name for name, value in answer.items() if value is None} == {
        "error", "incomplete_details", "instructions", "temperature", "top_p",
    }  # fmt: skip
    one = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert _summed(_summed({}, one), one) == {"input_tokens": 3, "output_tokens": 8, "total_tokens": 11}


@pytest.mark.parametrize(
    "tools",
    [
        [{"type": "image_generation"}] * 2, [{"type": "image_generation", "action": "edit"}],
        [{"type": "image_generation", "input_image_mask": {"a": 1}}], [{"type": "image_generation", "seed": 7}],
        [{"type": "image_generation", "partial_images": 1}],
    ],
)  # fmt: skip
def test_a_tool_that_cannot_be_used_so_is_refused(tools: list[dict[str, Any]]) -> None:
    """Twice, for edits, with a field that is none of its own, with previews that nobody would see."""
    with pytest.raises(RequestError) as refused:
        Responses({"input": "a cat", "tools": tools}, LIMITS)
    assert refused.value.param == "tools"
    named = [{"type": "image_generation", "model": "x"}]
    assert Responses({"input": "a cat", "tools": named}, LIMITS).wire.model == "x"
