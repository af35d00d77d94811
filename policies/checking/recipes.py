"""Recipes of a file: do they make pictures, and the values of `router.types` that they mean.

What needs the model cards (latent spaces, sizes, roles) is for the planner to check; what the file alone shows is here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from policies.deciding.objectives import priced
from policies.language.schema_choice import Objective
from policies.language.schema_recipes import (
    USUAL_MOST,
    BestOfSpec,
    EditSpec,
    FuseSpec,
    GenerateSpec,
    RecipeSpec,
    RefineSpec,
)
from policies.language.source import Path
from policies.language.spec import Spec
from router.errors import did_you_mean
from router.types import Chain, Control, Edit, Fuse, Generate, Given, Map, Recipe, Refine, Search, Upscale, wearing

MAX_STEPS = 64  # of one recipe with everything it names; doubling by reference reaches thousands in ten lines

Part = str | RecipeSpec
Finding = tuple[Path, str]

_IMAGE = 1.0  # what a part leaves behind: a finished picture, or latents denoised up to a share below 1


def check_recipes(recipes: Mapping[str, RecipeSpec], names: Collection[str]) -> list[Finding]:
    """Everything wrong with the arrangement of `recipes`; `names` are all that the file has, sound or not."""
    findings = list(_unknown_names(recipes, names))
    findings += _searches_inside(recipes)
    circles = list(_circles(recipes))
    findings += circles
    for name, spec in recipes.items():
        _check_complete(spec, ("recipes", name), lambda path, message: findings.append((path, message)))
    return findings if circles else [*findings, *_too_long(recipes)]


def check_members(
    recipes: Mapping[str, RecipeSpec], models: Collection[str] | None, schedulers: Collection[str] | None
) -> Iterator[Finding]:
    """Model ids that the catalogue does not have, and schedulers that no loader knows. None: not to be checked."""
    for name, spec in recipes.items():
        for path, part in _parts(spec, ("recipes", name)):
            if isinstance(part, str):
                continue
            members: dict[Path, Spec | None] = {
                (key,): getattr(part, key) for key in ("generate", "edit", "refine", "fuse", "best_of")
            }
            members["fuse", "harmonise"] = part.fuse.harmonise if part.fuse else None
            for key, inner in members.items():
                for attribute, known in (("model", models), ("scorer", models), ("scheduler", schedulers)):
                    value = getattr(inner, attribute, None)
                    if known is not None and value is not None and value not in known:
                        what = "scheduler" if attribute == "scheduler" else "model"
                        yield (*path, *key, attribute), f"unknown {what} {value!r}{did_you_mean(value, known)}"


def named_inside(name: str, spec: RecipeSpec) -> set[str]:
    """Names of the recipes that a recipe is made of."""
    return {wanted for _, wanted in _references(name, spec)}


def arrangeable(recipes: Mapping[str, RecipeSpec], wrong: Collection[str]) -> set[str]:
    """Recipes that are not among the `wrong` ones and are made of none of them."""
    sound = set(recipes) - set(wrong)
    while lost := {name for name in sound if not named_inside(name, recipes[name]) <= sound}:
        sound -= lost
    return sound


def build_recipes(recipes: Mapping[str, RecipeSpec], objective: Objective | None = None) -> dict[str, Recipe]:
    """The values of checked recipes. Names inside chains are replaced by their stages; fusions keep them.

    objective: of the policy, for recipes that decide how many pictures are worth their price
    """

    def built(part: Part) -> Recipe:
        spec = recipes[part] if isinstance(part, str) else part
        if spec.generate:
            return Generate(**_stage(spec.generate))
        if spec.edit:
            return Edit(**_stage(spec.edit))
        if spec.given_ is not None:
            return Given()
        if spec.map is not None:
            return Map(spec.map.kind)
        if spec.refine:
            return Refine(**_stage(spec.refine))
        if spec.upscale:
            return Upscale(**spec.upscale.model_dump())
        if spec.fuse:
            branches = (part if isinstance(part, str) else built(part) for _, part in _branches(spec.fuse))
            fuse = spec.fuse
            weights = fuse.weights if isinstance(fuse.weights, str) and fuse.weights != "contrast" else None
            shares = tuple(zip(*fuse.course(), strict=True))
            fused = Fuse(
                fuse.method,
                tuple(branches),
                fuse.scorer,
                fuse.accept_above,
                fuse.min_successful,
                weights=weights,
                shares=shares,
                blend_within=fuse.within(),
            )
            return fused if fuse.harmonise is None else Chain((fused, Refine(**_stage(fuse.harmonise))))
        if spec.best_of:
            best = spec.best_of
            of = tuple(part if isinstance(part, str) else built(part) for part in best.parts)
            if best.n == "auto":
                return Fuse("best_of", of, best.scorer, search=_search(best, objective))
            return Fuse("best_of", of * best.n, best.scorer, best.accept_above, best.min_successful)
        return Chain(tuple(stage for part in spec.chain or () for stage in stages(part)))

    def stages(part: Part) -> tuple[Recipe, ...]:
        recipe = built(part)
        return recipe.stages if isinstance(recipe, Chain) else (recipe,)

    return {name: built(spec) for name, spec in recipes.items()}


def _stage(spec: GenerateSpec | EditSpec | RefineSpec) -> dict[str, Any]:
    """The fields of a stage of `router.types`."""
    fields = {**spec.model_dump(exclude={"control", "control_scale"}), "style": wearing(spec.style or {})}
    if spec.control:
        scale = 1.0 if spec.control_scale is None else spec.control_scale
        if isinstance(spec, RefineSpec):
            fields["control"] = Control(spec.control, "picture", scale)
        else:
            ((kind, of),) = spec.control.items()
            fields["control"] = Control(kind, of, scale)
    return fields


def _search(best: BestOfSpec, objective: Objective | None) -> Search:
    return Search(best.most or USUAL_MOST, priced(objective, best.quality_per_s, best.quality_per_usd))


def _branches(fuse: FuseSpec) -> list[tuple[Path, Part]]:
    """The branches in the order that `Fuse` wants: those of `of`, or low and high."""
    if fuse.of is not None:
        return [(("of", index), part) for index, part in enumerate(fuse.of)]
    return [((key,), part) for key, part in (("low", fuse.low), ("high", fuse.high)) if part is not None]


def _children(spec: RecipeSpec) -> list[tuple[Path, Part]]:
    if spec.chain is not None:
        return [(("chain", index), part) for index, part in enumerate(spec.chain)]
    if spec.best_of is not None:
        of = spec.best_of.of
        if isinstance(of, list):
            return [(("best_of", "of", index), part) for index, part in enumerate(of)]
        return [(("best_of", "of"), of)]
    return [(("fuse", *path), part) for path, part in _branches(spec.fuse)] if spec.fuse else []


def _parts(part: Part, path: Path) -> Iterator[tuple[Path, Part]]:
    """A part and all that stands inside it, with their places."""
    yield path, part
    if not isinstance(part, str):
        for below, child in _children(part):
            yield from _parts(child, (*path, *below))


def _references(name: str, spec: RecipeSpec) -> Iterator[tuple[Path, str]]:
    return ((path, part) for path, part in _parts(spec, ("recipes", name)) if isinstance(part, str))


def _unknown_names(recipes: Mapping[str, RecipeSpec], names: Collection[str]) -> Iterator[Finding]:
    for name, spec in recipes.items():
        for path, wanted in _references(name, spec):
            if wanted not in names:
                yield path, f"unknown recipe {wanted!r}{did_you_mean(wanted, set(names) - {name})}"


def _searches_inside(recipes: Mapping[str, RecipeSpec]) -> Iterator[Finding]:
    """Searches that are not recipes of their own: how many pictures are worth it is decided for whole recipes only."""
    searches = {name for name, spec in recipes.items() if _is_search(spec)}
    for name, spec in recipes.items():
        for path, part in _parts(spec, ("recipes", name)):
            if part in searches if isinstance(part, str) else _is_search(part) and len(path) > 2:
                yield path, "best_of with n: auto is a recipe of its own; it cannot be part of another one"


def _is_search(part: RecipeSpec) -> bool:
    return part.best_of is not None and part.best_of.n == "auto"


def _circles(recipes: Mapping[str, RecipeSpec]) -> Iterator[Finding]:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> Iterator[Finding]:
        for path, wanted in _references(name, recipes[name]):
            if wanted in trail:
                circle = " → ".join((*trail[trail.index(wanted) :], wanted))
                yield path, f"recipes refer to one another in a circle: {circle}"
            elif wanted in recipes and wanted not in done:
                yield from visit(wanted, (*trail, wanted))
        done.add(name)

    for name in recipes:
        if name not in done:
            yield from visit(name, (name,))


def _steps(part: Part, recipes: Mapping[str, RecipeSpec], seen: dict[str, int] | None = None) -> int:
    seen = {} if seen is None else seen
    if isinstance(part, str):
        if part not in seen:
            seen[part] = _steps(recipes[part], recipes, seen) if part in recipes else 1
        return seen[part]
    children = sum(_steps(child, recipes, seen) for _, child in _children(part))
    if (best := part.best_of) is not None:
        children *= (best.most or USUAL_MOST) if best.n == "auto" else best.n
    children += part.fuse is not None and part.fuse.harmonise is not None
    return children if part.chain is not None else children + 1


def _too_long(recipes: Mapping[str, RecipeSpec]) -> Iterator[Finding]:
    steps = {name: _steps(spec, recipes) for name, spec in recipes.items()}
    for name, count in steps.items():
        inside = named_inside(name, recipes[name])
        if count > MAX_STEPS and not any(steps.get(part, 0) > MAX_STEPS for part in inside):  # else those say it
            yield ("recipes", name), f"recipe {name!r} takes {count} steps with all that it names; at most {MAX_STEPS}"


def _check_complete(part: Part, path: Path, say: Callable[[Path, str], None]) -> None:
    """Say what is wrong with a recipe that has to make a whole picture out of nothing."""
    left = _outcome(part, path, None, say)
    if left != _IMAGE:
        say(path, f"the recipe ends in unfinished latents (until: {left:g}); add a refine with from: {left:g}")


def _outcome(part: Part, path: Path, before: float | None, say: Callable[[Path, str], None]) -> float:
    """What a part leaves behind when `before` (None: nothing) goes in."""
    if isinstance(part, str):
        if before is not None:
            say(path, f"recipe {part!r} starts from noise, so its name can only be the first stage of a chain")
        return _IMAGE
    if part.chain is not None:
        left: float = _IMAGE
        for index, stage in enumerate(part.chain):
            left = before = _outcome(stage, (*path, "chain", index), before, say)
        return left
    if part.generate is not None:
        if before is not None:
            say((*path, "generate"), "generate starts from noise, so it can only be the first stage of a chain")
        return part.generate.until or _IMAGE
    for key, begun in (("edit", part.edit), ("given", part.given_)):
        if begun is None:
            continue
        if before is not None:
            say((*path, key), f"{key} is the picture of the request, so it can only be the first stage of a chain")
        elif key == "given" and len(path) < 3:
            say((*path, key), "nothing is done to the given picture; begin a chain with it")
        return _IMAGE
    for key, inner in (("fuse", part.fuse), ("best_of", part.best_of)):
        if inner is None:
            continue
        if before is not None:
            say((*path, key), f"{key} starts from noise, so it can only be the first stage of a chain")
        for below, branch in _children(part):
            _check_complete(branch, (*path, *below), say)
        return _IMAGE
    _check_continues(part, path, before, say)
    return part.refine.until or _IMAGE if part.refine is not None else _IMAGE


def _check_continues(part: RecipeSpec, path: Path, before: float | None, say: Callable[[Path, str], None]) -> None:
    key = "refine" if part.refine is not None else "map" if part.map is not None else "upscale"
    at = (*path, key)
    if before is None:
        say(at, f"{key} continues a picture; begin with generate, edit, given, fuse or the name of another recipe")
    elif part.refine is None or part.refine.from_ is None:
        if before != _IMAGE:
            way = f"refine with from: {before:g}"
            say(at, f"the stage before leaves unfinished latents (until: {before:g}); finish them first ({way})")
    elif before == _IMAGE:
        say((*at, "from"), "from takes over latents, but the stage before finishes its picture; use strength instead")
    elif before != part.refine.from_:
        say((*at, "from"), f"from: {part.refine.from_:g} does not meet until: {before:g} of the stage before")
