from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from models import Engine, load_card
from models.engine.previews import clean, fit_colours, paint
from models.families import FAMILIES
from models.layouts import PLANAR
from models.weights.loading import load_pipeline


@pytest.mark.parametrize(
    ("scheduler", "kind"),
    [
        (EulerDiscreteScheduler(), "exploding"),
        (FlowMatchEulerDiscreteScheduler(), "flow"),
        (DPMSolverMultistepScheduler(), "preserving"),
    ],
)
def test_the_clean_latents_are_found_from_two_noisy_ones(scheduler: object, kind: str) -> None:
    """When the latents move straight towards x_0, extrapolation gives x_0, in each of the three conventions."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    scheduler.set_timesteps(10)  # type: ignore[attr-defined]
    scheduler._step_index = 4  # type: ignore[attr-defined]

    def noisy(sigma: float) -> torch.Tensor:
        if kind == "flow":
            return (1 - sigma) * x0 + sigma * noise
        return (x0 + sigma * noise) / (1.0 if kind == "exploding" else (1 + sigma**2) ** 0.5)

    before, after = (noisy(float(scheduler.sigmas[index])) for index in (3, 4))  # type: ignore[attr-defined]
    found = clean(before, after, scheduler, explodes=kind == "exploding")
    assert torch.allclose(found, x0, atol=1e-4)


def test_without_sigmas_the_latents_themselves_are_shown() -> None:
    """DDIM keeps no list of sigmas; its latents are shown as they are."""
    latents = torch.ones(1, 4, 2, 2)
    assert clean(latents * 2, latents, DDIMScheduler(), explodes=False) is latents


def test_fitting_leaves_the_autoencoder_as_it_was(engine: Callable[[str], Engine]) -> None:
    """The colour map has a row per channel and one constant; a half-precision VAE stays in half precision."""
    vae = load_pipeline(engine("sdxl").card, dtype="bfloat16").vae
    assert fit_colours(vae, PLANAR, 2).shape == (5, 3)
    assert vae.dtype == torch.bfloat16


@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_previews_look_like_the_picture(model: str) -> None:
    """For the trained autoencoders, the painted latents of a picture are that picture, only smaller."""
    card = load_card(f"embedded/{model}")
    if not Path(str(card.source["local"])).is_dir():
        pytest.skip("the embedded family is not trained in this checkout")
    vae, layout = load_pipeline(replace(card, id=model)).vae, FAMILIES[card.family].layout
    shown = np.full((64, 64, 3), 255, np.uint8)
    shown[16:48, 8:32] = (220, 25, 35)
    pixels = torch.from_numpy(shown).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        latents = layout.encode(vae, pixels)
    small = paint(latents, fit_colours(vae, layout, card.vae_scale)).pixels.astype(int)
    assert np.abs(small - shown[2::4, 2::4]).mean() < 25
