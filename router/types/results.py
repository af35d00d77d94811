"""What workers exchange: values of steps, progress, and the trace of what was run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.types.cards import Scalar
from router.types.plans import Step


@dataclass(frozen=True)
class Picture:
    """pixels: shape (height, width, 3), uint8, sRGB."""

    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Mask:
    """Where a picture may change: shape (height, width), uint8; 0 stays as it is, 255 is drawn anew."""

    data: NDArray[np.uint8]


@dataclass(frozen=True)
class Latents:
    """data: shape (channels, height/vae_scale, width/vae_scale), float32, scaled, variance-preserving (the
    engine converts for schedulers that hold them otherwise, so base and refiner may use different ones).

    denoised: share of the denoising that is done, 0..1
    """

    data: NDArray[np.float32]
    space: str
    denoised: float


@dataclass(frozen=True)
class Scores:
    """One score in 0..1 per input picture, or per object of each where a step asks for segments; higher is better."""

    values: tuple[float, ...]


Value = Picture | Mask | Latents | Scores


@dataclass(frozen=True)
class Progress:
    """Sent by a running step: `done` of `total` denoising steps, and perhaps a small preview picture."""

    step: str
    done: int
    total: int
    preview: Picture | None = None


@dataclass(frozen=True)
class StepResult:
    """What a worker returns. seconds: time on the accelerator, without waiting. facts: builtins for the trace
    (model revision, scheduler, dtype, device, peak memory, ...)."""

    value: Value
    seconds: float
    facts: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class StepTrace:
    """One step as it ran; times are seconds since the plan started."""

    step: Step
    started_s: float
    ended_s: float
    seconds: float
    facts: Mapping[str, Scalar] = field(default_factory=dict)
