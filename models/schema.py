"""The YAML of a model card: its keys, types and units, and errors that name file, line and the nearest key.

Every key is described in models/cards/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.components import Component
from models.families import FAMILIES, PLANNED, REMOTE, ROLES, card_facts
from models.onnx.graphs import FAMILIES as EXPORTED
from models.remote.source import RemoteSource, own_fields
from router.errors import CatalogueError, did_you_mean
from router.types import ModelCard, Scalar

Side = Annotated[int, Field(ge=8, le=16384)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

UNKNOWN_TOKENS = 1_000_000
TOLD_BY_CARD = {
    "steps": ("steps", "min_steps", "max_steps"),
    "guidance_scale": ("guidance", "guidance_scale", "max_guidance_scale"),
}
"""Keys of a card that mean nothing to a server that is not told the setting."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """Where the weights are: exactly one of `hub`, `local`, `file` and `onnx`; or `remote`, who draws with them."""

    hub: str | None = None
    local: str | None = None
    file: str | None = None
    onnx: str | None = None
    remote: RemoteSource | None = None
    config: str | None = None
    revision: str | None = None
    variant: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if sum(place is not None for place in (self.hub, self.local, self.file, self.onnx, self.remote)) != 1:
            raise ValueError(
                "give exactly one of 'hub' (owner/name), 'local' (a folder), 'file' (.safetensors), 'onnx' (a folder), "
                "'remote' (a server)"
            )
        if self.file is not None and not self.file.endswith(".safetensors"):
            raise ValueError(f"'file: {self.file}': only .safetensors is read; other formats may run code when opened")
        if self.config is not None and self.file is None:
            raise ValueError("'config' belongs to 'file'; a hub model or a folder brings its own configuration")
        return self


class ControlSource(_Strict):
    """Where the weights of a ControlNet are, as diffusers writes them: a folder, or a repository of the hub."""

    path: str | None = None
    hub: str | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> ControlSource:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give exactly one of 'path' (a folder) and 'hub' (owner/name)")
        return self


ControlKind = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


class CardFile(_Strict):
    """One card as written. Defaults are those of `router.types.ModelCard`."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    family: str
    role: Literal["base", "refiner", "editor", "scorer"]
    source: Source
    components: dict[str, Component] = Field(default_factory=dict)
    backbone: Literal["unet", "dit", "encoder"] = "unet"
    latent_space: str = ""
    latent_channels: int = Field(4, ge=1, le=128)
    vae_scale: int = Field(8, ge=1, le=64)
    native_size: tuple[Side, Side] = (512, 512)
    native_sizes: tuple[tuple[Side, Side], ...] = ()
    area_tolerance: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(ge=1)]] = (0.8, 1.25)
    aspect_tolerance: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.25
    size_multiple: int = Field(8, ge=1, le=256)
    min_side: Side = 64
    max_pixels: int = Field(1024 * 1024, ge=64)
    steps: int = Field(25, ge=1, le=1000)
    min_steps: int = Field(1, ge=1, le=1000)
    max_steps: int = Field(150, ge=1, le=1000)
    guidance_scale: NotNegative = 7.5
    max_guidance_scale: NotNegative = 30.0
    guidance: Literal["real", "input"] = "real"
    tile_guidance_scale: NotNegative | None = None
    scheduler: str = "default"
    max_prompt_tokens: int = Field(77, ge=1)
    prompt_chunks: int = Field(1, ge=1, le=8)
    prompt_weights: bool = False
    vocabulary: str = ""
    settings: dict[str, Scalar] = Field(default_factory=dict)
    controlnets: dict[ControlKind, ControlSource] = Field(default_factory=dict)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    memory_gb: Positive = 1.0
    licence: str = "unknown"
    commercial_use: bool = True
    gated: bool = False
    seconds_per_step: Positive = 0.1
    overhead_s: NotNegative = 0.0
    usd_per_hour: NotNegative = 1.0
    description: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> CardFile:
        if self.family not in ROLES:
            raise ValueError(f"unknown family {self.family!r}{did_you_mean(self.family, ROLES)}")
        if self.role not in ROLES[self.family]:
            raise ValueError(
                f"family {self.family!r} has no role {self.role!r}{did_you_mean(self.role, ROLES[self.family])}"
            )
        if (self.source.remote is not None) != (self.family == REMOTE):
            raise ValueError(f"'source: remote' and 'family: {REMOTE}' go together; this has one of them")
        if self.controlnets and (self.family not in FAMILIES or FAMILIES[self.family].control is None):
            able = ", ".join(name for name, row in FAMILIES.items() if row.control is not None)
            raise ValueError(f"'controlnets' are there for the families {able}, not for {self.family!r}")
        if self.source.remote is not None:
            self._remote(self.source.remote)
        if self.components and self.family not in FAMILIES:
            raise ValueError("'components' are parts of models that draw here; leave them out")
        if (self.prompt_chunks > 1 or self.prompt_weights) and not getattr(FAMILIES.get(self.family), "chunks", False):
            able = ", ".join(name for name, row in FAMILIES.items() if row.chunks)
            raise ValueError(f"'prompt_chunks' and 'prompt_weights' are for families that only CLIP reads for ({able})")
        if self.role == "scorer":
            if self.source.hub is None and self.source.local is None:
                raise ValueError("a scorer is loaded from 'hub' or from a 'local' folder, not from a 'file' or 'onnx'")
            return self
        if self.source.onnx is not None:
            self._exported()
        if self.source.file is not None and not FAMILIES[self.family].single_file:
            raise ValueError(
                f"family {self.family!r} is not loaded from a single 'file'; use 'hub' or a 'local' folder"
            )
        if not self.latent_space and self.family != REMOTE:
            raise ValueError("'latent_space' is missing: name the space whose latents this model takes and gives")
        if any(side % self.size_multiple for side in self.native_size):
            raise ValueError(
                f"'native_size' {list(self.native_size)} is no multiple of 'size_multiple' {self.size_multiple}"
            )
        if self.native_size[0] * self.native_size[1] > self.max_pixels:
            raise ValueError(f"'native_size' {list(self.native_size)} has more than 'max_pixels' {self.max_pixels}")
        if self.native_sizes and self.native_size not in self.native_sizes:
            raise ValueError(
                f"'native_sizes' lack 'native_size' {list(self.native_size)}, used when none is asked for; add it"
            )
        for size in self.native_sizes:
            if any(side % self.size_multiple for side in size) or size[0] * size[1] > self.max_pixels:
                raise ValueError(
                    f"'native_sizes' has {list(size)}, which is no multiple of 'size_multiple' {self.size_multiple} "
                    f"or more than 'max_pixels' {self.max_pixels}"
                )
        if self.tile_guidance_scale is not None and self.tile_guidance_scale > self.max_guidance_scale:
            raise ValueError(
                f"'tile_guidance_scale' {self.tile_guidance_scale:g} is above 'max_guidance_scale' "
                f"{self.max_guidance_scale:g}"
            )
        if planned := PLANNED.get(next((key for key in self.settings if key in PLANNED), "")):
            key = next(key for key in self.settings if key in PLANNED)
            raise ValueError(f"'settings' has {key!r}, which a plan says for every step; {planned}")
        if self.steps < self.min_steps:
            raise ValueError(f"'steps' {self.steps} is below 'min_steps' {self.min_steps}")
        if self.steps > self.max_steps:
            raise ValueError(f"'steps' {self.steps} is above 'max_steps' {self.max_steps}")
        return self

    def _exported(self) -> None:
        """Raise ValueError for what a folder of graphs cannot follow."""
        if self.family not in EXPORTED:
            raise ValueError(f"family {self.family!r} is not run from 'onnx'; only {', '.join(EXPORTED)} are")
        for key in ("components", "controlnets"):
            if getattr(self, key):
                raise ValueError(f"{key!r} would change networks, and those under 'onnx' are graphs; leave one out")

    def _remote(self, remote: RemoteSource) -> None:
        """Raise ValueError for what means nothing where another server draws."""
        for key in ("latent_space", "scheduler", "guests", "vocabulary", "tile_guidance_scale", "dtype", "memory_gb"):
            if key in self.model_fields_set:
                raise ValueError(f"{key!r} means nothing where another server draws; leave it out")
        for setting, keys in TOLD_BY_CARD.items():
            for key in self.model_fields_set.intersection(keys) if setting not in remote.takes else ():
                raise ValueError(f"{key!r} is nothing that the server is told; leave it out, or add it to 'takes'")
        if key := own_fields(self.settings, remote.takes):
            raise ValueError(f"'settings' has {key!r}, which each step says by itself; leave it out")

    def to_card(self, path: str) -> ModelCard:
        """The value that the rest of the system uses, with what the family's row says of all its models."""
        fields = {**self.model_dump(exclude={"source", "components"}), **card_facts(self.family)}
        fields["components"] = {name: one.model_dump(exclude_none=True) for name, one in self.components.items()}
        fields["max_prompt_tokens"] = (self.max_prompt_tokens - 2) * self.prompt_chunks + 2
        fields["controlnets"] = {kind: one.model_dump(exclude_none=True) for kind, one in self.controlnets.items()}
        source = self.source.model_dump(exclude_none=True, exclude={"remote"})
        if (written := self.source.remote) is not None:
            remote = written.endpoint()
            source["remote"] = f"{remote.url}/{remote.model}"
            fields |= {"remote": remote, "memory_gb": 0.0, "takes_negative": "negative_prompt" in remote.takes}
            # What a server reads of a prompt is seldom known; nothing is said of an end that may not be cut.
            fields |= {} if "max_prompt_tokens" in self.model_fields_set else {"max_prompt_tokens": UNKNOWN_TOKENS}
            fields |= {} if "steps" in remote.takes else {"steps": 1, "min_steps": 1, "max_steps": 1}
            fields |= {} if "area_tolerance" in self.model_fields_set else {"area_tolerance": (1.0, 1.0)}
            fields |= {} if "aspect_tolerance" in self.model_fields_set else {"aspect_tolerance": 1.0}
        return ModelCard(**fields, source=source, card_path=path)


def parse(text: str, path: str) -> tuple[dict[str, Any], Mapping[tuple[str, ...], int]]:
    """Card text to plain data and the line of each key. Raises `CatalogueError` on bad YAML or a key given twice."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise CatalogueError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise CatalogueError(f"{path}:1: a model card is a mapping of keys, starting with 'id: ...'")
    return data, _lines(root, path)


def _lines(node: yaml.MappingNode, path: str, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    lines: dict[tuple[str, ...], int] = {prefix: node.start_mark.line + 1}
    for key, value in node.value:
        place = (*prefix, str(key.value))
        if place in lines:
            raise CatalogueError(f"{path}:{key.start_mark.line + 1}: key {key.value!r} is given twice")
        lines[place] = key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            lines |= _lines(value, path, place) | {place: key.start_mark.line + 1}
    return lines


def validate(data: Mapping[str, Any], path: str, lines: Mapping[tuple[str, ...], int] | None = None) -> ModelCard:
    """Checked data to a card. Raises `CatalogueError` with one `file:line: message` per problem."""
    try:
        return CardFile.model_validate(data).to_card(path)
    except ValidationError as error:
        problems = [_problem(dict(detail), path, lines or {}) for detail in error.errors()]
        raise CatalogueError("\n".join(problems)) from None


def _problem(detail: dict[str, Any], path: str, lines: Mapping[tuple[str, ...], int]) -> str:
    place = tuple(str(part) for part in detail["loc"])
    known = tuple(place[:end] for end in range(len(place), -1, -1) if place[:end] in lines)
    where = f"{path}:{lines[known[0]]}" if known else path
    if detail["type"] == "extra_forbidden":
        inside = place[:2] == ("source", "remote") and len(place) > 2
        nested = {"source": Source.model_fields, "components": Component.model_fields}
        keys = nested.get(place[0], CardFile.model_fields) if len(place) > 1 else CardFile.model_fields
        keys = RemoteSource.model_fields if inside else keys
        return f"{where}: unknown key {place[-1]!r}{did_you_mean(place[-1], keys)}"
    if detail["type"] == "missing":
        return f"{where}: key {'.'.join(place)!r} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    if not place:
        # A rule about several keys: the line of the first that it speaks of.
        spoken = [lines[word,] for word in re.findall(r"\w+", message) if (word,) in lines]
        where = f"{path}:{spoken[0]}" if spoken else where
    return f"{where}: {message}" if detail["type"] == "value_error" else f"{where}: {'.'.join(place)}: {message}"


def absolute(source: Mapping[str, Scalar], base: Path) -> dict[str, Scalar]:
    """The source with its paths made absolute: `~` is expanded, relative paths start at `base`."""
    made = dict(source)
    for key in ("local", "file", "onnx", "config", "path"):
        if isinstance(value := made.get(key), str):
            made[key] = str((base / Path(value).expanduser()).resolve())
    return made
