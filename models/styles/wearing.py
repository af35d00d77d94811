"""Styles on a pipeline: `with styled(pipe, [(style, weight)]) as extra: pipe(**arguments, **extra)`.

Whatever happens inside, the pipeline is as before afterwards: the same seed gives the same bytes. Styles of weight 0
are not put on at all. The pipeline may be any of diffusers' of the styles' family; nothing else of Triptych is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from models.schedulers import build_scheduler
from models.styles.adapters import added
from models.styles.attention import perturbed, weighed
from models.styles.maps import kept
from models.styles.references import looking
from models.styles.words import VARIANTS, reading
from router.types import ModelCard, Style

Worn = tuple[Style, float]


@contextmanager
def styled(
    pipe: Any, styles: Sequence[Worn], own_scheduler: bool = False, card: ModelCard | None = None, reference: Any = None
) -> Iterator[dict[str, Any]]:
    """While inside, `pipe` wears `styles`, each with its weight; gives further arguments for its call.

    own_scheduler: that of `pipe` stays, since it was built with `scheduler_of` already
    card: of the pipeline's model, if it may read prompts in chunks or with weights
    reference: the PIL picture that a style of kind ip_adapter draws after
    Raises `StepError` for a style that does not fit the pipeline's networks, naming it.
    """
    worn = sorted(((style, weight) for style, weight in styles if weight), key=lambda one: one[0].id)
    extra: dict[str, Any] = {}
    with ExitStack() as stack:
        for style, weight in worn:
            if "scheduler" in style.settings and not own_scheduler:
                stack.enter_context(_stepped(pipe, style))
            elif style.kind == "freeu":
                stack.enter_context(_freed(pipe, style, weight))
            elif style.kind == "guidance_rescale":
                extra["guidance_rescale"] = _number(style, "rescale") * style.weight * weight
        stack.enter_context(added(pipe, [one for one in worn if one[0].kind == "lora"]))
        spoken = [one for one in worn if one[0].kind in VARIANTS or (one[0].kind == "lora" and one[0].trigger)]
        stack.enter_context(reading(pipe, spoken))
        for style, weight in worn:
            if style.kind == "ip_adapter":
                extra |= stack.enter_context(looking(pipe, style, style.weight * weight, reference))
        stack.enter_context(weighed(pipe, [one for one in worn if "words" in one[0].settings], card))
        for style, weight in worn:
            if "instead_of" in style.settings:
                stack.enter_context(kept(pipe, style, style.weight * weight, card))
            if "pag" in style.settings:
                stack.enter_context(perturbed(pipe, style, _number(style, "pag") * style.weight * weight))
        yield extra


def scheduler_of(styles: Sequence[Worn]) -> str | None:
    """The scheduler that one of `styles` asks for, by our name; for who builds schedulers himself."""
    return next(
        (str(style.settings["scheduler"]) for style, weight in styles if "scheduler" in style.settings and weight), None
    )


def _number(style: Style, key: str) -> float:
    return float(style.settings[key])  # type: ignore[arg-type]


@contextmanager
def _stepped(pipe: Any, style: Style) -> Iterator[None]:
    usual = pipe.scheduler
    card = ModelCard(id=style.id, family=style.family, role="base", source={})
    pipe.scheduler = build_scheduler(str(style.settings["scheduler"]), card, usual)
    try:
        yield
    finally:
        pipe.scheduler = usual


@contextmanager
def _freed(pipe: Any, style: Style, weight: float) -> Iterator[None]:
    """FreeU (https://arxiv.org/abs/2309.11497), its four numbers as far from 1 (no effect) as the weight."""
    keys = ("s1", "s2", "b1", "b2")
    numbers = {key: 1 + (_number(style, key) - 1) * style.weight * weight for key in keys}
    blocks = list(pipe.unet.up_blocks)
    before = [{key: vars(block)[key] for key in keys if key in vars(block)} for block in blocks]
    pipe.enable_freeu(**numbers)
    try:
        yield
    finally:
        for block, had in zip(blocks, before, strict=True):
            for key in keys:
                vars(block).pop(key, None)
            vars(block).update(had)
