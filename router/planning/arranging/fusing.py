"""Fusions: branches that are drawn for one another, together, in turn or to be chosen from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from router.errors import PlanError
from router.planning.arranging.draft import Draft
from router.planning.checks import FUSIONS, check_fusion, unresolved
from router.planning.denoise import common, seated
from router.planning.recipes import recipe_key
from router.planning.sizes import card_of, check_size, drawing_size
from router.prompts.phrases import object_phrases
from router.types import Fuse, Recipe, Scalar, Step, Turn, Unless

MAX_PHRASES = 4  # of regions; each is a look at every picture
Arrange = Callable[[Draft, Recipe, int, int, int], Step]
"""What a branch becomes: its last step, by draft, recipe, width, height and seed."""


def fused(draft: Draft, recipe: Fuse, width: int, height: int, seed: int, arrange: Arrange) -> Step:
    """The picture that a fusion makes of those of its branches."""
    check_fusion(recipe)
    if recipe.method == "denoise":
        return _denoised(draft, recipe, width, height, seed)
    if recipe.search is not None and not recipe.turns:
        recipe = unresolved(recipe)
    if len(recipe.turns) == 1:
        draft.notes.append("a single picture: no further one is expected to be worth its price")
        assert not isinstance(recipe.branches[0], str)
        return arrange(draft, recipe.branches[0], width, height, seed)
    in_turn = recipe.accept_above is not None or bool(recipe.turns)
    seen: dict[str, int] = {}
    outputs: list[Step] = []
    scores: list[Step] = []
    for place, branch in enumerate(recipe.branches):
        assert not isinstance(branch, str)
        key = recipe_key(branch, {}, draft.catalogue)
        again = seen[key] = seen.get(key, -1) + 1
        if again and not recipe.turns:
            draft.notes.append(f"{key} is repeated in the fusion: repetition {again} uses seed + {again}")
        begun = len(draft.steps)
        outputs.append(arrange(draft, branch, width, height, (seed + again) % 2**32))
        if in_turn:
            turn = recipe.turns[place] if recipe.turns else None
            scores.append(_scored(draft, recipe, outputs[-1:], turn))
            _spare(draft, begun, scores[:-1], turn.bar if turn else recipe.accept_above or 0.0)
    settings: dict[str, Scalar] = {"method": recipe.method}
    if recipe.method == "regions":
        outputs += _regions(draft, recipe, outputs)
        settings = {"method": "best_of"}
    if recipe.weights is not None:
        settings["weights"] = recipe.weights
    inputs = tuple(step.id for step in outputs)
    needs = recipe.min_successful
    if needs is not None:
        draft.notes.append(
            f"{needs} of {len(recipe.branches)} branches of the {recipe.method} are enough if others fail"
        )
    if recipe.blend_within is not None:
        settings["blend_within"] = float(recipe.blend_within)
        inputs = (*inputs, _scored(draft, recipe, outputs).id)
        draft.notes.append(
            f"if the pictures disagree by more than {recipe.blend_within:g}, they are not blended; "
            f"the one that {recipe.scorer} likes best is kept"
        )
    if FUSIONS[recipe.method] == "blend":
        return draft.new("blend", None, inputs, "image", settings, needs)
    if recipe.turns:
        bars = ", ".join(f"{turn.bar:.2f}" for turn in recipe.turns[1:])
        draft.notes.append(
            f"up to {len(outputs)} pictures in turn, each left out if an earlier one is right with {bars}"
        )
    elif in_turn:
        draft.notes.append(f"the branches run in turn until one scores at least {recipe.accept_above:g}")
    else:
        scores.append(_scored(draft, recipe, outputs))
    return draft.new("select", None, (*inputs, *(step.id for step in scores)), "image", settings, needs)


def _denoised(draft: Draft, recipe: Fuse, width: int, height: int, seed: int) -> Step:
    """One step on the worker of one model, which asks the other for its prediction each time."""
    host, guest = seated(recipe, draft.catalogue)
    if draft.request.style or host.stage.style or guest.stage.style:
        raise PlanError("styles are not worn in a denoise of two models; wear them in a chain or alone", "style")
    names = f"{host.card.id} and {guest.card.id}"
    draft.check_sides(host.card, common(host, guest, "width"), common(host, guest, "height"), width, height)
    tile, asked = common(host, guest, "tile"), (width, height)
    if tile is None:
        check_size(host.card, width, height)
        width, height = draft.noted(host.card, width, height, drawing_size(host.card, width, height))
    tiles = draft.fitted(host.card, tile, common(host, guest, "overlap"), width, height)
    seen = (int(tiles["tile_width"] or 0), int(tiles["tile_height"] or 0)) if tiles else (width, height)
    check_size(guest.card, *seen)
    steps = draft.overridden(f"steps of {names}", draft.request.steps, common(host, guest, "steps"), host.card.steps)
    scheduler = common(host, guest, "scheduler")
    sampled = [
        draft.sampling(
            member.card,
            width,
            height,
            steps,
            draft.overridden(
                f"guidance_scale of {member.card.id}",
                draft.request.guidance_scale,
                member.stage.guidance_scale,
                member.card.guidance_scale,
            ),
            scheduler,
            seed,
        )
        for member in (host, guest)
    ]
    counts = f"{guest.start:.2g}" + (f" to {guest.end:.2g}" if guest.end != guest.start else "")
    draft.notes.append(
        f"{names} predict every step together, on the worker of {host.card.id} and on its schedule; "
        f"{guest.card.id} counts {counts}"
    )
    settings = {**sampled[0], **tiles, "guest": guest.card.id}
    settings |= {"guest_guidance_scale": sampled[1]["guidance_scale"]}
    settings |= {"guest_weight": guest.start, "guest_weight_end": guest.end}
    return draft.resized(draft.new("denoise", host.card.id, (), "image", settings), (width, height), *asked)


def _regions(draft: Draft, recipe: Fuse, pictures: list[Step]) -> list[Step]:
    """A further picture: the object of each phrase of the prompt from the picture that shows it best.

    None if the prompt does not name several single objects; then regions is best_of, and a note says so.
    """
    phrases = object_phrases(draft.request.prompt)
    if not 2 <= len(phrases) <= MAX_PHRASES or any(phrase.count != 1 for phrase in phrases):
        draft.notes.append("the prompt does not name two or more single objects; regions keeps the best whole picture")
        return []
    most: Scalar = len(phrases) + 2
    inputs = tuple(step.id for step in pictures)
    scores = [_scored(draft, recipe, pictures, prompt=phrase.text, segments=most) for phrase in phrases]
    asked = ", ".join(repr(phrase.text) for phrase in phrases)
    draft.notes.append(f"regions looks for {asked} in every picture and puts the best of each together")
    settings: dict[str, Scalar] = {"method": "regions", "segments": most}
    return [draft.new("blend", None, (*inputs, *(step.id for step in scores)), "image", settings)]


def _scored(
    draft: Draft,
    recipe: Fuse,
    pictures: list[Step],
    turn: Turn | None = None,
    prompt: str | None = None,
    segments: Scalar = None,
) -> Step:
    """A look at pictures by the fusion's scorer. turn: its scores become probabilities, as this turn reads them"""
    scorer = card_of(str(recipe.scorer), draft.catalogue)
    if scorer.role != "scorer":
        raise PlanError(f"{scorer.id!r} is a {scorer.role} and cannot score; name a scorer", "recipe")
    inputs = tuple(step.id for step in pictures)
    settings: dict[str, Scalar] = {"prompt": draft.request.prompt if prompt is None else prompt}
    if segments is not None:
        settings["segments"] = segments
    if turn is not None:  # the scores become probabilities, so that they compare between recipes
        settings |= {"slope": turn.slope, "offset": turn.offset}
    needs = recipe.min_successful if len(pictures) > 1 else None
    return draft.new("score", scorer.id, inputs, "scores", settings, needs)


def _spare(draft: Draft, begun: int, before: list[Step], bar: float) -> None:
    """Let the steps from number `begun` on be left out if a score `before` them is good enough."""
    if not before:
        return
    earlier = tuple(score.id for score in before[:-1])
    for place, step in enumerate(draft.steps[begun:], begun):
        if step.unless is None:
            draft.steps[place] = replace(step, unless=Unless(before[-1].id, bar, earlier))
