"""A conversation as a prompt: the text of the last message of the user. What is left out is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.api.wire.requests import ImageRequest, parse_request, request_error
from deployments.settings import Limits
from router.errors import RequestError

TEXT_PARTS = ("text", "input_text", "output_text")

ASPECTS = {
    "1:1": (1024, 1024), "2:3": (832, 1248), "3:2": (1248, 832), "3:4": (864, 1184), "4:3": (1184, 864),
    "4:5": (896, 1152), "5:4": (1152, 896), "9:16": (768, 1344), "16:9": (1344, 768), "21:9": (1536, 672),
}  # fmt: skip
"""Pixels of `image_config.aspect_ratio`, as OpenRouter documents them."""
SCALES = {"1K": 1, "2K": 2, "4K": 4}
"""What `image_config.image_size` multiplies them by."""


class Part(BaseModel):
    """A part of a message: text, or something that is refused or left out."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str = Field(description="text or input_text; pictures are not read")
    text: str | None = None


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: str = Field(description="user: what the picture should show; those of others are left out")
    content: str | list[Part] | None = None


def prompt_of(messages: Sequence[Message], field: str) -> tuple[str, list[str]]:
    """The prompt, and warnings about what else was there. Raises `RequestError` if there is none, or a picture in it.

    field: what the messages are called in the body
    """
    asked = [message for message in messages if message.role == "user"]
    if not asked:
        raise RequestError(f"{field}: there is no message of the user to draw", field, "invalid_value")
    warnings = []
    if len(asked) > 1:
        warnings.append(f"{field}: only the last message of the user is drawn; say everything in it")
    if any(message.role in ("system", "developer") for message in messages):
        warnings.append(f"{field}: messages of system and developer change nothing here")
    return _text(asked[-1], field), warnings


def _text(message: Message, field: str) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    texts = []
    for part in message.content:
        if part.type not in TEXT_PARTS:
            what = f"{field}: the last message of the user has a part of type {part.type[:40]!r}"
            raise RequestError(f"{what}; pictures are made from text only, so send text", field, "unsupported_value")
        texts.append(part.text or "")
    return "\n".join(texts)


def size_of(config: Mapping[str, Any], field: str = "image_config") -> str | None:
    """WIDTHxHEIGHT of OpenRouter's `image_config`; None: as the model likes. Raises `RequestError`."""
    aspect, scale = config.get("aspect_ratio"), config.get("image_size")
    for name, value, known in (("aspect_ratio", aspect, ASPECTS), ("image_size", scale, SCALES)):
        if value is not None and value not in known:
            message = f"{field}.{name}: {str(value)[:40]!r} is none of {', '.join(known)}"
            raise RequestError(message, f"{field}.{name}", "invalid_value")
    if scale is None and aspect in (None, "1:1"):
        return None
    width, height = ASPECTS[aspect or "1:1"]
    return f"{width * SCALES[scale or '1K']}x{height * SCALES[scale or '1K']}"


def given_in(data: Any) -> dict[str, Any]:
    """The fields of a body that are not null. Raises `RequestError` if it is no object."""
    if not isinstance(data, Mapping):
        raise RequestError("the body must be a JSON object", None, "invalid_value")
    return {str(key): value for key, value in data.items() if value is not None}


def left_out(given: dict[str, Any], names: Sequence[str], why: str) -> list[str]:
    """Take fields without effect out of `given`, with one warning about all of them."""
    found = [name for name in names if given.pop(name, None) not in (None, [], {}, False)]
    return [f"{', '.join(found)}: {why}"] if found else []


def read_as(model: type[BaseModel], data: Mapping[str, Any]) -> Any:
    """A body as a pydantic model; raises `RequestError` that names the first field at fault."""
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        raise request_error(error.errors(include_url=False)) from None


def asked_of(
    body: Mapping[str, Any], limits: Limits, warnings: Sequence[str], names: Mapping[str, str]
) -> ImageRequest:
    """Our request, with further warnings. names: what fields of ours are called in the foreign body"""
    with called(names):
        wire = parse_request(body, limits)
    wire._warnings = (*wire.warnings, *warnings)
    return wire


@contextmanager
def called(names: Mapping[str, str]) -> Iterator[None]:
    """Errors about fields of ours name those of the foreign body."""
    try:
        yield
    except RequestError as error:
        if error.param is None or error.param not in names:
            raise
        theirs = names[error.param]
        message = error.message.removeprefix(f"{error.param}: ")
        raise type(error)(f"{theirs}: {message}", theirs, error.code) from None
