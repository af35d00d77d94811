"""`POST /v1/responses` with the tool `image_generation`: the last message of the user is drawn.

https://platform.openai.com/docs/guides/tools-image-generation
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.api import errors as failures
from deployments.api.compat.conversation import Message, asked_of, given_in, left_out, prompt_of, read_as
from deployments.api.compat.opening import opened
from deployments.api.service import Call, Service
from deployments.api.streams import Accepted
from deployments.api.wire.requests import ImageRequest
from deployments.settings import Limits
from router.errors import RequestError

TEXT_ONLY = (
    "temperature", "top_p", "max_output_tokens", "instructions", "reasoning", "text", "truncation", "include",
    "max_tool_calls", "prompt_cache_key", "prompt_cache_retention", "service_tier", "top_logprobs", "stream_options",
    "parallel_tool_calls", "store", "moderation",
)  # fmt: skip
"""What is for models of language, or for a memory of conversations."""

REFUSED = {
    "previous_response_id": "conversations are not kept; send what is to be drawn in input",
    "conversation": "conversations are not kept; send what is to be drawn in input",
    "prompt": "templates are not kept; send what is to be drawn in input",
    "background": "send the request as a job (POST /v1/jobs), and ask for it later",
}
TOOL_FIELDS = ("size", "quality", "background", "output_format", "output_compression", "partial_images", "moderation")
_NO_EDITS = "pictures are made from text only"

NAMES = {"prompt": "input"}
ERROR_CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt"}
"""OpenAI's codes of a response that failed, by our statuses; others are `server_error`."""
_MODERATED = "image_content_policy_violation"


class ImageTool(BaseModel):
    """The tool that draws; its fields are those of `/v1/images/generations`."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str = Field(description="image_generation; others are left out")
    model: str | None = Field(default=None, description="In place of the model of the request.")
    action: Literal["generate", "edit", "auto"] | None = None


class ResponsesRequest(BaseModel):
    """The body of `POST /v1/responses`; further fields are those of `/v1/images/generations`, such as `seed`."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str = Field(default="auto", description="As for generations.")
    input: str | list[Message] = Field(description="What to draw; of messages, the last one of the user.")
    tools: list[ImageTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    stream: bool = False
    metadata: dict[str, str] | None = None


class Responses:
    """A request of the Responses API in our words, and our answer in its."""

    def __init__(self, data: Any, limits: Limits) -> None:
        """Raises `RequestError`."""
        given = given_in(data)
        for name, remedy in REFUSED.items():
            if given.pop(name, None) not in (None, False):
                raise RequestError(f"{name}: {remedy}", name, "unsupported_parameter")
        warnings = left_out(given, TEXT_ONLY, "this draws and writes no text, so it changes nothing here")
        asked: ResponsesRequest = read_as(ResponsesRequest, given)
        messages = [Message(role="user", content=asked.input)] if isinstance(asked.input, str) else asked.input
        prompt, said = prompt_of(messages, "input")
        tool, told = _tool(asked.tools or ())
        body = {**(asked.model_extra or {}), **tool, "prompt": prompt}
        body["model"] = tool.get("model") or asked.model
        if body.get("partial_images") and not asked.stream:
            message = "tools.partial_images: previews need stream: true"
            raise RequestError(message, "tools", "invalid_value")
        self.wire: ImageRequest = asked_of(body, limits, [*warnings, *said, *told], NAMES)
        if self.wire.response_format == "url":
            message = "response_format: a response has the pictures themselves; leave it out"
            raise RequestError(message, "response_format", "unsupported_value")
        self.stream = asked.stream
        self._asked = asked
        self._created = time.time()

    def answer(self, made: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        """A `response` whose output is one `image_generation_call` for each picture."""
        output = [
            self._call(request_id, index, "completed", item["b64_json"], made["size"])
            for index, item in enumerate(made["data"])
        ]
        return self._response(request_id, "completed", output, made["usage"], made["x_triptych"])

    async def events(
        self, service: Service, request_id: str, accepted: Accepted, call: Call
    ) -> AsyncGenerator[dict[str, Any]]:
        """The events of a stream, numbered. A failure after the request was accepted is `response.failed`."""
        number = 0
        async for event in self._unnumbered(service, request_id, accepted, call):
            yield {**event, "sequence_number": number}
            number += 1

    async def _unnumbered(
        self, service: Service, request_id: str, accepted: Accepted, call: Call
    ) -> AsyncGenerator[dict[str, Any]]:
        done: dict[int, dict[str, Any]] = {}
        usage: dict[str, Any] = {}
        report: Mapping[str, Any] = {}
        try:
            async for event in opened(service.stream(self.wire, request_id, accepted, call), accepted):
                if event is None:
                    for one in self._beginning(request_id):
                        yield one
                    continue
                index = event["picture_index"]
                place = {"output_index": index, "item_id": _item_id(request_id, index)}
                if event["type"] == "image_generation.partial_image":
                    yield {**_event("partial_image"), **place, **self._preview(event)}
                    continue
                done[index] = self._call(request_id, index, "completed", event["b64_json"], event["size"])
                usage, report = _summed(usage, event["usage"]), event["x_triptych"]
                yield {**_event("completed"), **place}
                yield {"type": "response.output_item.done", "output_index": index, "item": done[index]}
        except Exception as error:
            if not accepted.event.is_set():
                raise
            failed = self._response(request_id, "failed", [done[k] for k in sorted(done)], usage, report)
            yield {"type": "response.failed", "response": {**failed, "error": _error(error, request_id)}}
            return
        output = [done[k] for k in sorted(done)]
        yield {
            "type": "response.completed",
            "response": self._response(request_id, "completed", output, usage, report),
        }

    def _beginning(self, request_id: str) -> list[dict[str, Any]]:
        begun = self._response(request_id, "in_progress", [], {}, {})
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
        ]
        for index in range(self.wire.n):
            place = {"output_index": index, "item_id": _item_id(request_id, index)}
            item = self._call(request_id, index, "in_progress", None, None)
            events.append({"type": "response.output_item.added", "output_index": index, "item": item})
            events += [{**_event(kind), **place} for kind in ("in_progress", "generating")]
        return events

    def _preview(self, event: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: event[key] for key in ("size", "quality", "background", "output_format")}
        return {"partial_image_b64": event["b64_json"], "partial_image_index": event["partial_image_index"], **kept}

    def _call(self, request_id: str, index: int, status: str, file: str | None, size: str | None) -> dict[str, Any]:
        quality = self.wire.quality
        return {
            "id": _item_id(request_id, index),
            "type": "image_generation_call",
            "status": status,
            "result": file,
            "action": "generate",
            "background": "opaque",
            "output_format": self.wire.output_format,
            "quality": "auto" if quality in ("standard", "hd") else quality,
            "size": size,
            "revised_prompt": None,
        }

    def _response(
        self,
        request_id: str,
        status: str,
        output: list[dict[str, Any]],
        usage: Mapping[str, Any],
        report: Mapping[str, Any],
    ) -> dict[str, Any]:
        tool = {name: getattr(self.wire, name) for name in ("size", "output_format")}
        return {
            "id": f"resp_{request_id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": self._asked.metadata or {},
            "model": self._asked.model,
            "output": output,
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [{"type": "image_generation", **tool}],
            "top_p": None,
            "usage": _usage(usage) if usage else None,
            "x_triptych": dict(report),
        }


def _tool(tools: Any) -> tuple[dict[str, Any], list[str]]:
    """The fields of the tool that draws, as ours, and warnings about the others. Raises `RequestError`."""
    drawing = [tool for tool in tools if tool.type == "image_generation"]
    others = sorted({tool.type[:40] for tool in tools if tool.type != "image_generation"})
    warnings = [f"tools: {', '.join(others)} cannot be called here"] if others else []
    if len(drawing) > 1:
        raise RequestError("tools: image_generation is there twice; give it once", "tools", "invalid_value")
    if not drawing:
        return {}, warnings
    tool = drawing[0]
    extra = {key: value for key, value in (tool.model_extra or {}).items() if value is not None}
    if tool.action == "edit" or "input_image_mask" in extra:
        raise RequestError(f"tools: {_NO_EDITS}, so there is nothing to edit", "tools", "unsupported_value")
    unknown = [key for key in extra if key not in (*TOOL_FIELDS, "input_fidelity")]
    if unknown:
        known = ", ".join(TOOL_FIELDS)
        message = (
            f"tools: image_generation has no {unknown[0][:40]!r} here, but {known}; other fields stand beside tools"
        )
        raise RequestError(message, "tools", "unknown_parameter")
    return {**extra, **({} if tool.model is None else {"model": tool.model})}, warnings


def _item_id(request_id: str, index: int) -> str:
    return f"ig_{request_id}-{index}"


def _event(kind: str) -> dict[str, Any]:
    return {"type": f"response.image_generation_call.{kind}"}


def _summed(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    if not one:
        return dict(other)
    made = one["output_tokens"] + other["output_tokens"]
    return {**one, "output_tokens": made, "total_tokens": one["input_tokens"] + made}


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """As the Responses API counts."""
    return {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


def _error(error: Exception, request_id: str) -> dict[str, Any]:
    told = failures.envelope(error, request_id)["error"]
    moderated = told["code"] in failures.MODERATED
    code = _MODERATED if moderated else ERROR_CODES.get(failures.status_of(error), "server_error")
    return {"code": code, "message": told["message"]}
