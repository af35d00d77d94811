"""Policy file -> `Policy`, or every problem at once as `file:line:column: message`.

text -> data with positions -> schema -> checks across the file -> value
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from policies.decide import Policy
from policies.recipes import build_recipes, check_members, check_recipes
from policies.rules import check_rules
from policies.schema import PolicySpec, RecipeSpec, Rule, json_schema
from policies.source import MAX_BYTES, Path, Problem, Source, decode, read
from router.errors import PolicyError, did_you_mean

UNBUILT = ("verify", "overload", "explore", "style", "styles", "extends", "tenants", "sweep")
"""Keys of the design that this version cannot honour yet. Refused by name, so that nobody relies on them."""

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Known:
    """The names outside of the file that it may use; None means that they are not checked."""

    models: Collection[str] | None = None
    signals: Collection[str] | None = None
    schedulers: Collection[str] | None = None


def load_policy(path: str | FilePath, *, known: Known | None = None, models: Collection[str] | None = None) -> Policy:
    """Read, validate and build the policy in a file named `<policy>.yaml`.

    models: catalogue ids, a short way to write `known=Known(models=...)`
    Raises `PolicyError` with every problem.
    """
    path = FilePath(path)
    try:
        if not path.is_file():
            raise FileNotFoundError(2, "no such file")
        with path.open("rb") as file:
            text = decode(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise _failed(str(path), [Problem(1, 1, f"cannot be read: {error.strerror}")]) from None
    if isinstance(text, Source):
        raise _failed(str(path), text.problems)
    return _load(read(text), str(path), known or Known(models), path.stem)


def load_policy_text(
    text: str, origin: str = "<policy>", *, known: Known | None = None, models: Collection[str] | None = None
) -> Policy:
    """The same for a text; `origin` stands in for the file's name in messages."""
    return _load(read(text), origin, known or Known(models), None)


def _load(source: Source, origin: str, known: Known, stem: str | None) -> Policy:
    problems = list(source.problems)
    spec = None
    if source.values:  # the text could be read, even if not all of it was right
        spec, found = _validated(source)
        problems += found
        problems += [source.problem(path, message) for path, message in _findings(source.data, known, stem)]
    if problems or spec is None:
        raise _failed(origin, problems)
    return _built(spec, origin)


def _built(spec: PolicySpec, origin: str) -> Policy:
    content = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"description"})
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return Policy(
        name=spec.name,
        digest=hashlib.sha256(canonical.encode()).hexdigest()[:12],
        recipes=build_recipes(spec.recipes),
        limits=spec.limits,
        objective=spec.objective,
        rules=tuple(spec.rules),
        description=spec.description,
        origin=origin,
    )


def _failed(origin: str, problems: Collection[Problem]) -> PolicyError:
    lines = [problem.render(origin) for problem in sorted(set(problems))]
    title = lines[0] if len(lines) == 1 else f"{origin} has {len(lines)} problems:"
    return PolicyError("\n  ".join([title, *lines] if len(lines) > 1 else [title]), lines)


# ----------------------------------------------------------------------------------------- across the whole file


def _findings(data: Any, known: Known, stem: str | None) -> Iterator[tuple[Path, str]]:
    """What the schema cannot see, in those parts of the file that pass it."""
    top = data if isinstance(data, dict) else {}
    named = top["recipes"] if isinstance(top.get("recipes"), dict) else {}
    recipes = {name: spec for name, raw in named.items() if (spec := _sound(RecipeSpec, raw))}
    listed = top["rules"] if isinstance(top.get("rules"), list) else []
    rules = [(index, rule) for index, raw in enumerate(listed) if (rule := _sound(Rule, raw))]
    yield from check_recipes(recipes, set(named))
    yield from check_members(recipes, known.models, known.schedulers)
    yield from check_rules(rules, set(named), known.signals)
    if stem is not None and isinstance(name := top.get("name"), str) and name != stem:
        yield ("name",), f"the policy is named {name!r} but its file {stem!r}; give both the same name"


def _sound(model: type[_Model], raw: Any) -> _Model | None:
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None


# ------------------------------------------------------------------------------------------------- schema errors


def _validated(source: Source) -> tuple[PolicySpec | None, list[Problem]]:
    try:
        return PolicySpec.model_validate(source.data), []
    except ValidationError as failure:
        return None, [_translated(error, source) for error in failure.errors(include_url=False)]


def _translated(error: ErrorDetails, source: Source) -> Problem:
    """pydantic's error in our words, at the place in the file."""
    path = tuple(part for part in error["loc"] if part not in ("<name>", "<recipe>", "[key]"))
    kind, where = error["type"], _words(path)
    if kind == "extra_forbidden":
        return source.problem(path, _unknown_key(path), at_key=True)
    if kind == "missing":
        return source.problem(path, f"{_words(path[:-1])}: the key {path[-1]!r} is missing")
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        message = "should be a mapping (key: value)"
    elif kind == "string_pattern_mismatch":
        message = "a name has letters, digits, '.', '_' and '-' only, and starts with a letter or digit"
    if kind != "value_error" and not isinstance(error["input"], dict | list):
        message += f", not {error['input']!r}" if len(repr(error["input"])) < 60 else ""
    if kind == "literal_error":
        message += _nearest(error)
    return source.problem(path, f"{where}: {message}", at_key=error["loc"][-1:] == ("[key]",))


def _nearest(error: ErrorDetails) -> str:
    choices = [word.strip("'") for word in error.get("ctx", {}).get("expected", "").replace(" or ", ", ").split(", ")]
    hint = did_you_mean(str(error["input"]), choices)
    return hint if "did you mean" in hint else ""


def _unknown_key(path: Path) -> str:
    key, place = str(path[-1]), _words(path[:-1])
    if key in UNBUILT:
        return f"{place}: the key {key!r} is not supported by this version of Triptych; remove it"
    return f"{place}: unknown key {key!r}{did_you_mean(key, _keys_at(path[:-1]))}"


def _words(path: Path) -> str:
    """`recipes.draft.generate`, `rules[0].when`; "the policy" for the whole."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the policy"


@lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    return json_schema()


def _keys_at(path: Path) -> set[str]:
    """The keys that the schema has at a place."""
    places = _resolved([_schema()])
    for part in path:
        places = _resolved([_below(place, part) for place in places])
    return {key for place in places for key in place.get("properties", {})}


def _below(place: dict[str, Any], part: str | int) -> dict[str, Any]:
    """The schema of one item of a list, or of one key of a mapping (of any key, where keys are names)."""
    if isinstance(part, int):
        return place.get("items", {})
    named = [*place.get("patternProperties", {}).values(), place.get("additionalProperties")]
    return place.get("properties", {}).get(part) or next((value for value in named if value), {})


def _resolved(places: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with references followed and alternatives laid side by side."""
    flat = []
    for place in places:
        if "$ref" in place:
            flat += _resolved([_schema()["$defs"][place["$ref"].rsplit("/", 1)[-1]]])
        elif alternatives := place.get("anyOf") or place.get("oneOf"):
            flat += _resolved(alternatives)
        else:
            flat.append(place)
    return flat
