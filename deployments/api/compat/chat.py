"""`POST /v1/chat/completions`: the last message of the user is drawn.

Pictures come as OpenRouter and LiteLLM have them, in `images` of the message, where `modalities` asks for image, and
else as Markdown in its `content`, which chat programs show.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict, Field

from deployments.api.compat.conversation import Message, asked_of, given_in, left_out, prompt_of, read_as, size_of
from deployments.api.compat.opening import opened
from deployments.api.service import Call, Service
from deployments.api.streams import Accepted, json_of
from deployments.api.wire.requests import ImageRequest
from deployments.settings import Limits
from router.errors import RequestError

TEXT_ONLY = (
    "temperature", "top_p", "top_k", "min_p", "top_a", "max_tokens", "max_completion_tokens", "frequency_penalty",
    "presence_penalty", "repetition_penalty", "stop", "logit_bias", "logprobs", "top_logprobs", "tools", "tool_choice",
    "parallel_tool_calls", "functions", "function_call", "reasoning", "reasoning_effort", "include_reasoning",
    "verbosity", "prediction", "audio", "web_search_options", "transforms", "provider", "plugins", "usage", "store",
    "metadata", "prompt_cache_key", "prompt_cache_retention", "service_tier", "models", "route", "keep_alive",
    "options", "chat_id", "session_id", "id", "features", "variables", "files", "filter_ids", "tool_ids",
)  # fmt: skip
"""What chat programs send to models of language."""

NAMES = {"prompt": "messages"}


class ImageConfig(BaseModel):
    """OpenRouter's: the shape and the size of pictures."""

    model_config = ConfigDict(extra="forbid", strict=True)

    aspect_ratio: str | None = Field(default=None, description="Such as 16:9; 1:1 is as the model likes.")
    image_size: Literal["1K", "2K", "4K"] | None = None


class StreamOptions(BaseModel):
    """What a stream says besides."""

    model_config = ConfigDict(extra="allow", strict=True)

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body of `POST /v1/chat/completions`; further fields are those of `/v1/images/generations`, such as `size`."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str = Field(default="auto", description="As for generations.")
    messages: list[Message] = Field(min_length=1, description="The last one of the user is drawn.")
    modalities: list[str] | None = Field(
        default=None, description="With image among them, pictures are in `images`; without, Markdown in `content`."
    )
    image_config: ImageConfig | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | Literal["b64_json", "url"] | None = Field(
        default=None, description="url: signed addresses that expire, in place of data URLs."
    )


class Chat:
    """A chat request in our words, and our answer in its."""

    def __init__(self, data: Any, limits: Limits) -> None:
        """Raises `RequestError`."""
        given = given_in(data)
        warnings = left_out(given, TEXT_ONLY, "this draws and writes no text, so it changes nothing here")
        asked: ChatRequest = read_as(ChatRequest, given)
        prompt, said = prompt_of(asked.messages, "messages")
        extra = dict(asked.model_extra or {})
        for name in ("partial_images", "prompt"):
            if extra.get(name):
                remedy = "use POST /v1/images/generations" if name == "partial_images" else "put it into messages"
                raise RequestError(f"{name}: there is none in a chat; {remedy}", name, "unsupported_value")
        if asked.modalities is not None and "image" not in asked.modalities:
            message = "modalities: pictures are all that there is here; put image among them"
            raise RequestError(message, "modalities", "unsupported_value")
        form = asked.response_format
        if isinstance(form, dict):
            if form.get("type") != "text":
                message = "response_format: a picture has no such form; leave it out, or say url or b64_json"
                raise RequestError(message, "response_format", "unsupported_value")
            form = None
        config = {} if asked.image_config is None else asked.image_config.model_dump()
        if (size := size_of(config)) is not None:
            extra.setdefault("size", size)
        body = {**extra, "prompt": prompt, "model": asked.model, "response_format": form}
        self.wire: ImageRequest = asked_of(body, limits, [*warnings, *said], NAMES)
        self.stream = asked.stream
        self._usage = asked.stream_options is not None and asked.stream_options.include_usage
        self._listed = asked.modalities is not None
        self._created = int(time.time())

    def answer(self, made: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        """A `chat.completion`, with the reasons under `x_triptych`."""
        message = {"role": "assistant", "refusal": None, **self._said(made["data"])}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        head = {**self._head(request_id, "chat.completion"), "choices": [choice]}
        return {**head, "usage": _usage([made["usage"]]), "x_triptych": made["x_triptych"]}

    async def events(self, service: Service, request_id: str, accepted: Accepted, call: Call) -> AsyncGenerator[Any]:
        """The chunks of a stream, a picture in each when it is made; None at its end."""
        usages: list[Mapping[str, Any]] = []
        async for event in opened(self._pictures(service, request_id, accepted, call), accepted):
            if event is None:
                yield self._chunk(request_id, {"role": "assistant", "content": ""})
                continue
            usages.append(event["usage"])
            delta = self._said([event], len(usages) - 1)
            yield {**self._chunk(request_id, delta), "x_triptych": event["x_triptych"]}
        yield self._chunk(request_id, {}, "stop")
        if self._usage:
            frame = {**self._head(request_id, "chat.completion.chunk"), "choices": []}
            yield {**frame, "usage": _usage(usages)}
        yield None

    async def _pictures(
        self, service: Service, request_id: str, accepted: Accepted, call: Call
    ) -> AsyncGenerator[dict[str, Any]]:
        """Each picture with its usage. Addresses are there only when all are made."""
        if self.wire.response_format == "url":
            answer = await service.made(self.wire, request_id, call)
            accepted(answer.headers)
            made = answer.body
            for index, item in enumerate(made["data"]):
                usage = made["usage"] if index == 0 else _NOTHING
                yield {**item, "usage": usage, "x_triptych": made["x_triptych"]}
            return
        async for event in service.stream(self.wire, request_id, accepted, call):
            yield event

    def _said(self, pictures: Sequence[Mapping[str, Any]], first: int = 0) -> dict[str, Any]:
        urls = [
            item.get("url") or f"data:image/{self.wire.output_format};base64,{item['b64_json']}" for item in pictures
        ]
        if self._listed:
            images = [
                {"type": "image_url", "image_url": {"url": url}, "index": first + k} for k, url in enumerate(urls)
            ]
            return {"content": "", "images": images}
        return {"content": "".join(f"![picture]({url})\n" for url in urls)}

    def _head(self, request_id: str, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{request_id}", "object": kind, "created": self._created, "model": self.wire.model}

    def _chunk(self, request_id: str, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": dict(delta), "finish_reason": finish, "logprobs": None}
        return {**self._head(request_id, "chat.completion.chunk"), "choices": [choice]}


_NOTHING = {"input_tokens": 0, "output_tokens": 0}


def _usage(usages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """As chat completions count: the prompt once, the pictures of all."""
    asked = max((one["input_tokens"] for one in usages), default=0)
    made = sum(one["output_tokens"] for one in usages)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}


def chat_line(event: Any) -> bytes:
    """A chunk; the last one is no JSON."""
    return format_sse_event(data_str="[DONE]" if event is None else json_of(event))
