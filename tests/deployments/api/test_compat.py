"""Chat completions, responses and A1111's API: bodies of front ends in, pictures where they look for them out."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2
import openai
import pytest

from deployments.api.compat.conversation import size_of
from deployments.settings import AppSettings
from tests.deployments.support.front_ends import ASKED, Asked
from tests.deployments.support.served import Served, served

CHAT, RESPONSES, TXT2IMG = "/v1/chat/completions", "/v1/responses", "/sdapi/v1/txt2img"
POLICY = """
recipes:
  draft: {generate: {model: sd15}}
  large: {chain: [draft, {upscale: {factor: 4}}, {upscale: {factor: 4}}]}
objective: {minimise: cost_usd}
"""
MESSAGES = [{"role": "user", "content": "a red circle"}]


@pytest.fixture(scope="module")
async def here(settings: AppSettings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """The application over workers that take no time, with aliases as they ship."""
    aliases = {"gpt-image-1": "auto", "dall-e-3": "main"}
    quality = {"low": "main", "medium": "main", "high": "main", "standard": "main", "hd": "main"}
    limits = settings.limits.model_copy(update={"aliases": aliases, "quality": quality, "max_n": 4})
    async with served(settings, tmp_path_factory.mktemp("compat"), policy=POLICY, limits=limits) as made:
        yield made


@pytest.fixture(scope="module")
async def strict(here: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client, strict about every field."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=here.app)) as http:
        yield openai.AsyncOpenAI(
            base_url="http://triptych/v1", api_key="unused", http_client=http, max_retries=0,
            _strict_response_validation=True,
        )  # fmt: skip


def is_picture(text: str) -> bool:
    """Whether it is a PNG or a WebP in base64."""
    return base64.b64decode(text)[:4] in (b"\x89PNG", b"RIFF")


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.who)
async def test_what_front_ends_send_is_drawn(here: Served, asked: Asked) -> None:
    """Each body of Open WebUI and LibreChat is answered with pictures where that program looks for them."""
    answer = await here.http.post(asked.path, json=dict(asked.body), headers=dict(asked.headers))
    assert answer.status_code == 200, answer.text
    pictures = asked.pictures(answer.json())
    assert pictures and all(map(is_picture, pictures))
    assert answer.headers["x-triptych-job"].startswith("job_")


# --------------------------------------------------------------------------------------------------------------- chat


async def test_a_chat_is_a_chat_completion(strict: openai.AsyncOpenAI) -> None:
    """`chat.completions.create` passes strict validation; what changes nothing is said."""
    answer = await strict.chat.completions.create(
        model="auto", messages=MESSAGES, temperature=0.2, extra_body={"seed": 7, "modalities": ["image"]}
    )
    extra = answer.choices[0].message.model_extra or {}
    assert extra["images"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert answer.usage is not None and answer.usage.completion_tokens > 0
    assert any("temperature" in said for said in (answer.model_extra or {})["x_triptych"]["warnings"])


@pytest.mark.parametrize("listed", [True, False])
async def test_a_streamed_chat_has_a_chunk_for_each_picture(strict: openai.AsyncOpenAI, listed: bool) -> None:
    """Role, a chunk for each picture, stop, usage, in this order and strictly valid."""
    extra: dict[str, Any] = {"n": 2, **({"modalities": ["image", "text"]} if listed else {})}
    chunks = [
        chunk
        async for chunk in await strict.chat.completions.create(
            model="auto", messages=MESSAGES, stream=True, stream_options={"include_usage": True}, extra_body=extra
        )
    ]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, None, None, "stop"]
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0
    for index, chunk in enumerate(chunks[1:3]):
        delta = chunk.choices[0].delta
        if listed:
            (image,) = (delta.model_extra or {})["images"]
            assert image["index"] == index and not delta.content
        else:
            assert (delta.content or "").startswith("![picture](data:image/png;base64,")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat_can_have_addresses(here: Served, stream: bool) -> None:
    """With `response_format: url` the Markdown has signed addresses, at which the pictures are."""
    body = {"messages": MESSAGES, "response_format": "url", "stream": stream}
    answer = await here.http.post(CHAT, json=body)
    assert answer.status_code == 200
    url = answer.text.split("![picture](", 1)[1].split(")", 1)[0]
    assert (await here.http.get(url)).headers["content-type"] == "image/png"


async def test_a_chat_takes_the_shape_that_openrouter_names(here: Served) -> None:
    """`image_config` is a size in pixels, and `size` beside it wins."""
    body: dict[str, Any] = {"messages": MESSAGES, "image_config": {"image_size": "1K"}, "modalities": ["image"]}
    plan = (await here.http.post(CHAT, json=body)).json()["x_triptych"]["plan"]
    assert (plan["width"], plan["height"]) == (1024, 1024)
    plan = (await here.http.post(CHAT, json={**body, "size": "64x32"})).json()["x_triptych"]["plan"]
    assert (plan["width"], plan["height"]) == (64, 32)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({}, None), ({"aspect_ratio": "1:1"}, None), ({"aspect_ratio": "16:9"}, "1344x768"),
        ({"aspect_ratio": "9:16", "image_size": "2K"}, "1536x2688"), ({"image_size": "4K"}, "4096x4096"),
    ],
)  # fmt: skip
def test_shapes_are_pixels(config: dict[str, str], size: str | None) -> None:
    """OpenRouter's names are its documented pixels; nothing in particular is as the model likes."""
    assert size_of(config) == size


IMAGE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "no message of the user"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "empty"),
        ({"messages": [{"role": "user", "content": [IMAGE_PART]}]}, "messages", "text only"),
        ({"modalities": ["text"]}, "modalities", "put image"),
        ({"modalities": "image"}, "modalities", "list"),
        ({"image_config": {"aspect_ratio": "7:1"}}, "image_config.aspect_ratio", "16:9"),
        ({"response_format": {"type": "json_object"}}, "response_format", "url or b64_json"),
        ({"partial_images": 2}, "partial_images", "/v1/images/generations"),
        ({"prompt": "x"}, "prompt", "messages"),
        ({"colour": "red"}, "colour", "unknown field"),
        ({"n": 99}, "n", "less than or equal to 10"),
        ({"model": "nothing"}, "model", "nothing"),
    ],
)
async def test_a_chat_says_what_is_wrong_in_its_own_words(
    here: Served, body: dict[str, Any], param: str, words: str
) -> None:
    """A mistake names the field of the chat, and leaves no job."""
    answer = await here.http.post(CHAT, json={"messages": MESSAGES, **body})
    error = answer.json()["error"]
    assert answer.status_code in (400, 404)
    assert error["param"] == param and words in error["message"]


# ---------------------------------------------------------------------------------------------------------- responses


async def test_a_response_has_a_call_for_each_picture(strict: openai.AsyncOpenAI) -> None:
    """`responses.create` with the tool passes strict validation; the tool's fields count."""
    answer = await strict.responses.create(
        model="gpt-image-1", input="a red circle", metadata={"chat": "7"}, extra_body={"n": 2, "seed": 7},
        tools=[{"type": "image_generation", "size": "64x32", "output_format": "webp", "quality": "low"}],
    )  # fmt: skip
    assert answer.status == "completed" and answer.metadata == {"chat": "7"}
    assert [item.type for item in answer.output] == ["image_generation_call"] * 2
    for item in answer.output:
        assert item.type == "image_generation_call"
        assert base64.b64decode(item.result or "")[:4] == b"RIFF"
        assert (item.size, item.status, item.quality) == ("64x32", "completed", "low")
    assert answer.usage is not None and answer.usage.output_tokens > 0


async def test_a_streamed_response_tells_every_step(strict: openai.AsyncOpenAI) -> None:
    """The events come in the order of OpenAI's, numbered, each strictly valid, the picture in the item that is done."""
    events = [
        event
        async for event in await strict.responses.create(
            model="auto", input=[{"role": "user", "content": [{"type": "input_text", "text": "a red circle"}]}],
            tools=[{"type": "image_generation"}], stream=True,
        )
    ]  # fmt: skip
    assert [event.type.removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "image_generation_call.in_progress",
        "image_generation_call.generating", "image_generation_call.completed", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(8))
    last = events[-1]
    assert last.type == "response.completed"
    (item,) = last.response.output
    assert item.type == "image_generation_call" and is_picture(item.result or "")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "image_generation", "action": "edit"}]}, "tools"),
        ({"tools": [{"type": "image_generation", "colour": "red"}]}, "tools"),
        ({"tools": [{"type": "image_generation", "partial_images": 2}]}, "tools"),
        ({"tools": [{"type": "image_generation", "background": "transparent"}]}, "background"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input"),
        ({"response_format": "url"}, "response_format"),
    ],
)
async def test_a_response_says_what_is_wrong(here: Served, body: dict[str, Any], param: str) -> None:
    """What cannot be kept, or is no text, is refused with its field."""
    answer = await here.http.post(RESPONSES, json={"input": "a red circle", **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_other_tools_are_named_in_a_warning(here: Served) -> None:
    """A tool that draws nothing does not stop the picture, and is named."""
    body = {"input": "a red circle", "tools": [{"type": "web_search"}], "instructions": "be kind"}
    said = (await here.http.post(RESPONSES, json=body)).json()["x_triptych"]["warnings"]
    assert any("web_search" in one for one in said) and any("instructions" in one for one in said)


# -------------------------------------------------------------------------------------------------------------- A1111


async def test_a1111s_answer_has_what_its_clients_read(here: Served) -> None:
    """Images in base64, the parameters that were sent, and an info with seeds and a line for each picture."""
    body = {"prompt": "a red circle", "negative_prompt": "", "seed": 7, "n_iter": 2, "width": 64, "height": 32}
    answer = (await here.http.post(TXT2IMG, json=body)).json()
    info = json.loads(answer["info"])
    assert len(answer["images"]) == 2 and answer["parameters"] == body
    assert (info["width"], info["height"], info["all_seeds"]) == (64, 32, [7, 8])
    assert info["infotexts"][1].splitlines()[-1].startswith("Steps: ")
    assert "Seed: 8, Size: 64x32" in info["infotexts"][1]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"enable_hr": True}, "enable_hr"),
        ({"alwayson_scripts": {"controlnet": {}}}, "alwayson_scripts"),
        ({"styles": ["anime"]}, "styles"),
        ({"cfg_scale": -1}, "cfg_scale"),
        ({"override_settings": {"sd_vae": "x"}}, "override_settings"),
        ({"override_settings": {"sd_model_checkpoint": "sdxll"}}, "sdxll"),
        ({"prompt": ""}, "empty"),
        ({"n": 2}, "n"),
    ],
)
async def test_a1111s_mistakes_have_a1111s_shape(here: Served, body: dict[str, Any], words: str) -> None:
    """What would not be the picture that was asked for is refused, in `detail`, which its clients show."""
    answer = await here.http.post(TXT2IMG, json={"prompt": "a red circle", **body})
    told = answer.json()
    assert answer.status_code in (400, 404)
    assert set(told) == {"error", "detail", "body", "errors"} and words in told["detail"]


async def test_a1111s_defaults_pass(here: Served) -> None:
    """A body with every field at A1111's default is drawn without a warning about them."""
    body = {
        "prompt": "a red circle", "negative_prompt": "", "styles": [], "seed": -1, "subseed": -1, "subseed_strength": 0,
        "seed_resize_from_h": -1, "seed_resize_from_w": -1, "sampler_name": None, "batch_size": 1, "n_iter": 1,
        "steps": 50, "cfg_scale": 7, "width": 64, "height": 64, "restore_faces": None, "tiling": None,
        "do_not_save_samples": False, "do_not_save_grid": False, "eta": None, "denoising_strength": None,
        "override_settings": None, "override_settings_restore_afterwards": True, "refiner_checkpoint": None,
        "disable_extra_networks": False, "comments": None, "enable_hr": False, "hr_scale": 2, "hr_upscaler": None,
        "sampler_index": "Euler", "script_name": None, "script_args": [], "send_images": True, "save_images": False,
        "alwayson_scripts": {},
    }  # fmt: skip
    answer = await here.http.post(TXT2IMG, json=body)
    assert answer.status_code == 200, answer.text
    assert [one for one in json.loads(answer.json()["info"])["warnings"] if "A1111" in one] == [
        "sampler_index: these belong to a recipe or to A1111, and change nothing here"
    ]


async def test_what_clients_ask_beside_is_there(here: Served) -> None:
    """Options, models, samplers, schedulers and progress have the keys that A1111's clients read."""
    get = here.http.get
    options = (await get("/sdapi/v1/options")).json()
    assert options["sd_model_checkpoint"] == "auto"
    assert (await here.http.post("/sdapi/v1/options", json=options)).status_code == 200
    models = (await get("/sdapi/v1/sd-models")).json()
    assert {"auto", "sd15"} <= {one["title"] for one in models} and all(one["model_name"] for one in models)
    assert (await get("/sdapi/v1/samplers")).json()[0]["name"]
    assert (await get("/sdapi/v1/schedulers")).json()[0]["label"]
    told = (await get("/sdapi/v1/progress")).json()
    assert told["progress"] == 0 and told["state"]["job_count"] == 0


async def test_an_option_for_everybody_is_refused_with_the_way_for_one_request(here: Served) -> None:
    """Switching the checkpoint for all is 409, and says where it goes."""
    answer = await here.http.post("/sdapi/v1/options", json={"sd_model_checkpoint": "sd15"})
    assert answer.status_code == 409 and "override_settings" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ({"sd_model_checkpoint": "sd15"}, "override_settings"), ({"samples_format": "webp"}, "override_settings"),
        ({"sd_vae": "x.safetensors"}, "belongs to its card"), ({"CLIP_stop_at_last_layers": 2}, "kind clip_skip"),
        ({"CLIP_stop_at_last_layers": True}, "kind clip_skip"),
    ],
)  # fmt: skip
async def test_the_remedy_for_an_option_is_one(here: Served, option: dict[str, Any], remedy: str) -> None:
    """What is told to be sent with a request is taken there, and for the rest something else is told."""
    answer = await here.http.post("/sdapi/v1/options", json=option)
    assert answer.status_code == 409 and remedy in answer.json()["detail"]
    taken = await here.http.post(TXT2IMG, json={"prompt": "a red circle", "override_settings": option})
    assert (taken.status_code == 200) == (remedy == "override_settings"), taken.text


async def test_errors_have_a1111s_shape_below_a_prefix_too(here: Served) -> None:
    """Behind a proxy that serves us below a path, clients of A1111 read failures as anywhere."""
    transport = httpx.ASGITransport(app=here.app, root_path="/pictures")
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        answer = await http.post("/pictures/sdapi/v1/txt2img", json={"prompt": 7})
    assert answer.status_code == 400 and {"detail", "errors"} <= answer.json().keys()


async def test_the_password_of_basic_is_a_key(here: Served) -> None:
    """A1111's clients send user and password; the password is the key, whatever the user is."""
    key = here.key("acme")["authorization"].removeprefix("Bearer ")
    assert isinstance(here.http, httpx.AsyncClient)
    sent = {"authorization": "Basic " + base64.b64encode(f"any:{key}".encode()).decode()}
    answer = await here.http.post(TXT2IMG, json={"prompt": "a red circle"}, headers=sent)
    assert answer.status_code == 200
    record = here.store.job(answer.headers["x-triptych-job"])
    assert record is not None and record.tenant == "acme"
