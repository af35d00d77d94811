"""`defaults` and `extends`: data with positions -> the same data with both worked in, before the schema sees it.

Mappings are merged key by key, the nearer one wins; lists and plain values replace. A setting that came from elsewhere
keeps the place where it stands in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from policies.language.schema_recipes import (
    KINDS,
    BestOfSpec,
    EditSpec,
    FuseSpec,
    GenerateSpec,
    RefineSpec,
    UpscaleSpec,
)
from policies.language.source import Path, Problem, Source
from policies.language.spec import Spec
from router.errors import did_you_mean

DEFAULTED: dict[str, type[Spec]] = {
    "generate": GenerateSpec,
    "edit": EditSpec,
    "refine": RefineSpec,
    "upscale": UpscaleSpec,
    "fuse": FuseSpec,
    "best_of": BestOfSpec,
}


def expand(source: Source) -> tuple[Source, set[Path]]:
    """The source without `defaults` and `extends`; what is wrong with them is added to its problems.

    Also the places of recipes whose inheritance is broken: what they lack there may be no mistake of theirs.
    """
    top = source.data
    recipes = top.get("recipes") if isinstance(top, dict) else None
    if not isinstance(recipes, dict):
        return source, set()
    work = _Expansion(source)
    built = {name: work.extended(name, recipes, ()) for name in recipes}
    defaults = work.usable_defaults(top.get("defaults"))
    data = {key: value for key, value in top.items() if key != "defaults"}
    data["recipes"] = {name: work.filled(recipe, ("recipes", name), defaults) for name, recipe in built.items()}
    expanded = replace(source, data=data, problems=(*source.problems, *work.problems), values=work.values)
    return expanded, {("recipes", name) for name in work.broken}


class _Expansion:
    """The recipes of one file while they are worked out. values: the places, those of inherited settings included."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.values = dict(source.values)
        self.problems: list[Problem] = []
        self.broken: set[str] = set()
        self.done: dict[str, Any] = {}

    def extended(self, name: str, recipes: Mapping[str, Any], trail: tuple[str, ...]) -> Any:
        """The recipe `name` with everything that it extends."""
        if name not in self.done:
            self.done[name] = self.with_parent(name, recipes, trail)
        return self.done[name]

    def with_parent(self, name: str, recipes: Mapping[str, Any], trail: tuple[str, ...]) -> Any:
        recipe = recipes[name]
        if not isinstance(recipe, dict) or "extends" not in recipe:
            return recipe
        own = {key: value for key, value in recipe.items() if key != "extends"}
        parent = recipe["extends"]
        if not isinstance(parent, str):
            self.say(name, f"extends should be the name of a recipe, not {parent!r}")
        elif parent in (*trail, name):
            self.say(name, f"recipes extend one another in a circle: {' → '.join((*trail, name, parent))}")
        elif parent not in recipes:
            self.say(name, f"unknown recipe {parent!r}{did_you_mean(parent, set(recipes) - {name})}")
        else:
            return self.merged(name, parent, self.extended(parent, recipes, (*trail, name)), own)
        return own

    def merged(self, name: str, parent: str, inherited: Any, own: dict[str, Any]) -> Any:
        kinds = [key for key in KINDS if isinstance(inherited, dict) and key in inherited]
        if parent in self.broken or not kinds:  # then that says so
            self.broken.add(name)
            return own
        if other := next((key for key in own if key in KINDS and key not in kinds), None):
            self.say(name, f"{parent!r} is a {kinds[0]}, and what extends it cannot have {other}; put both in a chain")
            return own
        if "chain" in own:
            self.say(name, f"this chain replaces all of {parent!r}; begin it with the name {parent!r} instead")
        for kind in kinds:
            settings = inherited[kind] if isinstance(inherited[kind], dict) else {}
            self.moved(("recipes", parent, kind), ("recipes", name, kind), settings, own.get(kind, {}))
        return _merge(inherited, own)

    def usable_defaults(self, given: Any) -> dict[str, dict[str, Any]]:
        """Those defaults that mean something; the others are problems, said once and not at every recipe."""
        if ("defaults",) not in self.values:
            return {}
        self.problems += [self.source.problem(path, message, at_key=True) for path, message in _wrong(given)]
        sound = given.items() if isinstance(given, dict) else ()
        return {
            kind: {key: value for key, value in settings.items() if key in _keys(DEFAULTED[kind])}
            for kind, settings in sound
            if kind in DEFAULTED and isinstance(settings, dict)
        }

    def filled(self, recipe: Any, path: Path, defaults: Mapping[str, dict[str, Any]]) -> Any:
        """The recipe, and every recipe written inside it, over the defaults of its kind."""
        if not isinstance(recipe, dict):
            return recipe
        made = {}
        for kind, settings in recipe.items():
            here = (*path, kind)
            if kind == "chain" and isinstance(settings, list):
                settings = [self.filled(stage, (*here, k), defaults) for k, stage in enumerate(settings)]
            elif kind in KINDS and isinstance(settings, dict):
                base = {k: v for k, v in defaults.get(kind, {}).items() if not _contradicts(kind, k, settings)}
                self.moved(("defaults", kind), here, base, settings)
                settings = {k: self.inside(v, (*here, k), defaults) for k, v in {**base, **settings}.items()}
            made[kind] = settings
        return made

    def inside(self, value: Any, path: Path, defaults: Mapping[str, dict[str, Any]]) -> Any:
        if path[-1] == "of" and isinstance(value, list):
            return [self.filled(branch, (*path, k), defaults) for k, branch in enumerate(value)]
        return self.filled(value, path, defaults) if path[-1] in ("of", "low", "high") else value

    def moved(self, origin: Path, here: Path, settings: Mapping[str, Any], own: Any) -> None:
        """Remember where the settings that come from `origin` stand."""
        for key in settings:
            if (*origin, key) in self.values and not (isinstance(own, dict) and key in own):
                self.values.setdefault((*here, key), self.values[*origin, key])

    def say(self, name: str, message: str) -> None:
        self.broken.add(name)
        self.problems.append(self.source.problem(("recipes", name, "extends"), f"recipes.{name}: {message}"))


def _wrong(defaults: Any) -> Iterator[tuple[Path, str]]:
    if not isinstance(defaults, dict):
        yield ("defaults",), "defaults: should be a mapping (key: value)"
        return
    for kind, settings in defaults.items():
        if kind not in DEFAULTED:
            yield ("defaults", kind), f"defaults: unknown key {kind!r}{did_you_mean(kind, DEFAULTED)}"
        elif not isinstance(settings, dict):
            yield ("defaults", kind), f"defaults.{kind}: should be a mapping (key: value)"
        else:
            known = _keys(DEFAULTED[kind])
            for key in settings.keys() - known:
                yield ("defaults", kind, key), f"defaults.{kind}: unknown key {key!r}{did_you_mean(key, known)}"


def _keys(spec: type[Spec]) -> set[str]:
    return {field.alias or name for name, field in spec.model_fields.items()}


def _contradicts(kind: str, key: str, own: Mapping[str, Any]) -> bool:
    """Whether a default does not go with what a recipe says: the other way to continue, a scorer for a blend."""
    if kind == "refine":
        return (key == "strength" and "from" in own) or (key == "from" and "strength" in own)
    if kind == "best_of" and own.get("n") == "auto":
        return key in ("accept_above", "min_successful")
    if kind == "fuse" and key == "min_successful":
        return own.get("with") == "frequency"
    return kind == "fuse" and key in ("scorer", "accept_above") and own.get("with", "best_of") != "best_of"


def _merge(inherited: Any, own: Any) -> Any:
    if isinstance(inherited, dict) and isinstance(own, dict):
        both = {key: _merge(value, own[key]) if key in own else value for key, value in inherited.items()}
        return {**both, **{key: value for key, value in own.items() if key not in inherited}}
    return own
