"""Examples of the OpenAPI document. A test sends those of bodies, and holds those of answers to their schemas."""

from __future__ import annotations

from typing import Any

BLUE = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAUUlEQVR42u3PMQ0AMAgAMJgaROA/yJoKDpLWQbN64rIXxwkICAgI"
    "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAjs+8xEAaxC+S/VAAAAAElFTkSuQmCC"
)
"""A blue picture of 64x64, as a file in base64."""

IMAGES: dict[str, Any] = {
    "least": {"summary": "What a client of OpenAI's sends", "value": {"prompt": "a red circle", "model": "auto"}},
    "seeded": {
        "summary": "Two pictures of a policy, as WebP",
        "value": {"prompt": "a red circle", "model": "auto", "n": 2, "seed": 7, "output_format": "webp"},
    },
}
EDITS: dict[str, Any] = {
    "least": {
        "summary": "A picture painted over; in a form, image is its file",
        "value": {"prompt": "a green star above a blue square", "image": BLUE},
    },
    "nearer": {
        "summary": "Nearer to what was given, by strength",
        "value": {"prompt": "a green star above a blue square", "image": BLUE, "strength": 0.4, "seed": 7},
    },
}
FEEDBACK: dict[str, Any] = {
    "rating": {"summary": "A person", "value": {"id": "req_0123", "rating": 4}},
    "score": {"summary": "A program", "value": {"id": "req_0123", "score": 0.8, "scorer": "my-clip", "image": 0}},
}
ROLL_BACK: dict[str, Any] = {"before": {"summary": "The version before the present", "value": {}}}
POLICY = "version: 1\nname: shop\nrecipes: {draft: {generate: {model: sd15}}}\nobjective: {minimise: cost_usd}\n"
CHAT: dict[str, Any] = {
    "markdown": {
        "summary": "What chat programs send",
        "value": {"model": "auto", "messages": [{"role": "user", "content": "a red circle"}]},
    },
    "images": {
        "summary": "As OpenRouter and LiteLLM ask for pictures",
        "value": {
            "model": "auto",
            "messages": [{"role": "user", "content": "a red circle"}],
            "modalities": ["image", "text"],
        },
    },
}
RESPONSES: dict[str, Any] = {
    "tool": {
        "summary": "With the tool that draws",
        "value": {"model": "auto", "input": "a red circle", "tools": [{"type": "image_generation"}]},
    }
}
TXT2IMG: dict[str, Any] = {
    "least": {"summary": "What A1111's clients send", "value": {"prompt": "a red circle", "batch_size": 1, "seed": 7}}
}
IMG2IMG: dict[str, Any] = {
    "least": {
        "summary": "What A1111's clients send",
        "value": {"prompt": "a red circle", "init_images": [BLUE], "denoising_strength": 0.6, "seed": 7},
    }
}
SD_OPTIONS: dict[str, Any] = {"read": {"summary": "What was read", "value": {"sd_model_checkpoint": "auto"}}}

ERROR: dict[str, Any] = {
    "error": {
        "message": "there is no model 'sdxll'; did you mean 'sdxl'?",
        "type": "invalid_request_error",
        "param": "model",
        "code": "not_found",
    }
}
MODEL_LIST: dict[str, Any] = {
    "object": "list",
    "data": [
        {
            "id": "auto",
            "object": "model",
            "created": 1790000000,
            "owned_by": "triptych",
            "x_triptych": {"kind": "policy", "description": "the default policy, balanced"},
        }
    ],
}
IMAGE_EVENTS = (
    'event: image_generation.completed\ndata: {"type": "image_generation.completed", "b64_json": "iVBORw0…", '
    '"picture_index": 0, "seed": 7, …}\n\n'
)
EDIT_EVENTS = IMAGE_EVENTS.replace("image_generation", "image_edit")
JOB_EVENTS = 'event: job.routed\nid: 3-1\ndata: {"type": "job.routed", "job": "job_01", "recipe": "draft"}\n\n'
CHAT_EVENTS = (
    'data: {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"role": "assistant"}}], …}\n\n'
    "data: [DONE]\n\n"
)
RESPONSE_EVENTS = (
    'event: response.created\ndata: {"type": "response.created", "sequence_number": 0, "response": {…}}\n\n'
)
