"""`source: {remote: ...}` of a model card: which server draws, what it can be told, what it asks for that."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from router.errors import did_you_mean
from router.types import Remote, Scalar

TOLD = ("seed", "negative_prompt", "steps", "guidance_scale")
"""Settings of a step that a server may have a word for, beside prompt and size. OpenAI has none of them."""

OURS = ("model", "prompt", "n", "size", "stream", "partial_images")
"""Fields of the body that are ours to say, not the card's `settings`."""


class RemoteSource(BaseModel):
    """One server and its model, as written. Every key is described in models/cards/README.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(min_length=1, max_length=2048)
    model: str = Field(min_length=1, max_length=256)
    key_env: str | None = None
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    takes: dict[str, str] = Field(default_factory=dict)
    stream: bool = False
    previews: int = Field(0, ge=0, le=3)
    price_usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    price_per: Literal["picture", "megapixel"] = "picture"

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        """http or https, a host, a path. What would be sent in the clear to anybody, such as a key, is not in there."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"it is no address ({error}); write https://host/v1") from None
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("it holds more than host and path; name a variable with the key under 'key_env'")
        if parts.scheme not in ("http", "https") or not host or any(char.isspace() for char in url):
            raise ValueError("it is no address of a server; write https://host/v1, or http://host:port/v1")
        return url.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _a_variable(cls, name: str | None) -> str | None:
        # What is written there instead may be the key itself, so it is not repeated.
        if name is not None and not (name.isidentifier() and name.isascii() and len(name) <= 64):
            raise ValueError("it is no name of an environment variable; the key itself belongs into that, not here")
        return name

    @field_validator("takes", mode="before")
    @classmethod
    def _a_list_or_a_table(cls, takes: Any) -> Any:
        table = {name: name for name in takes} if isinstance(takes, list) else takes
        for name, theirs in table.items() if isinstance(table, dict) else ():
            if name not in TOLD:
                raise ValueError(f"there is no setting {name!r}{did_you_mean(str(name), TOLD)}")
            if theirs in OURS:
                raise ValueError(f"{name!r} cannot be sent as {theirs!r}, which says something else")
        return table

    @model_validator(mode="after")
    def _consistent(self) -> RemoteSource:
        if self.previews and not self.stream:
            raise ValueError("'previews' come by events; add 'stream: true', if the server has them")
        if self.key_env is not None and self.url.startswith("http://") and not near(self.url):
            raise ValueError("a key would be sent in the clear; use https, or leave 'key_env' out")
        return self

    def endpoint(self) -> Remote:
        """The value that the rest of the system uses."""
        return Remote(**{**self.model_dump(exclude={"key_env"}), "key_env": self.key_env or ""})


def near(url: str) -> bool:
    """Whether an address is of this machine or of a private network, by what it says: names of one label are, too."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))
    return address.is_private or address.is_loopback or address.is_link_local


def own_fields(settings: dict[str, Scalar], takes: dict[str, str]) -> str:
    """The first of a card's `settings` that is not for a card to say, "" if there is none."""
    said = {*OURS, *TOLD, *takes.values()}
    return next((key for key in settings if key in said), "")
