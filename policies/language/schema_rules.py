"""The language of rules: conditions on a request, and what a rule does when its condition holds."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from policies.language.patterns import check_pattern
from policies.language.prompt_language import LANGUAGES
from policies.language.schema_choice import ExploreSpec, Limits, Objective
from policies.language.spec import Name, Side, Spec, Text, Unit, at_least_one, exactly_one

CONDITIONS = (
    "all", "any", "not", "tag", "tenant", "min_side", "max_side", "during", "signal", "language", "prompt_matches",
    "familiarity_below", "uncertainty_above", "quality_below",
)  # fmt: skip
OF_THE_CHOICE = ("uncertainty_above", "quality_below")
"""Conditions on the chosen recipe's estimate: there is none yet when rules are applied, so only `verify` has them."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[str, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"^([01]\d|2[0-3]):[0-5]\d$")


class During(Spec):
    """A time of day, on all or some days. `to` before `from` goes over midnight and belongs to the day it began."""

    from_: str = Field(default="00:00", alias="from", description="HH:MM, included")
    to: str = Field(default="00:00", description="HH:MM, excluded; 00:00 is the end of the day")
    days: Annotated[list[Day], Field(min_length=1)] | None = Field(default=None, description="default: every day")
    zone: str = Field(default="UTC", description="IANA time zone, such as Europe/Berlin")

    @field_validator("from_", "to")
    @classmethod
    def _clock(cls, text: str) -> str:
        if not _CLOCK.match(text):
            raise ValueError(f"should be a time such as '08:30', not {text!r}")
        return text

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"no time zone is called {zone!r}; use a name such as 'Europe/Berlin'") from None
        return zone

    @model_validator(mode="after")
    def _says_something(self) -> During:
        if self.from_ == self.to and self.from_ != "00:00":
            raise ValueError(f"nothing lies between {self.from_} and {self.to}")
        if self.from_ == self.to and self.days is None:
            raise ValueError("during needs from and to, or days")
        return self


class Condition(Spec):
    """A fact about the request or its prompt. One kind each; join several with `all` or `any`."""

    all_: Annotated[list[Condition], Field(min_length=1)] | None = Field(
        default=None, alias="all", description="each of these holds"
    )
    any_: Annotated[list[Condition], Field(min_length=1)] | None = Field(
        default=None, alias="any", description="at least one of these holds"
    )
    not_: Condition | None = Field(default=None, alias="not", description="this does not hold")
    tag: Text | None = Field(default=None, description="the request has this tag")
    tenant: Text | None = Field(
        default=None, description="the request comes from this tenant (of its key; without keys, its field user)"
    )
    min_side: Side | None = Field(default=None, description="pixels; the longer side asked for is at least this")
    max_side: Side | None = Field(default=None, description="pixels; the longer side asked for is at most this")
    during: During | None = Field(default=None, description="the time of day")
    signal: Text | None = Field(
        default=None, description="a skill that the prompt asks for, such as counting or complexity; with above, below"
    )
    above: Unit | None = Field(default=None, description="bound of signal, excluded")
    below: Unit | None = Field(default=None, description="bound of signal, excluded")
    language: Text | None = Field(default=None, description="of the prompt, such as en, de, zh; und: not recognised")
    prompt_matches: Text | None = Field(default=None, description="regular expression (RE2), any case")
    familiarity_below: Unit | None = Field(default=None, description="nearness to what the predictor was trained on")
    uncertainty_above: Unit | None = Field(
        default=None, description="only in verify: standard deviation of the chosen recipe's expected quality"
    )
    quality_below: Unit | None = Field(default=None, description="only in verify: the chosen recipe's expected quality")

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, data: Any) -> Any:
        """`in_domain_below` was the name of `familiarity_below` until 0.2."""
        if isinstance(data, dict) and "in_domain_below" in data and "familiarity_below" not in data:
            return {("familiarity_below" if k == "in_domain_below" else k): value for k, value in data.items()}
        return data

    def asks(self, kind: str) -> bool:
        """Whether this or a condition within it is of that kind."""
        inner = [*(self.all_ or ()), *(self.any_ or ()), *([self.not_] if self.not_ is not None else [])]
        return self.kind == kind or any(child.asks(kind) for child in inner)

    @functools.cached_property
    def kind(self) -> str:
        """Which of `CONDITIONS` this is."""
        return next(key for key in self.given() if key in CONDITIONS)

    @field_validator("prompt_matches")
    @classmethod
    def _harmless(cls, pattern: str | None) -> str | None:
        return pattern if pattern is None else check_pattern(pattern)

    @field_validator("language")
    @classmethod
    def _known_language(cls, language: str | None) -> str | None:
        if language is not None and language not in LANGUAGES:
            raise ValueError(f"no prompt is ever recognised as {language!r}; known: {', '.join(LANGUAGES)}")
        return language

    @model_validator(mode="after")
    def _one_kind(self) -> Condition:
        exactly_one(self, CONDITIONS, "a condition")
        if (self.signal is None) != (self.above is None and self.below is None):
            raise ValueError("a signal needs above or below, and those belong to a signal")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError(f"no signal is above {self.above:g} and below {self.below:g}; swap them")
        return self


class Settings(Spec):
    """What a rule sets for the request, in place of what the policy says."""

    limits: Limits | None = Field(default=None, description="each key given here replaces the policy's")
    objective: Objective | None = Field(default=None, description="replaces the policy's")
    explore: ExploreSpec | None = Field(default=None, description="replaces the policy's; rate: 0 switches it off")

    @functools.cached_property
    def given_limits(self) -> dict[str, float]:
        """The limits that are set, by key."""
        return self.limits.model_dump(exclude_none=True) if self.limits else {}

    @model_validator(mode="after")
    def _something(self) -> Settings:
        at_least_one(self, ("limits", "objective", "explore"), "set")
        return self


ACTIONS = ("only", "never", "prefer", "set")
Names = Annotated[list[Name], Field(min_length=1)]


class Rule(Spec):
    """What to do when a condition holds. Rules apply by falling priority, equal ones in the order of the file."""

    name: Text = Field(description="for reasons and reports")
    when: Condition
    priority: Annotated[int, Field(ge=-1000, le=1000)] = Field(default=0, description="higher applies first")
    only: Names | None = Field(default=None, description="no other recipe may be chosen")
    never: Names | None = Field(default=None, description="none of these may be chosen")
    prefer: Names | None = Field(default=None, description="these come before all others that may be chosen")
    set_: Settings | None = Field(default=None, alias="set", description="other terms for this request")

    @model_validator(mode="after")
    def _acts(self) -> Rule:
        at_least_one(self, ACTIONS, "a rule")
        if left := sorted(set(self.only or ()) & set(self.never or ())):
            raise ValueError(f"the rule allows only {left[0]!r} and never {left[0]!r}")
        return self
