"""A plan's step to a checked `Call`, and that to the arguments of a diffusers call, as the family's row spells them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.call import Call, Mix, Tiling
from models.engine.tiles import boxes
from models.families import FAMILIES, PLANNED, relaying
from models.styles.wearing import scheduler_of
from router.errors import StepError, did_you_mean
from router.types import ModelCard, Step, worn_by

KEYS = {
    "generate": (
        "prompt",
        "negative_prompt",
        "width",
        "height",
        "steps",
        "guidance_scale",
        "scheduler",
        "seed",
        *("until", "style", "reference", "control", "control_scale"),
        *("tile_width", "tile_height", "tile_overlap", "tiles"),
    ),
    "denoise": (
        *("prompt", "negative_prompt", "width", "height", "steps", "guidance_scale", "scheduler", "seed"),
        *("tile_width", "tile_height", "tile_overlap", "tiles"),
        *("guest", "guest_guidance_scale", "guest_weight", "guest_weight_end"),
    ),
    "edit": (
        *("prompt", "negative_prompt", "width", "height", "steps", "guidance_scale", "scheduler", "seed"),
        *("style", "references"),
    ),
    "inpaint": (
        *("prompt", "negative_prompt", "width", "height", "steps", "guidance_scale", "scheduler", "seed"),
        *("strength", "style", "reference", "control", "control_scale", "references"),
    ),
    "refine": (
        *("prompt", "negative_prompt", "width", "height", "steps", "guidance_scale", "scheduler", "seed"),
        *("from", "until", "strength", "style", "reference", "control", "control_scale"),
        *("tile_width", "tile_height", "tile_overlap", "tiles"),
    ),
}


def read_call(step: Step, card: ModelCard, guests: Mapping[str, ModelCard] | None = None) -> Call:
    """Check a step's settings against the card, filling in the card's defaults. Raises `StepError` naming the key.

    guests: cards of the models that a denoise step may name, by id
    """
    given = {key: value for key, value in step.settings.items() if value is not None}
    for key in given:
        if key not in KEYS[step.kind]:
            raise StepError(f"step {step.id!r}: unknown setting {key!r}{did_you_mean(key, KEYS[step.kind])}", key)
    if not isinstance(given.get("prompt"), str):
        raise StepError(f"step {step.id!r}: 'prompt' must be text", "prompt")
    call = Call(
        prompt=str(given["prompt"]),
        negative_prompt=str(given.get("negative_prompt", "")),
        width=_whole(step, given, "width", card.native_size[0], 1, 2**15),
        height=_whole(step, given, "height", card.native_size[1], 1, 2**15),
        steps=_whole(step, given, "steps", card.steps, card.min_steps, card.max_steps),
        guidance_scale=_number(step, given, "guidance_scale", card.guidance_scale, 0.0, card.max_guidance_scale),
        scheduler=str(given.get("scheduler", card.scheduler)),
        seed=_whole(step, given, "seed", 0, 0, 2**64 - 1),
        start=_share(step, given, "from"),
        until=_share(step, given, "until"),
        strength=_share(step, given, "strength", closed=True),
        masked=step.kind == "inpaint",
        looks=step.kind == "edit",
        references=_whole(step, given, "references", 0, 0, card.max_pictures - 1),
        control=str(given.get("control", "")),
        reference="reference" in given,
        control_scale=_number(step, given, "control_scale", 1.0, 0.0, 2.0),
        tiling=_tiling(step, given),
        mix=_mix(step, given, guests or {}) if step.kind == "denoise" else None,
    )
    call = _clothed(step, card, call, given)
    _check_size(step, card, call)
    _check_tiles(step, card, call)
    _check_kind(step, card, call)
    return _enough_steps(call, card)


def _clothed(step: Step, card: ModelCard, call: Call, given: Mapping[str, Any]) -> Call:
    """The call with what it wears; a style that is a scheduler takes the place of the step's."""
    if "style" not in given:
        return call
    try:
        worn = worn_by(str(given["style"]))
    except ValueError as error:
        raise StepError(f"step {step.id!r}: style: {error}", "style") from None
    for name, _ in worn:
        if name not in card.styles:
            raise StepError(f"step {step.id!r}: there is no style {name!r}{did_you_mean(name, card.styles)}", "style")
    scheduler = scheduler_of([(card.styles[name], weight) for name, weight in worn])
    return replace(call, styles=worn, scheduler=scheduler or call.scheduler)


def _check_size(step: Step, card: ModelCard, call: Call) -> None:
    if call.width % card.size_multiple or call.height % card.size_multiple:
        raise StepError(
            f"step {step.id!r}: size {call.width}x{call.height} is no multiple of {card.size_multiple} ({card.id!r})",
            "size",
        )
    # In tiles, the model works at the size of a tile.
    width, height = (call.width, call.height) if call.tiling is None else (call.tiling.width, call.tiling.height)
    if min(width, height) < card.min_side or width * height > card.max_pixels:
        raise StepError(
            f"step {step.id!r}: size {width}x{height} is outside of what {card.id!r} makes "
            f"(sides from {card.min_side}, at most {card.max_pixels} pixels)",
            "size",
        )


def _check_tiles(step: Step, card: ModelCard, call: Call) -> None:
    if call.tiling is None:
        return
    if call.tiling.width % card.size_multiple or call.tiling.height % card.size_multiple:
        raise StepError(f"step {step.id!r}: tiles must be multiples of {card.size_multiple} ({card.id!r})", "tile")
    if step.kind in ("generate", "denoise") and not FAMILIES[card.family].windows:
        raise StepError(
            f"step {step.id!r}: family {card.family!r} cannot generate in windows; upscale, and refine", "tile"
        )
    if step.kind == "refine" and call.strength is None:
        raise StepError(f"step {step.id!r}: latents are taken over whole, not in tiles; use 'strength'", "tile")
    found = len(boxes(call.width, call.height, call.tiling, card.size_multiple))
    if found != call.tiling.count:
        raise StepError(f"step {step.id!r}: {call.tiling.count} tiles were planned, {found} are needed", "tiles")


def _mix(step: Step, given: Mapping[str, Any], guests: Mapping[str, ModelCard]) -> Mix:
    name = str(given.get("guest"))
    if name not in guests:
        raise StepError(f"step {step.id!r}: {step.model!r} has no guest {name!r}{did_you_mean(name, guests)}", "guest")
    card = guests[name]
    _whole(step, given, "steps", card.steps, card.min_steps, card.max_steps)
    scale = _number(step, given, "guest_guidance_scale", card.guidance_scale, 0.0, card.max_guidance_scale)
    weight = _number(step, given, "guest_weight", 0.5, 0.0, 1.0)
    return Mix(name, scale, weight, _number(step, given, "guest_weight_end", weight, 0.0, 1.0))


def _tiling(step: Step, given: Mapping[str, Any]) -> Tiling | None:
    keys = ("tile_width", "tile_height", "tile_overlap", "tiles")
    if not any(key in given for key in keys):
        return None
    width, height, overlap, count = (_whole(step, given, key, 0, 1, 2**15) for key in keys)
    if overlap >= min(width, height):
        raise StepError(f"step {step.id!r}: an overlap of {overlap} is no less than the tile", "tile_overlap")
    return Tiling(width, height, overlap, count)


def _check_kind(step: Step, card: ModelCard, call: Call) -> None:
    if step.kind in ("generate", "denoise") and card.role != "base":
        remedy = "use it in 'edit', with a mask" if card.role == "editor" else "use it in 'refine'"
        raise StepError(f"step {step.id!r}: {card.id!r} is {card.kind} and cannot start from noise; {remedy}")
    if call.looks and card.edits != "instruct":
        raise StepError(f"step {step.id!r}: family {card.family!r} looks at no pictures; give it a strength")
    if step.kind == "refine" and (call.start is None) == (call.strength is None):
        raise StepError(f"step {step.id!r}: refine takes either 'from' (latents) or 'strength' (a picture)")
    row = FAMILIES[card.family]
    noised = step.kind == "refine" and call.strength is not None
    if call.control and (call.start is not None or call.until is not None or (call.tiling is not None and not noised)):
        raise StepError(f"step {step.id!r}: a control is followed whole, not with from, until or tiles", "control")
    if call.masked and call.strength is None:
        raise StepError(f"step {step.id!r}: inpaint takes 'strength'", "strength")
    if call.masked and not row.inpaint:
        raise StepError(f"step {step.id!r}: family {card.family!r} has no inpainting; edit without a mask")
    if step.kind == "refine" and call.strength is not None and not row.img2img:
        raise StepError(
            f"step {step.id!r}: family {card.family!r} cannot go on from a picture; refine with another model"
        )
    if (call.start is not None or call.until is not None) and not row.relays:
        able = ", ".join(relaying())
        raise StepError(
            f"step {step.id!r}: family {card.family!r} cannot hand latents over in mid-denoising (only {able} can); "
            "let it finish, and refine the picture by 'strength'"
        )
    if call.strength is not None and call.until is not None:
        raise StepError(f"step {step.id!r}: 'until' cannot be combined with 'strength'", "until")
    if call.start is not None and call.until is not None and call.until <= call.start:
        raise StepError(f"step {step.id!r}: 'until' {call.until:g} is not after 'from' {call.start:g}", "until")


def _enough_steps(call: Call, card: ModelCard) -> Call:
    """img2img runs steps * strength steps; make that at least one. Says so, and what the strength is in effect."""
    if call.strength is None:
        return call
    facts, steps = dict(call.facts), call.steps
    if int(steps * call.strength) < 1:
        facts["steps_raised_from"] = steps
        steps = math.ceil(1 / call.strength)
        steps += int(steps * call.strength) < 1  # 1 / strength may round down
    facts["effective_strength"] = round(card.effective_strength(steps, call.strength), 4)
    return replace(call, steps=steps, facts=facts)


def arguments(call: Call, card: ModelCard, pipe: Any) -> dict[str, Any]:
    """Keyword arguments of the pipeline for a checked call, without callback, generator and picture."""
    # What the plan says is what runs: a card's own arguments add to it, and never take its place.
    own = {key: value for key, value in card.settings.items() if key not in PLANNED}
    return own | FAMILIES[card.family].arguments(call, card, pipe)


def ignores_negative(call: Call, card: ModelCard, pipe: Any) -> bool:
    """Whether a negative prompt was given that cannot have an effect, since no second pass is run or takes it."""
    return bool(call.negative_prompt) and "negative_prompt" not in FAMILIES[card.family].arguments(call, card, pipe)


def _whole(step: Step, given: Mapping[str, Any], key: str, default: int, low: int, high: int) -> int:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise StepError(f"step {step.id!r}: {key} {value!r} is not a whole number in {low}..{high}", key)
    return value


def _number(step: Step, given: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise StepError(f"step {step.id!r}: {key} {value!r} is not a number in {low:g}..{high:g}", key)
    return float(value)


def _share(step: Step, given: Mapping[str, Any], key: str, closed: bool = False) -> float | None:
    if key not in given:
        return None
    value = _number(step, given, key, 0.0, 0.0, 1.0)
    if value == 0 or (value == 1 and not closed):
        raise StepError(f"step {step.id!r}: {key} {value:g} must lie between 0 and 1", key)
    return value
