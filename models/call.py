"""What a step asks of a pipeline, checked: the values that a family's row turns into arguments.

`models.engine.settings` reads them from a step, `models.families` spells them as diffusers wants them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from router.types import Scalar


@dataclass(frozen=True)
class Tiling:
    """Size of a tile and what neighbours share at least, in pixels; `count`: how many tiles were planned."""

    width: int
    height: int
    overlap: int
    count: int


@dataclass(frozen=True)
class Mix:
    """What a guest predicts beside the model. weight, weight_end: what it counts at the start and at the end (0..1)."""

    guest: str
    guidance_scale: float
    weight: float
    weight_end: float

    def at(self, share: float) -> float:
        """What the guest counts when `share` (0..1) of the denoising is done, as `until` counts it."""
        return self.weight + (self.weight_end - self.weight) * min(1.0, max(0.0, share))


@dataclass(frozen=True)
class Call:
    """The settings of a denoising step, checked. `facts`: what was done otherwise than asked, for the trace.

    start, until: shares (0..1) of the denoising that are done before and after the step (None: none, and all)
    masked:       only what a mask leaves open of the given picture is drawn
    looks:        it is drawn from noise while the model looks at a given picture
    references:   how many further pictures it looks at, where it looks at one or works within a mask
    control:      the kind of map that is followed, "" if none is; control_scale: how much it counts
    styles:       what the pipeline wears: (id, weight) each, by id
    reference:    the last input is a picture that a style draws after
    strength:     how far (0..1) a given picture is noised again; None: the step begins with noise or with latents
    """

    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    scheduler: str
    seed: int
    start: float | None = None
    until: float | None = None
    strength: float | None = None
    masked: bool = False
    looks: bool = False
    references: int = 0
    control: str = ""
    control_scale: float = 1.0
    tiling: Tiling | None = None
    mix: Mix | None = None
    styles: tuple[tuple[str, float], ...] = ()
    reference: bool = False
    facts: dict[str, Scalar] = field(default_factory=dict, hash=False)

    @property
    def from_noise(self) -> bool:
        """Nothing is continued: neither latents nor a picture."""
        return self.start is None and self.strength is None
