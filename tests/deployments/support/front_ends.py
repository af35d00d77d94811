"""What chat front ends send, as their code has it: one request each, with what they read of the answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request of a front end. pictures: as it finds them in the answer, in base64"""

    who: str
    path: str
    body: Mapping[str, Any]
    pictures: Callable[[Any], list[str]]
    headers: Mapping[str, str] = field(default_factory=dict)


def _data(answer: Any) -> list[str]:
    return [item["b64_json"] for item in answer["data"]]


def _images(answer: Any) -> list[str]:
    return [one.split(",", 1)[0] for one in answer["images"]]


def _listed(answer: Any) -> list[str]:
    return [one["image_url"]["url"].split(",", 1)[1] for one in answer["choices"][0]["message"]["images"]]


def _markdown(answer: Any) -> list[str]:
    content = answer["choices"][0]["message"]["content"]
    return [line.split("base64,", 1)[1].rstrip(")") for line in content.splitlines()]


def _parameters(answer: Any) -> list[str]:
    """LibreChat also reads the size, the seed and the last line of the parameters."""
    info = json.loads(answer["info"])
    assert info["width"] > 0 and info["height"] > 0 and info["infotexts"][0].split("\n").pop().startswith("Steps: ")
    return _images(answer)


BASIC = {"authorization": "Basic " + base64.b64encode(b"triptych:anything").decode()}

ASKED = [
    Asked(
        "Open WebUI, engine openai",
        "/v1/images/generations?api-version=2025-04-01-preview",
        {"model": "gpt-image-1", "prompt": "a red circle", "n": 1, "size": "64x64", "response_format": "b64_json"},
        _data,
    ),
    Asked(
        "Open WebUI, engine automatic1111",
        "/sdapi/v1/txt2img",
        {"prompt": "a red circle", "batch_size": 2, "width": 64, "height": 64, "steps": 8, "negative_prompt": "blur"},
        _images,
        BASIC,
    ),
    Asked(
        "Open WebUI, engine automatic1111 with parameters",
        "/sdapi/v1/txt2img",
        {
            "prompt": "a red circle", "batch_size": 1, "width": 64, "height": 64, "steps": 8,
            "cfg_scale": 7.0, "sampler_name": "DPM++ 2M", "scheduler": "Karras",
            "override_settings": {"sd_model_checkpoint": "auto"},
        },
        _images,
        {"authorization": ""},
    ),
    Asked(
        "Open WebUI, chat",
        "/v1/chat/completions",
        {
            "stream": False,
            "model": "auto",
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "a red circle"},
            ],
            "temperature": 0.7,
            "max_tokens": 1000,
        },
        _markdown,
    ),
    Asked(
        "LibreChat, image_gen_oai",
        "/v1/images/generations",
        {
            "model": "gpt-image-1", "prompt": "a red circle", "n": 1, "background": "auto", "output_format": "png",
            "quality": "auto", "size": "auto",
        },
        _data,
    ),
    Asked(
        "LibreChat, image_gen_oai as WebP",
        "/v1/images/generations",
        {
            "model": "gpt-image-1", "prompt": "a red circle", "n": 1, "background": "auto", "output_format": "webp",
            "output_compression": 100, "quality": "high", "size": "auto",
        },
        _data,
    ),
    Asked(
        "LibreChat, DALL·E 3",
        "/v1/images/generations",
        {
            "model": "dall-e-3", "quality": "standard", "style": "vivid", "size": "64x64", "prompt": "a red circle",
            "n": 1,
        },
        _data,
    ),
    Asked(
        "LibreChat, stable-diffusion",
        "/sdapi/v1/txt2img",
        {
            "prompt": "a red circle", "negative_prompt": "blur", "cfg_scale": 4.5, "steps": 22, "width": 1024,
            "height": 1024,
        },
        _parameters,
    ),
    Asked(
        "LibreChat, OpenRouter",
        "/v1/chat/completions",
        {
            "model": "auto",
            "messages": [{"role": "user", "content": "a red circle"}],
            "modalities": ["image", "text"],
            "image_config": {"aspect_ratio": "1:1"},
        },
        _listed,
    ),
    Asked(
        "LibreChat, chat with parts",
        "/v1/chat/completions",
        {
            "model": "auto",
            "user": "65f0c0ffee",
            "stream": False,
            "temperature": 1,
            "top_p": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "messages": [
                {"role": "user", "content": "a blue square"},
                {"role": "assistant", "content": "![picture](data:image/png;base64,iVBORw0=)"},
                {"role": "user", "content": [{"type": "text", "text": "a red circle"}]},
            ],
        },
        _markdown,
    ),
]  # fmt: skip
