"""Stages that paint over, or look at, the pictures that a request brings."""

from __future__ import annotations

from collections.abc import Mapping

from router.planning.arranging.draft import Draft
from router.planning.edits import check_control, check_editor, check_guided
from router.planning.recipes import strength_of
from router.planning.sizes import beside_one_another, card_of, editing_size, looking_size
from router.types import Edit, ModelCard, Scalar, Step


def edited(draft: Draft, stage: Edit, width: int, height: int, seed: int) -> Step:
    """The given picture, width x height, painted over by a model, at a size at which that works."""
    card, masked = card_of(stage.model, draft.catalogue), draft.request.brings("mask")
    check_editor(card, stage, draft.request)
    image, size = draft.whole(width, height)
    works = editing_size(card, width, height)
    if works != (width, height):
        draft.notes.append(
            f"{card.id} works on the given picture at {works[0]}x{works[1]}; what it paints is brought to "
            f"{width}x{height}"
        )
    request, strength = draft.request, strength_of(stage, draft.request)
    steps = draft.overridden(f"steps of {card.id}", request.steps, stage.steps, card.steps)
    guidance = draft.overridden(
        f"guidance_scale of {card.id}", request.guidance_scale, stage.guidance_scale, card.guidance_scale
    )
    settings = {**draft.sampling(card, *works, steps, guidance, stage.scheduler, seed), **draft.clothed(stage, card)}
    if card.edits == "instruct" and masked is None:
        return draft.resized(_instructed(draft, card, settings, *works), works, width, height)
    settings["strength"] = draft.strength(card, steps, strength)
    before = draft.resized(image, size, *works)
    guide = _references(draft, card, 1, len(draft.request.pictures)) if card.edits == "instruct" else ()
    settings |= {"references": len(guide)} if guide else {}
    if stage.control is not None:
        check_control(card, stage.control, alone=True)
        check_guided(card, guidance)
        followed, told = draft.followed(card, stage.control, before)
        guide, settings = (followed,), settings | told
    if masked is None:
        draft.notes.append(f"{card.id} paints over the given picture by strength {strength:g}")
        painted = draft.new("refine", card.id, (before.id, *guide), "image", settings)
        return draft.resized(painted, works, width, height)
    draft.notes.append(
        f"{card.id} draws the {masked.share:.0%} of the given picture that the mask leaves open, by strength "
        f"{strength:g}; every byte elsewhere stays"
    )
    inputs = (before.id, draft.given("mask").id, *guide)
    drawn = draft.new("inpaint", card.id, inputs, "image", settings)
    return _pasted(draft, draft.resized(drawn, works, width, height), width, height)


def _instructed(draft: Draft, card: ModelCard, settings: Mapping[str, Scalar], width: int, height: int) -> Step:
    """A picture of width x height, drawn as the prompt tells it by a model that looks at the given ones."""
    pictures = draft.request.pictures[: card.max_pictures]
    if card.side_by_side:
        seen = _references(draft, card, 0, len(pictures))
    else:
        first = draft.resized(draft.given("image"), (pictures[0].width, pictures[0].height), width, height)
        seen = (first.id, *_references(draft, card, 1, len(pictures)))
    several = f"{len(pictures)} pictures" + (", side by side as one" if card.side_by_side else "")
    sight = several if len(pictures) > 1 else "the given picture"
    draft.notes.append(f"{card.id} draws as the prompt tells it, looking at {sight}")
    further: dict[str, Scalar] = {"references": len(seen) - 1} if len(seen) > 1 else {}
    return draft.new("edit", card.id, seen, "image", {**settings, **further})


def _references(draft: Draft, card: ModelCard, begin: int, end: int) -> tuple[str, ...]:
    """Ids of the steps with given pictures from number `begin` on at which a model looks, each at a size that it
    takes; one, of all beside one another, for a model that takes several only so, and for each within a mask."""
    pictures = draft.request.pictures[begin : min(end, card.max_pictures)]
    given = [draft.given("image", begin + place) for place in range(len(pictures))]
    sizes = [(one.width, one.height) for one in pictures]
    masked = draft.request.brings("mask") is not None
    if len(pictures) > 1 and (card.side_by_side or masked):
        width, height = looking_size(card, *beside_one_another(sizes))
        settings: dict[str, Scalar] = {"method": "side_by_side", "width": width, "height": height}
        return (draft.new("blend", None, tuple(step.id for step in given), "image", settings).id,)
    return tuple(
        draft.resized(step, size, *looking_size(card, *size)).id for step, size in zip(given, sizes, strict=True)
    )


def _pasted(draft: Draft, drawn: Step, width: int, height: int) -> Step:
    """What was drawn, laid over the given picture where the mask is open."""
    inputs = (drawn.id, draft.given("image").id, draft.given("mask").id)
    return draft.new("paste", None, inputs, "image", {"width": width, "height": height})


def finished(draft: Draft, last: Step, width: int, height: int) -> Step:
    """The last step; with a mask, whatever came after the edit is laid over the given picture as well."""
    if draft.request.brings("mask") is None or last.kind == "paste":
        return last
    draft.notes.append("what goes on from the edit is laid over the given picture as well, where the mask is open")
    return _pasted(draft, last, width, height)
