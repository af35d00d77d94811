"""What the schema finds wrong with a file, in our words and at its place, with the nearest key or value."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import ErrorDetails

from policies.language.schema import json_schema
from policies.language.source import Path, Problem, Source
from router.errors import did_you_mean

UNBUILT = ("style", "styles", "sweep", "tenants", "licence")
"""Keys of the design that this version cannot honour yet. Refused by name, so that nobody relies on them."""

TAGS = ("<name>", "<recipe>", "<list>", "<number>", "<word>", "<native>", "<side>", "<course>", "[key]")
"""What pydantic puts into a place that is not in the file: which of several types a value was taken for."""


def telling(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The errors without those of a key that is missing because it is misspelt."""
    misspelt = set()
    for path in (_path(error) for error in errors if error["type"] == "extra_forbidden"):
        near = difflib.get_close_matches(str(path[-1]), _keys_at(path[:-1]), n=1, cutoff=0.6)
        misspelt |= {(*path[:-1], key) for key in near}
    return [error for error in errors if not (error["type"] == "missing" and _path(error) in misspelt)]


def _path(error: ErrorDetails) -> Path:
    return tuple(part for part in error["loc"] if part not in TAGS)


def translated(error: ErrorDetails, source: Source) -> Problem:
    """pydantic's error in our words, at the place in the file."""
    path = _path(error)
    kind, where = error["type"], _words(path)
    if kind == "extra_forbidden":
        return source.problem(path, _unknown_key(path), at_key=True)
    if kind == "missing":
        return source.problem(path, f"{_words(path[:-1])}: the key {path[-1]!r} is missing")
    message = error["msg"].removeprefix("Value error, ")
    for words, ours in (("Input ", ""), ("Dictionary ", ""), ("List ", ""), ("String ", ""), (" after validation", "")):
        message = message.replace(words, ours)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        message = "should be a mapping (key: value)"
    elif kind == "list_type":
        message = "should be a list"
    elif kind == "string_pattern_mismatch":
        message = "a name has letters, digits, '.', '_' and '-' only, and starts with a letter or digit"
    if kind != "value_error" and not isinstance(error["input"], dict | list):
        message += f", not {error['input']!r}" if len(repr(error["input"])) < 60 else ""
    if kind == "literal_error":
        message += _nearest(error)
    return source.problem(path, f"{where}: {message}", at_key=error["loc"][-1:] == ("[key]",))


def _nearest(error: ErrorDetails) -> str:
    choices = [word.strip("'") for word in error.get("ctx", {}).get("expected", "").replace(" or ", ", ").split(", ")]
    if str(error["input"]) in choices:
        return "; write it without quotes"
    hint = did_you_mean(str(error["input"]), choices)
    return hint if "did you mean" in hint else ""


def _unknown_key(path: Path) -> str:
    key, place = str(path[-1]), _words(path[:-1])
    if key in UNBUILT:
        return f"{place}: the key {key!r} is not supported by this version of Triptych; remove it"
    if key == "extends":
        return f"{place}: only recipes with a name can extend others; give it one under recipes"
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
