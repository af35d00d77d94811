"""What a request may ask for at all, whatever the recipe: the checks that need no model card."""

from __future__ import annotations

import math
from collections.abc import Sequence

from router.errors import RequestError
from router.planning.edits import check_brought
from router.types import MAX_STYLES, GenerationRequest, Turn, Wearing

MAX_PROMPT_CHARACTERS = 32_000  # as in OpenAI's image API
MAX_PICTURES = 10
MAX_SEED = 2**32 - 1
MAX_TURNS = 16


def check_request(request: GenerationRequest) -> None:
    """Raise `RequestError`, naming the field, if no recipe whatsoever could answer this request."""
    _check_text("prompt", request.prompt, required=not request.given)
    _check_text("negative_prompt", request.negative_prompt, required=False)
    _check_whole("n", request.n, 1, MAX_PICTURES)
    _check_whole("seed", request.seed, 0, MAX_SEED)
    for name in ("width", "height", "steps"):
        if (value := getattr(request, name)) is not None:
            _check_whole(name, value, 1, None)
    _check_turns(request.turns)
    _check_style(request.style)
    check_brought(request)
    for name in ("guidance_scale", "latency_budget_s", "max_cost_usd"):
        if (value := getattr(request, name)) is not None:
            _check_number(name, value)


def _check_turns(turns: Sequence[Turn]) -> None:
    if len(turns) > MAX_TURNS:
        raise RequestError(f"turns has {len(turns)} pictures; at most {MAX_TURNS} are made", "turns")
    for turn in turns:
        numbers = (turn.bar, turn.slope, turn.offset, turn.chance)
        if not all(map(math.isfinite, numbers)) or not (0 <= turn.bar <= 1 and 0 <= turn.chance <= 1):
            raise RequestError("turns: bar and chance lie in 0..1, slope and offset are numbers", "turns")


def _check_style(style: Wearing) -> None:
    if len(style) > MAX_STYLES:
        raise RequestError(f"style has {len(style)} styles; at most {MAX_STYLES} are worn together", "style")
    for name, weight in style:
        if not math.isfinite(weight):
            raise RequestError(f"style: the weight of {name!r} must be a number, not {weight!r}", "style")


def _check_text(name: str, value: object, required: bool) -> None:
    if not isinstance(value, str):
        raise RequestError(f"{name} must be a text, not {type(value).__name__}", name)
    if required and not value.strip():
        raise RequestError(f"{name} is empty; say what the picture should show", name)
    if len(value) > MAX_PROMPT_CHARACTERS:
        raise RequestError(f"{name} has {len(value):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are taken", name)


def _check_whole(name: str, value: object, low: int, high: int | None) -> None:
    within = f"from {low} to {high}" if high is not None else f"of at least {low}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} must be a whole number {within}, not {value!r}", name)
    if value < low or (high is not None and value > high):
        raise RequestError(f"{name} must be a whole number {within}, not {value}", name)


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise RequestError(f"{name} must be a finite number of at least 0, not {value!r}", name)
