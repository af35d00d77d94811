"""What a stage wears: of its recipe and of the request, checked against the model that is to wear it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from router.errors import PlanError, RequestError, did_you_mean
from router.types import (
    MAX_STYLES,
    Catalogue,
    Edit,
    Generate,
    GenerationRequest,
    ModelCard,
    Refine,
    Step,
    Style,
    Wearing,
    wearing,
    worn_by,
)

EIGHT_BITS = ("int8", "fp8")
"""Ways of `tuning.quantize` after which a LoRA finds no layers that it could be added to, as peft computes it."""

INSIDE = ("lora", "textual_inversion", "clip_skip", "freeu", "attention", "ip_adapter")
"""Kinds of styles that change weights, or go by a network's blocks and layers."""


def asked(stage: Generate | Edit | Refine, request: GenerationRequest) -> Wearing:
    """What a stage that draws from noise, or paints over a given picture, wears: the recipe's, and the request's
    instead of and beside them."""
    return wearing((*stage.style, *request.style)) if request.style else stage.style


def check_known(request: GenerationRequest, catalogue: Catalogue) -> None:
    """Raise `RequestError` for a style that no model of the installation knows."""
    if not request.style:
        return
    known = {name for model in catalogue.ids() for name in catalogue[model].styles}
    for name, _ in request.style:
        if name not in known:
            nearest = did_you_mean(name, known) or ("" if known else "; there are none here")
            raise RequestError(f"style: there is no style {name!r}{nearest}", "style")


def worn(stage: Generate | Edit | Refine, request: GenerationRequest, card: ModelCard, notes: list[str]) -> Wearing:
    """The styles of a stage on the model of `card`. Raises `PlanError` for one that it cannot wear.

    A refine wears of the request's styles those that it can; what it does not is added to `notes`.
    """
    kind = "generate" if isinstance(stage, Generate) else "refine"
    if not isinstance(stage, Refine):
        found = asked(stage, request)
    else:
        able: list[tuple[str, float]] = []
        for name, weight in request.style:
            if name in card.styles and (why := _unfit(card.styles[name], card, kind)):
                notes.append(f"{card.id} does not wear {name!r} while it refines: {why}")
            else:
                able.append((name, weight))
        found = wearing((*stage.style, *able))
    check_worn(found, card, kind)
    return found


def check_worn(found: Wearing, card: ModelCard, kind: str) -> None:
    """Raise `PlanError` if the model of `card` cannot wear these together in a step of `kind`."""
    styles: list[Style] = []
    for name, weight in found:
        if name not in card.styles:
            raise PlanError(f"there is no style {name!r}{did_you_mean(name, card.styles)}", "style")
        style = card.styles[name]
        if why := _unfit(style, card, kind):
            raise PlanError(f"{card.id!r} cannot wear the style {name!r}: {why}", "style")
        if not style.least <= weight <= style.most or (not style.blends and weight != 1):
            range_ = f"{style.least:g}..{style.most:g}" if style.blends else "0 or 1"
            raise PlanError(f"a weight of {weight:g} of the style {name!r} ({style.kind}) is not {range_}", "style")
        styles.append(style)
    if len(styles) > MAX_STYLES:
        raise PlanError(f"{len(styles)} styles at once; at most {MAX_STYLES} are worn together", "style")
    _check_together(styles)


def unsaid(prompt: str, steps: Iterable[Step], catalogue: Catalogue) -> list[str]:
    """Notes on styles that weigh or exchange words, none of which the prompt says."""
    notes = []
    for step in steps:
        styles = catalogue[step.model].styles if step.model and step.settings.get("style") else {}
        for name, _ in worn_by(str(step.settings["style"])) if styles else ():
            for key, does in (("words", "weighs"), ("instead_of", "exchanges")):
                words = styles[name].settings.get(key) if name in styles else None
                if isinstance(words, Mapping) and not any(
                    re.search(rf"(?:(?<!\w)|(?=\W)){re.escape(word)}(?:(?!\w)|(?<=\W))", prompt, re.IGNORECASE)
                    for word in words
                ):
                    said = ", ".join(words)
                    notes.append(f"the prompt says none of the words that the style {name!r} {does}: {said}")
    return list(dict.fromkeys(notes))


def wearable(style: Style, card: ModelCard) -> bool:
    """Whether the model can wear the style at all."""
    return not _unfit(style, card, style.steps[0])


def _unfit(style: Style, card: ModelCard, kind: str) -> str:
    """Why a model cannot wear a style in a step of this kind; empty if it can."""
    if card.role != "base":
        return f"it is {card.kind}, and styles are made for base models"
    if style.family != card.family:
        return f"it is for family {style.family!r}, not {card.family!r}"
    if card.source.get("onnx") and style.kind in INSIDE:
        return f"a {style.kind} changes what is inside its networks, and those are exported graphs"
    if style.latent_space and style.latent_space != card.latent_space:
        return f"it is for models of latent space {style.latent_space!r}, not {card.latent_space!r}"
    if style.kind == "lora" and (bits := card.tuning.get("quantize")) in EIGHT_BITS:
        return f"nothing can be added to layers in 8 bits; leave `quantize: {bits}` out of its tuning"
    if style.kind == "ip_adapter" and (offload := card.tuning.get("offload")):
        return f"an adapter cannot be put on while parts of the model are elsewhere; leave `offload: {offload}` out"
    if style.kind in ("attention", "ip_adapter") and (compiled := card.tuning.get("compile")):
        return f"the attention that it changes is compiled; leave `compile: {compiled}` out of its tuning"
    if kind not in style.steps:
        return f"{style.kind} works in {' and '.join(style.steps)} only"
    return ""


def _check_together(styles: Sequence[Style]) -> None:
    seen: dict[str, str] = {}
    for style in styles:
        if not style.many and style.kind in seen:
            raise PlanError(
                f"{seen[style.kind]!r} and {style.id!r} are both of kind {style.kind!r}; wear one of them", "style"
            )
        seen[style.kind] = style.id
    perturbing = [style.id for style in styles if "pag" in style.settings]
    if len(perturbing) > 1:
        raise PlanError(f"{' and '.join(map(repr, perturbing))} each perturb attention; wear one of them", "style")
    placed = [style.id for style in styles if "instead_of" in style.settings]
    others = [style.id for style in styles if style.kind in ("attention", "ip_adapter")]
    if placed and len(others) > 1:
        raise PlanError(
            f"{placed[0]!r} takes attention maps from another picture, which {' and '.join(map(repr, others))} would "
            "change together; wear one of them",
            "style",
        )
    stepping = [style.id for style in styles if "scheduler" in style.settings]
    if len(stepping) > 1:
        raise PlanError(f"{' and '.join(map(repr, stepping))} each want a scheduler; wear one of them", "style")
