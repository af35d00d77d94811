"""Schedulers by name, built anew for each step from the checkpoint's own configuration.

Latents travel between models in the variance-preserving form x_t = sqrt(a) x_0 + sqrt(1 - a) noise. Schedulers of
the Euler kind hold x_0 + sigma * noise instead, which is the same times sqrt(1 + sigma^2); `ve_factor` converts, so
that base and refiner may use different schedulers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from models.families import FAMILIES
from router.errors import StepError, did_you_mean
from router.types import ModelCard


@dataclass(frozen=True)
class Row:
    """A diffusers class ("" for the checkpoint's own), what its configuration must say, and for which networks."""

    class_name: str
    flow: bool | None
    config: dict[str, Any] = field(default_factory=dict)


SCHEDULERS = {
    "default": Row("", flow=None),
    "dpmsolver++": Row("DPMSolverMultistepScheduler", flow=False, config={"algorithm_type": "dpmsolver++"}),
    # Noise levels as in https://arxiv.org/abs/2206.00364: more of the steps where there is little noise left.
    "dpmsolver++-karras": Row(
        "DPMSolverMultistepScheduler", flow=False, config={"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}
    ),
    # Adds noise in every step, from the picture's own generator.
    "dpmsolver++-sde": Row("DPMSolverMultistepScheduler", flow=False, config={"algorithm_type": "sde-dpmsolver++"}),
    "euler": Row("EulerDiscreteScheduler", flow=False),
    # For models distilled to a few steps: their first step begins at the very last timestep.
    "euler-trailing": Row("EulerDiscreteScheduler", flow=False, config={"timestep_spacing": "trailing"}),
    # Latents are not confined to -1..1, so nothing may be clipped there.
    "ddim": Row("DDIMScheduler", flow=False, config={"clip_sample": False, "set_alpha_to_one": False}),
    # For models and LoRAs distilled to latent consistency; between its steps it adds fresh noise.
    "lcm": Row("LCMScheduler", flow=False),
    "unipc": Row("UniPCMultistepScheduler", flow=False),
    "flowmatch": Row("FlowMatchEulerDiscreteScheduler", flow=True),
}

VARIANCE_EXPLODING = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler")
"""Schedulers that hold x_0 + sigma * noise."""


def schedulers_for(card: ModelCard) -> tuple[str, ...]:
    """The scheduler names that fit a card's family."""
    flow = FAMILIES[card.family].flow
    return tuple(name for name, row in SCHEDULERS.items() if row.flow in (None, flow))


def build_scheduler(name: str, card: ModelCard, original: Any) -> Any:
    """A fresh scheduler of that name from `original`, the one that came with the checkpoint.

    Raises `StepError` for an unknown name, or one that does not fit the family (diffusion or flow matching).
    """
    import diffusers

    if name not in schedulers_for(card):
        fits = "" if name not in SCHEDULERS else f" ({name!r} does not fit family {card.family!r})"
        nearest = did_you_mean(name, schedulers_for(card))
        raise StepError(f"model {card.id!r}: no scheduler {name!r}{fits}{nearest}", "scheduler")
    row = SCHEDULERS[name]
    made = getattr(diffusers, row.class_name) if row.class_name else type(original)
    return made.from_config({**original.config, **row.config})


def ve_factor(scheduler: Any, index: int) -> float:
    """What variance-preserving latents are multiplied by to become the scheduler's own before timestep `index`."""
    if type(scheduler).__name__ not in VARIANCE_EXPLODING:
        return 1.0
    return math.sqrt(1 + float(scheduler.sigmas[index]) ** 2)


def start_from(scheduler: Any, noise: Any) -> None:
    """Let img2img on this fresh scheduler begin from `noise` (N, C, h, w); None: from latents that carry theirs.

    The pipelines draw noise themselves and offer no other way in. Schedulers of flow matching call it `scale_noise`.
    """
    name = "scale_noise" if hasattr(scheduler, "scale_noise") else "add_noise"
    usual = getattr(scheduler, name)

    def add_noise(original_samples: Any, noise_: Any, timesteps: Any) -> Any:
        return original_samples if noise is None else usual(original_samples, noise.to(original_samples), timesteps)

    def scale_noise(sample: Any, timestep: Any, noise_: Any) -> Any:
        return sample if noise is None else usual(sample, timestep, noise.to(sample).reshape(sample.shape))

    setattr(scheduler, name, scale_noise if name == "scale_noise" else add_noise)


def start_index(scheduler: Any, steps: int, share: float) -> int:
    """The timestep at which a run of `steps` begins when `share` of the denoising is done, as diffusers counts it."""
    scheduler.set_timesteps(steps)
    train = scheduler.config.num_train_timesteps
    cutoff = round(train - share * train)
    return len(scheduler.timesteps) - int((scheduler.timesteps < cutoff).sum())
