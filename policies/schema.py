"""The language of a policy file, as pydantic models: which keys there are, of which type and in which range.

What needs more than one place of the file to judge (names, cycles, hand-overs) is checked in recipes.py and load.py.
Keys that later versions will know are unknown here: a policy is never accepted for something that would not happen.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from policies.patterns import check_pattern

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
RESERVED = ("auto",)

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=NAME)]
ModelId = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Side = Annotated[int, Field(ge=16, le=16384, description="pixels")]
Share = Annotated[float, Field(gt=0, lt=1, description="share of the denoising, between 0 and 1")]
Unit = Annotated[float, Field(ge=0, le=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def given(self) -> list[str]:
        """The keys that the file has here, as it spells them."""
        fields = type(self).model_fields
        return [fields[name].alias or name for name in fields if getattr(self, name) is not None]


def _exactly_one(spec: _Spec, keys: tuple[str, ...], what: str) -> None:
    given = [key for key in spec.given() if key in keys]
    if len(given) != 1:
        have = f"not {' and '.join(given)} together" if given else "none is given"
        raise ValueError(f"{what} has exactly one of {', '.join(keys)}; {have}")


# ---------------------------------------------------------------------------------------------------------- recipes


class GenerateSpec(_Spec):
    """Noise to picture on one model; with `until`, only that share of the denoising."""

    model: ModelId
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    scheduler: Text | None = None
    until: Share | None = None
    width: Side | None = None
    height: Side | None = None


class RefineSpec(_Spec):
    """Continue a picture: `from` takes over latents at that share, `strength` re-noises a finished picture."""

    model: ModelId
    from_: Share | None = Field(default=None, alias="from")
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    scheduler: Text | None = None

    @model_validator(mode="after")
    def _one_way_to_continue(self) -> RefineSpec:
        _exactly_one(self, ("from", "strength"), "refine")
        return self


class UpscaleSpec(_Spec):
    """Enlarge a picture by a factor."""

    factor: Annotated[float, Field(gt=1, le=8)] = 2.0


def _part_kind(value: Any) -> str:
    return "<name>" if isinstance(value, str) else "<recipe>"


Part = Annotated[
    Annotated[Name, Tag("<name>")] | Annotated["RecipeSpec", Tag("<recipe>")],
    Discriminator(_part_kind),
]
"""The name of another recipe of this policy, or a recipe written in place."""


class FuseSpec(_Spec):
    """Recipes side by side, made into one picture."""

    method: Literal["best_of", "average", "pyramid", "frequency"] = Field(alias="with")
    of: Annotated[list[Part], Field(min_length=2, max_length=16)] | None = None
    scorer: ModelId | None = None
    low: Part | None = None
    high: Part | None = None

    @model_validator(mode="after")
    def _keys_fit_the_method(self) -> FuseSpec:
        needed = {"best_of": {"of", "scorer"}, "frequency": {"low", "high"}}.get(self.method, {"of"})
        given = set(self.given()) - {"with"}
        if missing := sorted(needed - given):
            raise ValueError(f"fuse with {self.method} needs {' and '.join(missing)}")
        if surplus := sorted(given - needed):
            raise ValueError(f"fuse with {self.method} takes {' and '.join(sorted(needed))}, not {', '.join(surplus)}")
        return self


class RecipeSpec(_Spec):
    """One way to make a picture: exactly one of the five keys."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    generate: GenerateSpec | None = None
    refine: RefineSpec | None = None
    upscale: UpscaleSpec | None = None
    chain: Annotated[list[Part], Field(min_length=1, max_length=16)] | None = None
    fuse: FuseSpec | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> RecipeSpec:
        _exactly_one(self, ("generate", "refine", "upscale", "chain", "fuse"), "a recipe")
        return self


# ----------------------------------------------------------------------------------------------- limits, objective


class Limits(_Spec):
    """What no chosen recipe may exceed. Seconds and dollars are expected values for the whole request."""

    latency_s: Annotated[float, Field(gt=0)] | None = None
    cost_usd: Annotated[float, Field(gt=0)] | None = None
    max_pixels: Annotated[int, Field(gt=0)] | None = None


class Weight(_Spec):
    """How much expected quality (0..1) one dollar and one second are worth."""

    cost_usd: Annotated[float, Field(ge=0)] = 0.0
    latency_s: Annotated[float, Field(ge=0)] = 0.0


class Objective(_Spec):
    """What the best recipe is, among those within the limits: exactly one of the four."""

    maximise: Literal["quality"] | None = None
    weight: Weight | None = None
    cheapest_within: Unit | None = Field(default=None, description="of the best expected quality")
    fastest_above: Unit | None = Field(default=None, description="this expected quality")
    minimise: Literal["cost_usd", "latency_s"] | None = None

    @model_validator(mode="after")
    def _one_aim(self) -> Objective:
        _exactly_one(self, ("maximise", "cheapest_within", "fastest_above", "minimise"), "objective")
        if self.weight is not None and self.maximise is None:
            raise ValueError("weight belongs to 'maximise: quality'")
        return self


# ------------------------------------------------------------------------------------------------------------ rules

CONDITIONS = ("all", "any", "not", "tag", "min_side", "max_side", "signal", "prompt_matches", "in_domain_below")


class Condition(_Spec):
    """A fact about the request or its prompt. One kind each; join several with `all` or `any`."""

    all_: Annotated[list[Condition], Field(min_length=1)] | None = Field(default=None, alias="all")
    any_: Annotated[list[Condition], Field(min_length=1)] | None = Field(default=None, alias="any")
    not_: Condition | None = Field(default=None, alias="not")
    tag: Text | None = None
    min_side: Side | None = Field(default=None, description="the longer side asked for is at least this")
    max_side: Side | None = Field(default=None, description="the longer side asked for is at most this")
    signal: Text | None = Field(default=None, description="a skill that the prompt asks for; with above or below")
    above: Unit | None = None
    below: Unit | None = None
    prompt_matches: Text | None = Field(default=None, description="regular expression, upper and lower case alike")
    in_domain_below: Unit | None = Field(default=None, description="nearness to what the predictor knows")

    @field_validator("prompt_matches")
    @classmethod
    def _harmless(cls, pattern: str | None) -> str | None:
        return pattern if pattern is None else check_pattern(pattern)

    @model_validator(mode="after")
    def _one_kind(self) -> Condition:
        _exactly_one(self, CONDITIONS, "a condition")
        if (self.signal is None) != (self.above is None and self.below is None):
            raise ValueError("a signal needs above or below, and those belong to a signal")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError(f"no signal is above {self.above:g} and below {self.below:g}; swap them")
        return self


class Rule(_Spec):
    """When the condition holds, only these recipes may be chosen, or never those."""

    name: Text
    when: Condition
    only: Annotated[list[Name], Field(min_length=1)] | None = None
    never: Annotated[list[Name], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_action(self) -> Rule:
        _exactly_one(self, ("only", "never"), "a rule")
        return self


# ------------------------------------------------------------------------------------------------------- the whole


class PolicySpec(_Spec):
    """A policy file. `name` is what clients write as their model."""

    version: Literal[1]
    name: Name
    description: Annotated[str, Field(max_length=2000)] = ""
    recipes: Annotated[dict[Name, RecipeSpec], Field(min_length=1, max_length=200)]
    limits: Limits = Limits()
    objective: Objective
    rules: Annotated[list[Rule], Field(max_length=200)] = []

    @field_validator("version", mode="before")
    @classmethod
    def _no_truth_value(cls, version: Any) -> Any:
        if version is True:  # equal to 1 in Python, but not in YAML
            raise ValueError("should be 1, not True")
        return version

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED:
            raise ValueError(f"{name!r} is reserved; choose another name")
        return name


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a policy file, for editors and other tools."""
    schema = PolicySpec.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Triptych policy"}
