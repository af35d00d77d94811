"""What the fields of other programs are called here, and which of their values mean nothing here and pass.

The synonyms of the field answer before string distance does: `num_inference_steps` is near to nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from router.errors import did_you_mean

SYNONYMS: dict[str, str] = {
    "prompt": "text text_prompt text_prompts prompts positive positive_prompt caption description input inputs",
    "negative_prompt": "negative negative_prompts negative_text neg_prompt uc undesired_content",
    "image": "images init_image init_images input_image input_images image_url image_prompt source_image",
    "mask": "mask_image mask_url inpaint_mask",
    "reference": "ip_adapter_image reference_image reference_images",
    "strength": "denoising_strength denoise image_strength prompt_strength",
    "extend": "outpaint expand padding",
    "steps": "step num_inference_steps inference_steps num_steps sampling_steps sample_steps ddim_steps step_count",
    "guidance_scale": "cfg cfg_scale guidance scale true_cfg_scale distilled_cfg_scale classifier_free_guidance",
    "seed": "random_seed noise_seed manual_seed rng_seed generator",
    "n": "num_images_per_prompt num_images num_outputs number_of_images sample_count samples num_samples batch_size "
    "batch_count n_iter count",
    "size": "width height w h resolution image_size dimensions target_size original_size aspect_ratio aspect ratio ar",
    "output_format": "format image_format file_type",
    "output_compression": "output_quality jpeg_quality compression",
    "model": "model_id model_name checkpoint ckpt_name engine engine_id sd_model_checkpoint policy",
    "user": "user_id end_user tenant",
    "latency_budget_s": "timeout latency deadline",
    "max_cost_usd": "budget max_cost",
    "partial_images": "preview previews",
    "webhook": "callback_url callback webhook_url",
    "priority": "service_tier priority_class",
}
"""A field here -> what other programs call it."""

WITHOUT: dict[str, str] = {
    "control maps belong to recipes, which make them of image": "control_image controlnet control",
    "it belongs to a recipe of a policy, not to a request": "sampler sampler_name sampler_index sampling_method solver "
    "scheduler scheduler_name clip_skip eta sigmas timesteps shift refiner refiner_checkpoint refiner_switch_at "
    "high_noise_frac enable_hr hr_scale hires_fix upscale upscaler tiling",
    'a LoRA is worn as a style, by its name, such as "style": {"film": 0.7}': "lora loras lora_scale lora_weights",
    "weights are named by model cards and recipes, not by requests": "vae",
    "what is checked is a matter of the policy's safety; moderation: low leaves out what may be": "safety_checker "
    "enable_safety_checker disable_safety_checker safety_tolerance nsfw",
    "prompts are taken as they are written": "enhance_prompt prompt_upsampling prompt_extend",
    "describe the style in the prompt": "style_preset styles",
    "this is not a chat; put the text into prompt": "messages",
    "vector output is not supported; ask for png, webp or jpeg": "svg complexity",
    "animations are not supported": "frame_count frame_duration_ms",
}
"""Why there is nothing here, or where it belongs -> fields of other programs."""

_NEUTRAL = frozenset(("", "auto", "default", "none", "standard", "natural", "false", "off", "0", "1"))
"""What clients send always, without meaning anything by it."""

# Fields of OpenAI's that change nothing here -> what to do instead.
WITHOUT_EFFECT = {
    "style": "describe the style in the prompt",
}

CHOICES = ("quality", "background", "output_format", "response_format", "moderation", "size", "style")
"""Fields whose values are words: HD and hd are the same."""

SAME_VALUES = {
    **{(key, ""): "auto" for key in ("model", "size", "quality", "background", "moderation")},
    ("size", "default"): "auto",
    ("quality", "default"): "auto",
    ("output_format", "jpg"): "jpeg",
    ("response_format", ""): "b64_json",
    ("response_format", "base64"): "b64_json",
}
"""What clients write for a value of ours."""


def understood(given: Mapping[str, Any], known: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """The fields as ours, without those that say nothing here, and warnings about what was left out."""
    kept: dict[str, Any] = {}
    warnings: list[str] = []
    for key, value in given.items():
        if isinstance(value, str):
            value = value.strip().lower() if key in CHOICES else value
            value = SAME_VALUES.get((key, value), value)
        # A style of ours is a mapping, OpenAI's a word.
        if key in WITHOUT_EFFECT and (key not in known or isinstance(value, str)):
            if str(value).lower() not in _NEUTRAL:
                warnings.append(f"{key}: {_short(value)} changes nothing here; {WITHOUT_EFFECT[key]}")
        else:
            kept[key] = value
    return kept, warnings


def advice(key: str, given: Mapping[str, Any], known: Collection[str]) -> str:
    """What to say of a field that is not known: its name here, why there is none, or the nearest name."""
    plain = _plain(key)
    if (name := _BY_PLAIN.get(plain)) == "size":
        return f'unknown field; the size is one field here, such as "size": "{_size(given)}"'
    if name is not None and name in known:
        return f"unknown field; it is called {name!r} here"
    if plain in _WITHOUT_BY_PLAIN:
        return _WITHOUT_BY_PLAIN[plain]
    for name in known:
        if _plain(name) == plain:
            return f"unknown field; it is written {name!r} here"
    return f"unknown field{did_you_mean(key, known)}"


def _plain(name: str) -> str:
    """A field's name without what programs write differently: case, underscores, hyphens, brackets."""
    return re.sub(r"[\W_]+", "", name).lower()


_BY_PLAIN = {_plain(name): ours for ours, names in SYNONYMS.items() for name in names.split()}
_WITHOUT_BY_PLAIN = {_plain(name): why for why, names in WITHOUT.items() for name in names.split()}


def _size(given: Mapping[str, Any]) -> str:
    """WIDTHxHEIGHT of what was given, else an example."""
    sides = []
    for names in (("width", "w"), ("height", "h")):
        side = next((given[name] for name in names if name in given), None)
        sides.append(side if isinstance(side, int) and not isinstance(side, bool) and 0 < side < 100_000 else None)
    return "x".join(str(side or other or 512) for side, other in (sides, sides[::-1]))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
