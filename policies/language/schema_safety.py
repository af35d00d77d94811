"""The language of safety: what is checked before anything is run, and before a picture is delivered."""

from __future__ import annotations

import functools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from policies.language.spec import Name, Spec, Text, Unit, at_least_one

Phrases = Annotated[list[Text], Field(min_length=1, max_length=2_000)]
Categories = Annotated[list[Text], Field(min_length=1, max_length=50)]


class CheckSpec(Spec):
    """What all checks have."""

    name: Text | None = Field(default=None, description="for answers and metrics; default: the kind of the check")
    moderation_low: Literal["skip"] | None = Field(
        default=None, description="skip: not asked for requests with `moderation: low`; default: asked for all"
    )
    unavailable: Literal["refuse", "allow"] | None = Field(
        default=None,
        description="what becomes of a request when the check cannot be made: 503, or it goes on and says so; "
        "default: refuse",
    )

    @functools.cached_property
    def kind(self) -> str:
        """Which check this is."""
        return str(self.check)  # type: ignore[attr-defined]

    @functools.cached_property
    def label(self) -> str:
        """How it is called in answers and metrics."""
        return self.name or self.kind


class TextCheckSpec(CheckSpec):
    """A check of the prompt, before anything is run or reserved."""

    check: Literal["words", "moderation"] = Field(description="words: a list; moderation: an endpoint like OpenAI's")
    action: Literal["block", "flag"] = Field(description="block: 400; flag: the answer and the metrics say so")
    words: Phrases | None = Field(
        default=None, description="required by words; whole words or phrases, in any case and spelling of Unicode"
    )
    unless: Phrases | None = Field(default=None, description="phrases in which they do not count; default: none")
    moderator: Name | None = Field(
        default=None, description="required by moderation; a name under `safety.moderators` of the config"
    )
    above: Unit | None = Field(
        default=None, description="score of a category from which it counts; default: what the endpoint flags"
    )
    categories: Categories | None = Field(default=None, description="those that count; default: all")

    @model_validator(mode="after")
    def _keys_fit(self) -> TextCheckSpec:
        if self.check == "words":
            if self.words is None:
                raise ValueError("words needs the key 'words', a list")
            _none_of(self, ("moderator", "above", "categories", "unavailable"), "check: moderation")
        else:
            if self.moderator is None:
                raise ValueError("moderation needs the key 'moderator', a name under safety.moderators of the config")
            _none_of(self, ("words", "unless"), "check: words")
        return self


class ImageCheckSpec(CheckSpec):
    """A check of every picture, before it is delivered or streamed; previews are withheld then."""

    check: Literal["nsfw", "moderation"] = Field(
        description="nsfw: open_nsfw on this machine; moderation: an endpoint like OpenAI's"
    )
    action: Literal["block", "blur", "flag"] = Field(
        description="block: the picture is missing, and 400 if all are; blur: nobody can tell what it was; flag"
    )
    moderator: Name | None = Field(
        default=None, description="required by moderation; a name under `safety.moderators` of the config"
    )
    above: Unit | None = Field(
        default=None, description="score from which it counts; default: 0.8 for nsfw, else what the endpoint flags"
    )
    categories: Categories | None = Field(default=None, description="those that count; default: all")

    @model_validator(mode="after")
    def _keys_fit(self) -> ImageCheckSpec:
        if self.check == "moderation" and self.moderator is None:
            raise ValueError("moderation needs the key 'moderator', a name under safety.moderators of the config")
        if self.check == "nsfw":
            _none_of(self, ("moderator", "categories"), "check: moderation")
        return self


class SafetySpec(Spec):
    """What is checked of prompts and pictures, in the order of the lists; the first that blocks ends it."""

    text: Annotated[list[TextCheckSpec], Field(min_length=1, max_length=20)] | None = Field(
        default=None, description="of the prompt; default: nothing"
    )
    image: Annotated[list[ImageCheckSpec], Field(min_length=1, max_length=20)] | None = Field(
        default=None, description="of each picture; default: nothing"
    )

    @model_validator(mode="after")
    def _something(self) -> SafetySpec:
        at_least_one(self, ("text", "image"), "safety")
        return self


def _none_of(spec: Spec, keys: tuple[str, ...], owner: str) -> None:
    """Raise `ValueError` for a key that belongs to another check."""
    if given := [key for key in spec.given() if key in keys]:
        raise ValueError(f"{given[0]} is for {owner}")
