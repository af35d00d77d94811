"""What training a style asks of a family: which layers it touches, and what the network should have predicted.

One row a family, beside those of `models/families.py`; the pipeline's own parts encode pictures and prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WEIGHT_CEILING = 50.0
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
UNET = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "conv")
TRANSFORMER = (*ATTENTION, "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp")


@dataclass(frozen=True)
class Backbone:
    """layers:  ends of the names of the layers that a style may change
    words:   (pipeline, prompts) to what the network reads of them, tensors with the prompts along their first axis
    loss:    (pipeline, latents (n, C, h, w), words, generator) to the mean loss of a batch, a scalar tensor
    """

    layers: tuple[str, ...]
    words: Callable[[Any, Sequence[str]], dict[str, Any]]
    loss: Callable[[Any, Any, Mapping[str, Any], Any], Any]


def _read(pipe: Any, prompts: Sequence[str]) -> tuple[Any, ...]:
    made = pipe.encode_prompt(
        prompt=list(prompts), device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return tuple(made)


def _sd_words(pipe: Any, prompts: Sequence[str]) -> dict[str, Any]:
    return {"encoder_hidden_states": _read(pipe, prompts)[0]}


def _sdxl_words(pipe: Any, prompts: Sequence[str]) -> dict[str, Any]:
    read = _read(pipe, prompts)
    return {"encoder_hidden_states": read[0], "text_embeds": read[2]}


def _flux_words(pipe: Any, prompts: Sequence[str]) -> dict[str, Any]:
    length = int(pipe.tokenizer_2.model_max_length)
    states, pooled, _ = pipe.encode_prompt(
        prompt=list(prompts), prompt_2=None, device=pipe.device, max_sequence_length=min(length, 512)
    )
    return {"encoder_hidden_states": states, "pooled_projections": pooled}


def _diffusion_loss(pipe: Any, latents: Any, words: Mapping[str, Any], generator: Any) -> Any:
    """Noise or velocity, as the checkpoint predicts it; noise levels stratified over the batch.

    Weighted as v-prediction would (https://arxiv.org/abs/2202.00512) at much noise, where a plain loss hardly sees the
    picture, and as min-SNR (https://arxiv.org/abs/2303.09556) at little.
    """
    import torch

    scheduler, network, n = pipe.scheduler, pipe.unet, len(latents)
    kept = scheduler.alphas_cumprod.to(latents)
    spread = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    t = (spread * len(kept)).long().clamp(max=len(kept) - 1).to(latents.device)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    alpha = kept[t].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    added = None
    if "text_embeds" in words:
        side = [float(latents.shape[-1 - axis] * pipe.vae_scale_factor) for axis in (1, 0)]
        ids = torch.tensor([[*side, 0.0, 0.0, *side]]).repeat(n, 1).to(latents)
        added = {"text_embeds": words["text_embeds"], "time_ids": ids}
    guess = network(noisy, t, words["encoder_hidden_states"], added_cond_kwargs=added).sample
    velocity = scheduler.config.prediction_type == "v_prediction"
    wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents if velocity else noise
    snr = kept[t] / (1 - kept[t])
    weight = (
        snr.clamp(max=5) / (snr + 1) if velocity else (snr.clamp(max=5) / snr) * (1 + 1 / snr).clamp(max=WEIGHT_CEILING)
    )
    return (weight * (guess - wanted).square().mean((1, 2, 3))).mean()


def _flux_loss(pipe: Any, latents: Any, words: Mapping[str, Any], generator: Any) -> Any:
    """The velocity from picture to noise, at shares of noise stratified over the batch."""
    import torch

    network, (n, channels, height, width) = pipe.transformer, latents.shape
    sigma = ((torch.arange(n) + torch.rand(n, generator=generator)) / n).to(latents)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    mixed = torch.lerp(latents, noise, sigma.view(-1, 1, 1, 1))
    tokens, wanted = (pipe._pack_latents(part, n, channels, height, width) for part in (mixed, noise - latents))
    places = pipe._prepare_latent_image_ids(n, height // 2, width // 2, latents.device, latents.dtype)
    guidance = torch.ones(n).to(latents) if network.config.guidance_embeds else None
    guess = network(
        hidden_states=tokens,
        timestep=sigma,
        guidance=guidance,
        encoder_hidden_states=words["encoder_hidden_states"],
        pooled_projections=words["pooled_projections"],
        txt_ids=torch.zeros(words["encoder_hidden_states"].shape[1], 3).to(latents),
        img_ids=places,
    ).sample
    return (guess - wanted).square().mean()


BACKBONES: dict[str, Backbone] = {
    "sd15": Backbone(UNET, _sd_words, _diffusion_loss),
    "sdxl": Backbone(UNET, _sdxl_words, _diffusion_loss),
    "flux": Backbone(TRANSFORMER, _flux_words, _flux_loss),
}
"""The families for which a LoRA can be trained here."""
