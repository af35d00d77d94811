"""The size of a picture through a recipe: what the answer will be, and what each model is then asked to make."""

from __future__ import annotations

import math
from collections.abc import Sequence

from router.errors import PlanError, did_you_mean
from router.types import Catalogue, Chain, Edit, Fuse, Generate, GenerationRequest, Given, ModelCard, Recipe, Upscale


def card_of(model: str, catalogue: Catalogue) -> ModelCard:
    """The card of `model`. Raises `PlanError` with the nearest id if there is none."""
    if model not in catalogue:
        raise PlanError(f"there is no model {model!r}{did_you_mean(model, catalogue.ids())}", "model")
    return catalogue[model]


def answer_size(recipe: Recipe, request: GenerationRequest, catalogue: Catalogue) -> tuple[int, int]:
    """Width and height of the answer. A recipe that takes a picture has one in the request."""
    first = first_stage(recipe)
    if isinstance(first, Generate) and first.control is None:
        native = card_of(first.model, catalogue).native_size
        own = first.width or native[0], first.height or native[1]
    else:
        image = request.brings("image")
        assert image is not None, "`edits.check_given` comes first"
        own = image.width, image.height
    factor = enlargement(recipe)
    return request.width or round(own[0] * factor), request.height or round(own[1] * factor)


def first_stage(recipe: Recipe) -> Generate | Edit | Given:
    """The stage that sets the size: the first one, going down first stages and first branches."""
    if isinstance(recipe, Generate | Edit | Given):
        return recipe
    inner = recipe.stages if isinstance(recipe, Chain) else recipe.branches if isinstance(recipe, Fuse) else ()
    if inner and not isinstance(inner[0], str):
        return first_stage(inner[0])
    what = type(recipe).__name__.lower()
    raise PlanError(f"starts with {what!r}, which has no picture to work on; put a generate before it", "recipe")


def enlargement(recipe: Recipe) -> float:
    """Product of the upscale factors along the recipe; the branches of a fusion must agree."""
    if isinstance(recipe, Upscale):
        return recipe.factor
    if isinstance(recipe, Chain):
        return math.prod(enlargement(stage) for stage in recipe.stages)
    if isinstance(recipe, Fuse):
        factors = {enlargement(branch) for branch in recipe.branches if not isinstance(branch, str)}
        if len(factors) > 1:
            listed = ", ".join(f"{factor:g}" for factor in sorted(factors))
            raise PlanError(f"the branches of a fusion are enlarged differently ({listed}); give all the same factor")
        return factors.pop() if factors else 1.0
    return 1.0


def reduced(side: int, factor: float) -> int:
    """The side to work at, so that enlarging it by `factor` gives `side`. Raises `PlanError` if it is not whole."""
    if not math.isclose(side / factor, round(side / factor)):
        near = max(1, round(side / factor)) * factor
        raise PlanError(f"a side of {side} is not a whole number before upscaling by {factor:g}; try {near:g}", "size")
    return round(side / factor)


STRETCH = 1.05  # by so much a picture may be squeezed on its way to the size that was asked for; nobody sees that


def drawing_size(card: ModelCard, width: int, height: int) -> tuple[int, int]:
    """The size at which `card` draws from noise what is to become width x height: this one if it is good at it, else
    the nearest of the same shape at which it is.

    Raises `PlanError` (with the sizes at which it is good) if there is none of that shape.
    """
    if card.good_at(width, height):
        return width, height
    low, high = card.area_tolerance
    shape, found = width / height, list(card.native_sizes or (card.native_size,))
    for across, down in tuple(found):  # of the very shape, as near in area as is still good
        area = min(max(width * height, low * across * down), high * across * down)
        found.append((_snapped(math.sqrt(area * shape), card), _snapped(math.sqrt(area / shape), card)))
    good = [
        size
        for size in found
        if card.good_at(*size) and max(ratio := size[0] / size[1] / shape, 1 / ratio) <= STRETCH and _takes(card, *size)
    ]
    if good:
        return min(good, key=lambda size: abs(math.log(size[0] * size[1] / (width * height))))
    listed = ", ".join(f"{across}x{down}" for across, down in card.native_sizes or (card.native_size,))
    double = f"{2 * card.native_size[0]}x{2 * card.native_size[1]}"
    windows = ", or give the recipe `tile: native`" if card.relays else ""
    raise PlanError(
        f"{card.id!r} does not draw well at {width}x{height}, nor at another size of this shape, but at {listed}; "
        f"ask for one of these or a multiple, such as {double}{windows}",
        "size",
    )


def editing_size(card: ModelCard, width: int, height: int) -> tuple[int, int]:
    """The size at which `card` paints over a picture of width x height: as for drawing, where it has one of this shape;
    else about as large as its native size, and of the same shape as nearly as its multiples allow.

    Raises `PlanError` for a shape that it does not take at all.
    """
    try:
        found = drawing_size(card, width, height)
        check_size(card, *found)
        return found
    except PlanError:
        area, shape = math.prod(card.native_size), width / height
    least = math.ceil(card.min_side / card.size_multiple) * card.size_multiple
    across, down = (max(least, _snapped(side, card)) for side in (math.sqrt(area * shape), math.sqrt(area / shape)))
    check_size(card, across, down)
    return across, down


MOST_ASPECT = 8.0  # of a picture that a model looks at, as diffusers' classes take it
LEAST_LOOKED_AT = 64  # of its sides, pixels


def beside_one_another(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Width and height of pictures that are brought to the height of the tallest and put side by side."""
    tallest = max(height for _, height in sizes)
    return round(sum(width * tallest / height for width, height in sizes)), tallest


def looking_size(card: ModelCard, width: int, height: int) -> tuple[int, int]:
    """The size at which `card` looks at a picture of width x height: its own, in whole multiples, unless that is more
    than its native area. Raises `PlanError` for one that is too narrow."""
    if max(width / height, height / width) > MOST_ASPECT:
        raise PlanError(
            f"{card.id!r} looks at pictures of up to {MOST_ASPECT:g} to 1, and one is {width}x{height}; cut it", "image"
        )
    factor = min(1.0, math.sqrt(math.prod(card.native_size) / (width * height)))
    factor = max(factor, LEAST_LOOKED_AT / min(width, height))
    multiple = card.size_multiple
    across, down = (max(multiple, round(side * factor / multiple) * multiple) for side in (width, height))
    return across, down


def _snapped(side: float, card: ModelCard) -> int:
    return max(1, round(side / card.size_multiple)) * card.size_multiple


def _takes(card: ModelCard, width: int, height: int) -> bool:
    return min(width, height) >= card.min_side and width * height <= card.max_pixels


def apart(size: tuple[int, int], usual: tuple[int, int]) -> float:
    """How far one size (width, height) is from another: 0.7 for twice the area, and as much for twice the aspect."""
    area = (size[0] * size[1]) / (usual[0] * usual[1])
    aspect = (size[0] * usual[1]) / (size[1] * usual[0])
    return abs(math.log(area)) + abs(math.log(aspect))


def check_size(card: ModelCard, width: int, height: int) -> None:
    """Raise `PlanError` (naming model, limit and a size that fits) if `card` cannot work at this size."""
    multiple, low = card.size_multiple, card.min_side
    if width % multiple or height % multiple:
        near = "x".join(
            str(max(math.ceil(low / multiple), round(side / multiple)) * multiple) for side in (width, height)
        )
        raise PlanError(f"{width}x{height} is not a multiple of {multiple}, as {card.id!r} needs; try {near}", "size")
    if min(width, height) < low:
        raise PlanError(f"{width}x{height} is too small for {card.id!r}; its sides must be at least {low}", "size")
    if width * height > card.max_pixels:
        raise PlanError(
            f"{width}x{height} is too large for {card.id!r}; it takes at most {card.max_pixels:,} pixels, "
            f"such as {card.native_size[0]}x{card.native_size[1]}; ask for less, or for a recipe that upscales",
            "size",
        )
