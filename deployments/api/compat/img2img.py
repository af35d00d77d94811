"""`POST /sdapi/v1/img2img` of AUTOMATIC1111's web UI as a request of ours: pictures in base64, and a white mask.

A1111's masks are white where the picture may change; ours are transparent there.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

from PIL import Image
from pydantic import Field

from deployments.api.compat import sdapi
from deployments.api.compat.conversation import given_in, read_as
from deployments.api.wire.requests import ImageRequest
from deployments.settings import Limits, UploadSettings
from models.given.cleaning import cleaned
from router.errors import RequestError

STRENGTH = 0.75
"""A1111's own, where `denoising_strength` is not given."""

DETAILS = (
    "resize_mode", "mask_blur", "mask_blur_x", "mask_blur_y", "inpainting_fill", "inpaint_full_res",
    "inpaint_full_res_padding", "initial_noise_multiplier", "mask_round", "include_init_images", "image_cfg_scale",
    "latent_mask",
)  # fmt: skip
"""How A1111 paints; here a model's pipeline does, and none of these changes it."""


class Img2ImgRequest(sdapi.Txt2ImgRequest):
    """The body of `POST /sdapi/v1/img2img`; further fields of A1111's pass where they change nothing."""

    prompt: str = ""
    init_images: list[str] = Field(min_length=1, max_length=16, description="Base64 or data URLs; the first is edited.")
    mask: str | None = Field(default=None, description="White where the picture may change.")
    denoising_strength: float = Field(default=STRENGTH, gt=0, le=1)
    inpainting_mask_invert: int = Field(default=0, ge=0, le=1, description="1: black where it may change.")


def asked_in(data: Any, limits: Limits, uploads: UploadSettings) -> ImageRequest:
    """A request of ours. Raises `RequestError`. Decodes the mask, which takes a while."""
    given = given_in(data)
    asked: Img2ImgRequest = read_as(Img2ImgRequest, given)
    own = {key: given.pop(key, None) for key in ("init_images", "mask", "denoising_strength", "inpainting_mask_invert")}
    for name in DETAILS:
        given.pop(name, None)
    further: dict[str, Any] = {"image": own["init_images"], "strength": asked.denoising_strength}
    if asked.mask:
        further["mask"] = _transparent(asked.mask, bool(asked.inpainting_mask_invert), uploads)
    return sdapi.asked_in({"prompt": "", **given, **further}, limits)


def _transparent(mask: str, inverted: bool, uploads: UploadSettings) -> bytes:
    """A mask of A1111's as one of ours, as a file."""
    try:
        data = base64.b64decode(mask.partition("base64,")[2] or mask, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("mask: it is no base64 of a file", "mask", "invalid_value") from None
    try:
        grey = Image.fromarray(cleaned(data, uploads.bounds).pixels).convert("L")
    except RequestError as error:
        raise RequestError(f"mask: {error.message}", "mask", error.code) from None
    closed = grey if inverted else grey.point(lambda level: 255 - level)
    made = Image.merge("RGBA", (grey, grey, grey, closed))
    buffer = io.BytesIO()
    made.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
