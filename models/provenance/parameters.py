"""The line that A1111's web UI writes into its pictures, which its own reader and that of civitai parse.

    a red circle
    Negative prompt: a square
    Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Model: sdxl, Recipe: premium, Step 2: refine …

Prompt, a line that begins with `Negative prompt:`, and one last line of `key: value` pairs with commas between them. It
says what one line can: of several steps, the first that draws, and each further one in a few words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from models.provenance.texts import visible

SAMPLERS = {
    "EulerDiscreteScheduler": "Euler",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "DDIMScheduler": "DDIM",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
    "LMSDiscreteScheduler": "LMS",
}
"""Classes of diffusers -> what A1111 calls the same."""

DRAWING = ("generate", "denoise")
_MARKERS = re.compile(r"(Negative prompt|^\s*(?:Steps|Template|Negative Template)):", re.MULTILINE)
TOLD = ("steps", "strength", "from", "until", "guidance_scale", "style", "factor", "method", "seed")


def parameters(metadata: Mapping[str, Any]) -> str:
    """The three parts of the line, of our metadata (`deployments/api/wire/files.py`)."""
    return "\n".join([*prompts(metadata), details(metadata)])


def prompts(metadata: Mapping[str, Any]) -> list[str]:
    """Prompt and negative prompt. What a reader would take for the beginning of another part has a wide colon."""
    negative = _told(str(metadata.get("negative_prompt") or ""))
    return [_told(str(metadata.get("prompt", ""))), *([f"Negative prompt: {negative}"] if negative else [])]


def details(metadata: Mapping[str, Any]) -> str:
    """The last line."""
    return ", ".join(f"{key}: {_value(value)}" for key, value in _pairs(metadata) if value not in (None, ""))


def _pairs(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    told = metadata.get("steps")
    steps = [step for step in told if isinstance(step, Mapping)] if isinstance(told, list | tuple) else []
    drawing: Mapping[str, Any] = next((step for step in steps if step.get("kind") in DRAWING), {})
    settings = _mapping(drawing, "settings")
    yield "Steps", settings.get("steps", 1)
    yield "Sampler", sampler_of(drawing)
    yield "CFG scale", settings.get("guidance_scale", 1)
    yield "Seed", metadata.get("seed")
    yield "Style", settings.get("style")
    yield "Size", metadata.get("size")
    yield "Model", drawing.get("model")
    yield "Model revision", _mapping(metadata, "models").get(str(drawing.get("model")))
    yield (
        "Denoising strength",
        next((found["strength"] for step in steps if "strength" in (found := _mapping(step, "settings"))), None),
    )
    yield "Recipe", metadata.get("recipe")
    yield "Policy", metadata.get("policy")
    yield "Plan", metadata.get("plan")
    yield "Version", metadata.get("generator")
    rest = [step for step in steps if step is not drawing]
    for number, step in enumerate(rest, 2):
        yield f"Step {number}", _in_words(step)


def sampler_of(step: Mapping[str, Any]) -> str:
    """What A1111 calls the scheduler that a step ran with."""
    name = str(_mapping(step, "facts").get("scheduler") or _mapping(step, "settings").get("scheduler") or "Unknown")
    return SAMPLERS.get(name, name.removesuffix("Scheduler"))


def _mapping(metadata: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part that others may have written: nothing where it is not a mapping."""
    found = metadata.get(key)
    return found if isinstance(found, Mapping) else {}


def _in_words(step: Mapping[str, Any]) -> str:
    settings = _mapping(step, "settings")
    said = [f"{key} {settings[key]}" for key in TOLD if settings.get(key) is not None]
    return " ".join([str(step.get("kind", "")), *([str(step["model"])] if step.get("model") else []), *said])


def _value(value: Any) -> str:
    """Without what would end a value for one of the readers."""
    return re.sub(r'[,:"\s]+', " ", f"{value:g}" if isinstance(value, float) else visible(str(value))).strip()


def _told(text: str) -> str:
    lines = visible(text).replace("\r\n", "\n").replace("\r", "\n")
    return _MARKERS.sub(lambda found: f"{found.group(1)}：", lines)
