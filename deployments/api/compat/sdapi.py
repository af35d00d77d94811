"""`POST /sdapi/v1/txt2img` of AUTOMATIC1111's web UI, which many programs speak, as a request of ours.

What belongs to a recipe here (sampler, scheduler) passes with a warning; what would make another picture than it says
(high-resolution fix, scripts, face restoration) is refused. https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from deployments.api import errors as failures
from deployments.api.compat.conversation import asked_of, given_in, read_as
from deployments.api.wire.requests import ImageRequest, Whole, WholeOrNone
from deployments.settings import Limits
from router.errors import RequestError

NAMES = {
    "guidance_scale": "cfg_scale", "n": "batch_size", "size": "width", "model": "override_settings.sd_model_checkpoint",
}  # fmt: skip
SIDE = 512
"""What A1111 takes for a side that is not given; if neither is, the model decides here."""

WITHOUT_EFFECT = (
    "sampler_name", "sampler_index", "scheduler", "eta", "s_min_uncond", "s_churn", "s_tmax", "s_tmin", "s_noise",
    "seed_resize_from_h", "seed_resize_from_w", "do_not_save_samples", "do_not_save_grid", "save_images",
    "override_settings_restore_afterwards", "denoising_strength", "disable_extra_networks", "comments",
    "hr_scale", "hr_upscaler", "hr_second_pass_steps", "hr_resize_x", "hr_resize_y", "hr_checkpoint_name",
    "hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt", "subseed", "firstphase_width",
    "firstphase_height", "force_task_id", "infotext", "script_args", "refiner_switch_at", "session_hash",
)  # fmt: skip
"""Of recipes, of files on A1111's own disk, or details of what is off."""
TOLD = ("sampler_name", "sampler_index", "scheduler", "save_images")
"""Those that a client should hear of, if they say something."""
NEUTRAL = ("", "automatic", "auto", "default")

REFUSED = {
    "enable_hr": "high-resolution passes are recipes here; ask for the size, or for a recipe that upscales",
    "tiling": "no recipe makes pictures that tile",
    "restore_faces": "faces are not restored",
    "script_name": "there are no scripts",
    "alwayson_scripts": "there are no scripts and extensions",
    "styles": "there are no styles by name; describe it in the prompt",
    "subseed_strength": "seeds are not mixed",
    "refiner_checkpoint": "a refiner belongs to a recipe; name one as the checkpoint",
    "init_images": "it is for POST /sdapi/v1/img2img",
}


class OverrideSettings(BaseModel):
    """Settings for one request; those that are not listed are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sd_model_checkpoint: str | None = Field(default=None, description="What `model` may be.")
    samples_format: str | None = Field(default=None, description="png, jpeg, jpg or webp.")
    jpeg_quality: WholeOrNone = Field(default=None, ge=1, le=100)
    CLIP_stop_at_last_layers: WholeOrNone = Field(default=None, ge=1, le=1, description="1: all layers are read.")


class Txt2ImgRequest(BaseModel):
    """The body of `POST /sdapi/v1/txt2img`; further fields of A1111's pass where they change nothing."""

    model_config = ConfigDict(extra="allow", strict=True)

    prompt: str
    negative_prompt: str = ""
    seed: Whole = Field(default=-1, ge=-1, le=2**32 - 1, description="-1: drawn, and reported.")
    steps: WholeOrNone = Field(default=None, ge=1, le=1000)
    cfg_scale: float | None = Field(default=None, ge=0, le=1000)
    width: WholeOrNone = Field(default=None, ge=1, le=99_999)
    height: WholeOrNone = Field(default=None, ge=1, le=99_999)
    batch_size: Whole = Field(default=1, ge=1, le=10)
    n_iter: Whole = Field(default=1, ge=1, le=10)
    override_settings: OverrideSettings | None = None
    send_images: bool = Field(default=True, description="false: `images` of the answer is empty.")


def asked_in(data: Any, limits: Limits) -> ImageRequest:
    """A request of ours. Raises `RequestError`."""
    given = given_in(data)
    for name, why in REFUSED.items():
        if given.pop(name, None) not in (None, False, "", 0, [], {}, "None", "none"):
            raise RequestError(f"{name}: {why}", name, "unsupported_value")
    dropped = {name: given.pop(name, None) for name in WITHOUT_EFFECT}
    told = [name for name in TOLD if str(dropped[name] or "").lower() not in NEUTRAL]
    warnings = [f"{', '.join(told)}: these belong to a recipe or to A1111, and change nothing here"] if told else []
    asked: Txt2ImgRequest = read_as(Txt2ImgRequest, given)
    override = asked.override_settings or OverrideSettings()
    extra = dict(asked.model_extra or {})
    for ours in ("size", "n", "guidance_scale", "model", "stream", "partial_images", "response_format", "webhook"):
        if ours in extra:
            raise RequestError(f"{ours}: A1111's API has no such field", ours, "unknown_parameter")
    body = {
        **extra,
        "prompt": asked.prompt,
        "negative_prompt": asked.negative_prompt,
        "seed": None if asked.seed == -1 else asked.seed,
        "steps": asked.steps,
        "guidance_scale": asked.cfg_scale,
        "n": asked.batch_size * asked.n_iter,
        "size": _size(asked),
        "model": override.sd_model_checkpoint or "auto",
        "output_format": (override.samples_format or "png").lower(),
    }
    if override.jpeg_quality is not None and body["output_format"] != "png":
        body["output_compression"] = override.jpeg_quality
    return asked_of(body, limits, warnings, NAMES)


def _size(asked: Txt2ImgRequest) -> str:
    if asked.width is None and asked.height is None:
        return "auto"
    return f"{asked.width or SIDE}x{asked.height or SIDE}"


def answer(made: Mapping[str, Any], wire: ImageRequest, data: Mapping[str, Any]) -> dict[str, Any]:
    """`{images, parameters, info}`; info is JSON in a string, with a line of parameters for each picture."""
    report = made["x_triptych"]
    facts = [_facts(picture) for picture in report["pictures"]]
    width, _, height = made["size"].partition("x")
    lines = [infotext(wire, one, made["size"], report) for one in facts]
    info = {
        "prompt": wire.prompt,
        "all_prompts": [wire.prompt] * len(facts),
        "negative_prompt": wire.negative_prompt,
        "all_negative_prompts": [wire.negative_prompt] * len(facts),
        "seed": facts[0]["seed"],
        "all_seeds": [one["seed"] for one in facts],
        "subseed": 0,
        "all_subseeds": [0] * len(facts),
        "subseed_strength": 0,
        "width": int(width),
        "height": int(height),
        "sampler_name": facts[0]["scheduler"],
        "cfg_scale": facts[0]["cfg_scale"],
        "steps": facts[0]["steps"],
        "batch_size": len(facts),
        "restore_faces": False,
        "sd_model_name": facts[0]["model"],
        "denoising_strength": facts[0]["strength"],
        "extra_generation_params": {"recipe": report["recipe"], "policy": report["policy"]},
        "index_of_first_image": 0,
        "infotexts": lines,
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime()),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": "triptych",
        "warnings": report["warnings"],
    }
    images = [item["b64_json"] for item in made["data"]] if data.get("send_images") is not False else []
    return {"images": images, "parameters": dict(data), "info": json.dumps(info), "x_triptych": report}


def _facts(picture: Mapping[str, Any]) -> dict[str, Any]:
    """What A1111 says of a picture: of the first step that denoised."""
    drawing: Mapping[str, Any] = next(_denoising(picture), {})
    settings, facts = drawing.get("settings", {}), drawing.get("facts", {})
    return {
        "seed": picture["seed"],
        "model": drawing.get("model") or "",
        "steps": settings.get("steps") or 0,
        "cfg_scale": settings.get("guidance_scale") or 0,
        "strength": settings.get("strength") or 0,
        "scheduler": str(facts.get("scheduler") or settings.get("scheduler") or ""),
    }


def _denoising(picture: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (step for step in picture["steps"] if step["kind"] in ("generate", "denoise", "refine", "edit", "inpaint"))


def infotext(wire: ImageRequest, facts: Mapping[str, Any], size: str, report: Mapping[str, Any]) -> str:
    """A line of parameters as A1111 writes it, and its readers expect."""
    negative = [f"Negative prompt: {wire.negative_prompt}"] if wire.negative_prompt else []
    settings = {
        "Steps": facts["steps"],
        "Sampler": facts["scheduler"],
        "CFG scale": facts["cfg_scale"],
        "Seed": facts["seed"],
        "Size": size,
        "Model": facts["model"],
        "Recipe": report["recipe"],
        "Version": "triptych",
    }
    return "\n".join([wire.prompt, *negative, ", ".join(f"{name}: {value}" for name, value in settings.items())])


def envelope(error: BaseException, request_id: str) -> dict[str, Any]:
    """A failure in the shape of A1111's, which its clients show."""
    told = failures.envelope(error, request_id)["error"]
    return {"error": told["code"], "detail": told["message"], "body": "", "errors": told["message"]}
