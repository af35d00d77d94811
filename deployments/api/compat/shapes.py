"""The answers of other protocols as schemas: what the OpenAPI document says of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Open(BaseModel):
    """Further keys may come."""

    model_config = ConfigDict(extra="allow")


class ImageUrl(Open):
    """A data URL, or a signed address."""

    url: str


class ChatImage(Open):
    """A picture of a message, as OpenRouter and LiteLLM have it."""

    type: Literal["image_url"]
    image_url: ImageUrl
    index: int


class ChatAnswer(Open):
    """The answering message."""

    role: Literal["assistant"]
    content: str = Field(description="Markdown with the pictures, unless `modalities` asked for `images`.")
    refusal: None = None
    images: list[ChatImage] | None = None


class ChatChoice(Open):
    """The one answer."""

    index: int
    message: ChatAnswer
    finish_reason: Literal["stop"]


class ChatUsage(Open):
    """Words of the prompt in, patches of 16 x 16 pixels out."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(Open):
    """The answer of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    x_triptych: dict[str, Any]


class ChatDelta(Open):
    """A piece of a streamed chat: a picture is whole in one."""

    index: int
    delta: dict[str, Any]
    finish_reason: Literal["stop"] | None


class ChatChunk(Open):
    """An event of a streamed chat; the last line is `[DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatDelta]


class ResponseEvent(Open):
    """An event of a streamed response: `response.created`, `response.image_generation_call.partial_image`, …"""

    type: str
    sequence_number: int


class ImageGenerationCall(Open):
    """A picture of a response."""

    id: str
    type: Literal["image_generation_call"]
    status: Literal["in_progress", "generating", "completed", "failed"]
    result: str | None = Field(description="The picture in base64.")
    output_format: Literal["png", "webp", "jpeg"]
    size: str | None


class OpenAIResponse(Open):
    """The answer of `POST /v1/responses`."""

    id: str
    object: Literal["response"]
    created_at: float
    status: Literal["in_progress", "completed", "failed"]
    error: dict[str, Any] | None
    model: str
    output: list[ImageGenerationCall]
    usage: dict[str, Any] | None
    x_triptych: dict[str, Any]


class Txt2ImgAnswer(Open):
    """The answer of `POST /sdapi/v1/txt2img`."""

    images: list[str] = Field(description="The pictures in base64, without a prefix.")
    parameters: dict[str, Any] = Field(description="The body that was sent.")
    info: str = Field(description="JSON: seeds, sizes, a line of parameters for each picture.")


class SdOptions(BaseModel):
    """Options of A1111's that clients read. They cannot be changed for everybody."""

    model_config = ConfigDict(extra="forbid")

    sd_model_checkpoint: Literal["auto"] = "auto"
    sd_vae: Literal["Automatic"] = "Automatic"
    CLIP_stop_at_last_layers: Literal[1] = 1
    samples_format: Literal["png"] = "png"


class SdModel(BaseModel):
    """A checkpoint: something that `model` may be."""

    title: str
    model_name: str
    hash: str | None
    sha256: str | None
    filename: str
    config: str | None


class SdSampler(BaseModel):
    """A sampler: recipes choose."""

    name: str
    aliases: list[str]
    options: dict[str, str]


class SdScheduler(BaseModel):
    """A noise schedule: recipes choose."""

    name: str
    label: str
    aliases: list[str] | None
    default_rho: float
    need_inner_model: bool


class SdProgress(Open):
    """How far the oldest open job is of those that whoever asks may see."""

    progress: float = Field(ge=0, le=1)
    eta_relative: float = Field(description="Seconds.")
    state: dict[str, Any]
    current_image: str | None
    textinfo: str | None


class SdError(BaseModel):
    """A failure as A1111 shapes it."""

    error: str
    detail: str
    body: str
    errors: str
