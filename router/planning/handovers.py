"""From model to model: what may be taken over, and the record of what is.

Models of one latent space hand unfinished latents to one another at any share of the denoising, large first or small
first. Everything else goes through pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.errors import PlanError
from router.planning.sizes import card_of
from router.types import Catalogue, HandOver, ModelCard, Step


def check_takeover(card: ModelCard, share: float, before: Step, catalogue: Catalogue) -> None:
    """A `from` takes over latents: of the same space, at the share at which they were left. Raises `PlanError`."""
    remedy = f"use strength (such as {max(0.1, 1 - share):.2g}) to go through pixels"
    if before.model is None or before.kind not in ("generate", "refine"):
        raise PlanError(f"{card.id!r} cannot take latents over from a finished picture; {remedy}", "recipe")
    giver = card_of(before.model, catalogue)
    if not card.latent_space or giver.latent_space != card.latent_space:
        raise PlanError(
            f"{card.id!r} (latent space {card.latent_space!r}) cannot read the latents of {giver.id!r} "
            f"({giver.latent_space!r}); {remedy}",
            "recipe",
        )
    _check_relay(giver)
    _check_relay(card)
    until = before.settings.get("until")
    if until != share:
        left = f"ends at until={until:g}" if isinstance(until, float) else "runs to its end"
        raise PlanError(
            f"{card.id!r} takes over from={share:g}, but {giver.id!r} {left}; give {giver.id!r} until: {share:g}",
            "recipe",
        )


def _check_relay(card: ModelCard) -> None:
    """Raise `PlanError` if the model cannot stop or begin in mid-denoising."""
    if not card.relays:
        raise PlanError(
            f"{card.id!r} cannot hand latents over in mid-denoising: the schedule of family {card.family!r} depends on "
            "checkpoint and size; let it finish, and refine the picture by strength",
            "recipe",
        )


def handovers(steps: Sequence[Step], catalogue: Catalogue, size: tuple[int, int]) -> tuple[HandOver, ...]:
    """What every refine of a plan takes from its giver. size: of the answer, for givers that do not say their own."""
    by_id = {step.id: step for step in steps}
    found = []
    for step in steps:
        if step.kind not in ("refine", "edit", "inpaint") or step.model is None:
            continue
        given = by_id[step.inputs[0]]
        latents = given.produces == "latents"
        until = step.settings.get("until")
        begin, end = step.settings.get("from"), until if isinstance(until, float) else 1.0
        share = end - begin if isinstance(begin, float) else step.settings.get("strength", 1.0)
        space = catalogue[step.model].latent_space if latents else "srgb"
        found.append(
            HandOver(
                given.id,
                step.id,
                "latents" if latents else "pixels",
                space,
                _size_of(given, by_id) or size,
                _size_of(step, by_id) or size,
                round(float(share or 0.0), 6),
            )
        )
    return tuple(found)


def _size_of(step: Step, by_id: dict[str, Step]) -> tuple[int, int] | None:
    """Width and height of what a step makes; a picture that was only looked at keeps the size of the first one."""
    width, height = step.settings.get("width"), step.settings.get("height")
    if isinstance(width, int) and isinstance(height, int):
        return width, height
    before = _size_of(by_id[step.inputs[0]], by_id) if step.inputs else None
    factor = step.settings.get("factor") if step.kind == "upscale" else 1.0
    if before is None or not isinstance(factor, int | float):
        return before
    return round(before[0] * factor), round(before[1] * factor)
