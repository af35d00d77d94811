"""Do the parts of a recipe fit together? Raises `PlanError` with the remedy where they do not."""

from __future__ import annotations

from dataclasses import replace

from router.errors import PlanError, did_you_mean
from router.planning.sizes import first_stage
from router.types import Edit, Fuse, Generate, Given, Map, ModelCard, Recipe, Refine, Upscale

FUSIONS: dict[str, str] = {
    "best_of": "select",
    "average": "blend",
    "pyramid": "blend",
    "frequency": "blend",
    "regions": "select",
    "denoise": "denoise",
}
WEIGHTS = ("contrast", "saliency", "mask")
SCORED = ("best_of", "regions")
BLENDS = ("average", "pyramid", "frequency")
MAX_UPSCALE = 8.0


def check_stages(stages: tuple[Recipe, ...]) -> None:
    if not stages:
        raise PlanError("an empty chain; give it a generate to start with", "recipe")
    if not isinstance(stages[0], Generate | Given | Edit | Fuse):
        first_stage(stages[0])
    if isinstance(stages[0], Given) and len(stages) == 1:
        raise PlanError("nothing is done to the given picture; edit it, or go on from it in a chain", "recipe")
    for stage in stages[1:]:
        if isinstance(stage, Map) and not isinstance(stages[0], Given):
            raise PlanError("a map is made of the given picture; begin the chain with given", "recipe")
        if not isinstance(stage, Refine | Upscale | Map):
            what = type(stage).__name__.lower()
            raise PlanError(
                f"{what!r} cannot continue a picture; only the first stage of a chain may make one", "recipe"
            )
    for stage in stages:
        if isinstance(stage, Upscale) and not 1 < stage.factor <= MAX_UPSCALE:
            raise PlanError(f"upscale by {stage.factor:g} is outside 1..{MAX_UPSCALE:g}", "recipe")


def unresolved(recipe: Fuse) -> Fuse:
    """A search that was not resolved for a prompt, to check its parts: every branch once, two pictures at least."""
    branches = recipe.branches if len(recipe.branches) > 1 else recipe.branches * 2
    return replace(recipe, branches=branches, search=None, accept_above=1.0)


def check_fusion(recipe: Fuse) -> None:
    if recipe.method not in FUSIONS:
        raise PlanError(f"unknown fusion {recipe.method!r}{did_you_mean(recipe.method, FUSIONS)}", "recipe")
    if len(recipe.branches) < 2 and recipe.search is None:
        raise PlanError(f"{recipe.method} of {len(recipe.branches)} branch; a fusion needs at least two", "recipe")
    if recipe.method == "frequency" and len(recipe.branches) != 2:
        raise PlanError(f"frequency takes two branches (low, high), not {len(recipe.branches)}", "recipe")
    if recipe.shares and recipe.method != "denoise":
        raise PlanError(f"shares belong to denoise, not to {recipe.method}; drop them", "recipe")
    if recipe.method in SCORED and not recipe.scorer:
        raise PlanError(f"{recipe.method} needs a scorer to choose by; name one, such as scorer: alignment", "recipe")
    if recipe.weights is not None and (recipe.method != "pyramid" or recipe.weights not in WEIGHTS):
        raise PlanError(f"weights belong to pyramid and are one of {', '.join(WEIGHTS)}", "recipe")
    if recipe.accept_above is not None and recipe.method != "best_of":
        raise PlanError(f"accept_above belongs to best_of, not to {recipe.method}; drop it", "recipe")
    if recipe.min_successful is not None and not 1 <= recipe.min_successful <= len(recipe.branches):
        raise PlanError(
            f"min_successful {recipe.min_successful} of {len(recipe.branches)} branches; at most all of them", "recipe"
        )
    if recipe.blend_within is not None and (recipe.method not in BLENDS or not recipe.scorer):
        raise PlanError(f"blend_within belongs to {', '.join(BLENDS)} and needs a scorer to choose by", "recipe")
    if recipe.method not in SCORED and recipe.scorer and recipe.blend_within is None:
        raise PlanError(f"{recipe.method} uses no scorer without blend_within; drop it, or fuse with best_of", "recipe")


def check_until(card: ModelCard, until: float, following: Recipe | None, begin: float = 0.0) -> None:
    """A stage that stops early: between its beginning and the end, and with a stage that goes on from there."""
    if not begin < until < 1:
        raise PlanError(f"until of {card.id!r} must lie between {begin:g} and 1, not {until:g}", "recipe")
    if not (isinstance(following, Refine) and following.from_ is not None):
        raise PlanError(
            f"{card.id!r} stops at until={until:g} and nothing finishes it; "
            "follow it with a refine that says `from`, or drop until",
            "recipe",
        )


def check_share(card: ModelCard, steps: int, share: float, name: str) -> None:
    """diffusers cuts the schedule at a timestep; a share without a whole step would leave nothing to do."""
    if round(steps * share, 6) < 1:
        raise PlanError(f"{name} leaves {card.id!r} less than one of {steps} steps; use more steps", "steps")
