"""The wire in: what OpenAI's client sends to `/v1/images/generations`, with our extra fields, as a `GenerationRequest`.

Nothing is ignored in silence: a field that is not known is refused with what it is called here, a value of OpenAI's
that Triptych cannot honour (`background: transparent`) with what to do instead, and what passes
without an effect is a warning of the answer. An explicit null means "not given", as OpenAI's client sends it.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from deployments.api.wire.fields import advice, understood
from deployments.api.wire.prompt_texts import cleaned, foreign_syntax, styles_named
from deployments.settings import Limits
from router.errors import RequestError
from router.types import GenerationRequest, Priority, Turn, wearing

MAX_SEED = 2**32 - 1

REFUSED_VALUES = {
    ("background", "transparent"): "pictures have no alpha channel; use opaque or auto",
    ("output_format", "gif"): "animations are not supported; use png, webp or jpeg",
    ("output_format", "svg"): "vector output is not supported; use png, webp or jpeg",
}

NEUTRAL_QUALITY = ("auto", "standard", "medium")  # what clients send that ask for nothing in particular


def _whole(value: Any) -> Any:
    """42.0 is 42: JSON has one kind of number, and many clients write a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
WholeOrNone = Annotated[int | None, BeforeValidator(_whole)]  # of `Whole | None`, a schema would not have the bounds
LONGEST = 32_000
Text = Annotated[str, Field(max_length=LONGEST)]
_TEXT = {"type": "string"}
Raw = Annotated[str | bytes, WithJsonSchema(_TEXT)]
Raws = Annotated[tuple[Raw, ...], WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 16}]})]
Tag = Annotated[str, Field(min_length=1, max_length=64)]
StyleWeight = Annotated[float, Field(ge=-2, le=2)]


class WireTurn(BaseModel):
    """One picture of a search as it was resolved: what `replay` of an answer holds, and nothing to write by hand."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    recipe: str
    bar: float = Field(ge=0, le=1)
    slope: float
    offset: float
    chance: float = Field(ge=0, le=1)


class WireExtension(BaseModel):
    """A border around the given picture that is to be drawn, in pixels."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    left: Whole = Field(default=0, ge=0, le=8192)
    top: Whole = Field(default=0, ge=0, le=8192)
    right: Whole = Field(default=0, ge=0, le=8192)
    bottom: Whole = Field(default=0, ge=0, le=8192)


class ImageRequest(BaseModel):
    """The body of `POST /v1/images/generations` and `/edits`, of `POST /v1/jobs` and of `POST /v1/route`."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True, protected_namespaces=())

    prompt: str = Field(description="What the picture should show.")
    model: str = Field(default="auto", description="auto, or the name of a policy, of a recipe, or of a model.")
    n: Whole = Field(default=1, ge=1, le=10, description="Pictures; the i-th one takes seed + i.")
    size: str = Field(
        default="auto", pattern=r"^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$", description="auto or WIDTHxHEIGHT."
    )
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] = Field(
        default="auto",
        description="Picks the policy when model is auto: low is fast, medium is balanced, high is best. It "
        "changes nothing beside another model.",
    )
    background: Literal["auto", "opaque"] = "auto"
    output_format: Literal["png", "webp", "jpeg"] = "png"
    output_compression: WholeOrNone = Field(
        default=None, ge=0, le=100, description="Quality of webp and jpeg, 0 to 100."
    )
    moderation: Literal["auto", "low"] = Field(
        default="auto", description="low: without the checks of the policy's safety that may be left out."
    )
    response_format: Literal["b64_json", "url", "bytes"] = Field(
        default="b64_json", description="url: signed addresses that expire; bytes: only through a handle."
    )
    stream: bool = False
    partial_images: Whole = Field(default=0, ge=0, le=3, description="Previews of each picture, with stream or a job.")
    user: str = Field(default="", max_length=256, description="A label; without keys also the tenant, for budgets.")
    safety_identifier: str = Field(default="", max_length=256)

    negative_prompt: Text = ""
    seed: WholeOrNone = Field(default=None, ge=0, le=MAX_SEED, description="Random when not given, and reported.")
    steps: WholeOrNone = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=1000)
    latency_budget_s: float | None = Field(default=None, gt=0)
    max_cost_usd: float | None = Field(default=None, ge=0)
    style: dict[Tag, StyleWeight] | None = Field(
        default=None, max_length=4, description="What the pictures wear: styles by name, each with its weight."
    )
    image: Raws = Field(
        default=(),
        max_length=16,
        description="A picture to edit: base64, a data URL, sha256: and the digest of one that was given before; in a "
        "form, its file. Of several, the first is edited.",
    )
    mask: Raw | None = Field(
        default=None, description="A picture of the same size, transparent where the first may change; as `image`."
    )
    reference: Raw | None = Field(
        default=None, description="A picture that a style of kind ip_adapter draws after; as `image`."
    )
    strength: float | None = Field(
        default=None, gt=0, le=1, description="How far the given picture is noised again; default: the recipe's."
    )
    input_fidelity: Literal["low", "high"] | None = Field(
        default=None, description="high: an edit without mask and strength stays nearer to its picture."
    )
    extend: WireExtension | None = Field(
        default=None, description="A border around the given picture, which is drawn as the prompt says."
    )
    recipe: str | None = Field(default=None, min_length=1, description="A recipe of the policy, by name.")
    turns: tuple[WireTurn, ...] = Field(
        default=(), max_length=16, description="Of a replay: how the recipe, a best_of with n: auto, was resolved."
    )
    tags: tuple[Tag, ...] = Field(default=(), max_length=32, description="Facts for the rules of the policy.")
    degrade: bool = Field(default=True, description="Whether a lesser recipe may answer under load.")
    deterministic: bool = Field(
        default=False,
        description="The bytes of a picture made alone; others, made together, differ by rounding.",
    )
    priority: Priority = Field(default="standard", description="Its class, up to the highest that the key may ask for.")
    webhook: str | None = Field(
        default=None, min_length=1, max_length=2048, description="An allowed URL that is told when the job has ended."
    )

    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the body was left out, changed, or is not likely to mean here what was meant, in words."""
        return self._warnings

    @model_validator(mode="before")
    @classmethod
    def _known_fields_only(cls, data: Any) -> Any:
        given = given_fields(data, cls.model_fields)
        for key, value in given.items():
            if isinstance(value, str) and (key, value) in REFUSED_VALUES:
                raise refusal(key, f"{value!r}: {REFUSED_VALUES[key, value]}", "unsupported_value")
        if "image" in given and not isinstance(given["image"], list | tuple):
            given["image"] = (given["image"],)
        for key in ("tags", "turns", "image"):
            if isinstance(given.get(key), list):
                given[key] = tuple(given[key])
        return given

    @field_validator("prompt", "negative_prompt", "user", "safety_identifier", "model", "recipe", "webhook")
    @classmethod
    def _valid_text(cls, text: str | None) -> str | None:
        if text is not None and ("\0" in text or any("\ud800" <= ch <= "\udfff" for ch in text)):
            raise ValueError("it holds a NUL or half of a surrogate pair, which is not valid text")
        return text

    @model_validator(mode="after")
    def _fields_agree(self) -> ImageRequest:
        if not self.prompt.strip() and not self.image:
            raise refusal("prompt", "it is empty; say what the picture should show", "invalid_value")
        for key in ("mask", "strength", "extend"):
            if getattr(self, key) is not None and not self.image:
                raise refusal(key, "it is for a given picture, and there is none; send image, too", "invalid_value")
        if self.output_compression not in (None, 100) and self.output_format == "png":
            raise refusal("output_compression", "png is lossless; use webp or jpeg", "invalid_value")
        return self


def parse_body(raw: bytes, limits: Limits) -> ImageRequest:
    """A request from JSON text; raises `RequestError`."""
    return parse_request(json_of(raw, '{"prompt": "a red circle"}'), limits)


def json_of(raw: bytes, example: str) -> Any:
    """The content of JSON text in UTF-8, 16 or 32; raises `RequestError` that says where it breaks, and an example."""
    try:
        text = raw.decode(json.detect_encoding(raw)).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}; send JSON as UTF-8"
        raise RequestError(message, None, "unsupported_encoding") from None
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise RequestError(
            f"the body is not valid JSON ({where}: {error.msg}); send an object such as {example}", None, "invalid_json"
        ) from None
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"
        message = f"the body is not valid JSON: {why}; send an object such as {example}"
        raise RequestError(message, None, "invalid_json") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; one key twice has no meaning that everybody shares, so it is refused."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RequestError(f"{key}: it is given twice; give it once", key, "duplicate_parameter")
        found[key] = value
    return found


def given_fields(data: Any, known: Collection[str]) -> dict[str, Any]:
    """The fields of a body that are not null, numpy's scalars as Python's; for pydantic's validators "before"."""
    if not isinstance(data, Mapping):
        raise PydanticCustomError("not_an_object", "the body must be a JSON object", {"param": None})
    given = {str(key): _builtin(value) for key, value in data.items() if value is not None}
    for key in given:
        if key not in known:
            raise refusal(key, advice(key, given, known), "unknown_parameter")
    return given


def _builtin(value: Any) -> Any:
    """What comes through a handle may be numpy's."""
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value


def parse_request(data: Any, limits: Limits) -> ImageRequest:
    """A request from builtins, with its `warnings`; raises `RequestError` that names the first field at fault."""
    warnings: list[str] = []
    if isinstance(data, Mapping):
        given = {str(key): value for key, value in data.items() if value is not None}
        data, warnings = understood(given, ImageRequest.model_fields)
        for field, most in (("prompt", limits.max_prompt_chars), ("negative_prompt", LONGEST)):
            # One that is too long is refused as it was sent: what nobody sees counts, too.
            if isinstance(text := data.get(field), str) and len(text) <= most:
                data[field], said = cleaned(text, field)
                warnings += said
        if isinstance(text := data.get("prompt"), str):
            warnings += _dress(data, text, limits.prompt_styles)
        for field in ("prompt", "negative_prompt"):
            if isinstance(text := data.get(field), str):
                warnings += foreign_syntax(text, field, limits.prompt_styles if field == "prompt" else ())
    try:
        request = ImageRequest.model_validate(data)
    except ValidationError as error:
        raise request_error(error.errors(include_url=False)) from None
    if len(request.prompt) > limits.max_prompt_chars:
        raise RequestError(
            f"prompt: {len(request.prompt):,} characters; at most {limits.max_prompt_chars:,} are allowed",
            "prompt",
            "invalid_value",
        )
    if request.n > limits.max_n:
        raise RequestError(f"n: {request.n} pictures; at most {limits.max_n} are allowed", "n", "invalid_value")
    target = limits.stands_for(request.model)
    if target == "auto" and request.quality != "auto" and request.quality not in limits.quality:
        known = ", ".join(limits.quality)
        raise RequestError(
            f"quality: no policy stands for {request.quality!r} here; use {known}", "quality", "unsupported_value"
        )
    if target not in ("auto", limits.quality.get(request.quality)) and request.quality not in NEUTRAL_QUALITY:
        warnings.append(
            f"quality: {request.quality!r} changes nothing beside model {request.model!r}; it picks a policy when "
            "model is auto"
        )
    if request.input_fidelity is not None and not request.image:
        warnings.append(f"input_fidelity: {request.input_fidelity!r} changes nothing here; it is for edits")
    request._warnings = tuple(warnings)
    return request


def _dress(data: dict[str, Any], text: str, known: Mapping[str, bool]) -> list[str]:
    """Have the request wear what its prompt names, as if `style` had asked for it; warnings. Raises `RequestError`."""
    data["prompt"], named, warnings = styles_named(text, known)
    asked = data.get("style") or {}
    if named and isinstance(asked, Mapping):
        if both := [name for name in named if name in asked]:
            raise RequestError(f"style: {both[0]!r} is also in the prompt; give it once", "style", "invalid_value")
        data["style"] = {**asked, **named}
    return warnings


def to_request(wire: ImageRequest, limits: Limits, request_id: str = "") -> GenerationRequest:
    """The value that the router takes. A seed is drawn here if none was given, so that every answer can be replayed."""
    width, height = (None, None) if wire.size == "auto" else map(int, wire.size.split("x"))
    target = limits.stands_for(wire.model)
    if target == "auto" and wire.quality != "auto":
        target = limits.quality[wire.quality]
    return GenerationRequest(
        prompt=wire.prompt,
        negative_prompt=wire.negative_prompt,
        width=width,
        height=height,
        n=wire.n,
        seed=secrets.randbelow(2**31) if wire.seed is None else wire.seed,
        steps=wire.steps,
        guidance_scale=wire.guidance_scale,
        target=target,
        recipe=wire.recipe,
        latency_budget_s=wire.latency_budget_s,
        max_cost_usd=wire.max_cost_usd,
        turns=tuple(Turn(**turn.model_dump()) for turn in wire.turns),
        tags=wire.tags,
        style=wearing(wire.style or {}),
        tenant=wire.user or wire.safety_identifier,
        degradable=wire.degrade,
        lenient=wire.moderation == "low",
        priority=wire.priority,
        deterministic=wire.deterministic,
        id=request_id,
        arrived_s=time.time(),
    )


def refusal(param: str, message: str, code: str) -> PydanticCustomError:
    """What a validator raises about a field."""
    # Braces of a template would be interpreted, so the message travels as a value.
    return PydanticCustomError(code, "{text}", {"text": message, "param": param})  # type: ignore[arg-type]


def request_error(errors: Sequence[Any]) -> RequestError:
    """Pydantic's errors as one of ours, about the first of them."""
    first = errors[0]
    context = first.get("ctx") or {}
    param = context["param"] if "param" in context else (str(first["loc"][0]) if first["loc"] else None)
    message = _plain(first, context)
    more = f" (and {len(errors) - 1} more problems)" if len(errors) > 1 else ""
    code = first["type"] if "param" in context and param else "invalid_value"
    return RequestError(f"{param}: {message}{more}" if param else message, param, code)


def _plain(error: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    if error["type"] == "missing":
        return "it is required"
    if error["type"] == "string_pattern_mismatch":
        if error["loc"] != ("size",):
            return f"{_short(error['input'])} does not have the form {error['ctx']['pattern']}"
        return f"{_short(error['input'])} is neither auto nor WIDTHxHEIGHT, such as 512x512"
    if error["type"] == "value_error" or "param" in context:
        return str(error["msg"]).removeprefix("Value error, ")
    message = str(error["msg"]).replace("Input should", "it should")
    return f"{message}, not {_short(error.get('input'))}"


def _short(value: Any) -> str:
    text = repr(value)
    return re.sub(r"\s+", " ", text if len(text) <= 60 else text[:57] + "...")
