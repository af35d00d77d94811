"""What may be said under `tuning` of a model, and which of it changes more of a picture than the last bits.

Neither torch nor diffusers is imported here, so a configuration is checked in milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from router.errors import did_you_mean

Attention = Literal[
    "sdpa", "xformers", "flash", "_flash_3", "sage", "_native_cudnn", "_native_efficient", "_native_flash",
    "_native_math",
]  # fmt: skip
"""Kernels by diffusers' names (`sdpa` is its `native`). Those that it would download as code are left out."""

CLOSE = ("compile", "channels_last", "vae_slicing", "offload", "shapes")
"""Keys that change a picture by the rounding of its last bits, or not at all."""

ROUNDED_ATTENTION = ("sage",)
"""Kernels that round to 8 bits. All others compute the same attention, in another order."""

COSTS_NOTHING = ("shapes",)
"""Keys that change neither pictures nor seconds."""


class _Strict(BaseModel):
    """Frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                hint = did_you_mean(str(key), cls.model_fields)
                raise PydanticCustomError("unknown_key", "unknown key '{key}'{hint}", {"key": str(key), "hint": hint})
        return data


class TaylorSeer(_Strict):
    """Blocks are predicted from their former outputs, https://arxiv.org/abs/2503.06923.

    every: denoising steps from one that is computed to the next;   after: so many first steps are all computed
    order: of the Taylor series
    """

    every: int = Field(default=3, ge=2, le=20)
    after: int = Field(default=3, ge=1, le=100)
    order: int = Field(default=1, ge=0, le=4)


class Faster(_Strict):
    """Attention is computed in every n-th step only, https://arxiv.org/abs/2410.19355.

    every: n;   below: it begins when the timestep, from 1000 down to 0, is below this
    """

    every: int = Field(default=2, ge=2, le=20)
    below: int = Field(default=681, ge=1, le=1000)


class Cache(_Strict):
    """One of the caches of diffusers, for transformers (DiT).

    first_block: a step in which the first block changes its input by less than this share takes the rest of the
                 network from the step before;   taylorseer, faster: see there
    """

    first_block: Annotated[float, Field(gt=0, le=1)] | None = None
    taylorseer: TaylorSeer | None = None
    faster: Faster | None = None

    @model_validator(mode="after")
    def _one(self) -> Cache:
        if len(self.model_fields_set) != 1 or None in (getattr(self, name) for name in self.model_fields_set):
            raise ValueError("give exactly one of first_block, taylorseer and faster, such as {first_block: 0.1}")
        return self

    @property
    def kind(self) -> str:
        """Its only key."""
        return next(iter(self.model_fields_set))


class Tuning(_Strict):
    """How one model runs on its worker. Nothing is tuned unless it is said.

    compile:       `regional`: the repeated blocks of its network; `full`: the network (on a CPU, by a C++ compiler)
                   `tensorrt`: an exported graph, by TensorRT
    attention:     the kernel of its network
    cache:         what is taken over from one denoising step to the next
    offload:       what waits in the memory of the CPU: whole networks (`model`) or layers (`group`); needs a GPU
    vae_tiling:    pictures are decoded in tiles: `true` as the VAE does, or the side of a tile in pixels
    vae_slicing:   pictures of one call are decoded one by one
    channels_last: convolutions keep their channels last in memory
    quantize:      the linear layers of its network in 8 bits (`int8`), or its weights at rest in 8 (`fp8`) or 4 (`nf4`)
    shapes:        sizes such as 512x512 that are drawn once before it counts as loaded
    """

    compile: Literal["regional", "full", "tensorrt"] | None = None
    attention: Attention | None = None
    cache: Cache | None = None
    offload: Literal["model", "group"] | None = None
    vae_tiling: bool | int = False
    vae_slicing: bool = False
    channels_last: bool = False
    quantize: Literal["int8", "fp8", "nf4"] | None = None
    shapes: tuple[str, ...] = ()

    @field_validator("shapes")
    @classmethod
    def _sizes(cls, shapes: tuple[str, ...]) -> tuple[str, ...]:
        for shape in shapes:
            if not re.fullmatch(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}", shape):
                raise ValueError(f"{shape!r} is no size; write WIDTHxHEIGHT in pixels, such as 512x512")
        return shapes

    @field_validator("vae_tiling", mode="before")
    @classmethod
    def _true_or_a_side(cls, tiling: Any) -> bool | int:
        if isinstance(tiling, bool) or (isinstance(tiling, int) and 16 <= tiling <= 8192):
            return tiling
        raise ValueError(f"{tiling!r} is neither true nor the side of a tile in pixels, 16 to 8192")

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The shapes as (width, height)."""
        return tuple((int(width), int(height)) for width, _, height in (shape.partition("x") for shape in self.shapes))

    def said(self) -> dict[str, Any]:
        """What differs from an untuned model, as builtins from which `Tuning` can be made again."""
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)

    @property
    def tuned(self) -> str:
        """All that may change seconds, in one line; empty for an untuned model."""
        return _words({key: value for key, value in self.said().items() if key not in COSTS_NOTHING})

    @property
    def changes(self) -> str:
        """What changes more of a picture than rounding, in one line."""
        kept = {key: value for key, value in self.said().items() if key not in CLOSE}
        if kept.get("attention") not in ROUNDED_ATTENTION:
            kept.pop("attention", None)
        return _words(kept)


def _words(said: Mapping[str, Any]) -> str:
    return ",".join(_flat(said))


def _flat(said: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, value in sorted(said.items()):
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}={value}"
