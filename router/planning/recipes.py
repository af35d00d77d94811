"""Recipes as values: names resolved, and one canonical key for each, so that what was learned about it is found again.

The key is what the columns of a ratings table and of a trained artefact are called:

    sd15                                    a model at its card's settings
    sd15@12:scheduler=dpmsolver++           12 steps; further settings in alphabetical order, joined by commas
    sd15:style=film*0.7+freeu*1             wearing styles, by name
    sdxl>sdxl-refiner:from=0.8              a chain; `until` is left out where the next stage's `from` says it
    sdxl>sd15:from=0.3>sdxl:from=0.6        a relay within one latent space
    flux>sdxl-refiner:strength=0.25>upscale:2
    sd15>upscale:2>sdxl:strength=0.3,tile=native
    best_of(alignment;flux|sd15@12)         a fusion; branches sorted, except for `frequency` (low|high) and `regions`
    regions(alignment;flux|sdxl)>sdxl-refiner:strength=0.15    a fusion that is harmonised
    denoise(0.5,0.5;sd15|sdxl)              two models that predict together, by their weights; branches sorted
    denoise(0.8-0.2,0.2-0.8;sd15|sdxl)      the same with weights that change from start to end
    pyramid(saliency;flux|sdxl)             a pyramid by other weights than contrast
    frequency(alignment~0.05;flux|sdxl)     blended only if the pictures agree, else the best is kept
    best_of(alignment>0.9;sd15@12|flux)     with `accept_above` the branches run in turn, so their order stays
    best_of(alignment<6;flux|sd15@12)       a search of at most six pictures
    given>sd15:strength=0.6                 a given picture that is painted over
    given>sd15:mask=0.25,strength=1         a quarter of it, where a mask is open
    sd15:control=canny*0.8                  drawn along the edges of a given picture
    given>upscale:2>sdxl:strength=0.3       a given picture that is enlarged, and refined as a whole
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from router.errors import PlanError, did_you_mean
from router.planning.styles import asked
from router.types import (
    Catalogue,
    Chain,
    Edit,
    Fuse,
    Generate,
    GenerationRequest,
    Given,
    Map,
    Recipe,
    Refine,
    Upscale,
    spelled,
)

ORDERED_FUSIONS = frozenset({"frequency", "regions"})
"""Those in which the order of the branches changes the picture: low before high; the first of equal regions."""


def resolve(recipe: Recipe, recipes: Mapping[str, Recipe], path: tuple[str, ...] = ()) -> Recipe:
    """The same recipe with every name in a fusion replaced by what it names in `recipes`.

    Raises `PlanError` for an unknown name and for recipes that contain themselves; `path` holds the names on the way.
    """
    if isinstance(recipe, Chain):
        return Chain(tuple(resolve(stage, recipes, path) for stage in recipe.stages))
    if not isinstance(recipe, Fuse):
        return recipe
    branches = []
    for branch in recipe.branches:
        if not isinstance(branch, str):
            branches.append(resolve(branch, recipes, path))
        elif branch in path:
            raise PlanError(f"recipe {branch!r} contains itself ({' > '.join((*path, branch))}); break the circle")
        elif branch not in recipes:
            raise PlanError(
                f"a fusion names the recipe {branch!r}, which does not exist{did_you_mean(branch, recipes)}"
            )
        else:
            branches.append(resolve(recipes[branch], recipes, (*path, branch)))
    return replace(recipe, branches=tuple(branches))


def as_run(recipe: Recipe, request: GenerationRequest) -> Recipe:
    """The recipe with what the request asks of what draws from noise or from its own picture (steps, guidance, styles,
    strength, mask); the same object if it asks for nothing. Names in fusions stay names."""
    if not asks_otherwise(request):
        return recipe
    if isinstance(recipe, Generate):
        steps = recipe.steps if request.steps is None else request.steps
        guidance = recipe.guidance_scale if request.guidance_scale is None else request.guidance_scale
        return replace(recipe, steps=steps, guidance_scale=guidance, style=asked(recipe, request))
    if isinstance(recipe, Edit):
        mask = request.brings("mask")
        return replace(
            recipe,
            steps=recipe.steps if request.steps is None else request.steps,
            guidance_scale=recipe.guidance_scale if request.guidance_scale is None else request.guidance_scale,
            style=asked(recipe, request),
            strength=strength_of(recipe, request),
            mask=None if mask is None else round(mask.share, 2),
        )
    if isinstance(recipe, Chain):
        return Chain(tuple(as_run(stage, request) for stage in recipe.stages))
    if isinstance(recipe, Fuse):
        branches = tuple(part if isinstance(part, str) else as_run(part, request) for part in recipe.branches)
        return replace(recipe, branches=branches)
    return recipe


def asks_otherwise(request: GenerationRequest) -> bool:
    """Whether a request asks anything of a recipe that changes what it is."""
    changed = request.steps is not None or request.guidance_scale is not None
    return changed or bool(request.style or request.given)


PAINTED, INPAINTED = 0.6, 1.0
"""The usual strength of an edit: of a whole picture, of which something is to be left; and within a mask."""

FAITHFUL = 0.35
"""The strength of an edit that is to stay near its picture."""


def strength_of(stage: Edit, request: GenerationRequest) -> float:
    """How far an edit noises the given picture again: as the request says, else the recipe, else as is usual."""
    if request.strength is not None:
        return request.strength
    masked = request.brings("mask") is not None
    if request.faithful and not masked:
        return FAITHFUL
    return (INPAINTED if masked else PAINTED) if stage.strength is None else stage.strength


def stages_of(recipe: Recipe) -> tuple[Recipe, ...]:
    """The stages of a chain, chains at its head included; any other recipe is its own single stage."""
    if not isinstance(recipe, Chain):
        return (recipe,)
    return tuple(inner for stage in recipe.stages for inner in stages_of(stage))


def models_of(recipe: Recipe) -> Iterator[str]:
    """Catalogue ids that a resolved recipe runs on, in order, with repetitions; scorers come after their branches."""
    if isinstance(recipe, Generate | Edit | Refine):
        yield recipe.model
    elif isinstance(recipe, Chain):
        for stage in recipe.stages:
            yield from models_of(stage)
    elif isinstance(recipe, Fuse):
        for branch in recipe.branches:
            if not isinstance(branch, str):
                yield from models_of(branch)
        if recipe.scorer:
            yield recipe.scorer


def recipe_key(recipe: Recipe, recipes: Mapping[str, Recipe], catalogue: Catalogue | None = None) -> str:
    """The canonical key of `recipe`. With a catalogue, settings that equal the card's defaults are left out."""
    return _key(resolve(recipe, recipes), catalogue)


def _key(recipe: Recipe | str, catalogue: Catalogue | None) -> str:
    if isinstance(recipe, str):
        raise PlanError(f"the recipe name {recipe!r} was not resolved")
    if isinstance(recipe, Chain):
        return _chain_key(stages_of(recipe), catalogue)
    if isinstance(recipe, Fuse):
        keys = [_key(branch, catalogue) for branch in recipe.branches]
        if recipe.method == "denoise":
            return _denoise_key(keys, recipe.shares)
        in_turn = recipe.accept_above is not None
        joined = "|".join(keys if in_turn or recipe.method in ORDERED_FUSIONS else sorted(keys))
        bar = f">{recipe.accept_above:g}" if in_turn else f"<{recipe.search.most}" if recipe.search else ""
        if recipe.blend_within is not None:
            bar = f"~{recipe.blend_within:g}"
        how = ",".join(part for part in (recipe.weights, f"{recipe.scorer or ''}{bar}") if part)
        return f"{recipe.method}({how};{joined})" if how else f"{recipe.method}({joined})"
    if isinstance(recipe, Upscale):
        return f"upscale:{recipe.factor:g}"
    if isinstance(recipe, Given):
        return "given"
    if isinstance(recipe, Map):
        return f"map:{recipe.kind}"
    return ("given>" if isinstance(recipe, Edit) else "") + _model_key(recipe, catalogue)


def _denoise_key(keys: Sequence[str], shares: Sequence[tuple[float, float]]) -> str:
    pairs = shares or [(1.0, 1.0)] * len(keys)
    totals = [sum(pair[moment] for pair in pairs) or 1.0 for moment in (0, 1)]
    parts = sorted((key, start / totals[0], end / totals[1]) for key, (start, end) in zip(keys, pairs, strict=True))
    weights = (f"{start:.3g}" + (f"-{end:.3g}" if end != start else "") for _, start, end in parts)
    return f"denoise({','.join(weights)};{'|'.join(key for key, _, _ in parts)})"


def _chain_key(stages: tuple[Recipe, ...], catalogue: Catalogue | None) -> str:
    keys = []
    for stage, following in zip(stages, (*stages[1:], None), strict=True):
        gives = isinstance(stage, Generate | Refine) and stage.until is not None
        handed_over = gives and isinstance(following, Refine) and stage.until == following.from_  # type: ignore[union-attr]
        keys.append(_model_key(stage, catalogue, bare=True) if handed_over else _key(stage, catalogue))
    return ">".join(keys)


def _model_key(stage: Recipe, catalogue: Catalogue | None, bare: bool = False) -> str:
    assert isinstance(stage, Generate | Edit | Refine)
    settings: dict[str, str] = {}
    card = catalogue[stage.model] if catalogue is not None and stage.model in catalogue else None
    steps = None if card is not None and stage.steps == card.steps else stage.steps
    if stage.guidance_scale is not None and (card is None or stage.guidance_scale != card.guidance_scale):
        settings["guidance_scale"] = f"{stage.guidance_scale:g}"
    if stage.scheduler is not None and (card is None or stage.scheduler != card.scheduler):
        settings["scheduler"] = stage.scheduler
    if isinstance(stage, Refine):
        settings |= {"from": f"{stage.from_:g}"} if stage.from_ is not None else {}
        settings |= {"strength": f"{stage.strength:g}"} if stage.strength is not None else {}
    if isinstance(stage, Edit):
        noised = stage.mask is not None or card is None or card.edits != "instruct"  # else it has no strength
        settings |= {"strength": f"{stage.strength:g}"} if stage.strength is not None and noised else {}
        settings |= {"mask": f"{stage.mask:g}"} if stage.mask is not None else {}
    elif stage.until is not None and not bare:
        settings["until"] = f"{stage.until:g}"
    if not isinstance(stage, Edit) and stage.tile is not None:
        settings["tile"] = str(stage.tile)
        settings |= {"overlap": f"{stage.overlap:g}"} if stage.overlap is not None else {}
    if (control := stage.control) is not None:
        of = f".{control.of}" if control.of == "map" else ""
        settings["control"] = f"{control.kind}{of}" + (f"*{control.scale:g}" if control.scale != 1 else "")
    if stage.style:
        settings["style"] = spelled(stage.style)
    if isinstance(stage, Generate) and (stage.width or stage.height):
        settings["size"] = f"{stage.width or ''}x{stage.height or ''}"
    body = stage.model + (f"@{steps}" if steps is not None else "")
    return body + (":" + ",".join(f"{name}={settings[name]}" for name in sorted(settings)) if settings else "")
