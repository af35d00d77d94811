"""The language as tables, made from the schema: every key with its type, its default and what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from policies.language.schema import json_schema
from router.errors import RequestError

BEGIN, END = "<!-- reference: begin -->", "<!-- reference: end -->"

ORDER = (
    "", "Defaults", "RecipeSpec", "GenerateSpec", "EditSpec", "GivenSpec", "MapSpec", "RefineSpec", "UpscaleSpec",
    "FuseSpec", "Course", "BestOfSpec",
    "Limits", "LicenceSpec", "Objective", "Weight", "Bounds", "Criterion", "Rule", "Condition", "During", "Settings",
    "VerifySpec", "OverloadSpec", "ExploreSpec", "BudgetSpec", "SafetySpec", "TextCheckSpec", "ImageCheckSpec",
    "SplitSpec",
)  # fmt: skip
TITLES = {
    "": "The file", "Defaults": "defaults", "RecipeSpec": "A recipe", "GenerateSpec": "generate",
    "EditSpec": "edit", "GivenSpec": "given", "MapSpec": "map",
    "RefineSpec": "refine", "UpscaleSpec": "upscale", "FuseSpec": "fuse",
    "Course": "fuse: weights", "BestOfSpec": "best_of", "Limits": "limits", "LicenceSpec": "licence",
    "Objective": "objective", "Weight": "objective: weight", "Bounds": "objective: best_under",
    "Criterion": "objective: lexicographic", "Rule": "A rule", "Condition": "A condition",
    "During": "A condition: during", "Settings": "A rule: set", "VerifySpec": "verify", "OverloadSpec": "overload",
    "ExploreSpec": "explore", "BudgetSpec": "A budget", "SafetySpec": "safety",
    "TextCheckSpec": "safety: text", "ImageCheckSpec": "safety: image", "SplitSpec": "shadow, canary",
}  # fmt: skip


def reference() -> str:
    """Markdown: one table for each mapping of the language."""
    schema = json_schema()
    parts: dict[str, Any] = {"": schema, **schema["$defs"]}
    missing = sorted(name for name, part in parts.items() if "properties" in part and name not in ORDER)
    if missing:
        raise ValueError(f"no title for {', '.join(missing)}; add it to ORDER and TITLES")
    return "\n".join(line for name in ORDER for line in _table(name, parts[name]))


def put_into(document: str) -> str:
    """The document with the tables between its two markers."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RequestError(f"the document needs the lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{reference()}\n{end}{after}"


def _table(name: str, part: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {TITLES[name]}"
    yield ""
    yield " ".join(str(part.get("description", "")).split())
    yield ""
    if not part["properties"]:
        return
    yield "| key | type | default | |"
    yield "| --- | --- | --- | --- |"
    required = part.get("required", ())
    for key, value in part["properties"].items():
        meaning, _, default = (value.get("description") or _inner(value, "description")).partition("default: ")
        default = "required" if key in required else default or _default(value)
        yield f"| `{key}` | {_type(value)} | {default} | {meaning.removesuffix('; ')} |"
    yield ""


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    return "" if default in (None, "", []) or isinstance(default, dict) else f"`{default}`"


def _inner(value: Mapping[str, Any], key: str) -> str:
    return next((str(option[key]) for option in value.get("anyOf", ()) if key in option), "")


def _type(value: Mapping[str, Any]) -> str:
    """As a person says it: `number > 0`, `list of names`, `one of a, b`."""
    alternatives = value.get("anyOf") or value.get("oneOf")
    if alternatives:
        return " or ".join(dict.fromkeys(_type(option) for option in alternatives if option.get("type") != "null"))
    return _one(value)


def _one(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        return "name" if name == "Name" else f"[{TITLES[name]}](#{_anchor(TITLES[name])})"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    kind = value.get("type")
    if kind == "array":
        return f"list of {_type(value['items'])}"
    if kind == "object":
        values = [value.get("additionalProperties"), *value.get("patternProperties", {}).values()]
        return f"name: {_type(next(inner for inner in values if inner))}"
    if kind in ("number", "integer"):
        return "whole number" * (kind == "integer") + "number" * (kind == "number") + _range(value)
    return "name" if "pattern" in value else "text"


def _range(value: Mapping[str, Any]) -> str:
    signs = (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
    bounds = [f"{sign} {value[key]:.10g}" for key, sign in signs if key in value]
    return f" {', '.join(bounds)}" if bounds else ""


def _anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return "".join(ch for ch in title.lower().replace(" ", "-") if ch.isalnum() or ch in "-_")
