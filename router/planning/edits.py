"""Recipes and given pictures: which take one, which do not and why, and what a policy of text recipes does with one.

A policy that has no recipe for pictures does with a given one what it does with a prompt: each recipe paints over the
picture where it would draw from noise, under the same name, so that its rules, limits and ladder hold as they stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from router.errors import PlanError, RequestError
from router.planning.recipes import models_of, resolve, stages_of
from router.planning.sizes import STRETCH, card_of, enlargement
from router.types import (
    Catalogue,
    Chain,
    Control,
    Edit,
    Fuse,
    Generate,
    GenerationRequest,
    Given,
    GivenPicture,
    ModelCard,
    Recipe,
    Refine,
    Step,
)

PROBE = 512
"""Side of the picture that a recipe without a model is tried with when it is checked."""


MADE = ("canny", "tile")
"""Maps that are made of a picture (`models.given.controls`); others have to be given."""
MOST_SCALE = 2.0


def takes(recipes: Mapping[str, Recipe], catalogue: Catalogue) -> dict[str, tuple[str, ...]]:
    """What each of a policy's recipes makes its picture of: "text", "image" and "mask", as far as its models can; those
    that are derived for pictures take these as well. "mask" without "image": a picture of which a mask leaves something
    open, and no other."""
    for_picture = for_pictures(recipes)
    found: dict[str, tuple[str, ...]] = {}
    for name, recipe in recipes.items():
        own = _takes(resolve(recipe, recipes, (name,)), catalogue)
        derived = _takes(resolve(for_picture[name], for_picture, (name,)), catalogue)
        found[name] = tuple(dict.fromkeys((*own, *derived)))
    return found


def model_takes(card: ModelCard) -> tuple[str, ...]:
    """The same of a model alone."""
    if card.remote is not None or not card.edits:
        return ("text",)
    if card.edits == "fill":
        return ("mask",)
    return ("text", "image", "mask") if card.inpaints else ("text", "image")


def _takes(recipe: Recipe, catalogue: Catalogue | None) -> tuple[str, ...]:
    """("text",), ("image",), ("image", "mask") or ("mask",), or () for a model that cannot go on from a picture.
    catalogue: None: whatever its model can. Raises `PlanError` for branches that take different things."""
    if isinstance(recipe, Chain):
        return _takes(stages_of(recipe)[0], catalogue) if recipe.stages else ("text",)
    if isinstance(recipe, Fuse):
        found = [_takes(branch, catalogue) for branch in recipe.branches if not isinstance(branch, str)]
        if len({one[0] == "text" for one in found if one}) > 1:
            raise PlanError("some branches of a fusion take a given picture and others take none; give all the same")
        return min(found, key=len, default=("text",))
    if isinstance(recipe, Given) or (isinstance(recipe, Generate) and recipe.control is not None):
        return ("image",)
    if isinstance(recipe, Edit):
        if catalogue is None or recipe.model not in catalogue:
            return ("image", "mask")
        return tuple(kind for kind in model_takes(catalogue[recipe.model]) if kind != "text")
    return ("text",)


def check_given(recipe: Recipe, request: GenerationRequest) -> None:
    """Raise `PlanError` unless a resolved recipe takes just what the request brings."""
    can, brings = _takes(recipe, None), [one.role for one in request.given if one.role != "reference"]
    if can[0] == "text" and brings:
        raise PlanError("it takes no picture, and the request brings one", "image")
    if can[0] == "image" and "image" not in brings:
        raise PlanError("it takes a picture, and the request brings none", "image")
    if "mask" in brings and "mask" not in can:
        raise PlanError("it goes on from the whole picture and takes no mask", "mask")


def check_shape(image: GivenPicture, width: int, height: int) -> None:
    """Raise `PlanError` if the given picture would be squeezed into another shape."""
    stretch = (image.width / image.height) / (width / height)
    if max(stretch, 1 / stretch) > STRETCH:
        fitting = f"{width}x{max(1, round(width * image.height / image.width))}"
        raise PlanError(
            f"the given picture of {image.width}x{image.height} would be squeezed into {width}x{height}; leave out "
            f"size, ask for one of its shape, such as {fitting}, or extend the picture",
            "size",
        )


def check_brought(request: GenerationRequest) -> None:
    """Raise `RequestError` for given pictures that do not go together."""
    image, mask = request.brings("image"), request.brings("mask")
    roles = [one.role for one in request.given]
    if roles.count("mask") > 1:
        raise RequestError("mask: two are given; give one, for the first picture", "mask")
    if roles.count("reference") > 1:
        raise RequestError("reference: two are given; give one", "reference")
    if mask is not None and image is None:
        raise RequestError("mask: there is no image that it could belong to", "mask")
    if mask is not None and image is not None and (mask.width, mask.height) != (image.width, image.height):
        size = f"{mask.width}x{mask.height}, and the image {image.width}x{image.height}"
        raise RequestError(f"mask: it has {size}; give it the size of the image", "mask")
    if mask is not None and not mask.share:
        raise RequestError("mask: nothing of it is transparent, so nothing could change", "mask")
    if request.strength is not None:
        if image is None:
            raise RequestError("strength: it is for a given picture, and there is none", "strength")
        if not 0 < request.strength <= 1:
            raise RequestError(f"strength: it must be above 0 and at most 1, not {request.strength:g}", "strength")


def unseen(steps: Sequence[Step], request: GenerationRequest) -> tuple[str, ...]:
    """In words, which of the given pictures no step of a plan takes."""
    used = {step.settings["digest"] for step in steps if step.kind == "given"}
    given = request.pictures
    left = sum(one.digest not in used for one in given)
    if not left:
        return ()
    others = "the other changes" if left == 1 else f"the {left} others change"
    return (f"image: it takes {len(given) - left} of the {len(given)} given pictures; {others} nothing",)


def check_editor(card: ModelCard, stage: Edit, request: GenerationRequest) -> None:
    """Raise `PlanError` if the model cannot change a given picture, or not as it is asked to."""
    masked = request.brings("mask") is not None
    if card.remote is not None:
        raise PlanError(f"{card.id!r} is drawn by {card.remote.name}, which is given no pictures here", "image")
    if card.role == "scorer":
        raise PlanError(f"{card.id!r} is a scorer and cannot edit; name a base model", "recipe")
    if not card.edits:
        raise PlanError(f"{card.id!r} cannot go on from a picture: family {card.family!r} draws from noise", "image")
    if masked and not card.inpaints:
        raise PlanError(f"{card.id!r} takes no mask: there is no inpainting for family {card.family!r}", "mask")
    if card.edits == "fill" and not masked:
        raise PlanError(
            f"{card.id!r} only draws what a mask leaves open of a picture; send a mask, or extend the picture", "mask"
        )
    if card.edits == "instruct" and stage.control is not None:
        raise PlanError(f"{card.id!r} edits as the prompt tells it and follows no control; leave it out", "control")
    if card.edits == "instruct" and not masked and (stage.strength, request.strength) != (None, None):
        raise PlanError(
            f"{card.id!r} edits as the prompt tells it, and noises no picture again; leave out strength, or mask it",
            "strength",
        )


def check_control(card: ModelCard, control: Control, alone: bool) -> None:
    """Raise `PlanError` if the model has no such ControlNet, or cannot follow one so. alone: neither tiles nor until"""
    if control.kind not in card.controlnets:
        known = ", ".join(card.controlnets) or "none"
        raise PlanError(f"{card.id!r} has no control {control.kind!r}; its card names {known}", "control")
    if control.of == "picture" and control.kind not in MADE:
        raise PlanError(f"no map {control.kind!r} is made here; there are {', '.join(MADE)}", "control")
    if control.of == "given" and control.kind not in MADE:
        raise PlanError(f"no map {control.kind!r} is made here; give one (control: {{{control.kind}: map}})", "control")
    if not 0 < control.scale <= MOST_SCALE:
        raise PlanError(f"a control_scale of {control.scale:g} is outside 0..{MOST_SCALE:g}", "control")
    if not alone:
        raise PlanError(f"{card.id!r} follows a control at one size and to its end; drop tile and until", "control")
    if control.of == "picture" and card.role != "base":
        raise PlanError(f"{card.id!r} is {card.kind}, and ControlNets stand beside base models", "control")


def check_guided(card: ModelCard, guidance: float) -> None:
    """Raise `PlanError` for a second pass beside a ControlNet where diffusers' classes for pictures run none."""
    if card.flow and card.passes(guidance) == 2:
        raise PlanError(
            f"{card.id!r} cannot be guided away from a negative prompt while it edits along a control; set its "
            "guidance_scale to 1, or let it generate",
            "guidance_scale",
        )


def probes(recipe: Recipe, catalogue: Catalogue) -> tuple[tuple[GivenPicture, ...], ...]:
    """What a resolved recipe could be tried with: nothing where it takes no picture; else pictures of about the native
    size of its first model, before and after enlarging, and of the smallest that the model takes, with a mask where it
    takes no other."""
    if _takes(recipe, None) == ("text",):
        return ()
    model = next(models_of(recipe), None)
    if model is None:
        return ((GivenPicture("image", "0" * 64, PROBE, PROBE),),)
    card, factor = card_of(model, catalogue), enlargement(recipe)
    sides = [card.native_size, (round(card.native_size[0] / factor), round(card.native_size[1] / factor))]
    masked = _takes(recipe, catalogue)[:1] == ("mask",)
    tried = []
    for size in (*sides, (card.min_side, card.min_side)):
        mask = (GivenPicture("mask", "1" * 64, *size, 0.25),) if masked else ()
        tried.append((GivenPicture("image", "0" * 64, *size), *mask))
    return tuple(tried)


def for_pictures(recipes: Mapping[str, Recipe]) -> Mapping[str, Recipe]:
    """The recipes of a policy for a request that brings a picture: as they are if one of them takes pictures, else each
    as it is derived from what it does with a prompt. Those that cannot be derived stay, and take no picture."""
    whole = {name: resolve(recipe, recipes, (name,)) for name, recipe in recipes.items()}
    if any(_given_inside(recipe) for recipe in whole.values()):
        return recipes
    return {name: _derived(recipe) or recipes[name] for name, recipe in whole.items()}


def _given_inside(recipe: Recipe) -> bool:
    if isinstance(recipe, Chain):
        return any(map(_given_inside, recipe.stages))
    if isinstance(recipe, Fuse):
        return any(_given_inside(branch) for branch in recipe.branches if not isinstance(branch, str))
    return isinstance(recipe, Edit | Given) or (isinstance(recipe, Generate) and recipe.control is not None)


def _derived(recipe: Recipe) -> Recipe | None:
    """The same recipe from a given picture; None where nothing of it draws from noise by itself.

    What hands latents on in mid-denoising runs to its end instead, and whoever took them over is left out.
    """
    if isinstance(recipe, Generate):
        return Edit(recipe.model, None, recipe.steps, recipe.guidance_scale, recipe.scheduler, recipe.style)
    if isinstance(recipe, Chain):
        first, *others = stages_of(recipe)
        begun = _derived(first)
        kept = [stage for stage in others if not (isinstance(stage, Refine) and stage.from_ is not None)]
        return None if begun is None else Chain((begun, *kept)) if kept else begun
    if isinstance(recipe, Fuse) and recipe.method != "denoise" and recipe.search is None:
        branches = [_derived(branch) for branch in recipe.branches if not isinstance(branch, str)]
        if len(branches) == len(recipe.branches) and all(branch is not None for branch in branches):
            return replace(recipe, branches=tuple(branch for branch in branches if branch is not None))
    return None
