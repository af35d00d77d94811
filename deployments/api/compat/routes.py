"""The endpoints of other protocols."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from deployments.api.calls import call_of, json_of_request, picture_json
from deployments.api.compat import img2img as sd_edits
from deployments.api.compat import sdapi, sdapi_info
from deployments.api.compat.chat import Chat, ChatRequest, chat_line
from deployments.api.compat.responses import Responses, ResponsesRequest
from deployments.api.compat.shapes import (
    ChatChunk,
    ChatCompletion,
    OpenAIResponse,
    ResponseEvent,
    SdModel,
    SdOptions,
    SdProgress,
    SdSampler,
    SdScheduler,
    Txt2ImgAnswer,
)
from deployments.api.openapi import (
    ASKED,
    KEYED,
    RATED,
    READ,
    answered,
    answers,
    body_of,
    events,
    parameter,
    sd_answers,
)
from deployments.api.service import Service
from deployments.api.streams import Accepted, event_stream, openai_line
from deployments.api.wire import examples

ENDPOINTS = {
    "POST /v1/chat/completions": "the last message is drawn; pictures in `images` of the message, or as Markdown",
    "POST /v1/responses": "with the tool image_generation; pictures as `image_generation_call`",
    "POST /sdapi/v1/txt2img": "A1111's: pictures in base64, and an info with seeds and parameters",
    "POST /sdapi/v1/img2img": "A1111's: the first of init_images painted over, or where a white mask says",
    "GET /sdapi/v1/options": "what A1111's clients read; POST refuses what would change it for everybody",
    "POST /sdapi/v1/options": "takes what was read; a checkpoint goes into a request's override_settings",
    "GET /sdapi/v1/sd-models": "what sd_model_checkpoint may be",
    "GET /sdapi/v1/samplers": "one name, since recipes choose",
    "GET /sdapi/v1/schedulers": "one name, since recipes choose",
    "GET /sdapi/v1/progress": "how far open jobs are: the key's own; all of them for an admin, or where no keys are",
}
OPEN_JOBS = 100


BODIES = (
    *(ChatRequest, ResponsesRequest, sdapi.Txt2ImgRequest, sd_edits.Img2ImgRequest),
    *(SdOptions, ChatChunk, ResponseEvent),
)


def add_endpoints(app: FastAPI) -> None:
    """Chat, responses and A1111's."""
    parameters = [parameter("Idempotency-Key", "header", "Sent again, the same request has the same pictures.")]
    for path, asked, shape, endpoint, what, stream in (
        ("/v1/chat/completions", body_of(ChatRequest, told=examples.CHAT), ChatCompletion, chat,
         "The message; with `stream`, chunks.", events(examples.CHAT_EVENTS, ChatChunk)),
        ("/v1/responses", body_of(ResponsesRequest, told=examples.RESPONSES), OpenAIResponse, responses,
         "The response; with `stream`, events.", events(examples.RESPONSE_EVENTS, ResponseEvent)),
    ):  # fmt: skip
        made = {**answered(shape, what, content=stream, headers=RATED), **answers(*ASKED)}
        app.post(path, openapi_extra={**asked, "parameters": parameters}, responses=made, response_model=None)(endpoint)
    drawn = {**answered(Txt2ImgAnswer, "Pictures."), **sd_answers(*ASKED)}
    asked = {**body_of(sdapi.Txt2ImgRequest, told=examples.TXT2IMG), "parameters": parameters}
    app.post("/sdapi/v1/txt2img", openapi_extra=asked, response_model=None, responses=drawn)(txt2img)
    painted = {**body_of(sd_edits.Img2ImgRequest, told=examples.IMG2IMG), "parameters": parameters}
    app.post("/sdapi/v1/img2img", openapi_extra=painted, response_model=None, responses=drawn)(img2img)
    shown = sd_answers(*KEYED, *READ)
    app.get("/sdapi/v1/options", response_model=SdOptions, responses=shown)(options)
    changed = {200: {"description": "Nothing was to be changed."}, **sd_answers(400, *KEYED, 405, 408, 409, 413, 415)}
    extra = body_of(SdOptions, told=examples.SD_OPTIONS)
    app.post("/sdapi/v1/options", openapi_extra=extra, response_model=None, responses=changed)(set_options)
    app.get("/sdapi/v1/sd-models", response_model=list[SdModel], responses=shown)(models)
    app.get("/sdapi/v1/samplers", response_model=list[SdSampler], responses=shown)(samplers)
    app.get("/sdapi/v1/schedulers", response_model=list[SdScheduler], responses=shown)(schedulers)
    app.get("/sdapi/v1/progress", response_model=SdProgress, responses=shown)(progress)


async def chat(request: Request) -> Response:
    """Draw the last message of a chat."""
    call = call_of(request, "generate")
    asked = Chat(await json_of_request(request), request.app.state.limits)
    service, request_id = _service(request), request.state.request_id
    if asked.stream:
        told = Accepted()
        stream = asked.events(service, request_id, told, call)
        return await event_stream(stream, told, request_id, request.app.state.ping_s, chat_line)
    made = await service.made(asked.wire, request_id, call)
    return JSONResponse(asked.answer(made.body, request_id), headers=dict(made.headers))


async def responses(request: Request) -> Response:
    """Draw the last message of a response's input."""
    call = call_of(request, "generate")
    asked = Responses(await json_of_request(request), request.app.state.limits)
    service, request_id = _service(request), request.state.request_id
    if asked.stream:
        told = Accepted()
        stream = asked.events(service, request_id, told, call)
        return await event_stream(stream, told, request_id, request.app.state.ping_s, openai_line)
    made = await service.made(asked.wire, request_id, call)
    return JSONResponse(asked.answer(made.body, request_id), headers=dict(made.headers))


async def txt2img(request: Request) -> Response:
    """Draw as A1111's web UI is asked to."""
    call = call_of(request, "generate")
    data = await json_of_request(request)
    wire = sdapi.asked_in(data, request.app.state.limits)
    made = await _service(request).made(wire, request.state.request_id, call)
    return JSONResponse(sdapi.answer(made.body, wire, data), headers=dict(made.headers))


async def img2img(request: Request) -> Response:
    """Paint over a picture as A1111's web UI is asked to."""
    call = call_of(request, "generate")
    data = await picture_json(request)
    limits, uploads = request.app.state.limits, request.app.state.uploads
    wire = await asyncio.to_thread(sd_edits.asked_in, data, limits, uploads)
    made = await _service(request).made(wire, request.state.request_id, call)
    return JSONResponse(sdapi.answer(made.body, wire, data), headers=dict(made.headers))


async def options(request: Request) -> dict[str, Any]:
    """The options that clients read."""
    call_of(request, "generate")
    return sdapi_info.options()


async def set_options(request: Request) -> Response:
    """Options belong to a request here: what would change one for everybody is refused."""
    call_of(request, "generate")
    sdapi_info.set_options(await json_of_request(request))
    return JSONResponse(None)


async def models(request: Request) -> list[dict[str, Any]]:
    """What `sd_model_checkpoint` may be."""
    call_of(request, "generate")
    return sdapi_info.models((await _service(request).models())["data"])


async def samplers(request: Request) -> list[dict[str, Any]]:
    """One name: recipes choose."""
    call_of(request, "generate")
    return sdapi_info.samplers()


async def schedulers(request: Request) -> list[dict[str, Any]]:
    """One name: recipes choose."""
    call_of(request, "generate")
    return sdapi_info.schedulers()


async def progress(request: Request) -> dict[str, Any]:
    """How far open jobs are: those of the key's tenant; all of them for an admin, or where there are no keys."""
    found = await _service(request).jobs(("queued", "running"), OPEN_JOBS, None, call_of(request, "generate"))
    return sdapi_info.progress(found["data"])


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found
