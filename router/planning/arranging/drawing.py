"""Stages that draw: from noise, and on from what a stage before them made."""

from __future__ import annotations

from router.errors import PlanError
from router.planning.arranging.draft import Draft
from router.planning.checks import check_share, check_until
from router.planning.edits import check_control, check_guided
from router.planning.handovers import check_takeover
from router.planning.sizes import card_of, check_size, drawing_size
from router.types import Generate, ModelCard, Recipe, Refine, Step

NOT_BASE = {
    "refiner": "put it after a base model as refine",
    "editor": "give it a picture and a mask, as edit",
    "scorer": "use it as the scorer of a best_of",
}


def drawing_at(draft: Draft, stage: Generate, width: int, height: int) -> tuple[int, int]:
    """The size at which a stage draws from noise; in windows it sees no more than one of these."""
    card = card_of(stage.model, draft.catalogue)
    if stage.tile is not None or card.role != "base":
        return width, height
    check_size(card, width, height)
    return draft.noted(card, width, height, drawing_size(card, width, height))


def stays(draft: Draft, stage: Refine, works: tuple[int, int]) -> bool:
    """Is a picture refined at the size it has, before it is brought to the size that was asked for?"""
    return stage.tile is None and card_of(stage.model, draft.catalogue).good_at(*works)


def generated(
    draft: Draft, stage: Generate, following: Recipe | None, width: int, height: int, seed: int, asked: tuple[int, int]
) -> Step:
    """A picture, or latents on the way to it, drawn from noise.

    following: the stage after it;   width, height: at which it is drawn;   asked: the size that it is to have
    """
    card = card_of(stage.model, draft.catalogue)
    if card.role != "base":
        raise PlanError(f"{card.id!r} is {card.kind} and cannot generate; {NOT_BASE[card.role]}", "recipe")
    draft.check_sides(card, stage.width, stage.height, *asked)
    _check_told(draft, card, stage)
    tiles = draft.fitted(card, stage.tile, stage.overlap, width, height)
    request = draft.request
    steps = draft.overridden(f"steps of {card.id}", request.steps, stage.steps, card.steps)
    guidance = draft.overridden(
        f"guidance_scale of {card.id}", request.guidance_scale, stage.guidance_scale, card.guidance_scale
    )
    settings = {**draft.sampling(card, width, height, steps, guidance, stage.scheduler, seed), **tiles}
    settings |= draft.clothed(stage, card)
    if stage.control is not None:
        check_control(card, stage.control, alone=stage.until is None and stage.tile is None)
        image, size = draft.whole(*asked)
        guide, told = draft.followed(card, stage.control, draft.resized(image, size, width, height))
        return draft.new("generate", card.id, (guide,), "image", settings | told)
    if stage.until is None:
        return draft.new("generate", card.id, (), "image", settings)
    check_until(card, stage.until, following)
    check_share(card, steps, stage.until, "until")
    return draft.new("generate", card.id, (), "latents", {**settings, "until": float(stage.until)})


def refined(
    draft: Draft, stage: Refine, following: Recipe | None, before: Step, width: int, height: int, seed: int
) -> Step:
    """What `before` made, taken over as latents or noised again as a picture, and drawn to its end or to `until`."""
    card = card_of(stage.model, draft.catalogue)
    if card.remote is not None:
        raise PlanError(
            f"{card.id!r} is drawn by {card.remote.name}, which makes pictures from a prompt only and is given "
            "none to go on from; refine with a model that is loaded here",
            "recipe",
        )
    if card.role == "scorer":
        raise PlanError(f"{card.id!r} is a scorer and cannot refine; name a refiner or a base model", "recipe")
    if (stage.from_ is None) == (stage.strength is None):
        raise PlanError(f"refine on {card.id!r} needs either `from` or `strength`, exactly one of them", "recipe")
    if stage.tile is not None and stage.strength is None:
        raise PlanError(f"refine on {card.id!r}: tiles need `strength`; latents are taken over whole", "recipe")
    tiles = draft.fitted(card, stage.tile, stage.overlap, width, height)
    shared = before.settings.get("steps") if stage.from_ is not None else None
    usual = shared if isinstance(shared, int) else card.steps
    steps = usual if stage.steps is None else stage.steps
    # A tile shows a part of what the prompt says; whether guidance paints all of it into every tile is the card's.
    own = card.tile_guidance_scale if tiles else None
    usual_guidance = card.guidance_scale if own is None else own
    guidance = usual_guidance if stage.guidance_scale is None else stage.guidance_scale
    settings = draft.sampling(card, width, height, steps, guidance, stage.scheduler, seed)
    settings |= draft.clothed(stage, card)
    if stage.from_ is not None:
        check_takeover(card, stage.from_, before, draft.catalogue)
        if stage.until is not None:
            check_until(card, stage.until, following, stage.from_)
        check_share(card, steps, (stage.until or 1) - stage.from_, "from")
        draft.notes.append(f"{before.model} hands latents to {card.id} at {stage.from_:g} of the denoising")
        settings |= {"from": float(stage.from_)}
        if stage.until is None:
            return draft.new("refine", card.id, (before.id,), "image", settings)
        return draft.new("refine", card.id, (before.id,), "latents", {**settings, "until": float(stage.until)})
    if stage.until is not None:
        raise PlanError(f"until of {card.id!r} belongs to `from`, not to strength; drop it", "recipe")
    assert stage.strength is not None
    if not card.refines:
        raise PlanError(
            f"{card.id!r} cannot go on from a picture: family {card.family!r} draws from noise only; "
            "refine with another model, or let it generate",
            "recipe",
        )
    told = len(draft.notes)
    strength = draft.strength(card, steps, stage.strength)
    draft.notes.insert(told, _through_pixels(draft, card, before, stage.strength))
    asked = draft.request.width or draft.request.height
    if asked and not tiles and not card.good_at(width, height):
        draft.notes.append(f"{card.id} paints over a picture of {width}x{height}, at which it was not shown to be good")
    settings |= {"strength": strength, **tiles}
    if stage.control is None:
        return draft.new("refine", card.id, (before.id,), "image", settings)
    check_control(card, stage.control, alone=True)
    check_guided(card, guidance)
    guide = draft.mapped(stage.control.kind, before)
    draft.notes.append(f"{card.id} follows the {stage.control.kind} map of the picture that it refines ({guide.id})")
    settings |= {"control": stage.control.kind, "control_scale": float(stage.control.scale)}
    return draft.new("refine", card.id, (before.id, guide.id), "image", settings)


def _check_told(draft: Draft, card: ModelCard, stage: Generate) -> None:
    """Raise `PlanError` if recipe or request say something that the server of the model cannot be told."""
    if card.remote is None:
        return
    asked = {
        "steps": stage.steps if draft.request.steps is None else draft.request.steps,
        "guidance_scale": stage.guidance_scale
        if draft.request.guidance_scale is None
        else draft.request.guidance_scale,
        "scheduler": stage.scheduler,
        "tile": stage.tile,
        "until": stage.until,
    }
    for key, value in asked.items():
        if value is not None and not card.takes(key):
            raise PlanError(
                f"{card.id!r} is drawn by {card.remote.name}, which cannot be told {key!r}; leave it out", key
            )


def _through_pixels(draft: Draft, card: ModelCard, before: Step, strength: float) -> str:
    """A note on the way of a picture to the model that refines it."""
    giver = "the given picture" if before.kind == "given" else before.model or before.id
    spaces = before.model is not None and card_of(before.model, draft.catalogue).latent_space != card.latent_space
    why = "another latent space" if spaces else "a finished picture"
    return f"{giver} to {card.id} goes through pixels ({why}): encoded again and re-noised by {strength:g}"
