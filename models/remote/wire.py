"""A step as the body of OpenAI's images API, and what comes back of it: pictures within bounds, events one by one."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import numpy as np

from models.provenance.reading import opened
from models.remote.failures import unusable
from models.remote.source import TOLD
from router.errors import RequestError
from router.types import ModelCard, Picture, Scalar, Step

SAID_BYTES = 4 * 2**20  # of an answer, beside its picture
PIXEL_BYTES = 12  # of a pixel in base64: four channels of 16 bits that nothing could compress
PREVIEW_SIDE = 256
MOST_TOLD = 1e9  # seconds or dollars that are believed; NaN is not less


def size_of(step: Step, card: ModelCard) -> tuple[int, int]:
    """Width and height that a step asks for, in pixels."""
    width, height = (
        step.settings.get(key) or native for key, native in zip(("width", "height"), card.native_size, strict=True)
    )
    return int(width), int(height)


def body_of(step: Step, card: ModelCard, previews: int) -> dict[str, Scalar]:
    """What is sent. previews: pictures that somebody wants on the way."""
    remote, (width, height) = card.remote, size_of(step, card)
    assert remote is not None
    body: dict[str, Scalar] = {
        **card.settings,
        "model": remote.model,
        "prompt": step.settings.get("prompt"),
        "n": 1,
        "size": f"{width}x{height}",
    }
    for ours, theirs in remote.takes.items():
        value = step.settings.get(ours)
        if ours in TOLD and value is not None and value != "":
            body[theirs] = value
    if remote.stream:
        body |= {"stream": True, **({"partial_images": previews} if previews else {})}
    return body


def most_bytes(step: Step, card: ModelCard, pictures: int = 1) -> int:
    """An answer with so many pictures has no more than this, whatever they show."""
    width, height = size_of(step, card)
    return SAID_BYTES + pictures * PIXEL_BYTES * width * height


async def whole(answer: httpx.Response, most: int) -> bytes | None:
    """The body of an answer; None if it is longer than `most` bytes."""
    raw = bytearray()
    async for chunk in answer.aiter_bytes():
        raw += chunk
        if len(raw) > most:
            return None
    return bytes(raw)


async def events(answer: httpx.Response, most: int, card: ModelCard) -> AsyncGenerator[dict[str, Any]]:
    """The events of a stream, by what their `data` says. Raises `StepError` for more than `most` bytes."""
    waiting, searched, taken = bytearray(), 0, 0
    said: list[bytes] = []
    async for chunk in answer.aiter_bytes():
        taken += len(chunk)
        if taken > most:
            raise unusable(card, f"with more than {most:,} bytes")
        waiting += chunk
        while (end := waiting.find(b"\n", searched)) >= 0:
            line, searched = bytes(waiting[:end]).rstrip(b"\r"), 0
            del waiting[: end + 1]
            if line.startswith(b"data:"):
                said.append(line[5:].strip())
            elif not line and said:
                if (event := b"\n".join(said)) != b"[DONE]":
                    yield object_of(event, card)
                said = []
        searched = len(waiting)


def object_of(text: bytes, card: ModelCard) -> dict[str, Any]:
    """A JSON object. Raises `StepError`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise unusable(card, "not with a JSON object, as OpenAI's API does")
    return data


def first_item(answer: dict[str, Any], card: ModelCard) -> dict[str, Any]:
    """The picture's entry of an answer. Raises `StepError`."""
    data = answer.get("data")
    if not isinstance(data, list) or not data or not isinstance(data[0], dict):
        raise unusable(card, "without a picture")
    return data[0]


def picture_of(item: dict[str, Any], step: Step, card: ModelCard) -> Picture:
    """The picture of an entry, which is of the size that was asked for. Raises `StepError`."""
    if not isinstance(text := item.get("b64_json"), str):
        if item.get("url"):
            remedy = "write `settings: {response_format: b64_json}` into its card"
            raise unusable(card, f"with an address in place of a picture, and no address is followed; {remedy}")
        raise unusable(card, "without a picture")
    try:
        with opened(base64.b64decode(text, validate=True)) as image:
            wanted = size_of(step, card)
            if image.size != wanted:
                got = "x".join(map(str, image.size))
                raise unusable(card, f"with a picture of {got} where {wanted[0]}x{wanted[1]} was asked for")
            return Picture(np.asarray(image.convert("RGB")))
    except (ValueError, RequestError) as error:
        raise unusable(card, f"what it calls a picture is none: {error}") from None


def preview_of(item: dict[str, Any], card: ModelCard) -> Picture | None:
    """A small picture of what is to come; None if it is none, which stops nothing."""
    try:
        with opened(base64.b64decode(str(item.get("b64_json")), validate=True)) as image:
            if image.width * image.height > card.max_pixels:
                return None
            small = image.convert("RGB")
            small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
            return Picture(np.asarray(small))
    except (ValueError, RequestError):
        return None


def told_of(item: dict[str, Any], answer: dict[str, Any]) -> dict[str, Scalar]:
    """Facts that the other side tells of its picture: the prompt as it changed it, and what another Triptych did."""
    facts: dict[str, Scalar] = {}
    if isinstance(revised := item.get("revised_prompt"), str) and revised:
        facts["revised_prompt"] = _text(revised, 4000)
    report = answer.get("x_triptych")
    if isinstance(report, dict):
        if isinstance(recipe := report.get("recipe"), str):
            facts["remote_recipe"] = _text(recipe, 200)
        for key in ("latency_s", "cost_usd"):
            value = report.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_TOLD:
                facts[f"remote_{key}"] = value
    return facts


def _text(said: str, most: int) -> str:
    """At most so many characters, with no half of a surrogate pair, which JSON can say and UTF-8 cannot."""
    return said[:most].encode("utf-8", "replace").decode("utf-8")
