"""The language of a policy file as a whole: which keys there are, of which type, in which range, with which default.

Recipes are in schema_recipes.py, conditions and rules in schema_rules.py, limits and objectives in schema_choice.py.
What needs more than one place of the file to check (names, cycles, hand-overs) is checked by load.py and what it calls.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from policies.language.schema_choice import ExploreSpec, LicenceSpec, Limits, Objective
from policies.language.schema_recipes import Price, RecipeSpec
from policies.language.schema_rules import Condition, Names, Rule
from policies.language.schema_safety import SafetySpec
from policies.language.spec import ModelId, Name, Positive, Spec, Text, Unit, Window, at_least_one

RESERVED = ("auto",)


class VerifySpec(Spec):
    """Look at each picture after it was made; while it is not good enough, try again or another recipe, keep the best.

    By `ladder`, the recipes are tried in turn until a score reaches `accept_above`. By `expected_gain`, whatever
    is expected to gain more than its seconds and dollars are worth is tried, and without such the look is left out.
    """

    when: Condition | None = Field(default=None, description="default: always")
    scorer: ModelId = Field(description="catalogue id of a scorer")
    by: Literal["ladder", "expected_gain"] = Field(default="ladder", description="what decides about the next try")
    accept_above: Unit | None = Field(
        default=None, description="score from which a picture is good enough; required by: ladder"
    )
    escalate_to: Names | None = Field(
        default=None, description="recipes to try, as far as limits and deadline allow; default: only score"
    )
    retry: Annotated[int, Field(ge=1, le=8)] | None = Field(
        default=None, description="how often each recipe may be tried again with another seed; default: not at all"
    )
    most: Annotated[int, Field(ge=2, le=16)] | None = Field(
        default=None, description="pictures at most, the first included; default: all that retry and escalate_to allow"
    )
    quality_per_s: Price | None = Field(
        default=None, description="what a second is worth, by expected_gain; default: the weight in objective"
    )
    quality_per_usd: Price | None = Field(
        default=None, description="what a dollar is worth, by expected_gain; default: the weight in objective"
    )
    quality_per_try: Price | None = Field(
        default=None,
        description="what one more picture of the chosen recipe is worth, by expected_gain, in place of the two above; "
        "default: as they say",
    )
    or_: Literal["refuse"] | None = Field(
        default=None,
        alias="or",
        description="refuse: answer 422 if pictures were checked and none is likely right; default: a warning",
    )

    @model_validator(mode="after")
    def _keys_fit(self) -> VerifySpec:
        if self.by == "ladder" and self.accept_above is None:
            raise ValueError("by ladder, the key 'accept_above' is needed; or write by: expected_gain")
        measured = self.quality_per_s is not None or self.quality_per_usd is not None
        if self.by == "ladder" and measured:
            raise ValueError("quality_per_s and quality_per_usd are for by: expected_gain; a ladder asks for no price")
        if self.by == "ladder" and self.quality_per_try is not None:
            raise ValueError("quality_per_try is for by: expected_gain; a ladder asks for no price")
        if measured and self.quality_per_try is not None:
            raise ValueError(
                "quality_per_try stands in place of quality_per_s and quality_per_usd; give one or the other"
            )
        if self.most is not None and not self.retry and not self.escalate_to:
            raise ValueError("most bounds what retry and escalate_to allow; give one of them")
        if self.by == "expected_gain" and not self.retry and not self.escalate_to:
            raise ValueError("by expected_gain, a look is only worth what may follow it; give retry or escalate_to")
        return self


class OverloadSpec(Spec):
    """What to do when the chosen recipe would have to wait for other requests."""

    degrade_after_s: Positive | None = Field(default=None, description="seconds of waiting from which to degrade")
    degrade_to: Names | None = Field(default=None, description="lesser recipes, the mildest first")
    reject_after_s: Positive | None = Field(
        default=None, description="seconds of waiting from which the request is refused (429)"
    )

    @model_validator(mode="after")
    def _whole(self) -> OverloadSpec:
        at_least_one(self, ("degrade_to", "reject_after_s"), "overload")
        if (self.degrade_to is None) != (self.degrade_after_s is None):
            raise ValueError("degrade_to and degrade_after_s belong together; give both")
        if self.degrade_after_s and self.reject_after_s and self.reject_after_s < self.degrade_after_s:
            raise ValueError(
                f"reject_after_s {self.reject_after_s:g} comes before degrade_after_s {self.degrade_after_s:g}, "
                "so nothing would ever degrade"
            )
        return self


class BudgetSpec(Spec):
    """What each tenant may use in a sliding window. What would go beyond is refused until enough is given back."""

    name: Text = Field(description="for reasons and reports")
    tenants: Annotated[list[Text], Field(min_length=1)] | None = Field(
        default=None, description="whom it binds, each on its own; default: every tenant"
    )
    window_s: Window = Field(description="seconds")
    cost_usd: Positive | None = Field(default=None, description="US dollars in the window")
    work_s: Positive | None = Field(default=None, description="seconds of work in the window")

    @model_validator(mode="after")
    def _bounds(self) -> BudgetSpec:
        at_least_one(self, ("cost_usd", "work_s"), "a budget")
        return self


class SplitSpec(Spec):
    """Another policy for a share of the requests. The same tenant, or else the same prompt, is always on one side."""

    policy: Name = Field(description="name of the other policy")
    share: Annotated[float, Field(gt=0, le=1)] = Field(description="of the requests")


class PolicySpec(Spec):
    """A policy file. `name` is what clients write as their model."""

    version: Literal[1] = Field(description="of the language")
    name: Name = Field(description="the file is called `<name>.yaml`")
    description: Annotated[str, Field(max_length=2000)] = Field(default="", description="for people")
    recipes: Annotated[dict[Name, RecipeSpec], Field(min_length=1, max_length=200)] = Field(
        description="name: recipe; what may be chosen"
    )
    limits: Limits = Field(default=Limits(), description="default: none")
    licence: LicenceSpec | None = Field(default=None, description="default: all models may draw")
    objective: Objective
    rules: Annotated[list[Rule], Field(max_length=200)] = Field(default=[], description="default: none")
    verify: VerifySpec | None = Field(default=None, description="default: pictures are not checked")
    overload: OverloadSpec | None = Field(default=None, description="default: requests wait")
    reroute: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="whether a request that waits is decided anew when the queues have changed, as long as none of its "
        "steps has begun; default: false",
    )
    explore: ExploreSpec | None = Field(default=None, description="default: nothing is left to chance")
    budgets: Annotated[list[BudgetSpec], Field(max_length=50)] = Field(default=[], description="default: none")
    ignore_negative_prompt: Literal["refuse", "allow"] | None = Field(
        default=None,
        description="what becomes of a recipe with a model that would ignore a request's negative prompt: it is ruled "
        "out, or it may be taken and the notes say so; default: refuse",
    )
    provenance: Literal["full", "mark", "none"] | None = Field(
        default=None,
        description="what the pictures' files say: full: how they were made, so that they can be made again; mark: "
        "only that a model made them; none: nothing, and the answer says so; default: full",
    )
    safety: SafetySpec | None = Field(default=None, description="default: neither prompts nor pictures are checked")
    shadow: SplitSpec | None = Field(
        default=None, description="this policy decides too, nothing is run, and the difference is reported"
    )
    canary: SplitSpec | None = Field(default=None, description="this policy answers instead")

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
    """JSON Schema (draft 2020-12) of a policy file, for editors and other tools.

    It is that of the models above, plus what is resolved before they see a file: `defaults`, and `extends` in recipes.
    Keys that may come from there are not required here.
    """
    schema = PolicySpec.model_json_schema(by_alias=True)
    parts = schema["$defs"]
    parts["RecipeSpec"]["properties"] = {
        "extends": {"$ref": "#/$defs/Name", "description": "a recipe of the same kind whose keys hold here, too"},
        **parts["RecipeSpec"]["properties"],
    }
    parts["Name"] = {"type": "string", "minLength": 1, "maxLength": 64}
    defaults = {}
    for kind, part in (("generate", "GenerateSpec"), ("edit", "EditSpec"), ("refine", "RefineSpec"),
                       ("upscale", "UpscaleSpec"), ("fuse", "FuseSpec"), ("best_of", "BestOfSpec")):  # fmt: skip
        for key in parts[part].pop("required", ()):
            value = parts[part]["properties"][key]
            value["description"] = f"{value['description']}; required, here or by inheritance"
        defaults[kind] = {"$ref": f"#/$defs/{part}", "description": f"for every {kind} that does not say otherwise"}
    parts["Defaults"] = {
        "type": "object",
        "description": "Settings for all recipes of the file.",
        "additionalProperties": False,
        "properties": defaults,
    }
    schema["properties"]["defaults"] = {"$ref": "#/$defs/Defaults", "description": "default: none"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Triptych policy"}
