"""Two models in one step: a guest predicts the noise beside the model of a worker, and the weighted mean is stepped.

Composable diffusion, https://arxiv.org/abs/2206.01714: the mean of predicted noises belongs to the product of the two
densities. Each side keeps its own prompt encoding and guidance scale, since the guest's prediction is made by its own
diffusers pipeline, run for a single timestep on the common latents. Latents, noise levels and the scheduler that steps
are the host's; predictions of another kind (noise, velocity, picture) are converted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from models.call import Call, Mix
from models.engine.settings import arguments
from models.engine.windows import windowed
from models.families import FAMILIES
from models.weights.loading import load_pipeline
from models.weights.revisions import revision
from models.weights.sharing import SharedNetworks
from router.errors import LoadError, StepError
from router.types import ModelCard


class Guest:
    """A model beside another one, whose VAE it uses. `LoadError` if its weights are missing or do not match.

    host, family: the loaded pipeline that it is the guest of, and its family;   networks: see `load_pipeline`
    """

    def __init__(
        self,
        card: ModelCard,
        host: Any,
        family: str,
        device: str,
        dtype: str | None,
        networks: SharedNetworks | None = None,
    ) -> None:
        self.card = card
        self.pipe = load_pipeline(card, device, dtype, networks, vae=host.vae)
        self.revision = revision(card)
        self.predicts = str(self.pipe.scheduler.config.prediction_type)
        theirs, own = self.pipe.scheduler.alphas_cumprod, host.scheduler.alphas_cumprod
        if theirs.shape != own.shape or not np.allclose(theirs, own, rtol=1e-3):
            raise LoadError(
                f"guest {card.id!r}: halfway, its noise schedule keeps {float(theirs[len(theirs) // 2]):.3g} of the "
                f"signal's power, that of the model beside it {float(own[len(own) // 2]):.3g}; a timestep is not one "
                "noise level for both, so give them different latent spaces"
            )
        if _channels(self.pipe, card.family) != _channels(host, family):
            raise LoadError(f"guest {card.id!r}: its network takes other latents; give it another latent space")


def _channels(pipe: Any, family: str) -> int:
    return int(getattr(pipe, FAMILIES[family].denoiser).config.in_channels)


@contextmanager
def joined(pipe: Any, guest: Guest, mix: Mix, calls: Sequence[Call]) -> Iterator[None]:
    """While inside, every step of the pipeline's (fresh) scheduler is made with the mean of both predictions."""
    scheduler = pipe.scheduler
    own = replace(calls[0], guidance_scale=mix.guidance_scale)
    kind = str(scheduler.config.prediction_type)
    usual = scheduler.step

    @functools.wraps(usual)  # the pipeline looks at the signature
    def step(model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        weight = mix.at(1 - float(timestep) / scheduler.config.num_train_timesteps)
        if weight > 0:
            theirs = predict(timestep, sample)
            model_output = (1 - weight) * model_output + weight * theirs.to(model_output)
        return usual(model_output, timestep, sample, *args, **kwargs)

    given = {"output_type": "latent"} | arguments(own, guest.card, guest.pipe) | _encoded(guest, own, calls)

    def predict(timestep: Any, sample: Any) -> Any:
        probe = Probe(scheduler, timestep)
        guest.pipe.scheduler = probe
        guest.pipe(**given, latents=sample)
        noisy = scheduler.scale_model_input(sample, timestep)
        return converted(probe.prediction, noisy, *levels(scheduler, timestep), guest.predicts, kind)

    scheduler.step = step
    with windowed(guest.pipe, guest.card, own):
        yield


def _encoded(guest: Guest, own: Call, calls: Sequence[Call]) -> dict[str, Any]:
    """The prompts as the guest's own text encoders read them, once for all steps; in place of the texts."""
    negative = [one.negative_prompt for one in calls] if any(one.negative_prompt for one in calls) else None
    made = guest.pipe.encode_prompt(
        prompt=[one.prompt for one in calls],
        device=guest.pipe.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=own.guidance_scale > 1,
        negative_prompt=negative,
    )
    return {
        "prompt": None,
        "negative_prompt": None,
        **dict(zip(FAMILIES[guest.card.family].encoded, made, strict=True)),
    }


class Probe:
    """Stands in for a scheduler, so that a pipeline runs a single timestep on given latents and stops there.

    prediction: what the pipeline would have stepped with, guidance included
    """

    order = 1
    init_noise_sigma = 1.0  # the latents are those of a run that is under way

    def __init__(self, scheduler: Any, timestep: Any) -> None:
        self.config = scheduler.config
        self.timesteps = timestep.reshape(1)
        self.prediction: Any = None
        self._scheduler = scheduler

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        """The one timestep, whatever is asked for."""

    def scale_model_input(self, sample: Any, timestep: Any) -> Any:
        """As the scheduler that steps does it."""
        return self._scheduler.scale_model_input(sample, timestep)

    def step(self, model_output: Any, timestep: Any, sample: Any, return_dict: bool = True) -> tuple[Any]:
        """Keep the prediction, leave the latents."""
        self.prediction = model_output
        return (sample,)


def levels(scheduler: Any, timestep: Any) -> tuple[float, float]:
    """(a, s) of x_t = a x_0 + s noise in variance-preserving form; between timesteps, sigma is interpolated."""
    kept = scheduler.alphas_cumprod.double().numpy()
    sigma = float(np.interp(float(timestep), np.arange(len(kept)), np.sqrt((1 - kept) / kept)))
    return 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5


def converted(output: Any, noisy: Any, a: float, s: float, given: str, wanted: str) -> Any:
    """A prediction of kind `given` as one of kind `wanted`: `epsilon` (noise), `v_prediction` or `sample` (x_0).

    noisy: x_t = a x_0 + s noise;   velocity is a noise - s x_0, https://arxiv.org/abs/2202.00512
    """
    if given == wanted:
        return output
    if given == "epsilon":
        noise, clean = output, (noisy - s * output) / a
    elif given == "v_prediction":
        noise, clean = a * output + s * noisy, a * noisy - s * output
    elif given == "sample":
        noise, clean = (noisy - a * output) / s, output
    else:
        raise StepError(f"a model that predicts {given!r} cannot be averaged with another")
    kinds = {"epsilon": noise, "v_prediction": a * noise - s * clean, "sample": clean}
    if wanted not in kinds:
        raise StepError(f"a model that predicts {wanted!r} cannot be averaged with another")
    return kinds[wanted]
